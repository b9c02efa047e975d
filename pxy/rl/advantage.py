"""Rewards -> advantages and the samples that take part.

A group is a row of rewards_PR: R responses to one prompt. Over its valid samples, of
which there are n, m is the mean and s the unbiased standard deviation; the first line
of each estimator is its equation. A new one is a function and a line of ADVANTAGES;
what it takes besides the two arrays are fields of the term, by name (choose.py).

A group of one has no contrast: what compares samples gives it 0. Equal rewards give 0
exactly, whatever the rounding, since a sample is negative as soon as A < 0. Samples
that are not valid have no influence and an advantage of 0; their reward may be nan.

A control takes from the advantages what they say, and leaves their size: what a method
does that its control does as well, it does not do by knowing right from wrong.

All functions take numpy arrays (computed in float64, then float32) or JAX arrays, also
under jit. Left out: critics; advantages per token are given as `adv_BT`.
"""

from collections.abc import Callable
from typing import Any

from pxy import fields, imports
from pxy.rl import check, choose
from pxy.rl.arrays import Array

jax, jnp = imports.later("jax"), imports.later("jax.numpy")
np = imports.later("numpy")

EPS = 1e-6
"""Added to the standard deviation, as in the public implementations of GRPO."""


def compute(
  term: Any, rewards_PR: Array, valid_PR: Array, key: Any = None
) -> tuple[Array, Array]:
  """Advantages by the term's estimator, and which samples its sign filter keeps.

  With negative="advantage" a sample is negative iff A < 0 and positive iff A > 0. With
  negative="reward" it is negative iff r <= 0, and what the filter keeps has A = -1 or
  +1: groups without contrast take part.

  Args:
    term: rl.term.Term.
    rewards_PR: scores; ignored where not valid.
    valid_PR: samples that take part at all.
    key: JAX key that draws the labels of control `random-label`; that of a step gives
      all its terms and updates the same ones, and a resumed run those of the first.

  Returns:
    (adv_PR float32, selected_PR bool); excluded samples are not selected.

  Raises:
    fields.Error: rewards or valid samples are not [P, R], or a valid one has no finite
      reward; a function of the user's own gives another shape, or no finite number.
      Under jit, where it is not known, the advantage of such a sample is nan.
      Labels to be drawn without a key.
  """
  check.rewards(rewards_PR, valid_PR)
  valid_PR = _namespace(rewards_PR).asarray(valid_PR, bool)
  if term.control == "random-label":
    fields.need(key is not None, "control 'random-label' draws labels: give it a key")
    rewards_PR = permuted(rewards_PR, valid_PR, key)
  if term.negative == "reward" and term.select != "all":
    adv_PR = sign(rewards_PR, valid_PR)
  else:
    adv_PR = estimate(term, rewards_PR, valid_PR)
  if term.control == "all-down":
    adv_PR = down(adv_PR, valid_PR)
  if term.select == "all":
    return adv_PR, valid_PR
  wanted_PR = adv_PR < 0 if term.select == "negative" else adv_PR > 0
  # What is nan is of neither sign: it stays, so that the loss says so.
  wanted_PR |= _namespace(adv_PR).isnan(adv_PR)
  return adv_PR, wanted_PR & valid_PR


def estimate(term: Any, rewards_PR: Array, valid_PR: Array) -> Array:
  """Advantages [P, R] by the term's estimator, float32, 0 where not valid.

  The function gets rewards that are nan where not valid: if it forgets them, that shows
  at once. Raises fields.Error as `compute` does.
  """
  check.rewards(rewards_PR, valid_PR)
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
  """Whether the estimator gives an advantage other than 0 where each group has one
  right answer, or every other group of one, which may have nothing to compare with.

  Raises fields.Error, before a run begins, for a function of the user's own that cannot
  be loaded, takes something else or gives another shape.
  """
  first = np.arange(prompts * responses) % max(responses, 2) == 0
  rewards_PR = 1.0 * first.reshape(prompts, responses)
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
  sign_PR = xp.where(rewards_PR > 0, 1.0, xp.where(rewards_PR <= 0, -1.0, xp.nan))
  return _float32(xp.where(valid_PR, sign_PR, 0.0))


def w_reinforce(rewards_PR: Array, valid_PR: Array, lam: float) -> Array:
  """`lam` r if r > 0, else r - 1, arXiv 2506.01347."""
  xp, rewards_PR = _namespace(rewards_PR), _clean(rewards_PR, valid_PR)
  adv_PR = xp.where(rewards_PR > 0, lam * rewards_PR, rewards_PR - 1)
  return _float32(xp.where(valid_PR, adv_PR, 0.0))


def batch(rewards_PR: Array, valid_PR: Array) -> Array:
  """grpo with the batch as one group: REINFORCE++ by sample, arXiv 2501.03262."""
  check.rewards(rewards_PR, valid_PR)
  xp = _namespace(rewards_PR)
  flat = (1, -1)
  adv_1R = grpo(
    xp.asarray(rewards_PR).reshape(flat), xp.asarray(valid_PR, bool).reshape(flat)
  )
  return adv_1R.reshape(np.shape(rewards_PR))


