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

Wrong input is an error, and what only the device knows of it makes loss and gradient
nan (rl/check.py).

For `mixture` contexts the log-prob of a response under the mean of C prompts is spread
over its tokens by the chain rule, log p(y_t | y_<t) = lse_k s_k(t) - lse_k s_k(t-1)
with s_k(t) = sum_{u<=t} log p(y_u | x_k, y_<u), so that every surrogate works on it and
the sum over tokens is log mean_k P(y | x_k) exactly. Its entropy is that of the first
copy. Tokens that are not trained on are in no s_k: like the contexts, they are given.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pxy import fields
from pxy.rl import (
  check,
  choose,
  gradient,
  metrics,
  pack,
  reduction,
  rollout,
  surrogate,
  view,
)
from pxy.rl import context as context_lib
from pxy.rl import term as term_lib

Term = term_lib.Term
CONDITIONAL = Term()
MARGINAL = Term(space="marginal", advantage="mean")

Params = Any
Score = Callable[[Params, pack.Packed], tuple[jax.Array, jax.Array]]
Context = view.View | pack.Array | Sequence[int]
Metrics = dict[str, metrics.Metric]

_OF_SAMPLES = (
  "space", "context", "copies", "select", "negative", "advantage", "lam", "k",
  "control",
)  # fmt: skip
"""Fields of a term that are in views, advantages and what is selected."""
_OF_WEIGHTS = ("coef", "reduction", "constant")
"""Fields of a term that are in the weights of packed rows."""


def kernel(term: Term) -> Term:
  """The term without what the loss of packed rows does not depend on.

  Space, sign filter, advantage, reduction and coefficient are in the data by then, so
  phases that differ only there (both phases of DSRL) share one compiled step. What a
  surrogate of the user's own takes by name stays.
  """
  return _without(term, _OF_SAMPLES + _OF_WEIGHTS)


def _without(term, names):
  default, asked = Term(), choose.parameters("clip", term, surrogate.SURROGATES)
  dropped = {name: getattr(default, name) for name in names if name not in asked}
  return dataclasses.replace(term, **dropped)


def conditional_loss(
  score: Score,
  params: Params,
  rollouts: rollout.Rollouts,
  adv_B: pack.Array | None = None,
  *,
  term: Term = CONDITIONAL,
  mask_BT: pack.Array | None = None,
  adv_BT: pack.Array | None = None,
  selected_B: pack.Array | None = None,
  total: pack.Array | float | None = None,
  old_BT: pack.Array | None = None,
  ref_BT: pack.Array | None = None,
) -> tuple[jax.Array, Metrics]:
  """Loss whose gradient moves log P(y|x): each response after its own prompt.

  Args:
    score: (params, packed) -> (logp_BT, entropy_BT); static.
    params: what to differentiate with respect to.
    rollouts: B responses with their prompts.
    adv_B: advantage of each response, [B].
    term: clip, reduction, KL and coefficient; static. Its space must be this one; its
      context, filter and advantage are the caller's, in context, selected_B and adv_B.
    mask_BT: bool [B, T], response tokens that are trained on; None: all. The others,
      such as a tool's, are read, and count in no mean, length, ratio or metric.
    adv_BT: advantage of each response token [B, T], instead of adv_B: process rewards,
      GAE. Give one of the two; what is of the response as a whole, add to each token.
    selected_B: responses in the mean; None: all.
    total: what the sum over tokens is divided by, > 0, or 0 where no response counts;
      None: the `weight` of these.
    old_BT, ref_BT: log-probs [B, T] of the response tokens before the first of several
      updates, and under a reference model; None where not needed.

  Returns:
    (loss, metrics): a scalar, and metrics that know their reduction (pxy.rl.metrics).

  Raises:
    fields.Error: an argument has another shape or type, or a value that cannot be right
      and is known; under jit, such a value makes loss and gradient nan.
  """
  _belongs(term, "conditional")
  if (term.kl == "none") != (ref_BT is None):
    raise fields.Error(f"kl {term.kl!r}: ref_BT goes with a KL term, and only with one")
  given = _checked(
    term, rollouts, None, adv_B=adv_B, mask_BT=mask_BT, adv_BT=adv_BT,
    selected_B=selected_B, total=total, old_BT=old_BT, ref_BT=ref_BT,
  )  # fmt: skip
  return _of_rollouts(score, _own(term), params, rollouts, None, given)


