"""Attention: everything that mixes tokens, behind two functions with one meaning.

    out_tn = sum_s softmax_s(cap(scale * q_tn . k_sk)) v_sk,   k = the group of head n

`packed` is for whole rows: token t sees token s <= t of its own segment, and no further
back than the window. `cached` is for one new token per row, which sees the row's cache
and itself. Scores and softmax are float32 whatever the inputs are. Query heads of a
group share a key-value head, which is never repeated in memory.

Left out: fused kernels; a score matrix [B,N,T,T] is formed.
"""

import jax
import jax.numpy as jnp

# Far below any score, and finite: a row without a visible key must not give nan.
_MASKED = -1e30


def _cap(scores, softcap):
  return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def packed(q_BTNH, k_BTKH, v_BTKH, segments_BT, *, scale, softcap=None, window=None):
  """Causal attention within equal segment ids -> out_BTNH.

  window: tokens seen, itself included: int, int array (per layer), or None for all.
  """
  rows, tokens, heads, width = q_BTNH.shape
  kv_heads = k_BTKH.shape[2]
  q = (q_BTNH * scale).reshape(rows, tokens, kv_heads, heads // kv_heads, width)
  scores = jnp.einsum(
    "btkgh,bskh->bkgts", q, k_BTKH, preferred_element_type=jnp.float32
  )
  t = jnp.arange(tokens)
  seen_TT = t[:, None] >= t[None, :]
  if window is not None:
    seen_TT &= t[:, None] - t[None, :] < window
  seen_BTT = (segments_BT[:, :, None] == segments_BT[:, None, :]) & seen_TT[None]
  scores = jnp.where(seen_BTT[:, None, None], _cap(scores, softcap), _MASKED)
  probs = jax.nn.softmax(scores, axis=-1).astype(v_BTKH.dtype)
  out = jnp.einsum("bkgts,bskh->btkgh", probs, v_BTKH)
  return out.reshape(q_BTNH.shape)


def cached(
  q_BNH, k_BKH, v_BKH, k_BSKH, v_BSKH, length_B, *, scale, softcap=None, window=None
):
  """Attention of one new token at position `length_B` over the cache and itself.

  q_BNH, k_BKH, v_BKH are the new token's; k_BSKH, v_BSKH the cache, of which the first
  `length_B` positions count. Returns out_BNH.
  """
  rows, heads, width = q_BNH.shape
  kv_heads = k_BKH.shape[1]
  q = (q_BNH * scale).reshape(rows, kv_heads, heads // kv_heads, width)
  old = jnp.einsum("bkgh,bskh->bkgs", q, k_BSKH, preferred_element_type=jnp.float32)
  new = jnp.einsum("bkgh,bkh->bkg", q, k_BKH, preferred_element_type=jnp.float32)
  s = jnp.arange(k_BSKH.shape[1])
  seen_BS = s[None, :] < length_B[:, None]
  if window is not None:
    seen_BS &= length_B[:, None] - s[None, :] < window
  old = jnp.where(seen_BS[:, None, None, :], _cap(old, softcap), _MASKED)
  new = _cap(new, softcap)[..., None]
  top = jnp.maximum(old.max(-1, keepdims=True), new)
  old, new = jnp.exp(old - top), jnp.exp(new - top)
  total = old.sum(-1, keepdims=True) + new
  out = jnp.einsum("bkgs,bskh->bkgh", (old / total).astype(v_BSKH.dtype), v_BSKH)
  out += (new / total).astype(v_BKH.dtype) * v_BKH[:, :, None, :]
  return out.reshape(q_BNH.shape)
