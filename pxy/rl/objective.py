"""The loss: score the packed rows, form the surrogate of each term, sum.

    loss = sum_bt weight_bt * surrogate(logp_bt, old_bt, A_bt)

`conditional_loss` and `marginal_loss` are the two named entry points for other code: a
few lines each over one path, since they differ only in the view. Weights hold the
global normaliser (see rl/pack.py), so losses and gradients of micro-batches and
devices add up.

`score(params, packed) -> (logp_BT, entropy_BT)` is the only thing asked of a model;
score.py makes one of any. When a batch gets exactly one update, the old log-probs are
stop_gradient(logp) and cost nothing.

Losses of parts of a batch (micro-batches, devices of a shard_map) add up to that of the
whole when each is given the whole's `total`, the sum of the parts' `weight`.

For `mixture` contexts the log-prob of a response under the mean of C prompts is spread
over its tokens by the chain rule, log p(y_t | y_<t) = lse_k s_k(t) - lse_k s_k(t-1)
with s_k(t) = sum_{u<=t} log p(y_u | x_k, y_<u), so that every surrogate works on it and
the sum over tokens is log mean_k P(y | x_k) exactly. Its entropy is that of the first
copy.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pxy import fields
from pxy.rl import metrics, pack, reduction, rollout, surrogate, view
from pxy.rl import term as term_lib

Term = term_lib.Term
CONDITIONAL = Term()
MARGINAL = Term(space="marginal", advantage="mean")

Score = Callable[[Any, pack.Packed], tuple[jax.Array, jax.Array]]


_IN_THE_DATA = (
  "space", "context", "copies", "select", "negative", "advantage", "lam", "k",
  "control", "coef", "reduction", "constant",
)  # fmt: skip
"""Fields of a term that are in the numbers of packed rows."""


def kernel(term: Term) -> Term:
  """The term without what the loss of packed rows does not depend on.

  Space, sign filter, advantage, reduction and coefficient are in the data by then, so
  phases that differ only there (both phases of DSRL) share one compiled step.
  """
  default = Term()
  dropped = {name: getattr(default, name) for name in _IN_THE_DATA}
  return dataclasses.replace(term, **dropped)


@functools.partial(jax.jit, static_argnames=("score", "term"))
def conditional_loss(
  score: Score,
  params,
  rollouts: rollout.Rollouts,
  adv_B,
  *,
  term: Term = CONDITIONAL,
  selected_B=None,
  total=None,
  old_BT=None,
  ref_BT=None,
):
  """Loss whose gradient moves log P(y|x): each response after its own prompt.

  Args:
    score: (params, packed) -> (logp_BT, entropy_BT); static.
    params: what to differentiate with respect to.
    rollouts: B responses with their prompts.
    adv_B: advantage of each response.
    term: clip, reduction, KL and coefficient; static. Its space must be this one; its
      context, filter and advantage are the caller's, in context, selected_B and adv_B.
    selected_B: responses in the mean; None: all.
    total: what the sum over tokens is divided by; None: the `weight` of these.
    old_BT, ref_BT: log-probs [B, T] of the response tokens before the first of several
      updates, and under a reference model; None where not needed.

  Returns:
    (loss, metrics): a scalar, and metrics that know their reduction (pxy.rl.metrics).
  """
  _belongs(term, "conditional")
  if (term.kl == "none") != (ref_BT is None):
    raise fields.Error(f"kl {term.kl!r}: ref_BT goes with a KL term, and only with one")
  view_ = view.conditional(rollouts)
  given = (term, selected_B, total, old_BT, ref_BT, None)
  return _of_rollouts(score, params, rollouts, adv_B, view_, True, *given)


@functools.partial(jax.jit, static_argnames=("score", "term"))
def marginal_loss(
  score: Score,
  params,
  rollouts: rollout.Rollouts,
  adv_B,
  *,
  context,
  term: Term = MARGINAL,
  selected_B=None,
  total=None,
  old_BT=None,
  gap_BT=None,
):
  """Loss whose gradient moves log P(y): each response after `context`, prompt unseen.

  Args:
    context: ids [S] of a fixed context, such as [start_id]; or a view.View, of
      view.shuffled or view.mixture, say.
    gap_BT: with a term that has `tis`, log p(y|x) - log p_sampler(y|x) of the response
      tokens [B, T]: `logps(score, params, rollouts) - rollouts.logp_BT`.

  The other arguments and the result are those of `conditional_loss`.
  """
  _belongs(term, "marginal")
  if (term.tis == "none") != (gap_BT is None):
    raise fields.Error(
      f"tis {term.tis!r}: gap_BT goes with importance weights, and only with them"
    )
  view_ = _viewed(rollouts, context)
  given = (term, selected_B, total, old_BT, None, gap_BT)
  return _of_rollouts(score, params, rollouts, adv_B, view_, False, *given)


def logps(score: Score, params, rollouts: rollout.Rollouts, context=None):
  """Log-probs [B, T] of the response tokens, 0 beyond them: `old_BT`, `ref_BT`, and
  what `gap_BT` is made of. Pure and jittable; score is static.

  context: None: each after its own prompt, as it was drawn; else that of marginal_loss.
  """
  view_ = view.conditional(rollouts) if context is None else _viewed(rollouts, context)
  size, width = rollouts.response_BT.shape
  one_B = jnp.ones(size)
  packed = pack.rows(view_, rollouts, one_B, one_B, on_policy=context is None)
  if packed.copies_BTC is not None:
    packed_BT = mixed(score(params, packed)[0], packed)
  else:
    packed_BT = score(params, packed)[0]
  first_B1 = jnp.asarray(view_.length_CB)[0][:, None] - 1
  place_BT = jnp.clip(first_B1 + jnp.arange(width)[None], 0, packed_BT.shape[1] - 1)
  logp_BT = jnp.take_along_axis(packed_BT, place_BT, 1)
  on_BT = jnp.arange(width)[None] < jnp.asarray(rollouts.response_len_B)[:, None]
  return jnp.where(on_BT, logp_BT, 0.0)


def weight(term: Term, rollouts: rollout.Rollouts, selected_B=None):
  """What the loss of these responses is divided by: tokens or sequences, a scalar.

  Where it is 0, no response takes part, and loss and gradient are 0.
  """
  return _reduction(term, rollouts, selected_B)[1]


def _viewed(rollouts, context):
  fixed = not isinstance(context, view.View)
  return view.marginal(rollouts, context) if fixed else context


def _belongs(term, space):
  if term.space != space:
    raise fields.Error(
      f"{space}_loss was given a term with space {term.space!r}: the other function is"
      f" for it, or Term(space={space!r}, ...)"
    )


def _reduction(term, rollouts, selected_B):
  length_B = jnp.asarray(rollouts.response_len_B)
  if selected_B is not None:
    length_B = jnp.where(selected_B, length_B, 0)
  return reduction.weights(term, length_B)


def _of_rollouts(
  score,
  params,
  rollouts,
  adv_B,
  view_,
  on_policy,
  term,
  selected_B,
  total,
  old_BT,
  ref_BT,
  gap_BT,
):
  weight_B, own = _reduction(term, rollouts, selected_B)
  total = own if total is None else total
  weight_B = term.coef * weight_B / jnp.where(total > 0, total, 1.0)
  packed = pack.rows(
    view_,
    rollouts,
    adv_B,
    weight_B,
    on_policy=on_policy,
    old_BT=old_BT,
    ref_BT=ref_BT,
    gap_BT=gap_BT,
  )
  value, (found, _) = loss(score, params, packed, (term,))
  return value, found


def loss(
  score: Score, params, packed: pack.Packed, terms: tuple[Term, ...]
) -> tuple[jax.Array, tuple[dict[str, metrics.Metric], jax.Array]]:
  """Loss of packed rows, a sum over tokens: weights hold the global normalisers.

  Args:
    score: (params, packed) -> (logp_BT, entropy_BT) of the targets.
    params: what is differentiated.
    packed: rows; term_BT says which of `terms` a token belongs to.
    terms: static; what `kernel` drops is not looked at.

  Returns:
    (scalar, (metrics, diff_BT)): pg_loss, entropy, ppo_kl, pg_clipfrac and the like,
    each knowing its reduction; diff_BT is |p_trainer - p_sampler| of each target before
    the first update, 0 where there is nothing to compare.
  """
  logp_BT, entropy_BT = score(params, packed)
  if packed.copies_BTC is not None:
    logp_BT = mixed(logp_BT, packed)
  # Outside the mask nothing may leak in, not even nan * 0.
  logp_BT = jnp.where(packed.mask_BT, logp_BT, 0.0)
  old_BT = packed.old_BT
  if old_BT is None:  # one update per batch: the ratio is 1, its gradient is not
    old_BT = jax.lax.stop_gradient(logp_BT)
  total, found = jnp.zeros((), jnp.float32), {}
  for i, term in enumerate(terms):
    weight_BT = jnp.where(packed.term_BT == i, packed.weight_BT, 0.0)
    term_sum, more = _surrogate(term, logp_BT, old_BT, weight_BT, packed)
    total = total + term_sum
    found = metrics.merge(found, more)
  mask_BT = packed.mask_BT.astype(jnp.float32)
  compared_BT = packed.mask_BT & jnp.isfinite(packed.sampler_BT)
  diff_BT = jnp.where(
    compared_BT, jnp.abs(jnp.exp(old_BT) - jnp.exp(packed.sampler_BT)), 0.0
  )
  found["actor/pg_loss"] = metrics.Sum(total)
  found["actor/entropy"] = metrics.mean(entropy_BT * mask_BT, mask_BT)
  found["training/rollout_probs_diff_mean"] = metrics.mean(
    diff_BT, compared_BT.astype(jnp.float32)
  )
  found["training/rollout_probs_diff_max"] = metrics.Max(
    jnp.max(jnp.where(compared_BT, diff_BT, -jnp.inf))
  )
  return total, jax.lax.stop_gradient((found, diff_BT))


def _surrogate(term, logp_BT, old_BT, weight_BT, packed):
  """Sum and metrics of one term's loss, KL included."""
  adv_BT, pairs = packed.adv_BT, {}
  on_BT = weight_BT != 0
  if term.confidence:
    adv_BT = surrogate.confident(old_BT, adv_BT, on_BT, packed.segments_BT)
  if term.tis != "none":
    gap_BT = old_BT - packed.sampler_BT
    if packed.gap_BT is not None:  # where the view is not the sampler's
      gap_BT = jnp.where(jnp.isnan(packed.sampler_BT), packed.gap_BT, gap_BT)
    scale_BT, pairs = surrogate.importance(
      gap_BT,
      on_BT,
      kind=term.tis,
      cap=term.tis_cap,
      floor=term.tis_floor,
      segments_BT=packed.segments_BT,
    )
    adv_BT = adv_BT * scale_BT
  (total, _), more = surrogate.loss(
    term, logp_BT, old_BT, adv_BT, weight_BT, packed.segments_BT
  )
  pairs = pairs | more
  if term.kl != "none":
    kl_BT = jnp.where(on_BT, surrogate.kl(term.kl, logp_BT, packed.ref_BT), 0.0)
    total = total + term.kl_coef * jnp.sum(weight_BT * kl_BT)
    k1_BT = jnp.where(on_BT, surrogate.kl("k1", logp_BT, packed.ref_BT), 0.0)
    count = jnp.sum(on_BT, dtype=jnp.float32)
    pairs["kl_loss"], pairs["kl_k1"] = (jnp.sum(kl_BT), count), (jnp.sum(k1_BT), count)
  return total, {f"actor/{name}": metrics.Mean(*pair) for name, pair in pairs.items()}


