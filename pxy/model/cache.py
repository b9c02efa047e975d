"""The key-value cache: what a decoder remembers of the tokens before.

One array for keys and one for values, all layers stacked, each laid out as attention
reads it: a product over H runs down the keys' columns and one over S down the values',
so neither is turned around in every step (on a CPU that took a seventh of sampling).
Row b holds `length_B[b]` valid positions, which are 0 .. length - 1; what lies behind
them is never read. Within a step the layers only read; the step's keys and values are
written once, behind the last layer, so that inside a loop XLA updates the cache in
place.

Left out: paging, quantised entries.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys (rotated) and values of B rows with room for S tokens each."""

  k_LBKHS: jax.Array
  v_LBKSH: jax.Array
  length_B: jax.Array

  @property
  def room(self) -> int:
    """Tokens that a row has room for."""
    return self.v_LBKSH.shape[3]


def empty(arch, rows: int, length: int, dtype="float32") -> Cache:
  """`rows` empty rows with room for `length` tokens each."""
  shape = (arch.layers, rows, arch.kv_heads)
  return Cache(
    jnp.zeros((*shape, arch.head_dim, length), dtype),
    jnp.zeros((*shape, length, arch.head_dim), dtype),
    jnp.zeros(rows, jnp.int32),
  )


def of(k_LBTKH, v_LBTKH, length_B) -> Cache:
  """The cache of tokens that were read from the start of each row."""
  return Cache(
    k_LBTKH.transpose(0, 1, 3, 4, 2), v_LBTKH.transpose(0, 1, 3, 2, 4), length_B
  )


def append(cache: Cache, k_LBKH, v_LBKH) -> Cache:
  """One more token in each row; a full row stays as it is, but for its length."""
  row_B, at_B = jnp.arange(cache.length_B.shape[0]), cache.length_B

  def put(place, from_LBKH, dtype):
    from_BLKH = jnp.moveaxis(from_LBKH, 1, 0).astype(dtype)
    return place.set(from_BLKH, mode="drop", unique_indices=True)

  k, v = cache.k_LBKHS, cache.v_LBKSH
  return Cache(
    put(k.at[:, row_B, :, :, at_B], k_LBKH, k.dtype),
    put(v.at[:, row_B, :, at_B], v_LBKH, v.dtype),
    cache.length_B + 1,
  )


def resize(cache: Cache, row_B, length: int) -> Cache:
  """Rows `row_B` in that order, each with room for `length` tokens."""

  def take(x, axis):
    x = jax.lax.slice_in_dim(x[:, row_B], 0, min(length, x.shape[axis]), axis=axis)
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, missing)

  return Cache(take(cache.k_LBKHS, 4), take(cache.v_LBKSH, 3), cache.length_B[row_B])


def copy(to: Cache, rows, source: Cache, source_rows) -> Cache:
  """`to` with its rows `rows` those of `source`, which is no longer; rows out of range
  are left out."""
  width = source.room
  k, v = to.k_LBKHS, to.v_LBKSH
  return Cache(
    k.at[:, rows, :, :, :width].set(source.k_LBKHS[:, source_rows], mode="drop"),
    v.at[:, rows, :, :width].set(source.v_LBKSH[:, source_rows], mode="drop"),
    to.length_B.at[rows].set(source.length_B[source_rows], mode="drop"),
  )
