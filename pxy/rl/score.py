"""Scores: what the losses ask of a model, made of what other code has.

    score(params, packed) -> (logp_BT, entropy_BT)

of the targets, under the distribution over the next token

    p_v proportional to exp(z_v / temperature)      over the ids that truncation keeps

  from_logits   of a function to logits z [B, T, V]
  from_hidden   of a function to hidden states [B, T, D] and one to the head [D, V],
                z = softcap(hidden . head): the logits never exist as a whole

The functions take (params, *inputs(packed)). Those of Flax Linen, Flax NNX and Equinox
modules are made by `linen`, `nnx` and `equinox`; none of the three is imported before.
Temperature, top-k and top-p are those the responses were sampled with: only then is the
ratio to the sampler 1, and a step on-policy.

Make a score once and keep it: the losses compile anew for each score they are given.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pxy import fields
from pxy.rl import check, draw, logprob, objective, pack

Inputs = Callable[[pack.Packed], tuple]
Apply = Callable[..., jax.Array]


def tokens(packed: pack.Packed) -> tuple:
  """Inputs of a causal model that takes ids alone, (tokens_BT,).

  It reads every row as one sequence from position 0: right where a row holds one
  response, as in the losses of objective.py. Rows of several (`mixture` contexts,
  pack.bins) need `segmented`; a mixture is refused here with a fields.Error.
  """
  fields.need(
    packed.copies_BTC is None,
    "a mixture puts several sequences in a row, and inputs=score.tokens would let"
    " them see each other: give the model segment ids with inputs=score.segmented",
  )
  _whole(packed)
  return (packed.tokens_BT,)


def segmented(packed: pack.Packed) -> tuple:
  """Inputs (tokens_BT, positions_BT, segments_BT), for any rows.

  Positions count from 0 in each sequence; a token may see those before it with its
  segment id, and 0 is padding.
  """
  _whole(packed)
  return packed.tokens_BT, packed.positions_BT, packed.segments_BT


def prefixed(packed: pack.Packed) -> tuple:
  """Inputs (tokens_BT, positions_BT, segments_BT, prefix_BT), for any rows.

  Those of `segmented`; a token sees the segment prefix_BT besides, which stands before
  it in its row. None: no row has such.
  """
  return packed.tokens_BT, packed.positions_BT, packed.segments_BT, packed.prefix_BT


def _whole(packed):
  fields.need(
    packed.prefix_BT is None,
    "these rows share what is before their sequences: give the model prefix_BT as well"
    " with inputs=score.prefixed, or pack them with before=None",
  )


def from_logits(
  apply: Apply,
  *,
  inputs: Inputs = tokens,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
) -> objective.Score:
  """A score of `apply(params, *inputs) -> logits_BTV`.

  4 B T V bytes several times over; large vocabularies want `from_hidden`.

  Args:
    apply: pure; logits of any float type are read in float32.
    inputs: what of the rows the model takes: `tokens`, `segmented`, `prefixed` or your
      own.
    temperature, top_k, top_p: of the distribution; see rl/draw.py.

  Raises fields.Error for a temperature, top_k or top_p out of range. An id outside the
  vocabulary, of a response or before it, has the log-prob nan.
  """
  check.sampling(temperature, top_k, top_p)

  def score(params, packed):
    z_BTV = apply(params, *inputs(packed))
    check.given("apply", z_BTV, packed, "logits of the next token, [B, T, V]")
    z_BTV = z_BTV.astype(jnp.float32) / temperature
    hit_BTV = packed.targets_BT[..., None] == jnp.arange(z_BTV.shape[-1])[None, None]
    if top_k or top_p < 1:
      flat_NV = jax.lax.stop_gradient(z_BTV).reshape(-1, z_BTV.shape[-1])
      floor_N = draw.between(flat_NV, draw.floor(flat_NV, top_k, top_p))
      floor_BT = floor_N.reshape(packed.targets_BT.shape)
      floor_BT = _where_drawn(packed, floor_BT)
      z_BTV = jnp.where(hit_BTV | (z_BTV >= floor_BT[..., None]), z_BTV, -1e30)
    logp_BTV = jax.nn.log_softmax(z_BTV)
    logp_BT = jnp.sum(jnp.where(hit_BTV, logp_BTV, 0.0), axis=-1)
    logp_BT *= check.known_ids(packed, z_BTV.shape[-1])
    return logp_BT, -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, axis=-1)

  return score


def from_hidden(
  apply: Apply,
  head: Callable[..., jax.Array],
  *,
  inputs: Inputs = tokens,
  temperature: float = 1.0,
  softcap: float | None = None,
  top_k: int = 0,
  top_p: float = 1.0,
  tied: bool = False,
  chunk: int = 8192,
  shards: int = 1,
  row_shards: int | None = None,
  every: bool = False,
  forward_mode: bool = False,
) -> objective.Score:
  """A score of `apply(params, *inputs) -> hidden_BTD` and `head(params) -> head_DV`.

  Args:
    apply, head: pure.
    inputs, temperature, top_k, top_p: those of `from_logits`.
    softcap, tied, chunk, shards, row_shards, forward_mode: those of logprob.logprob.
    every: look at all places, also those that have no part in a loss. Else these are 0,
      and how many others there are decides by which program, so in which order of sums,
      a token's number is made: the last digits depend on the other rows.

  Raises fields.Error, and refuses ids, as `from_logits`.
  """
  check.sampling(temperature, top_k, top_p)
  how: dict[str, Any] = {"temperature": temperature, "softcap": softcap}

  def score(params, packed):
    hidden_BTD, head_DV = apply(params, *inputs(packed)), head(params)
    check.given("apply", hidden_BTD, packed, "hidden states, [B, T, D]")
    fields.need(
      jnp.ndim(head_DV) == 2 and head_DV.shape[0] == hidden_BTD.shape[-1],
      f"head has shape {jnp.shape(head_DV)}, where ({hidden_BTD.shape[-1]}, V) is"
      " wanted: of the width of the hidden states, and the vocabulary",
    )
    floor_BT = None
    if top_k or top_p < 1:
      floor_BT = logprob.floor(hidden_BTD, head_DV, top_k=top_k, top_p=top_p, **how)
      floor_BT = _where_drawn(packed, floor_BT)
    logp_BT, entropy_BT = logprob.logprob(
      hidden_BTD,
      head_DV,
      packed.targets_BT,
      floor_BT=floor_BT,
      mask_BT=None if every else pack.looked_at(packed),
      tied=tied,
      chunk=chunk,
      shards=shards,
      row_shards=row_shards,
      forward_mode=forward_mode,
      **how,
    )
    return logp_BT * check.known_ids(packed, head_DV.shape[1]), entropy_BT

  return score


def linen(
  module: Any, variables: dict | None = None, *, method: str | Callable | None = None
) -> Apply:
  """`apply` of a Flax Linen module; params are `module.init(...)["params"]`.

  Args:
    variables: other collections than the parameters (batch statistics), constant.
    method: the module's method, by name or itself; None: __call__.
  """
  rest = {k: v for k, v in (variables or {}).items() if k != "params"}

  def apply(params, *inputs):
    return module.apply({**rest, "params": params}, *inputs, method=method)

  return apply


def nnx(model: Any, *, method: str = "__call__") -> tuple[Apply, Any]:
  """(apply, params) of a Flax NNX module; `nnx.update(model, params)` puts them back.

  Whatever is no nnx.Param is constant; call `model.eval()` first where there is
  dropout.
  """
  from flax import nnx as flax_nnx

  graph, *states = flax_nnx.split(model, flax_nnx.Param, ...)
  params, rest = states

  def apply(params, *inputs):
    merged = flax_nnx.merge(graph, params, rest, copy=True)
    return getattr(merged, method)(*inputs)

  return apply, params


def equinox(model: Any, *, method: str = "__call__") -> tuple[Apply, Any]:
  """(apply, params) of an Equinox module; `eqx.combine(params, model)` puts them back.

  The module takes one sequence, as is usual there, and is mapped over rows. Whatever is
  no float array is constant; `eqx.nn.inference_mode(model)` first where there is
  dropout.
  """
  import equinox as eqx

  params, static = eqx.partition(model, eqx.is_inexact_array)

  def apply(params, *inputs):
    merged = eqx.combine(params, static)
    return jax.vmap(getattr(merged, method))(*inputs)

  return apply, params


def _where_drawn(packed, floor_BT):
  """The floor where the view is the sampler's, nothing elsewhere: what was drawn in one
  view's truncated distribution need not be in another's."""
  return jnp.where(jnp.isfinite(packed.sampler_BT), floor_BT, -jnp.inf)
