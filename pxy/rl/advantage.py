"""Rewards -> advantages and the samples that take part.

A group is a row of rewards_PR: R responses to one prompt. Over its valid samples, of
which there are n, m is the mean and s the unbiased standard deviation; the first line
of each estimator is its equation. A new one is a function and a line of ADVANTAGES;
what it takes besides the two arrays are fields of the term, by name (choose.py).

A group of one has no contrast: grpo, mean and rloo give it 0. Equal rewards give 0
exactly, whatever the rounding, since a sample is negative as soon as A < 0. Samples
that are not valid have no influence and an advantage of 0; their reward may be nan.

All functions take numpy arrays (computed in float64, then float32) or JAX arrays, also
under jit. Left out: advantages per token (critics, GAE).
"""

from collections.abc import Callable
from typing import Any

from pxy import fields, imports
from pxy.rl import choose
from pxy.rl.arrays import Array

jax, jnp = imports.later("jax"), imports.later("jax.numpy")
np = imports.later("numpy")

EPS = 1e-6
"""Added to the standard deviation, as in the public implementations of GRPO."""


def compute(term: Any, rewards_PR: Array, valid_PR: Array) -> tuple[Array, Array]:
  """Advantages by the term's estimator, and which samples its sign filter keeps.

  With negative="advantage" a sample is negative iff A < 0 and positive iff A > 0. With
  negative="reward" it is negative iff r <= 0, and what the filter keeps has A = -1 or
  +1: groups without contrast take part.

  Args:
    term: rl.term.Term.
    rewards_PR: scores; ignored where not valid.
    valid_PR: samples that take part at all.

  Returns:
    (adv_PR float32, selected_PR bool); excluded samples are not selected.

  Raises:
    fields.Error: a function of the user's own gives another shape, or no finite number.
  """
  valid_PR = _namespace(rewards_PR).asarray(valid_PR, bool)
  if term.select == "all":
    return estimate(term, rewards_PR, valid_PR), valid_PR
  if term.negative == "reward":
    adv_PR = sign(rewards_PR, valid_PR)
  else:
    adv_PR = estimate(term, rewards_PR, valid_PR)
  wanted_PR = adv_PR < 0 if term.select == "negative" else adv_PR > 0
  return adv_PR, wanted_PR & valid_PR


def estimate(term: Any, rewards_PR: Array, valid_PR: Array) -> Array:
  """Advantages [P, R] by the term's estimator, float32, 0 where not valid.

  The function gets rewards that are nan where not valid: if it forgets them, that shows
  at once. Raises fields.Error as `compute` does.
  """
  xp = _namespace(rewards_PR)
  rewards_PR = xp.where(valid_PR, _number(rewards_PR), xp.nan)
  adv_PR = _called(term, rewards_PR, valid_PR)
  if xp is np:
    adv_PR = np.asarray(adv_PR)
    fields.need(
      np.isfinite(adv_PR[valid_PR]).all(),
      f"advantage {term.advantage!r} gave a sample that counts no finite number; those"
      " that do not count have reward nan: leave them out by valid_PR",
    )
  return _float32(xp.where(valid_PR, adv_PR, 0.0))


def contrasts(term: Any, prompts: int, responses: int) -> bool:
  """Whether the estimator gives an advantage other than 0 where rewards are 0 and 1 by
  turns, in a batch of this size; a group of one may have nothing to be compared with.

  Raises fields.Error, before a run begins, for a function of the user's own that cannot
  be loaded, takes something else or gives another shape.
  """
  rewards_PR = (1.0 + np.arange(prompts * responses).reshape(prompts, responses)) % 2
  return bool(np.any(_called(term, rewards_PR, np.ones((prompts, responses), bool))))


def _called(term, rewards_PR, valid_PR):
  arrays = ("rewards_PR", "valid_PR")
  function = choose.function("advantage", term, ADVANTAGES, arrays)
  adv_PR = function(rewards_PR, valid_PR)
  choose.alike("advantage", term, adv_PR, rewards_PR, ("float", "int"))
  return adv_PR


def grpo(rewards_PR: Array, valid_PR: Array) -> Array:
  """(r - m) / (s + 1e-6), DeepSeekMath, arXiv 2402.03300."""
  centred_PR, count_P1 = _centred(rewards_PR, valid_PR)
  return _float32(centred_PR / (_std(centred_PR, count_P1) + EPS))


def mean(rewards_PR: Array, valid_PR: Array) -> Array:
  """r - m, Dr. GRPO, arXiv 2503.20783."""
  return _float32(_centred(rewards_PR, valid_PR)[0])


def rloo(rewards_PR: Array, valid_PR: Array) -> Array:
  """r - mean of the others = n / (n - 1) (r - m), arXiv 2402.14740."""
  centred_PR, count_P1 = _centred(rewards_PR, valid_PR)
  return _float32(centred_PR * (count_P1 / _at_least_1(count_P1 - 1)))


