"""Surrogate losses: functions of log-probs whose gradients are policy gradients.

With rho_t = exp(logp_t - old_t), differences clamped to +-20 (the ratio of a token
beyond has no gradient), and clip(x) short for x limited to [1 - clip_low,
1 + clip_high], the first line of each function is the loss of a token. Where
logp == old, all have REINFORCE's gradient. A new one is a function and a line of
SURROGATES.

`loss` puts weights on the tokens, which hold the mask, the reduction and the
coefficient: a loss is a sum, with the sum of its weights beside it, and whoever has
seen all micro-batches divides. A token of weight 0 has no influence, whatever its
numbers: the functions see it with log-probs of 0.

KL estimates are not clamped, as other code has it: that would take the pull back to the
reference away just where the distance is largest. Only the exponent of k3 is bounded,
and goes on along its tangent.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from pxy import fields, imports
from pxy.rl import choose
from pxy.rl.arrays import Array

jax, jnp = imports.later("jax"), imports.later("jax.numpy")

Weighted = tuple[Array, Array]
"""(sum, weight)."""
Metrics = dict[str, Weighted]
Loss = tuple[Array, dict[str, Array]]
"""The loss of each token, and what else to tell of each."""

CLAMP = 20.0
"""Largest difference of log-probs that is exponentiated, as in the public code."""


def loss(
  term: Any,
  logp_BT: Array,
  old_BT: Array,
  adv_BT: Array,
  weight_BT: Array,
  segments_BT: Array | None = None,
) -> tuple[Weighted, Metrics]:
  """The surrogate that a term names, summed over tokens of these weights.

  Args:
    term: rl.term.Term.
    logp_BT: log-probs of the tokens under the parameters that are trained.
    old_BT: the same before the first of several updates on these samples; with a
      single update, stop_gradient(logp_BT).
    adv_BT: advantage of the token's sequence.
    weight_BT: weight of the token in the loss, 0 outside it.
    segments_BT: numbers the sequences of each row, 0 to T; None: one a row.

  Returns:
    ((sum, weight), metrics): the loss is sum / weight, or sum over a weight of your
    own; metrics are (sum, weight) pairs over the tokens of nonzero weight: ppo_kl, and
    what the function tells besides.

  Raises:
    fields.Error: a function of the user's own gives another shape, or no float.
  """
  on_BT = weight_BT != 0
  logp_BT, old_BT = (jnp.where(on_BT, x_BT, 0.0) for x_BT in (logp_BT, old_BT))
  arrays = ("logp_BT", "old_BT", "adv_BT")
  more = {"on_BT": on_BT, "segments_BT": segments_BT}
  function = choose.function("clip", term, SURROGATES, arrays, **more)
  found = function(logp_BT, old_BT, adv_BT)
  loss_BT, told = found if isinstance(found, tuple) else (found, {})
  choose.alike("clip", term, loss_BT, logp_BT)
  loss_BT = jnp.where(on_BT, weight_BT * loss_BT, 0.0)
  told = told | {"ppo_kl": -_gap(logp_BT, old_BT)}
  metrics = {name: _mean(x_BT, on_BT) for name, x_BT in told.items()}
  return (jnp.sum(loss_BT), jnp.sum(weight_BT)), jax.lax.stop_gradient(metrics)


def check(term: Any) -> None:
  """Tries a function of the user's own on shapes, before a run needs it; fields.Error
  says what is wrong with it."""
  if term.clip not in SURROGATES:
    x_BT, segments_BT = (jax.ShapeDtypeStruct((2, 3), t) for t in ("float32", "int32"))
    jax.eval_shape(functools.partial(loss, term), *[x_BT] * 4, segments_BT)


def reinforce(logp_BT: Array, old_BT: Array, adv_BT: Array) -> Loss:
  """-logp A: the policy gradient itself, without ratio or clip."""
  return -logp_BT * adv_BT, {"pg_clipfrac": jnp.zeros_like(logp_BT)}


def ppo(
  logp_BT: Array,
  old_BT: Array,
  adv_BT: Array,
  *,
  clip_low: float,
  clip_high: float,
  dual_clip: float | None = None,
) -> Loss:
  """-min(rho A, clip(rho) A), at most `dual_clip` |A| where A < 0; arXiv 1707.06347.

  `dual_clip` > 1 (arXiv 1912.09729) or None; clip_low != clip_high: DAPO, 2503.14476.
  pg_clipfrac is the share of tokens whose gradient the clip removes, pg_clipfrac_lower
  the share the dual clip does.
  """
  # `where`, not max: at a tie the gradient is whole, so at rho = 1 it is REINFORCE's.
  rho_BT = jnp.exp(_gap(logp_BT, old_BT))
  loss_BT, clipped_BT = _clip(rho_BT, adv_BT, clip_low, clip_high)
  bounded_BT = jnp.zeros_like(clipped_BT)
  if dual_clip is not None:
    most_BT = -dual_clip * adv_BT
    bounded_BT = (adv_BT < 0) & (loss_BT > most_BT)
    loss_BT = jnp.where(bounded_BT, most_BT, loss_BT)
  return loss_BT, {"pg_clipfrac": clipped_BT, "pg_clipfrac_lower": bounded_BT}


def gspo(
  logp_BT: Array,
  old_BT: Array,
  adv_BT: Array,
  *,
  clip_low: float,
  clip_high: float,
  on_BT: Array,
  segments_BT: Array,
) -> Loss:
  """-min(s A, clip(s) A), s the geometric mean of a sequence's rho; arXiv 2507.18071.

  Useful clips are far smaller than PPO's (3e-4 in the paper). Every token of a sequence
  must have the same weight.
  """
  log_s_BT = _sequence_mean(_gap(logp_BT, old_BT), on_BT, segments_BT)
  loss_BT, clipped_BT = _clip(jnp.exp(log_s_BT), adv_BT, clip_low, clip_high)
  return loss_BT, {"pg_clipfrac": clipped_BT}


def cispo(
  logp_BT: Array, old_BT: Array, adv_BT: Array, *, clip_low: float, clip_high: float
) -> Loss:
  """-stop_gradient(clip(rho)) A logp, no token without gradient; arXiv 2506.13585.

  pg_clipfrac is the share of tokens with a clipped weight.
  """
  rho_BT = jax.lax.stop_gradient(jnp.exp(_gap(logp_BT, old_BT)))
  limited_BT = jnp.clip(rho_BT, 1 - clip_low, 1 + clip_high)
  return -limited_BT * adv_BT * logp_BT, {"pg_clipfrac": limited_BT != rho_BT}


SURROGATES: dict[str, Callable] = {
  "none": reinforce,
  "ppo": ppo,
  "gspo": gspo,
  "cispo": cispo,
}
"""By the name that a term gives as `clip`: (logp_BT, old_BT, adv_BT) -> the loss of
each token; or that, and a dict of what else to tell of each token: metrics, by means.

