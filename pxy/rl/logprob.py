"""Log-prob and entropy of next tokens, from hidden states, in vocabulary chunks.

  z    = softcap(hidden . head) / temperature,  over the ids that truncation keeps
  logp = z_target - logsumexp(z)                dlogp/dz = onehot - p
  H    = -sum p log p                           dH/dz    = -p (log p + H)

The [B, T, V] logits never exist. The forward pass goes over chunks of the vocabulary
with a running maximum and rescaled sums (online softmax: Milakov and Gimelshein,
arXiv 1805.02867). The backward pass recomputes each chunk and turns it at once into
its share of the two gradients, so what is kept between them is two numbers per token.
One chunk's logits, float32, are the peak: 4 B T chunk bytes.

The target is found by comparing ids, not by a gather, and a chunk takes an equal part
of every device's shard of the vocabulary: with `shards` set, a head that is split over
V is never gathered, and only sums per token cross devices.

Left out: forward mode (jax.jvp) and second derivatives; a bias on the head.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pxy.sampling import draw

# Stands for minus infinity: exp gives 0, and 0 * _NONE is 0 instead of NaN.
_NONE = -1e30


class _Spec(NamedTuple):
  temperature: float
  softcap: float | None
  chunk: int
  shards: int


def logprob(
  hidden_BTD,
  head_DV,
  targets_BT,
  *,
  temperature: float = 1.0,
  softcap: float | None = None,
  floor_BT=None,
  chunk: int = 8192,
  shards: int = 1,
):
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
    chunk: vocabulary entries at a time.
    shards: number of devices over which V is split evenly; affects speed only.

  Returns:
    (logp_BT, entropy_BT), float32, in nats.
  """
  if temperature <= 0:
    raise ValueError("temperature must be > 0; greedy tokens are scored at 1")
  if head_DV.shape[1] % shards:
    raise ValueError(f"vocabulary {head_DV.shape[1]} does not divide by {shards}")
  spec = _Spec(temperature, softcap, chunk, shards)
  return _logprob(spec, hidden_BTD, head_DV, targets_BT, floor_BT)


