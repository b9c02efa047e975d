"""Conditional and marginal: two views of the same rollouts, not two losses.

Rollouts are always drawn with the prompt, y ~ pi(.|x). A view says what stands before y
when its likelihood is taken:

  conditional   the prompt            log pi(y | x)      (post-train space)
  marginal      a fixed context c     log pi(y | c)      (pre-train space)
  shuffled      another prompt x'     log pi(y | x')     (control)
  mixture       C prompts x_k         log mean_k pi(y | x_k)

Everything after (packing, scoring, surrogate) is one path, so conditional equals
marginal bit for bit when the context is the prompt. Marginal updates: arXiv 2604.14142;
there c is the chat start token at position 0. `shuffled` and `mixture` are controls
that ask whether it is the absence of x that matters, and what the true marginal over
prompts would do.

All views are pure functions of arrays and run on the host (numpy) and under jit alike.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pxy.rl import rollout
from pxy.rl.arrays import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
  """Contexts of every response: context_CBS [copies, rows, tokens], length_CB >= 1."""

  context_CBS: np.ndarray | jax.Array
  length_CB: np.ndarray | jax.Array


def conditional(rollouts: rollout.Rollouts) -> View:
  """Each response after its own prompt: log pi(y | x). One copy, [1, B, S]."""
  return View(rollouts.prompt_BS[None], rollouts.prompt_len_B[None])


def marginal(rollouts: rollout.Rollouts, context: Array | Sequence[int]) -> View:
  """Each response after a fixed context of token ids: log pi(y | c).

  Args:
    rollouts: B responses.
    context: ids [S], S >= 1, an array or a list.

  Returns:
    a View with one copy: context_CBS [1, B, S] int32, length_CB [1, B], all S.

  Raises:
    ValueError: the context is empty.
  """
  traced = any(isinstance(x, jax.Array) for x in jax.tree.leaves(context))
  xp = jnp if traced else np
  context_S = xp.asarray(context, np.int32).reshape(-1)
  if not context_S.size:
    raise ValueError("the marginal context needs at least one token (a start token)")
  rows = rollouts.response_BT.shape[0]
  shape = (1, rows, context_S.size)
  return View(
    xp.broadcast_to(context_S[None, None], shape),
    np.full((1, rows), context_S.size, np.int32),
  )


def shuffled(rollouts: rollout.Rollouts, shift: Array | int) -> View:
  """Each response after the prompt of the group `shift` places on, 0 < shift < P.

  A rotation of the groups: every prompt is used for exactly one other group. One copy,
  [1, B, S].
  """
  return _rotated(rollouts, [shift])


def mixture(rollouts: rollout.Rollouts, shifts: Sequence[Array | int]) -> View:
  """Each response after its own prompt and those `shifts` groups on, [C, B, S] with
  C = 1 + len(shifts).

  Scored together they give log mean_k pi(y | x_k), the marginal over a sample of
  prompts. The own prompt is always among them: y was drawn from it, and a mixture
  without it would be the likelihood under prompts that did not produce y.
  """
  return _rotated(rollouts, [0, *shifts])


def shifts(key: jax.Array, groups: int, count: int) -> np.ndarray:
  """`count` distinct group shifts in 1 .. groups - 1, drawn with a JAX key.

  Raises ValueError if there are fewer.
  """
  if count > groups - 1:
    raise ValueError(f"{count} other prompts are wanted, the batch has {groups - 1}")
  return 1 + np.asarray(jax.random.permutation(key, groups - 1))[:count]


def _rotated(rollouts: rollout.Rollouts, by) -> View:
  xp = jnp if isinstance(rollouts.prompt_BS, jax.Array) else np
  rows = [-shift * rollouts.group_size for shift in by]
  return View(
    xp.stack([xp.roll(rollouts.prompt_BS, n, axis=0) for n in rows]),
    xp.stack([xp.roll(rollouts.prompt_len_B, n, axis=0) for n in rows]),
  )
