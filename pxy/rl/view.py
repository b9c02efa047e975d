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

from pxy import fields
from pxy.rl import check, rollout
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
    fields.Error: the context is empty, has other axes, or holds no ids.
  """
  rows = rollouts.response_BT.shape[0]
  check.contexts(context, rows=rows)
  traced = any(isinstance(x, jax.Array) for x in jax.tree.leaves(context))
  xp = jnp if traced else np
  context_S = xp.asarray(context, np.int32)
  shape = (1, rows, context_S.size)
  return View(
    xp.broadcast_to(context_S[None, None], shape),
    np.full((1, rows), context_S.size, np.int32),
  )


def shuffled(rollouts: rollout.Rollouts, shift: Array | int) -> View:
  """Each response after the prompt of the group `shift` places on, 0 < shift < P.

  A rotation of the groups: every prompt is used for exactly one other group. One copy,
  [1, B, S]. Another shift is an Error; under jit, where it is not known, it leaves the
  context empty, and with that the loss nan.
  """
  return _rotated(rollouts, [shift])


def mixture(rollouts: rollout.Rollouts, shifts: Sequence[Array | int]) -> View:
  """Each response after its own prompt and those `shifts` groups on, [C, B, S] with
  C = 1 + len(shifts).

  Scored together they give log mean_k pi(y | x_k), the marginal over a sample of
  prompts. The own prompt is always among them: y was drawn from it, and a mixture
  without it would be the likelihood under prompts that did not produce y. The shifts
  differ; they are checked as those of `shuffled`.
  """
  known = [int(n) for n in shifts if not isinstance(n, jax.core.Tracer)]
  fields.need(
    len(set(known)) == len(known),
    f"shifts are {known}, where no two may be equal: each is another prompt",
  )
  return _rotated(rollouts, shifts, own=True)


def shifts(key: jax.Array, groups: int, count: int) -> np.ndarray:
  """`count` distinct group shifts in 1 .. groups - 1, drawn with a JAX key.

  Raises fields.Error if there are fewer.
  """
  fields.need(
    count < groups,
    f"{count} other prompts are wanted, the batch has {groups - 1}",
  )
  return 1 + np.asarray(jax.random.permutation(key, groups - 1))[:count]


def _rotated(rollouts: rollout.Rollouts, by, own: bool = False) -> View:
  groups = rollouts.groups
  others = [check.shift(n, groups) for n in by]
  traced = [n for n in others if isinstance(n, jax.Array)]
  xp = jnp if traced or isinstance(rollouts.prompt_BS, jax.Array) else np
  rows = [-n * rollouts.group_size for n in ([0] if own else []) + others]
  length_CB = xp.stack([xp.roll(rollouts.prompt_len_B, n, axis=0) for n in rows])
  for n in traced:  # where they are not known, a wrong one leaves no context
    length_CB = xp.where((n > 0) & (n < groups), length_CB, 0)
    same = sum(n == other for other in others)
    length_CB = xp.where(same == 1, length_CB, 0)
  return View(
    xp.stack([xp.roll(rollouts.prompt_BS, n, axis=0) for n in rows]), length_CB
  )