def marginal_loss(
  score: Score,
  params: Params,
  rollouts: rollout.Rollouts,
  adv_B: pack.Array | None = None,
  *,
  context: Context,
  term: Term = MARGINAL,
  mask_BT: pack.Array | None = None,
  adv_BT: pack.Array | None = None,
  selected_B: pack.Array | None = None,
  total: pack.Array | float | None = None,
  old_BT: pack.Array | None = None,
  gap_BT: pack.Array | None = None,
) -> tuple[jax.Array, Metrics]:
  """Loss whose gradient moves log P(y): each response after `context`, prompt unseen.

  Args:
    context: ids [S] of a fixed context, such as [start_id]; or a view.View, of
      view.shuffled or view.mixture, say.
    gap_BT: with a term that has `tis`, log p(y|x) - log p_sampler(y|x) of the response
      tokens [B, T]: `logps(score, params, rollouts) - rollouts.logp_BT`.

  The other arguments and the result are those of `conditional_loss`.
  """
  _belongs(term, "marginal", context)
  if (term.tis == "none") != (gap_BT is None):
    raise fields.Error(
      f"tis {term.tis!r}: gap_BT goes with importance weights, and only with them"
    )
  given = _checked(
    term, rollouts, context, adv_B=adv_B, mask_BT=mask_BT, adv_BT=adv_BT,
    selected_B=selected_B, total=total, old_BT=old_BT, gap_BT=gap_BT,
  )  # fmt: skip
  return _of_rollouts(score, _own(term), params, rollouts, check.array(context), given)


class Found(NamedTuple):
  """What one of the losses gave: itself, its metrics, its gradient by params."""

  loss: jax.Array
  metrics: Metrics
  grads: Params


def both_losses(
  score: Score,
  params: Params,
  rollouts: rollout.Rollouts,
  adv_B: pack.Array,
  *,
  context: Context,
  term: Term = CONDITIONAL,
  selected_B: pack.Array | None = None,
  marginal_term: Term = MARGINAL,
  marginal_adv_B: pack.Array | None = None,
  marginal_selected_B: pack.Array | None = None,
) -> tuple[Found, Found]:
  """Both losses of one batch with their gradients, (conditional, marginal), as one
  program.

  It is before the first update, so there are neither old log-probs nor a KL term. Two
  gradients are held. `gradient.cosine` says how alike they are, `gradient.dots` by
  block of parameters. `pxy align` takes the same gradients response by response, in a
  pass of its own (evaluate/align.py) that gives the log-probs of the tokens as well.

  Args:
    term, adv_B, selected_B: of the conditional loss, as `conditional_loss` takes them.
    context: of the marginal loss, as `marginal_loss` takes it.
    marginal_term, marginal_adv_B, marginal_selected_B: of the marginal loss; None: as
      in the conditional one.
  """
  _belongs(term, "conditional")
  _belongs(marginal_term, "marginal", context)
  if term.kl != "none":
    raise fields.Error(
      f"kl {term.kl!r}: both_losses has no KL term, conditional_loss has"
    )
  if marginal_adv_B is None:
    marginal_adv_B = adv_B
  if marginal_selected_B is None:
    marginal_selected_B = selected_B
  if marginal_term.tis != "none":
    raise fields.Error(
      f"tis {marginal_term.tis!r}: both_losses has no gap_BT, marginal_loss has"
    )
  given = _checked(term, rollouts, None, adv_B=adv_B, selected_B=selected_B)
  marginal_given = _checked(
    marginal_term, rollouts, context,
    adv_B=marginal_adv_B, selected_B=marginal_selected_B,
  )  # fmt: skip
  return _both(
    score, _own(term), _own(marginal_term), params, rollouts, check.array(context),
    given, marginal_given,
  )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("score", "term", "marginal_term"))