def asymmetric(rewards_PR: Array, valid_PR: Array, lam: float) -> Array:
  """`lam` (r - m) if r > m, else r - m: w-reinforce with the group's baseline."""
  adv_PR = mean(rewards_PR, valid_PR)
  return _float32(_namespace(adv_PR).where(adv_PR > 0, lam * adv_PR, adv_PR))


def maxrl(rewards_PR: Array, valid_PR: Array) -> Array:
  """(r - m) / m, 0 where m = 0, of r = 1 for what is right, else 0; arXiv 2602.02710.

  Right is a reward > 0. In expectation over n samples, this is the gradient of the sum
  of pass@k / k over k < n, which goes to that of log p as n grows: p is the probability
  of a right answer.
  """
  right_PR = _right(rewards_PR, valid_PR)
  xp, clean_PR = _namespace(right_PR), right_PR * 1.0
  centred_PR, count_P1 = _centred(clean_PR, valid_PR)
  mean_P1 = xp.sum(clean_PR, axis=1, keepdims=True) / _at_least_1(count_P1)
  return _float32(centred_PR / xp.where(mean_P1 > 0, mean_P1, 1.0))


def pass_at_k(rewards_PR: Array, valid_PR: Array, k: int) -> Array:
  """(R - b) / sqrt(b (1 - b)): b is pass@`k`, R that of k with the sample; 2508.10751.

  Right is a reward > 0. With w wrong ones of n, b is 1 - C(w, k) / C(n, k), and R is 1
  for a right sample, 1 - C(w - 1, k - 1) / C(n - 1, k - 1) for a wrong one. A is 0
  where b is 0 or 1, and where n < k.
  """
  right_PR = _right(rewards_PR, valid_PR)
  xp = _namespace(right_PR)
  n_P1 = xp.sum(valid_PR, axis=1, keepdims=True)
  wrong_P1 = n_P1 - xp.sum(right_PR, axis=1, keepdims=True)
  others_P1 = 1.0 + 0 * n_P1  # the k - 1 others are wrong: 1 - R of a wrong one
  for i in range(1, k):
    others_P1 = others_P1 * (wrong_P1 - i).clip(0) / _at_least_1(n_P1 - i)
  fail_P1 = others_P1 * wrong_P1 / _at_least_1(n_P1)  # 1 - b
  std_P1 = xp.sqrt(fail_P1 * (1 - fail_P1))
  contrast_P1 = (std_P1 > 0) & (n_P1 >= k)
  adv_PR = xp.where(right_PR, fail_P1, fail_P1 - others_P1)
  adv_PR = adv_PR / xp.where(contrast_P1, std_P1, 1.0)
  return _float32(xp.where(valid_PR & contrast_P1, adv_PR, 0.0))


ADVANTAGES: dict[str, Callable] = {
  "grpo": grpo,
  "mean": mean,
  "rloo": rloo,
  "reinforce": reinforce,
  "sign": sign,
  "w-reinforce": w_reinforce,
  "batch": batch,
  "asymmetric": asymmetric,
  "maxrl": maxrl,
  "pass-at-k": pass_at_k,
}
"""Estimators by the name that a term gives: (rewards_PR, valid_PR, ...) -> adv_PR."""


def permuted(rewards_PR: Array, valid_PR: Array, key: Any) -> Array:
  """The rewards of the batch in random order, among the samples that are valid."""
  xp, valid_n, rewards_n = (
    _namespace(rewards_PR), valid_PR.reshape(-1), rewards_PR.reshape(-1),
  )  # fmt: skip
  n = np.arange(valid_n.size)
  draw_n = xp.asarray(jax.random.uniform(jax.random.fold_in(key, 1), n.shape))
  # Valid samples first: in their own order, and in a random one.
  own_n = xp.argsort(xp.where(valid_n, n, n.size + n))
  other_n = xp.argsort(xp.where(valid_n, draw_n, 1.0 + n))
  return rewards_n[other_n][xp.argsort(own_n)].reshape(rewards_PR.shape)


def down(adv_PR: Array, valid_PR: Array) -> Array:
  """-sqrt(mean A^2) of each group: all samples alike, with the norm that A has."""
  xp = _namespace(adv_PR)
  squares_P1 = xp.sum(adv_PR**2, axis=1, keepdims=True)
  count_P1 = xp.sum(valid_PR, axis=1, keepdims=True)
  return _float32(xp.where(valid_PR, -xp.sqrt(squares_P1 / _at_least_1(count_P1)), 0.0))


CONTROLS = {
  "none": "the advantages as they are",
  "random-label": "the batch's rewards change places, by a key of the step",
  "all-down": "A becomes -sqrt(mean A^2) of its group: every sample goes down, right or"
  " wrong, with the same norm",
}
"""What may be done to the labels or the advantages, to see what they are good for."""


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
  for name, x in (("length_PR", length_PR), ("truncated_PR", truncated_PR)):
    check.need(name, x, np.shape(rewards_PR), "any", "a number for each reward")
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
  check.rewards(rewards_PR, valid_PR)
  return _namespace(rewards_PR).where(valid_PR, _number(rewards_PR), 0.0)


def _right(rewards_PR, valid_PR):
  xp = _namespace(rewards_PR)
  return xp.asarray(valid_PR, bool) & (_clean(rewards_PR, valid_PR) > 0)


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
