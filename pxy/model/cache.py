"""The key-value cache: what a decoder remembers of the tokens before.

One array for keys and one for values, all layers stacked (on a CPU, while it decodes, a
tuple of them: `apart`), each laid out as attention reads it: a product over H runs down
the keys' columns and one over S down the values', so neither is turned around in every
step (on a CPU that took a seventh of sampling). Row b holds `length_B[b]` valid
positions, which are 0 .. length - 1; what lies behind them is never read. Within a step
the layers only read; the step's keys and values are written once, behind the last
layer, so that inside a loop XLA updates the cache in place.

A `turned` cache has both token by token, [L, B, S, K, H], and takes a layer's token
before that layer reads: so a GPU's kernel finds it (cudnn.held).

Where rows are to share a pool, or on a TPU, it is paged.py.

Left out: quantised entries.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pxy.model import paged
from pxy.parallel import mesh as mesh_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys (rotated) and values of B rows with room for S tokens each."""

  k_LBKHS: jax.Array | tuple[jax.Array, ...]
  v_LBKSH: jax.Array | tuple[jax.Array, ...]
  length_B: jax.Array
  turned: bool = dataclasses.field(default=False, metadata={"static": True})
  """Keys and values are k_LBSKH and v_LBSKH."""

  @property
  def room(self) -> int:
    """Tokens that a row has room for."""
    if isinstance(self.v_LBKSH, tuple):
      return self.v_LBKSH[0].shape[2]
    return self.v_LBKSH.shape[2 if self.turned else 3]


def empty(arch, rows: int, length: int, dtype="float32", turned: bool = False) -> Cache:
  """`rows` empty rows with room for `length` tokens each."""
  heads, width = arch.kv_heads, arch.head_dim
  keys, values = (heads, width, length), (heads, length, width)
  if turned:
    keys = values = (length, heads, width)
  made = (jnp.zeros((arch.layers, rows, *shape), dtype) for shape in (keys, values))
  return Cache(*made, jnp.zeros(rows, jnp.int32), turned)


def of(k_LBTKH, v_LBTKH, length_B, turned: bool = False) -> Cache:
  """The cache of tokens that were read from the start of each row."""
  if turned:
    return Cache(k_LBTKH, v_LBTKH, length_B, turned)
  return Cache(
    k_LBTKH.transpose(0, 1, 3, 4, 2), v_LBTKH.transpose(0, 1, 3, 2, 4), length_B
  )


def layer(cache: Cache, number, live: int | None):
  """k_BKHS, v_BKSH of one layer, the first `live` positions (None: all): one slice of
  the stacked arrays, or the layer's own."""

  if isinstance(cache.k_LBKHS, tuple):
    k_BKHS, v_BKSH = cache.k_LBKHS[number], cache.v_LBKSH[number]
    return k_BKHS[..., :live], v_BKSH[:, :, :live]

  def cut(x, axis):
    sizes = [1, *x.shape[1:]]
    sizes[axis] = sizes[axis] if live is None else min(live, sizes[axis])
    return jax.lax.dynamic_slice(x, (number, 0, 0, 0, 0), sizes)[0]

  return cut(cache.k_LBKHS, 4), cut(cache.v_LBKSH, 3)


def apart(cache: Cache) -> Cache:
  """The same, each layer an array of its own in a tuple: XLA has no operand that is
  part of an array, and on a CPU cuts a layer out of the stack in every turn."""
  layers = range(cache.v_LBKSH.shape[0])
  k, v = (tuple(x[i] for i in layers) for x in (cache.k_LBKHS, cache.v_LBKSH))
  return dataclasses.replace(cache, k_LBKHS=k, v_LBKSH=v)


def stacked(cache: Cache) -> Cache:
  """What `apart` took apart."""
  k, v = jnp.stack(cache.k_LBKHS), jnp.stack(cache.v_LBKSH)
  return dataclasses.replace(cache, k_LBKHS=k, v_LBKSH=v)