By name they take fields of the term, `on_BT` (the tokens that count), `segments_BT`.
"""


def k1(gap_BT: Array) -> Array:
  """d: unbiased, but its expected gradient is zero; a metric, no loss."""
  return gap_BT


def k2(gap_BT: Array) -> Array:
  """d^2 / 2: its gradient is the KL's."""
  return jnp.square(gap_BT) / 2


def k3(gap_BT: Array) -> Array:
  """exp(-d) - 1 + d: unbiased and never negative."""
  # exp, and below d = -20 its tangent: finite, and the pull stays.
  near_BT = jnp.minimum(-gap_BT, CLAMP)
  past_BT = jnp.maximum(-gap_BT - CLAMP, 0.0)
  return jnp.expm1(near_BT) + math.exp(CLAMP) * past_BT + gap_BT


KLS = {"k2": k2, "k3": k3}
"""Estimators that a loss may hold."""


def kl(kind: str, logp_BT: Array, ref_BT: Array) -> Array:
  """Estimates [B, T] of KL(policy || reference) from each sampled token, in nats.

  kind: `k1`, or one of KLS, of d = logp - ref. Source: Schulman, "Approximating KL
  divergence" (2020). Raises fields.Error for another name.
  """
  known = {"k1": k1} | KLS
  fields.need(kind in known, f"kl: {kind!r} is none of {', '.join(known)}")
  return known[kind](logp_BT - ref_BT)


TIS = {
  "token": "min(w, `tis_cap`), w = p / p_sampler of the token: TIS",
  "sequence": "min(w, `tis_cap`), w the product over the sequence",
  "token-mask": "w where `tis_floor` <= w <= `tis_cap`, else 0, w of the token: masked"
  " importance sampling, IcePop, arXiv 2510.18855",
  "sequence-mask": "the same with w the product over the sequence",
}
"""Importance weights, by the name that a term gives."""