def floor(
  hidden_BTD,
  head_DV,
  *,
  temperature: float = 1.0,
  softcap: float | None = None,
  top_k: int = 0,
  top_p: float = 1.0,
  block: int = 64,
):
  """The smallest tempered logit that top-k and top-p keep after each token.

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
    floor_N = draw.floor(z_BYV.reshape(rows * block, -1), top_k, top_p)
    return floor_N.reshape(rows, block)

  floor_XBY = jax.lax.map(one, jnp.swapaxes(hidden_BXYD, 0, 1))
  return jnp.swapaxes(floor_XBY, 0, 1).reshape(rows, -1)[:, :tokens]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprob(spec, hidden_BTD, head_DV, targets_BT, floor_BT):
  return _forward(spec, hidden_BTD, head_DV, targets_BT, floor_BT)[0]


# Below, W counts shards of the vocabulary and X the entries of a shard in one chunk.
# Sums stay apart per shard until the last line, so no device waits within the scan.


def _forward(spec, hidden_BTD, head_DV, targets_BT, floor_BT):
  head_DWV, count, size = _split(spec, head_DV)
  chunk = functools.partial(
    _chunk, spec, size, hidden_BTD, head_DWV, targets_BT, floor_BT
  )
  shape = (*targets_BT.shape, spec.shards)

  def step(carry, i):
    max_BTW, sum_BTW, sumz_BTW, target_BTW = carry
    *_, z_BTWX, hit_BTWX = chunk(i)
    new_BTW = jnp.maximum(max_BTW, jnp.max(z_BTWX, axis=-1))
    below_BTWX = z_BTWX - new_BTW[..., None]
    e_BTWX = jnp.exp(below_BTWX)
    shift_BTW = max_BTW - new_BTW
    scale_BTW = jnp.exp(shift_BTW)
    # sumz is sum(e (z - max)); a new maximum rescales e and shifts z.
    sumz_BTW = scale_BTW * (sumz_BTW + shift_BTW * sum_BTW)
    sumz_BTW += jnp.sum(e_BTWX * below_BTWX, axis=-1)
    sum_BTW = scale_BTW * sum_BTW + jnp.sum(e_BTWX, axis=-1)
    target_BTW += jnp.sum(jnp.where(hit_BTWX, z_BTWX, 0.0), axis=-1)
    return (new_BTW, sum_BTW, sumz_BTW, target_BTW), None

  zero_BTW = jnp.zeros(shape, jnp.float32)
  carry = (jnp.full(shape, _NONE, jnp.float32), zero_BTW, zero_BTW, zero_BTW)
  max_BTW, sum_BTW, sumz_BTW, target_BTW = _scan(step, carry, count)

  max_BT = jnp.max(max_BTW, axis=-1)
  shift_BTW = max_BTW - max_BT[..., None]
  scale_BTW = jnp.exp(shift_BTW)
  sum_BT = jnp.sum(scale_BTW * sum_BTW, axis=-1)
  sumz_BT = jnp.sum(scale_BTW * (sumz_BTW + shift_BTW * sum_BTW), axis=-1)
  norm_BT = max_BT + jnp.log(sum_BT)
  logp_BT = jnp.sum(target_BTW, axis=-1) - norm_BT
  entropy_BT = jnp.log(sum_BT) - sumz_BT / sum_BT
  kept = hidden_BTD, head_DV, targets_BT, floor_BT, norm_BT, entropy_BT
  return (logp_BT, entropy_BT), kept


def _backward(spec, kept, cotangents):
  hidden_BTD, head_DV, targets_BT, floor_BT, norm_BT, entropy_BT = kept
  dlogp_BT, dentropy_BT = cotangents
  head_DWV, count, size = _split(spec, head_DV)
  chunk = functools.partial(
    _chunk, spec, size, hidden_BTD, head_DWV, targets_BT, floor_BT
  )

  def step(carry, i):
    dhidden_WBTD, dhead_DWV = carry
    start, head_DWX, y_BTWX, z_BTWX, hit_BTWX = chunk(i)
    logp_BTWX = z_BTWX - norm_BT[..., None, None]
    p_BTWX = jnp.exp(logp_BTWX)
    pull_BTWX = dlogp_BT[..., None, None] + dentropy_BT[..., None, None] * (
      logp_BTWX + entropy_BT[..., None, None]
    )
    dz_BTWX = jnp.where(hit_BTWX, dlogp_BT[..., None, None], 0.0) - p_BTWX * pull_BTWX
    dz_BTWX = dz_BTWX / spec.temperature
    if spec.softcap:
      dz_BTWX = dz_BTWX * (1.0 - jnp.square(y_BTWX / spec.softcap))
    dz_BTWX = dz_BTWX.astype(hidden_BTD.dtype)
    dhidden_WBTD += _einsum("btwx,dwx->wbtd", dz_BTWX, head_DWX)
    dhead_DWX = _einsum("btd,btwx->dwx", hidden_BTD, dz_BTWX).astype(head_DV.dtype)
    dhead_DWX += jax.lax.dynamic_slice_in_dim(dhead_DWV, start, size, axis=2)
    dhead_DWV = jax.lax.dynamic_update_slice_in_dim(dhead_DWV, dhead_DWX, start, axis=2)
    return (dhidden_WBTD, dhead_DWV), None

  dhidden_WBTD = jnp.zeros((spec.shards, *hidden_BTD.shape), jnp.float32)
  carry = (dhidden_WBTD, jnp.zeros_like(head_DWV))
  dhidden_WBTD, dhead_DWV = _scan(step, carry, count)
  dhidden_BTD = jnp.sum(dhidden_WBTD, axis=0).astype(hidden_BTD.dtype)
  return dhidden_BTD, dhead_DWV.reshape(head_DV.shape), None, None


_logprob.defvjp(_forward, _backward)


def _split(spec, head_DV):
  """The head by shards; how many chunks there are, and their size in each shard."""
  width, vocab = head_DV.shape
  local = vocab // spec.shards
  count = -(-local // max(1, spec.chunk // spec.shards))
  # Even chunks, in whole vector lanes where there are that many.
  size = -(-local // count)
  lanes = 128 if spec.chunk // spec.shards >= 128 else 1
  size = min(local, -(-size // lanes) * lanes)
  return head_DV.reshape(width, spec.shards, local), -(-local // size), size


def _chunk(spec, size, hidden_BTD, head_DWV, targets_BT, floor_BT, i):
  """Chunk i: its first column, the head's columns, capped logits, tempered and
  truncated logits, and where the target is.

  The last chunk ends where the shard ends, so it may overlap the one before; the
  columns seen twice are outside the distribution the second time.
  """
  shards, local = head_DWV.shape[1:]
  start = jnp.minimum(i * size, local - size)
  column_X = start + jnp.arange(size)
  head_DWX = jax.lax.dynamic_slice_in_dim(head_DWV, start, size, axis=2)
  y_BTWX = _cap(_einsum("btd,dwx->btwx", hidden_BTD, head_DWX), spec.softcap)
  z_BTWX = y_BTWX / spec.temperature
  id_WX = jnp.arange(shards)[:, None] * local + column_X[None]
  hit_BTWX = targets_BT[..., None, None] == id_WX[None, None]
  if floor_BT is not None:
    kept_BTWX = hit_BTWX | (z_BTWX >= floor_BT[..., None, None])
    z_BTWX = jnp.where(kept_BTWX, z_BTWX, _NONE)
  if local % size:
    fresh_X = (column_X >= i * size)[None, None, None]
    z_BTWX = jnp.where(fresh_X, z_BTWX, _NONE)
    hit_BTWX = hit_BTWX & fresh_X
  return start, head_DWX, y_BTWX, z_BTWX, hit_BTWX


def _scan(step, carry, count):
  """The carry after `count` steps; one chunk needs no loop."""
  if count == 1:
    return step(carry, 0)[0]
  return jax.lax.scan(step, carry, jnp.arange(count))[0]


def _cap(x, softcap):
  return softcap * jnp.tanh(x / softcap) if softcap else x


def _einsum(spec, *operands):
  return jnp.einsum(spec, *operands, preferred_element_type=jnp.float32)