def put(cache: Cache, number, k_BKH, v_BKH) -> Cache:
  """One more token in a layer of each row of a turned cache, whose lengths stay; a full
  row stays as it is."""
  row_B, at_B = jnp.arange(cache.length_B.shape[0]), cache.length_B

  k, v = (
    _set(x, (number, row_B, at_B), new)
    for x, new in ((cache.k_LBKHS, k_BKH), (cache.v_LBKSH, v_BKH))
  )
  return dataclasses.replace(cache, k_LBKHS=k, v_LBKSH=v)


def append(cache: Cache, k_LBKH, v_LBKH) -> Cache:
  """One more token in each row; a full row stays as it is, but for its length."""
  row_B, at_B = jnp.arange(cache.length_B.shape[0]), cache.length_B
  every = slice(None)
  keys, values = (row_B, every, every, at_B), (row_B, every, at_B)
  k, v = cache.k_LBKHS, cache.v_LBKSH
  if isinstance(k, tuple):
    k = tuple(_set(x, keys, k_LBKH[i]) for i, x in enumerate(k))
    v = tuple(_set(x, values, v_LBKH[i]) for i, x in enumerate(v))
  else:
    k = _set(k, (every, *keys), jnp.moveaxis(k_LBKH, 1, 0))
    v = _set(v, (every, *values), jnp.moveaxis(v_LBKH, 1, 0))
  return Cache(k, v, cache.length_B + 1)


def _set(x, where, new):
  """x with new numbers at places that differ; out of range none are."""
  return x.at[where].set(new.astype(x.dtype), mode="drop", unique_indices=True)


def resize(cache: Cache, row_B, length: int) -> Cache:
  """Rows `row_B` in that order, each with room for `length` tokens."""

  def take(x, axis):
    x = jax.lax.slice_in_dim(x[:, row_B], 0, min(length, x.shape[axis]), axis=axis)
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, missing)

  keys, values = (2, 2) if cache.turned else (4, 3)
  k, v = take(cache.k_LBKHS, keys), take(cache.v_LBKSH, values)
  return Cache(k, v, cache.length_B[row_B], cache.turned)


def copy(to: Cache, rows, source: Cache, source_rows) -> Cache:
  """`to` with its rows `rows` those of `source`, which is no longer; rows out of range
  are left out."""
  width = source.room
  k, v = to.k_LBKHS, to.v_LBKSH
  if to.turned:
    k, v = k.at[:, rows, :width], v.at[:, rows, :width]
  else:
    k, v = k.at[:, rows, :, :, :width], v.at[:, rows, :, :width]
  return Cache(
    k.set(source.k_LBKHS[:, source_rows], mode="drop"),
    v.set(source.v_LBKSH[:, source_rows], mode="drop"),
    to.length_B.at[rows].set(source.length_B[source_rows], mode="drop"),
    to.turned,
  )


def placed(tree, mesh):
  """Where caches and arrays of rows live on a mesh: rows split over (data, fsdp), key-
  value heads over tensor, what does not divide whole. A tree of shardings."""

  def one(x, axis=0, heads=None):
    spec = [None] * len(x.shape)
    if x.shape[axis] % mesh_lib.row_shards(mesh) == 0:
      spec[axis] = mesh_lib.ROWS
    if heads is not None and x.shape[heads] % mesh.shape["tensor"] == 0:
      spec[heads] = "tensor"
    return NamedSharding(mesh, P(*spec))

  def of(node):
    if isinstance(node, Cache):
      heads = 3 if node.turned else 2
      k, v = (one(x, axis=1, heads=heads) for x in (node.k_LBKHS, node.v_LBKSH))
      return Cache(k, v, one(node.length_B), node.turned)
    if isinstance(node, paged.Pool):
      return paged.placed(node, mesh)
    return one(node)

  kinds = Cache, paged.Pool
  return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, kinds))