def _both(score, term, marginal_term, params, rollouts, context, given, marginal_given):
  def conditional(params):
    return _of_rollouts(score, term, params, rollouts, None, given)

  def marginal(params):
    more = rollouts, context, marginal_given
    return _of_rollouts(score, marginal_term, params, *more)

  return tuple(
    Found(value, told, grads)
    for (value, told), grads in gradient.each((conditional, marginal), params)
  )


def logps(
  score: Score,
  params: Params,
  rollouts: rollout.Rollouts,
  context: Context | None = None,
) -> jax.Array:
  """Log-probs [B, T] of the response tokens, 0 beyond them: `old_BT`, `ref_BT`, and
  what `gap_BT` is made of. Pure and jittable; score is static.

  context: None: each after its own prompt, as it was drawn; else that of marginal_loss.
  """
  check.batch(rollouts, context=context)
  view_ = _viewed(rollouts, context)
  size, width = rollouts.response_BT.shape
  one_B = jnp.ones(size)
  packed = pack.rows(view_, rollouts, one_B, one_B, on_policy=context is None)
  packed_BT = mixed(score(params, packed)[0], packed)
  first_B1 = jnp.asarray(view_.length_CB)[0][:, None] - 1
  place_BT = jnp.clip(first_B1 + jnp.arange(width)[None], 0, packed_BT.shape[1] - 1)
  logp_BT = jnp.take_along_axis(packed_BT, place_BT, 1)
  on_BT = jnp.arange(width)[None] < jnp.asarray(rollouts.response_len_B)[:, None]
  sound = check.sound(rollouts, view_, packed, jnp.ones(()), 1.0)
  return jnp.where(sound, jnp.where(on_BT, logp_BT, 0.0), jnp.nan)


def weight(
  term: Term,
  rollouts: rollout.Rollouts,
  selected_B: pack.Array | None = None,
  mask_BT: pack.Array | None = None,
) -> jax.Array:
  """What the loss of these responses is divided by: tokens or sequences, a scalar.

  Where it is 0, no response takes part, and loss and gradient are 0. A sign filter of
  the term without selected_B is an Error.
  """
  _selects(term, selected_B)
  check.shapes(rollouts, selected_B=selected_B, mask_BT=mask_BT)
  return _reduction(term, rollouts, selected_B, mask_BT)[1]


def _viewed(rollouts, context):
  """The view of a context; None: of the prompt, the sampler's."""
  if context is None:
    return view.conditional(rollouts)
  fixed = not isinstance(context, view.View)
  return view.marginal(rollouts, context) if fixed else context


def _belongs(term, space, context=None):
  if term.space != space:
    raise fields.Error(
      f"{space}_loss was given a term with space {term.space!r}: the other function is"
      f" for it, or Term(space={space!r}, ...)"
    )
  fields.need(
    space == "conditional" or context is not None,
    "context is None, where ids [S] of one for all are wanted, such as [start_id]",
  )


def _checked(term, rollouts, context, **given):
  """What goes with the rollouts, as arrays, if it can be right; context None: of the
  prompt."""
  check.batch(rollouts, context=context, **given)
  _selects(term, given["selected_B"])
  if (given["adv_B"] is None) == (given.get("adv_BT") is None):
    raise fields.Error(
      "adv_B [B] and adv_BT [B, T]: give one of the two, the advantage of each response"
      " or of each of its tokens"
    )
  if context is not None:
    _fits(term, context)
  return {name: check.array(x) for name, x in given.items() if x is not None}


def _selects(term, selected_B):
  fields.need(
    term.select == "all" or selected_B is not None,
    f"selected_B is None, and term.select is {term.select!r}: without it all would"
    " count; it is the second result of advantage.compute, selected_PR.reshape(-1)",
  )