def mixed(logp_BT: jax.Array, packed: pack.Packed) -> jax.Array:
  """Token log-probs under the mean of C contexts, from those under each of them.

  log p(y_t | y_<t) = lse_k s_k(t) - lse_k s_k(t-1), with s_k the running sums over the
  response; the terms log C cancel. Zero outside the mask.
  """
  copies, flat = packed.copies_BTC.shape[-1], (logp_BT.shape[0], -1)
  logp_BTC = jnp.take_along_axis(logp_BT, packed.copies_BTC.reshape(flat), 1)
  logp_BTC = logp_BTC.reshape(packed.copies_BTC.shape)
  logp_BTC = jnp.where(packed.mask_BT[..., None], logp_BTC, 0.0)
  sum_BTC = _running(logp_BTC, packed.segments_BT, copies)
  after_BT = jax.nn.logsumexp(sum_BTC, axis=-1)
  before_BT = jax.nn.logsumexp(sum_BTC - logp_BTC, axis=-1)
  return jnp.where(packed.mask_BT, after_BT - before_BT, 0.0)


def _running(x_BTC, segments_BT, copies):
  """Sums along T that start anew with each segment."""
  first_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
  first_BTC = jnp.broadcast_to(first_BT[..., None], (*first_BT.shape, copies))

  def join(left, right):
    (sum_left, new_left), (sum_right, new_right) = left, right
    return (
      sum_right + jnp.where(new_right, 0.0, sum_left),
      new_left | new_right,
    )

  return jax.lax.associative_scan(join, (x_BTC, first_BTC), axis=1)[0]
