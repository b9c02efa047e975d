"""Surrogate losses: functions of log-probs whose gradients are policy gradients.

With rho_t = exp(logp_t - old_t), differences clamped to +-20, and clip(x) short for x
limited to [1 - low, 1 + high], the loss of a token of weight w_t is -w_t times

  reinforce  logp_t A
  ppo        min(rho_t A, clip(rho_t) A), and at least -dual |A| where A < 0
  gspo       min(s A, clip(s) A),  s = exp(mean over the sequence of logp - old)
  cispo      stop_gradient(clip(rho_t)) A logp_t

PPO: arXiv 1707.06347; low != high: DAPO, 2503.14476; dual clip: 1912.09729; GSPO:
2507.18071; CISPO: 2506.13585. Where logp == old, all four have REINFORCE's gradient.

Weights hold the mask, the reduction and the coefficient: a loss is a sum, with the sum
of its weights beside it, and whoever has seen all micro-batches divides. A token of
weight 0 has no influence, whatever its numbers. `reduction` makes the weights:

  token-mean           1           / number of tokens
  seq-mean-token-mean  1 / length  / number of sequences
  seq-mean-token-sum   1           / number of sequences
  constant             1           / (number of sequences * constant)

Left out: a clamp of k3 at 10, which other code has. It would take the pull back to the
reference away just where the distance is largest.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pxy import config

CLAMP = 20.0
"""Largest difference of log-probs that is exponentiated, as in the public code."""


def loss(term: config.Term, logp_BT, old_BT, adv_BT, weight_BT, segments_BT=None):
  """The surrogate that a term names: ((sum, weight), metrics), as below."""
  clip = {"low": term.clip_low, "high": term.clip_high}
  if term.clip == "ppo":
    return ppo(logp_BT, old_BT, adv_BT, weight_BT, **clip, dual=term.dual_clip)
  if term.clip == "gspo":
    return gspo(logp_BT, old_BT, adv_BT, weight_BT, **clip, segments_BT=segments_BT)
  if term.clip == "cispo":
    return cispo(logp_BT, old_BT, adv_BT, weight_BT, **clip)
  return reinforce(logp_BT, old_BT, adv_BT, weight_BT)


def reinforce(logp_BT, old_BT, adv_BT, weight_BT):
  """-logp A: the policy gradient itself, without ratio or clip.

  Args:
    logp_BT: log-probs of the tokens under the parameters that are trained.
    old_BT: the same before the first of several updates on these samples; with a
      single update, stop_gradient(logp_BT). Here it serves ppo_kl only.
    adv_BT: advantage of the token's sequence.
    weight_BT: weight of the token in the loss, 0 outside it.

  Returns:
    ((sum, weight), metrics): the loss is sum / weight, or sum over a weight of your
    own; metrics are (sum, weight) pairs over the tokens of nonzero weight.
  """
  on_BT, delta_BT = _ratio(logp_BT, old_BT, weight_BT)
  logp_BT = jnp.where(on_BT, logp_BT, 0.0)
  never_BT = jnp.zeros_like(on_BT)
  return _total(-logp_BT * adv_BT, weight_BT, on_BT, delta_BT, pg_clipfrac=never_BT)


def ppo(logp_BT, old_BT, adv_BT, weight_BT, *, low, high, dual=None):
  """-min(rho A, clip(rho) A), and at most dual |A| where A < 0.

  Args are those of `reinforce`, and
    low, high: the ratio is limited to [1 - low, 1 + high].
    dual: bound on the loss of a token with a negative advantage, in units of |A|;
      > 1, or None.

  Returns:
    ((sum, weight), metrics) as of `reinforce`; pg_clipfrac is the share of tokens whose
    gradient the clip removes, pg_clipfrac_lower the share the dual clip does.
  """
  on_BT, delta_BT = _ratio(logp_BT, old_BT, weight_BT)
  # `where`, not max: at a tie the gradient is whole, so at rho = 1 it is REINFORCE's.
  loss_BT, clipped_BT = _clip(jnp.exp(delta_BT), adv_BT, low, high)
  bounded_BT = jnp.zeros_like(on_BT)
  if dual is not None:
    most_BT = -dual * adv_BT
    bounded_BT = (adv_BT < 0) & (loss_BT > most_BT)
    loss_BT = jnp.where(bounded_BT, most_BT, loss_BT)
  return _total(
    loss_BT,
    weight_BT,
    on_BT,
    delta_BT,
    pg_clipfrac=clipped_BT,
    pg_clipfrac_lower=bounded_BT,
  )


def gspo(logp_BT, old_BT, adv_BT, weight_BT, *, low, high, segments_BT=None):
  """-min(s A, clip(s) A) with the geometric mean s of a sequence's ratios.

  Args are those of `ppo`, and
    segments_BT: numbers the sequences of each row, 0 to T; None: one a row.
  Useful clips are far smaller than PPO's (3e-4 in the paper). Every token of a sequence
  must have the same weight.
  """
  on_BT, delta_BT = _ratio(logp_BT, old_BT, weight_BT)
  length_BT = _per_sequence(on_BT.astype(delta_BT.dtype), segments_BT)
  log_s_BT = _per_sequence(delta_BT, segments_BT) / jnp.maximum(length_BT, 1.0)
  loss_BT, clipped_BT = _clip(jnp.exp(log_s_BT), adv_BT, low, high)
  return _total(loss_BT, weight_BT, on_BT, delta_BT, pg_clipfrac=clipped_BT)


def cispo(logp_BT, old_BT, adv_BT, weight_BT, *, low, high):
  """-stop_gradient(clip(rho)) A logp: a clipped weight, but no token without gradient.

  Args are those of `ppo`; pg_clipfrac is the share of tokens with a clipped weight.
  """
  on_BT, delta_BT = _ratio(logp_BT, old_BT, weight_BT)
  rho_BT = jax.lax.stop_gradient(jnp.exp(delta_BT))
  limited_BT = jnp.clip(rho_BT, 1 - low, 1 + high)
  logp_BT = jnp.where(on_BT, logp_BT, 0.0)
  return _total(
    -limited_BT * adv_BT * logp_BT,
    weight_BT,
    on_BT,
    delta_BT,
    pg_clipfrac=limited_BT != rho_BT,
  )


def kl(kind: str, logp_BT, ref_BT):
  """Estimates of KL(policy || reference) from each sampled token, d = logp - ref.

    k1  d               unbiased, but as a loss its expected gradient is zero
    k2  d^2 / 2         its gradient is the KL's
    k3  exp(-d) - 1 + d  unbiased and never negative

  Source: Schulman, "Approximating KL divergence" (2020). d is clamped to +-20.
  """
  delta_BT = jnp.clip(logp_BT - ref_BT, -CLAMP, CLAMP)
  if kind == "k1":
    return delta_BT
  if kind == "k2":
    return jnp.square(delta_BT) / 2
  if kind == "k3":
    return jnp.expm1(-delta_BT) + delta_BT
  raise config.Error(f"kl: {kind!r} is none of k1, k2, k3")


def importance(logp_BT, sampler_BT, on_BT, *, level: str, cap, segments_BT=None):
  """Truncated importance weights min(p / p_sampler, cap), constants.

  They correct for a sampler whose numbers differ from the trainer's: multiply the
  advantages by them. `token` weighs each token by itself, `sequence` by the product of
  its sequence's ratios. The exponent is clamped to +-20.

  Args:
    logp_BT: the trainer's log-probs before the update (`old_BT`).
    sampler_BT: the sampler's.
    on_BT: tokens that count; elsewhere the weight is 1.
    segments_BT: numbers the sequences of each row, 0 to T; None: one a row.

  Returns:
    (weights_BT, metrics): tis is the mean weight, tis_capfrac the share at the cap.
  """
  delta_BT = jax.lax.stop_gradient(jnp.where(on_BT, logp_BT - sampler_BT, 0.0))
  if level == "sequence":
    delta_BT = _per_sequence(delta_BT, segments_BT)
  elif level != "token":
    raise config.Error(f"tis: {level!r} is none of token, sequence")
  whole_BT = jnp.exp(jnp.clip(delta_BT, -CLAMP, CLAMP))
  weights_BT = jnp.where(on_BT, jnp.minimum(whole_BT, cap), 1.0)
  metrics = {
    "tis": _mean(weights_BT, on_BT),
    "tis_capfrac": _mean(whole_BT > cap, on_BT),
  }
  return weights_BT, metrics


def reduction(how: str, lengths_n, constant: float = 1.0):
  """Weight of each token of each sequence, and the weight of all (see above).

  Args:
    lengths_n: tokens of each sequence that takes part. An empty sequence does not count
      as one.
    constant: the fixed length of `constant`.

  Returns:
    (weights_n, total); the total is 0 if nothing takes part.
  """
  xp = jnp if isinstance(lengths_n, jax.Array) else np
  lengths_n = xp.asarray(lengths_n, jnp.float32 if xp is jnp else np.float64)
  present_n = xp.where(lengths_n > 0, 1.0, 0.0)
  count = xp.sum(present_n)
  if how == "token-mean":
    return present_n, xp.sum(lengths_n)
  if how == "seq-mean-token-mean":
    return present_n / xp.maximum(lengths_n, 1.0), count
  if how == "seq-mean-token-sum":
    return present_n, count
  if how == "constant":
    return present_n, count * constant
  raise config.Error(
    f"reduction: {how!r} is none of token-mean, seq-mean-token-mean,"
    " seq-mean-token-sum, constant"
  )


def _ratio(logp_BT, old_BT, weight_BT):
  """Which tokens count, and their clamped log-ratios (0 elsewhere)."""
  on_BT = weight_BT != 0
  delta_BT = jnp.where(on_BT, logp_BT - old_BT, 0.0)
  return on_BT, jnp.clip(delta_BT, -CLAMP, CLAMP)


def _clip(rho_BT, adv_BT, low, high):
  plain_BT = -rho_BT * adv_BT
  limited_BT = -jnp.clip(rho_BT, 1 - low, 1 + high) * adv_BT
  clipped_BT = limited_BT > plain_BT
  return jnp.where(clipped_BT, limited_BT, plain_BT), clipped_BT


def _total(loss_BT, weight_BT, on_BT, delta_BT, **flags_BT):
  loss_BT = jnp.where(on_BT, weight_BT * loss_BT, 0.0)
  found = {name: _mean(x_BT, on_BT) for name, x_BT in flags_BT.items()}
  found["ppo_kl"] = _mean(-delta_BT, on_BT)
  return (jnp.sum(loss_BT), jnp.sum(weight_BT)), jax.lax.stop_gradient(found)


def _mean(x_BT, on_BT):
  x_BT = jnp.where(on_BT, x_BT, 0.0)
  return jnp.sum(x_BT, dtype=jnp.float32), jnp.sum(on_BT, dtype=jnp.float32)


def _per_sequence(x_BT, segments_BT):
  """Sums over each sequence, at each of its tokens."""
  if segments_BT is None:
    return jnp.broadcast_to(jnp.sum(x_BT, axis=1, keepdims=True), x_BT.shape)

  def row(x_T, segments_T):
    return jax.ops.segment_sum(x_T, segments_T, x_T.size + 1)[segments_T]

  return jax.vmap(row)(x_BT, segments_BT)