def _fits(term, context):
  """Refuses a context that is not of the prompts that the term wants."""
  wanted = context_lib.of(term)
  fixed = not isinstance(context, view.View)
  found = None if fixed else context.context_CBS.shape[0]
  fields.need(
    wanted.ids is not None or found == wanted.copies(term),
    f"context is {'fixed ids' if fixed else f'a view of {found}'}, where"
    f" context={term.context!r} of the term wants a view of {wanted.copies(term)}:"
    f" view.{term.context}(rollouts, ...)",
  )


def _reduction(term, rollouts, selected_B, mask_BT):
  length_B = jnp.asarray(rollout.trained(rollouts, mask_BT))
  if selected_B is not None:
    length_B = jnp.where(selected_B, length_B, 0)
  return reduction.weights(term, length_B)


def _own(term):
  """The term with what the loss of rollouts depends on, and no more: what is left is
  static, and another value of it another program."""
  return _without(term, _OF_SAMPLES)


@functools.partial(jax.jit, static_argnames=("score", "term"))
def _of_rollouts(score, term, params, rollouts, context, given):
  """The loss in the view of a context; None: of the prompt, the sampler's. given: what
  goes with the rollouts, by name."""
  view_ = _viewed(rollouts, context)
  given = dict(given)
  selected_B, total = given.pop("selected_B", None), given.pop("total", None)
  weight_B, own = _reduction(term, rollouts, selected_B, given.get("mask_BT"))
  total = own if total is None else total
  divides = (total > 0) & (total < jnp.inf)
  weight_B = term.coef * weight_B / jnp.where(divides, total, 1.0)
  packed = pack.rows(
    view_, rollouts, given.pop("adv_B", None), weight_B, on_policy=context is None,
    **given,
  )  # fmt: skip
  value, (found, _) = loss(score, params, packed, (term,))
  sound = check.sound(rollouts, view_, packed, total, own)
  value = value * jnp.where(sound, 1.0, jnp.nan).astype(value.dtype)
  return value, found | {"actor/pg_loss": metrics.Sum(jax.lax.stop_gradient(value))}


def loss(
  score: Score, params: Params, packed: pack.Packed, terms: tuple[Term, ...]
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
  check.scored(logp_BT, entropy_BT, packed)
  logp_BT = mixed(logp_BT, packed)
  # Outside the mask nothing may leak in, not even nan * 0.
  logp_BT = jnp.where(packed.mask_BT, logp_BT, 0.0)
  old_BT = packed.old_BT
  if old_BT is None:  # one update per batch: the ratio is 1, its gradient is not
    old_BT = jax.lax.stop_gradient(logp_BT)
  found: Metrics = {}
  total = jnp.zeros((), jnp.float32)
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
  found["actor/entropy"] = metrics.mean(
    jnp.where(packed.mask_BT, entropy_BT, 0.0), mask_BT
  )
  found["training/rollout_probs_diff_mean"] = metrics.mean(
    diff_BT, compared_BT.astype(jnp.float32)
  )
  found["training/rollout_probs_diff_max"] = metrics.Max(
    jnp.max(jnp.where(compared_BT, diff_BT, -jnp.inf))
  )
  return total, jax.lax.stop_gradient((found, diff_BT))


def _surrogate(term, logp_BT, old_BT, weight_BT, packed):
  """Sum and metrics of one term's loss, KL included."""
  pairs: surrogate.Metrics = {}
  adv_BT = packed.adv_BT
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
  response; the terms log C cancel. Zero outside the mask. No mixture: as they are.
  """
  copies_BTC = packed.copies_BTC
  if copies_BTC is None:
    return logp_BT
  copies, flat = copies_BTC.shape[-1], (logp_BT.shape[0], -1)
  logp_BTC = jnp.take_along_axis(logp_BT, copies_BTC.reshape(flat), 1)
  logp_BTC = logp_BTC.reshape(copies_BTC.shape)
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
