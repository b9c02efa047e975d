"""The key-value cache: what a decoder remembers of the tokens before.

One array for keys and one for values, all layers stacked. Row b holds `length_B[b]`
valid positions, which are 0 .. length - 1; what lies behind them is never read. Within
a step the layers only read; the step's keys and values are written once, behind the
last layer, so that inside a loop XLA updates the cache in place.

Left out: paging, quantised entries.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys (rotated) and values of B rows with room for S tokens each."""

  k_LBSKH: jax.Array
  v_LBSKH: jax.Array
  length_B: jax.Array


def empty(arch, rows: int, length: int, dtype="float32") -> Cache:
  """`rows` empty rows with room for `length` tokens each."""
  shape = (arch.layers, rows, length, arch.kv_heads, arch.head_dim)
  return Cache(
    jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(rows, jnp.int32)
  )


def append(cache: Cache, k_LBKH, v_LBKH) -> Cache:
  """One more token in each row; a full row stays as it is, but for its length."""
  row_B = jnp.arange(cache.length_B.shape[0])

  def put(to_LBSKH, from_LBKH):
    return to_LBSKH.at[:, row_B, cache.length_B].set(
      from_LBKH.astype(to_LBSKH.dtype), mode="drop", unique_indices=True
    )

  return Cache(
    put(cache.k_LBSKH, k_LBKH), put(cache.v_LBSKH, v_LBKH), cache.length_B + 1
  )