def reinforce(rewards_PR: Array, valid_PR: Array) -> Array:
  """r itself, without a baseline."""
  return _float32(_clean(rewards_PR, valid_PR))


def sign(rewards_PR: Array, valid_PR: Array) -> Array:
  """+1 if r > 0, else -1."""
  xp, rewards_PR = _namespace(rewards_PR), _clean(rewards_PR, valid_PR)
  return _float32(xp.where(valid_PR, xp.where(rewards_PR > 0, 1.0, -1.0), 0.0))


def w_reinforce(rewards_PR: Array, valid_PR: Array, lam: float) -> Array:
  """`lam` r if r > 0, else r - 1, arXiv 2506.01347."""
  xp, rewards_PR = _namespace(rewards_PR), _clean(rewards_PR, valid_PR)
  adv_PR = xp.where(rewards_PR > 0, lam * rewards_PR, rewards_PR - 1)
  return _float32(xp.where(valid_PR, adv_PR, 0.0))


def batch(rewards_PR: Array, valid_PR: Array) -> Array:
  """grpo with the batch as one group: REINFORCE++ by sample, arXiv 2501.03262."""
  xp = _namespace(rewards_PR)
  flat = (1, -1)
  adv_1R = grpo(
    xp.asarray(rewards_PR).reshape(flat), xp.asarray(valid_PR, bool).reshape(flat)
  )
  return adv_1R.reshape(np.shape(rewards_PR))


ADVANTAGES: dict[str, Callable] = {
  "grpo": grpo,
  "mean": mean,
  "rloo": rloo,
  "reinforce": reinforce,
  "sign": sign,
  "w-reinforce": w_reinforce,
  "batch": batch,
}
"""Estimators by the name that a term gives: (rewards_PR, valid_PR, ...) -> adv_PR."""


def overlong(
  rule: str,
  rewards_PR: Array,
  valid_PR: Array,
  *,
  length_PR: Array,
  truncated_PR: Array,
  limit: int,
  buffer: int = 1,
) -> tuple[Array, Array]:
  """Rewards and valid samples after the rule for responses that grew too long.

  Args:
    rule: `keep` changes nothing; `mask` excludes truncated samples; `penalty` subtracts
      an amount that grows linearly from 0 at limit - buffer tokens to 1 at the limit
      (DAPO's soft punishment, arXiv 2503.14476).
    rewards_PR, valid_PR: scores, and which of them count.
    length_PR, truncated_PR: tokens of the responses; those that the limit ended.
    limit, buffer: tokens.

  Returns:
    (rewards_PR, valid_PR)
  """
  xp = _namespace(rewards_PR)
  if rule == "keep":
    return rewards_PR, valid_PR
  if rule == "mask":
    return rewards_PR, valid_PR & ~xp.asarray(truncated_PR, bool)
  if rule == "penalty":
    over_PR = (length_PR - (limit - buffer)) / buffer
    return rewards_PR - xp.clip(over_PR, 0.0, 1.0), valid_PR
  raise fields.Error(f"overlong {rule!r}: must be one of keep, mask, penalty")


def _namespace(x):
  return jnp if isinstance(x, jax.Array) else np


def _float32(x):
  return x.astype(np.float32)


def _at_least_1(x):
  return _namespace(x).maximum(x, 1)


def _number(rewards_PR):
  xp = _namespace(rewards_PR)
  return xp.asarray(rewards_PR, jnp.float32 if xp is jnp else np.float64)


def _clean(rewards_PR, valid_PR):
  return _namespace(rewards_PR).where(valid_PR, _number(rewards_PR), 0.0)


def _centred(rewards_PR, valid_PR):
  """r - m, 0 where not valid; and n [P, 1]."""
  xp = _namespace(rewards_PR)
  rewards_PR, valid_PR = _clean(rewards_PR, valid_PR), xp.asarray(valid_PR, bool)
  # Rewards above the lowest of the group: of equal rewards all are 0, and so is m.
  low_P1 = xp.min(xp.where(valid_PR, rewards_PR, xp.inf), axis=1, keepdims=True)
  above_PR = xp.where(valid_PR, rewards_PR - low_P1, 0.0)
  count_P1 = xp.sum(valid_PR, axis=1, keepdims=True)
  mean_P1 = xp.sum(above_PR, axis=1, keepdims=True) / _at_least_1(count_P1)
  return xp.where(valid_PR, above_PR - mean_P1, 0.0), count_P1


def _std(centred_PR, count_P1):
  xp = _namespace(centred_PR)
  squares_P1 = xp.sum(centred_PR**2, axis=1, keepdims=True)
  return xp.sqrt(squares_P1 / _at_least_1(count_P1 - 1))