def importance(
  gap_BT: Array,
  on_BT: Array,
  *,
  kind: str,
  cap: float,
  floor: float = 0.0,
  segments_BT: Array | None = None,
) -> tuple[Array, Metrics]:
  """Importance weights w = p / p_sampler of limited size, constants: those of TIS.

  They correct for a sampler whose numbers differ from the trainer's: multiply the
  advantages by them. `token` weighs each token by itself, `sequence` by the product of
  its sequence's ratios. The exponent is clamped to +-20.

  Args:
    gap_BT: log p - log p_sampler of the token under its prompt: of the trainer before
      the update, and of the sampler.
    on_BT: tokens that count; elsewhere the weight is 1.
    kind: one of TIS.
    segments_BT: numbers the sequences of each row, 0 to T; None: one a row.

  Returns:
    (weights_BT, metrics): tis is the mean weight, tis_capfrac the share of tokens whose
    ratio is out of bounds.
  """
  fields.need(kind in TIS, f"tis: {kind!r} is none of {', '.join(TIS)}")
  level, _, masked = kind.partition("-")
  gap_BT = jax.lax.stop_gradient(jnp.where(on_BT, gap_BT, 0.0))
  if level == "sequence":
    gap_BT = _per_sequence(gap_BT, segments_BT)
  whole_BT = jnp.exp(jnp.clip(gap_BT, -CLAMP, CLAMP))
  if masked:
    beyond_BT = (whole_BT > cap) | (whole_BT < floor)
    weights_BT = jnp.where(beyond_BT, 0.0, whole_BT)
  else:
    beyond_BT = whole_BT > cap
    weights_BT = jnp.minimum(whole_BT, cap)
  weights_BT = jnp.where(on_BT, weights_BT, 1.0)
  metrics = {"tis": _mean(weights_BT, on_BT), "tis_capfrac": _mean(beyond_BT, on_BT)}
  return weights_BT, metrics


def confident(
  old_BT: Array, adv_BT: Array, on_BT: Array, segments_BT: Array | None = None
) -> Array:
  """Advantages, of which those < 0 are times the model's confidence, a constant.

  Confidence is the geometric mean of the probabilities of a sequence's tokens, exp of
  the mean of old_BT: a mistake that the model is sure of counts more than one it hardly
  makes.
  """
  old_BT = jax.lax.stop_gradient(jnp.where(on_BT, old_BT, 0.0))
  sure_BT = jnp.exp(_sequence_mean(old_BT, on_BT, segments_BT))
  return jnp.where(adv_BT < 0, adv_BT * sure_BT, adv_BT)


def _gap(logp_BT, other_BT):
  """Differences of log-probs, clamped."""
  return jnp.clip(logp_BT - other_BT, -CLAMP, CLAMP)


def _clip(rho_BT, adv_BT, low, high):
  plain_BT = -rho_BT * adv_BT
  limited_BT = -jnp.clip(rho_BT, 1 - low, 1 + high) * adv_BT
  clipped_BT = limited_BT > plain_BT
  return jnp.where(clipped_BT, limited_BT, plain_BT), clipped_BT


def _mean(x_BT, on_BT):
  x_BT = jnp.where(on_BT, x_BT, 0.0)
  return jnp.sum(x_BT, dtype=jnp.float32), jnp.sum(on_BT, dtype=jnp.float32)


def _sequence_mean(x_BT, on_BT, segments_BT):
  """Means over the tokens that count of each sequence; x is 0 elsewhere."""
  length_BT = _per_sequence(on_BT.astype(x_BT.dtype), segments_BT)
  return _per_sequence(x_BT, segments_BT) / jnp.maximum(length_BT, 1.0)


def _per_sequence(x_BT, segments_BT):
  """Sums over each sequence, at each of its tokens."""
  if segments_BT is None:
    return jnp.broadcast_to(jnp.sum(x_BT, axis=1, keepdims=True), x_BT.shape)

  def row(x_T, segments_T):
    return jax.ops.segment_sum(x_T, segments_T, x_T.size + 1)[segments_T]

  return jax.vmap(row)(x_BT, segments_BT)
