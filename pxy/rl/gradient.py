"""Gradients beside each other: of several losses, and how alike two are.

    inner = <g, h> = sum over all parameters      cosine = inner / (|g| |h|)

A step along g changes the loss that h is the gradient of by inner, to first order. So
with those of log P(y) and of log P(y|x) the sign says whether moving the one moves the
other the same way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def each(losses: Sequence[Callable], params: Any) -> list[tuple[Any, Any]]:
  """((loss, more), gradient) of each of the functions params -> (loss, more)."""
  return [jax.value_and_grad(loss, has_aux=True)(params) for loss in losses]


@jax.jit
def _cosine(a, b):
  inner, aa, bb = (
    jnp.asarray(sum(dots(x, y).values()), jnp.float32)
    for x, y in ((a, b), (a, a), (b, b))
  )
  return inner / jnp.maximum(jnp.sqrt(aa) * jnp.sqrt(bb), 1e-30)


def cosine(a: Any, b: Any) -> jax.Array:
  """Cosine of the angle between two gradients of the same parameters, a scalar; 0 where
  one of them is 0."""
  return _cosine(a, b)


def dots(a: Any, b: Any, *, stacked: str | None = None) -> dict[str, jax.Array]:
  """Inner product of two trees by block, the first key of the path to a leaf.

  The block `stacked` has one for each place along the first axis of its leaves [L].
  """
  out: dict[str, jax.Array] = {}
  leaves = zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True)
  for (path, x), y in leaves:
    name = jax.tree_util.keystr(path[:1], simple=True)
    first = 1 if name == stacked else 0
    products = x.astype(jnp.float32) * y.astype(jnp.float32)
    part = jnp.sum(products, axis=tuple(range(first, x.ndim)))
    out[name] = out[name] + part if name in out else part
  return out
