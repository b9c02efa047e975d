"""Rewards -> advantages and the samples that take part.

A group is a row of rewards_PR: R responses to one prompt. Over its valid samples, of
which there are n, with mean m and unbiased standard deviation s:

  grpo         (r - m) / (s + 1e-6)            DeepSeekMath, arXiv 2402.03300
  mean         r - m                           Dr. GRPO, arXiv 2503.20783
  rloo         r - mean of the others          = n / (n - 1) (r - m); arXiv 2402.14740
  reinforce    r
  sign         +1 if r > 0, else -1
  w-reinforce  lam r if r > 0, else r - 1      arXiv 2506.01347
  batch        grpo's formula over all groups  REINFORCE++, arXiv 2501.03262, by sample

A group of one has no contrast: grpo, mean and rloo give it 0. Equal rewards give 0
exactly, whatever the rounding, since a sample is negative as soon as A < 0. Samples
that are not valid have no influence and an advantage of 0; their reward may be nan.

All functions take numpy arrays (computed in float64, then float32) or JAX arrays, also
under jit. Left out: advantages per token (critics, GAE).
"""

import jax
import jax.numpy as jnp
import numpy as np

from pxy import config

EPS = 1e-6
"""Added to the standard deviation, as in the public implementations of GRPO."""


def compute(term: config.Term, rewards_PR, valid_PR):
  """Advantages by the term's estimator, and which samples its sign filter keeps.

  With negative="advantage" a sample is negative iff A < 0 and positive iff A > 0. With
  negative="reward" it is negative iff r <= 0, and what the filter keeps has A = -1 or
  +1: groups without contrast take part.

  Returns:
    (adv_PR float32, selected_PR bool); excluded samples are not selected.
  """
  xp = _namespace(rewards_PR)
  valid_PR = xp.asarray(valid_PR, bool)
  if term.select == "all":
    return estimate(term.advantage, rewards_PR, valid_PR, lam=term.lam), valid_PR
  if term.negative == "reward":
    adv_PR = sign(rewards_PR, valid_PR)
  else:
    adv_PR = estimate(term.advantage, rewards_PR, valid_PR, lam=term.lam)
  wanted_PR = adv_PR < 0 if term.select == "negative" else adv_PR > 0
  return adv_PR, wanted_PR & valid_PR


def estimate(kind: str, rewards_PR, valid_PR, *, lam: float):
  """Advantages by the name of the estimator; `lam` matters to w-reinforce only."""
  if kind == "w-reinforce":
    return w_reinforce(rewards_PR, valid_PR, lam)
  known = {
    "grpo": grpo, "mean": mean, "rloo": rloo,
    "reinforce": reinforce, "sign": sign, "batch": batch,
  }  # fmt: skip
  if kind not in known:
    raise config.Error(
      f"advantage: {kind!r} is none of {', '.join(known)}, w-reinforce"
    )
  return known[kind](rewards_PR, valid_PR)


def grpo(rewards_PR, valid_PR):
  """(r - m) / (s + 1e-6), with the unbiased s of the group."""
  centred_PR, count_P1 = _centred(rewards_PR, valid_PR)
  return _float32(centred_PR / (_std(centred_PR, count_P1) + EPS))


def mean(rewards_PR, valid_PR):
  """r - m, without division."""
  return _float32(_centred(rewards_PR, valid_PR)[0])


def rloo(rewards_PR, valid_PR):
  """r minus the mean of the other samples of the group."""
  centred_PR, count_P1 = _centred(rewards_PR, valid_PR)
  return _float32(centred_PR * (count_P1 / _at_least_1(count_P1 - 1)))


def reinforce(rewards_PR, valid_PR):
  """r itself: no baseline."""
  return _float32(_clean(rewards_PR, valid_PR))


def sign(rewards_PR, valid_PR):
  """+1 for a positive reward, else -1."""
  xp, rewards_PR = _namespace(rewards_PR), _clean(rewards_PR, valid_PR)
  return _float32(xp.where(valid_PR, xp.where(rewards_PR > 0, 1.0, -1.0), 0.0))


def w_reinforce(rewards_PR, valid_PR, lam: float):
  """lam r for correct samples (r > 0), r - 1 for the others."""
  xp, rewards_PR = _namespace(rewards_PR), _clean(rewards_PR, valid_PR)
  adv_PR = xp.where(rewards_PR > 0, lam * rewards_PR, rewards_PR - 1)
  return _float32(xp.where(valid_PR, adv_PR, 0.0))


def batch(rewards_PR, valid_PR):
  """grpo with the whole batch as one group."""
  xp = _namespace(rewards_PR)
  flat = (1, -1)
  adv_1R = grpo(
    xp.asarray(rewards_PR).reshape(flat), xp.asarray(valid_PR, bool).reshape(flat)
  )
  return adv_1R.reshape(np.shape(rewards_PR))


def overlong(
  reward: config.Reward, rewards_PR, valid_PR, *, length_PR, truncated_PR, limit: int
):
  """Rewards and valid samples after the rule for responses that grew too long.

  `keep` changes nothing; `mask` excludes truncated samples; `penalty` subtracts an
  amount that grows linearly from 0 at limit - buffer tokens to 1 at the limit (DAPO's
  soft punishment, arXiv 2503.14476).
  """
  xp = _namespace(rewards_PR)
  if reward.overlong == "mask":
    return rewards_PR, valid_PR & ~xp.asarray(truncated_PR, bool)
  if reward.overlong == "penalty":
    over_PR = (length_PR - (limit - reward.overlong_buffer)) / reward.overlong_buffer
    return rewards_PR - xp.clip(over_PR, 0.0, 1.0), valid_PR
  return rewards_PR, valid_PR


def _namespace(x):
  return jnp if isinstance(x, jax.Array) else np


def _float32(x):
  return x.astype(np.float32)


def _at_least_1(x):
  return _namespace(x).maximum(x, 1)


def _clean(rewards_PR, valid_PR):
  xp = _namespace(rewards_PR)
  rewards_PR = xp.asarray(rewards_PR, jnp.float32 if xp is jnp else np.float64)
  return xp.where(valid_PR, rewards_PR, 0.0)


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
