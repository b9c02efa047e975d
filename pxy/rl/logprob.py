"""Log-prob and entropy of next tokens, from hidden states, in vocabulary chunks.

  z    = softcap(hidden . head) / temperature,  over the ids that truncation keeps
  logp = z_target - logsumexp(z)                dlogp/dz = onehot - p
  H    = -sum p log p                           dH/dz    = -p (log p + H)

The [B, T, V] logits never exist. The forward pass goes over chunks of the vocabulary
and mixes their distributions: log-normalisers add as logsumexp, and entropies as
H = sum_c w_c (H_c - log w_c). The backward pass recomputes each chunk and turns it at
once into its share of the two gradients, so what is kept between them is two numbers
per token. The logits of one chunk in float32 are the peak: 4 B T chunk bytes, twice in
the backward pass.

A chunk takes an equal part of every device's shard of the vocabulary: with `shards`
set, a head that is split over V is never gathered, and only sums per token cross
devices.

Where it is said which places count, the others are left out (places.py): the head is a
fifth to a half of a small model.

The forward pass is plain JAX, so with `forward_mode` it has a jax.jvp in the memory of
one chunk, tangents included, and no useful gradient. Left out: second derivatives; a
bias on the head.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pxy.rl import draw, places
from pxy.rl.arrays import Array

# Stands for minus infinity: exp gives 0, and 0 * _NONE is 0 instead of NaN.
_NONE = -1e30


class _Spec(NamedTuple):
  temperature: float
  softcap: float | None
  chunk: int
  shards: int
  tied: bool
  """Heads and their gradients lie as embeddings do, [V, D]: head_DX is head_XD."""


def logprob(
  hidden_BTD: Array,
  head_DV: Array,
  targets_BT: Array,
  *,
  temperature: float = 1.0,
  softcap: float | None = None,
  floor_BT: Array | None = None,
  mask_BT: Array | None = None,
  tied: bool = False,
  chunk: int = 8192,
  shards: int = 1,
  row_shards: int | None = None,
  forward_mode: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Log-prob of each target, and entropy, of the distribution over the next token.

  Differentiable in hidden_BTD and head_DV, through both results. Products accumulate in
  float32 whatever the dtypes; the backward's operands have the dtype of hidden_BTD.

  Args:
    hidden_BTD: final hidden states.
    head_DV: output matrix without bias; V need not be a multiple of `chunk`.
    targets_BT: ids in [0, V).
    temperature: > 0; divides the logits.
    softcap: z -> softcap * tanh(z / softcap) before the temperature; None is off.
    floor_BT: tempered logits below it are outside the (top-k, top-p) distribution; from
      `floor`, a constant. The target itself is always inside: it was drawn.
    mask_BT: bool, places that count; values at the others are 0. None: all.
    tied: whether head_DV is an embedding turned, `embed_VD.T`; affects speed only, for
      a CPU copies it else.
    chunk: vocabulary entries at a time.
    shards: number of devices over which V is split evenly; affects speed only.
    row_shards: the same of the rows; None: not known, so that places never change row.
    forward_mode: differentiate with jax.jvp instead of jax.grad, which would keep the
      logits of all chunks; places that do not count cost as much as others.

  Returns:
    (logp_BT, entropy_BT), float32, in nats.
  """
  if temperature <= 0:
    raise ValueError("temperature must be > 0; greedy tokens are scored at 1")
  if head_DV.shape[1] % shards:
    raise ValueError(f"vocabulary {head_DV.shape[1]} does not divide by {shards}")
  spec, shape = _Spec(temperature, softcap, chunk, shards, tied), targets_BT.shape
  parts = shape[0] if row_shards is None else row_shards

  # Tokens in one axis: XLA on a CPU is 30 times slower with an axis of size 1, so a
  # single row, or a single shard below, must not make one.
  def flat(x):
    return None if x is None else x.reshape(-1, *x.shape[2:])

  head = head_DV.T if tied else head_DV
  given = flat(hidden_BTD), head, flat(targets_BT), flat(floor_BT)
  if forward_mode:
    found = _forward(spec, *given)[0]
  elif mask_BT is None or len(places.sizes(targets_BT.size // parts)) == 1:
    found = _all(spec, *given)
  else:
    found = _some(spec, *given, places.order(mask_BT.reshape(parts, -1)))
  logp_BT, entropy_BT = (x_N.reshape(shape) for x_N in found)
  if mask_BT is None:
    return logp_BT, entropy_BT
  return jnp.where(mask_BT, logp_BT, 0.0), jnp.where(mask_BT, entropy_BT, 0.0)


def floor(
  hidden_BTD: Array,
  head_DV: Array,
  *,
  temperature: float = 1.0,
  softcap: float | None = None,
  top_k: int = 0,
  top_p: float = 1.0,
  block: int = 64,
) -> jax.Array:
  """A tempered logit below all that top-k and top-p keep after each token, and above
  the others: draw.between.

  Logits of `block` positions of every row exist at a time: 4 B block V bytes. Not
  differentiated. Returns floor_BT for `logprob`.
  """
  rows, tokens, width = hidden_BTD.shape
  block = min(block, tokens)
  count = -(-tokens // block)
  hidden_BTD, head_DV = jax.lax.stop_gradient((hidden_BTD, head_DV))
  padding = ((0, 0), (0, count * block - tokens), (0, 0))
  hidden_BXYD = jnp.pad(hidden_BTD, padding).reshape(rows, count, block, width)

  def one(hidden_BYD):
    z_BYV = _cap(_einsum("byd,dv->byv", hidden_BYD, head_DV), softcap) / temperature
    z_NV = z_BYV.reshape(rows * block, -1)
    floor_N = draw.between(z_NV, draw.floor(z_NV, top_k, top_p))
    return floor_N.reshape(rows, block)

  floor_XBY = jax.lax.map(one, jnp.swapaxes(hidden_BXYD, 0, 1))
  return jnp.swapaxes(floor_XBY, 0, 1).reshape(rows, -1)[:, :tokens]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _all(spec, hidden_ND, head, targets_N, floor_N):
  return _forward(spec, hidden_ND, head, targets_N, floor_N)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _some(spec, hidden_ND, head, targets_N, floor_N, order):
  return _some_forward(spec, hidden_ND, head, targets_N, floor_N, order)[0]


def _some_forward(spec, hidden_ND, head, targets_N, floor_N, order):
  def run(hidden_ND, targets_N, floor_N):
    found, kept = _forward(spec, hidden_ND, head, targets_N, floor_N)
    *_, norm_N, _ = kept
    return (*found, norm_N), None

  given = hidden_ND, targets_N, floor_N
  (logp_N, entropy_N, norm_N), _ = places.run(order, run, given)
  return (logp_N, entropy_N), (head, (*given, norm_N, entropy_N), order)


def _some_backward(spec, kept, cotangents):
  head, given, order = kept

  def run(hidden_ND, targets_N, floor_N, norm_N, entropy_N, *cotangents):
    kept = hidden_ND, head, targets_N, floor_N, norm_N, entropy_N
    dhidden_ND, dhead, *_ = _backward(spec, kept, cotangents)
    return (dhidden_ND,), dhead

  (dhidden_ND,), dhead = places.run(order, run, (*given, *cotangents))
  return dhidden_ND, dhead, None, None, None


# N counts tokens. `head` is head_DV or, tied, head_VD. One of the W shards of the
# vocabulary is X columns of the head, the first of which has the id `first`; C columns
# are a chunk. Shards take a chunk at the same time, and their results meet only after
# the last one.


def _forward(spec, hidden_ND, head, targets_N, floor_N):
  def shard(first, head):
    count, size = _chunks(spec, head)

    def part(i):
      start, *_, z_NC, _ = _logits(
        spec, i, size, hidden_ND, first, head, targets_N, floor_N
      )
      max_N = jnp.max(z_NC, axis=-1)
      norm_N = max_N + jnp.log(jnp.sum(jnp.exp(z_NC - max_N[:, None]), axis=-1))
      logp_NC = z_NC - norm_N[:, None]
      # A third pass, but sums that share an exp are four times slower on a CPU.
      entropy_N = -jnp.sum(jnp.exp(logp_NC) * logp_NC, axis=-1)
      column_N = targets_N - first - start
      here_N = (column_N >= i * size - start) & (column_N < size)
      column_N = jnp.where(here_N, column_N, 0)
      z_N = jnp.take_along_axis(z_NC, column_N[:, None], axis=1)[:, 0]
      return norm_N, entropy_N, jnp.where(here_N, z_N, 0.0)

    return part(0) if count == 1 else _mix(jax.lax.map(part, jnp.arange(count)))

  if spec.shards == 1:
    norm_N, entropy_N, target_N = shard(0, head)
  else:
    each = jax.vmap(shard, (0, _axis(spec)))
    norm_N, entropy_N, target_N = _mix(each(*_split(spec, head)))
  kept = hidden_ND, head, targets_N, floor_N, norm_N, entropy_N
  return (target_N - norm_N, entropy_N), kept


def _mix(parts):
  """Log-normaliser, entropy and target logit of a union of disjoint sets of ids."""
  norm_WN, entropy_WN, target_WN = parts
  norm_N = jax.nn.logsumexp(norm_WN, axis=0)
  surprise_WN = norm_N[None] - norm_WN
  entropy_N = jnp.sum(jnp.exp(-surprise_WN) * (entropy_WN + surprise_WN), axis=0)
  return norm_N, entropy_N, jnp.sum(target_WN, axis=0)


def _backward(spec, kept, cotangents):
  hidden_ND, head, targets_N, floor_N, norm_N, entropy_N = kept
  dlogp_N, dentropy_N = cotangents

  def shard(first, head):
    count, size = _chunks(spec, head)

    def step(carry, i):
      total_ND, dhead = carry
      start, head_DC, y_NC, z_NC, hit_NC = _logits(
        spec, i, size, hidden_ND, first, head, targets_N, floor_N
      )
      logp_NC = z_NC - norm_N[:, None]
      pull_NC = dlogp_N[:, None] + dentropy_N[:, None] * (logp_NC + entropy_N[:, None])
      dz_NC = jnp.where(hit_NC, dlogp_N[:, None], 0.0)
      dz_NC = (dz_NC - jnp.exp(logp_NC) * pull_NC) / spec.temperature
      if spec.softcap:
        dz_NC = dz_NC * (1.0 - jnp.square(y_NC / spec.softcap))
      dz_NC = dz_NC.astype(hidden_ND.dtype)
      total_ND += _einsum("nc,dc->nd", dz_NC, head_DC)
      # Added, since the last chunk may overlap the one before it.
      lies = "nd,nc->cd" if spec.tied else "nd,nc->dc"
      more, at = _einsum(lies, hidden_ND, dz_NC).astype(head.dtype), _axis(spec)
      more += jax.lax.dynamic_slice_in_dim(dhead, start, size, axis=at)
      dhead = jax.lax.dynamic_update_slice_in_dim(dhead, more, start, axis=at)
      return (total_ND, dhead), None

    carry = jnp.zeros(hidden_ND.shape, jnp.float32), jnp.zeros_like(head)
    if count == 1:
      return step(carry, 0)[0]
    return jax.lax.scan(step, carry, jnp.arange(count))[0]

  if spec.shards == 1:
    dhidden_ND, dhead = shard(0, head)
  else:
    axes = 0, _axis(spec)
    dhidden_WND, dhead = jax.vmap(shard, axes, axes)(*_split(spec, head))
    dhidden_ND, dhead = jnp.sum(dhidden_WND, axis=0), dhead.reshape(head.shape)
  return dhidden_ND.astype(hidden_ND.dtype), dhead, None, None


_all.defvjp(_forward, _backward)
_some.defvjp(_some_forward, _some_backward)


def _axis(spec):
  """That of the vocabulary in a head."""
  return 0 if spec.tied else 1


def _split(spec, head):
  """The first id of every shard, and the head by shards, [D, W, X] or [W, X, D]."""
  at = _axis(spec)
  local = head.shape[at] // spec.shards
  shape = (*head.shape[:at], spec.shards, local, *head.shape[at + 1 :])
  return jnp.arange(spec.shards) * local, head.reshape(shape)


def _chunks(spec, head):
  """How many chunks a shard is taken in, and their size."""
  local = head.shape[_axis(spec)]
  most = max(1, spec.chunk // spec.shards)
  # Even chunks, in whole vector lanes where they are that wide.
  size = -(-local // -(-local // most))
  lanes = 128 if most >= 128 else 1
  size = min(local, -(-size // lanes) * lanes)
  return -(-local // size), size


def _logits(spec, i, size, hidden_ND, first, head, targets_N, floor_N):
  """Chunk i: where it starts, its columns of the head, capped logits, tempered and
  truncated logits, and where the target is.

  The last chunk ends where the shard ends, so it may overlap the one before; the
  columns seen twice are outside the distribution the second time.
  """
  at = _axis(spec)
  local = head.shape[at]
  start = jnp.minimum(i * size, local - size)
  part = jax.lax.dynamic_slice_in_dim(head, start, size, axis=at)
  head_DC = part.T if spec.tied else part
  y_NC = _cap(_einsum("nd,dc->nc", hidden_ND, head_DC), spec.softcap)
  z_NC = y_NC / spec.temperature
  column_C = start + jnp.arange(size)
  hit_NC = targets_N[:, None] == (first + column_C)[None]
  if floor_N is not None:
    z_NC = jnp.where(hit_NC | (z_NC >= floor_N[:, None]), z_NC, _NONE)
  if local % size:
    fresh_C = (column_C >= i * size)[None]
    z_NC = jnp.where(fresh_C, z_NC, _NONE)
    hit_NC = hit_NC & fresh_C
  return start, head_DC, y_NC, z_NC, hit_NC


def _cap(x, softcap):
  return softcap * jnp.tanh(x / softcap) if softcap else x


def _einsum(spec, *operands):
  return jnp.einsum(spec, *operands, preferred_element_type=jnp.float32)
