"""The key-value cache: what a decoder remembers of the tokens before.

One array for keys and one for values, all layers stacked, each laid out as attention
reads it: a product over H runs down the keys' columns and one over S down the values',
so neither is turned around in every step (on a CPU that took a seventh of sampling).
Row b holds `length_B[b]` valid positions, which are 0 .. length - 1; what lies behind
them is never read. Within a step the layers only read; the step's keys and values are
written once, behind the last layer, so that inside a loop XLA updates the cache in
place.

A `turned` cache has both token by token, [L, B, S, K, H], and takes a layer's token
before that layer reads: so a GPU's kernel finds it (attention.held).

Left out: paging, quantised entries.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pxy.parallel import mesh as mesh_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys (rotated) and values of B rows with room for S tokens each."""

  k_LBKHS: jax.Array
  v_LBKSH: jax.Array
  length_B: jax.Array
  turned: bool = dataclasses.field(default=False, metadata={"static": True})
  """Keys and values are k_LBSKH and v_LBSKH."""

  @property
  def room(self) -> int:
    """Tokens that a row has room for."""
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
  """k_BKHS, v_BKSH of one layer, the first `live` positions (None: all). One slice of
  the stacked arrays: taken in two, a TPU copies the layer before it cuts it."""

  def cut(x, axis):
    sizes = [1, *x.shape[1:]]
    sizes[axis] = sizes[axis] if live is None else min(live, sizes[axis])
    return jax.lax.dynamic_slice(x, (number, 0, 0, 0, 0), sizes)[0]

  return cut(cache.k_LBKHS, 4), cut(cache.v_LBKSH, 3)


def put(cache: Cache, number, k_BKH, v_BKH) -> Cache:
  """One more token in a layer of each row of a turned cache, whose lengths stay; a full
  row stays as it is."""
  row_B, at_B = jnp.arange(cache.length_B.shape[0]), cache.length_B

  def one(x, new_BKH):
    place = x.at[number, row_B, at_B]
    return place.set(new_BKH.astype(x.dtype), mode="drop", unique_indices=True)

  k, v = one(cache.k_LBKHS, k_BKH), one(cache.v_LBKSH, v_BKH)
  return dataclasses.replace(cache, k_LBKHS=k, v_LBKSH=v)


def append(cache: Cache, k_LBKH, v_LBKH, mesh=None) -> Cache:
  """One more token in each row; a full row stays as it is, but for its length.

  mesh: that the program runs on; None: one device.
  """
  if mesh_lib.platform(mesh) != "tpu":
    return scattered(cache, k_LBKH, v_LBKH)
  if mesh is None:
    return written(cache, k_LBKH, v_LBKH)
  spec = jax.tree.map(lambda s: s.spec, placed(cache, mesh))
  new = P(None, spec.length_B[0], spec.k_LBKHS[2], None)
  return jax.shard_map(
    written, mesh=mesh, in_specs=(spec, new, new), out_specs=spec, check_vma=False
  )(cache, k_LBKH, v_LBKH)


def written(cache: Cache, k_LBKH, v_LBKH) -> Cache:
  """`append` as one small write per row, in place.

  A TPU's scatter wants a token's layers and H side by side, and copies the cache to and
  fro in every step to have it so: 23 GB of temporaries for a cache of 11 (compiled for
  v5e, jax 0.10.2). Left alone the writes pull the layout the same way.
  """
  length_B, room = cache.length_B, cache.room

  def put(x, new, start, full):
    old = jax.lax.dynamic_slice(x, start, new.shape)
    new = jnp.where(full, old, new.astype(x.dtype))
    x = jax.lax.dynamic_update_slice(x, new, start)
    return layout.with_layout_constraint(x, layout.Layout(tuple(range(x.ndim))))

  def one(b, pair):
    k, v = pair
    at, full = jnp.minimum(length_B[b], room - 1), length_B[b] >= room
    new_k, new_v = (
      jax.lax.dynamic_slice_in_dim(x, b, 1, axis=1) for x in (k_LBKH, v_LBKH)
    )
    k = put(k, new_k[..., None], (0, b, 0, 0, at), full)
    return k, put(v, new_v[:, :, :, None], (0, b, 0, at, 0), full)

  pair = cache.k_LBKHS, cache.v_LBKSH
  k, v = jax.lax.fori_loop(0, length_B.shape[0], one, pair)
  return Cache(k, v, length_B + 1)


def scattered(cache: Cache, k_LBKH, v_LBKH) -> Cache:
  """`append` as a scatter."""
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


def resize(cache: Cache, row_B, length: int, mesh=None) -> Cache:
  """Rows `row_B` in that order, each with room for `length` tokens.

  mesh: that the program runs on; None: one device.
  """
  parts = 1 if mesh is None else mesh_lib.row_shards(mesh)
  whole = len(row_B) % parts == 0 and len(cache.length_B) % parts == 0
  if whole and length == cache.room and mesh_lib.platform(mesh) == "tpu":
    return moved(cache, row_B, mesh)

  def take(x, axis):
    x = jax.lax.slice_in_dim(x[:, row_B], 0, min(length, x.shape[axis]), axis=axis)
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, missing)

  keys, values = (2, 2) if cache.turned else (4, 3)
  k, v = take(cache.k_LBKHS, keys), take(cache.v_LBKSH, values)
  return Cache(k, v, cache.length_B[row_B], cache.turned)


def moved(cache: Cache, row_B, mesh=None) -> Cache:
  """`resize` to the same room, a row for each part of the devices at a time.

  All rows at once are first gathered on every device: 33 GB of temporaries beside a
  cache of 11 (36 layers, 128 rows of 9,216 tokens over eight parts, compiled for v5e,
  jax 0.10.2).
  """
  parts = 1 if mesh is None else mesh_lib.row_shards(mesh)
  each = len(row_B) // parts

  def take(x, row_B):
    first = 0 if mesh is None else jax.lax.axis_index(mesh_lib.ROWS) * x.shape[1]

    def row(layer, b):
      at, size = b - first, (1, 1, *x.shape[2:])
      there = (0 <= at) & (at < x.shape[1])
      found = jax.lax.dynamic_slice(x, (layer, jnp.where(there, at, 0), 0, 0, 0), size)
      return jnp.where(there, found[0], 0)

    def one(i, out):
      layer, e = i // each, i % each
      new = jnp.concatenate([row(layer, row_B[p * each + e]) for p in range(parts)])
      if mesh is not None:
        new = jax.lax.psum_scatter(new, mesh_lib.ROWS, tiled=True)
      return jax.lax.dynamic_update_slice(out, new[None], (layer, e, 0, 0, 0))

    out = jnp.zeros((len(x), each, *x.shape[2:]), x.dtype)
    return jax.lax.fori_loop(0, len(x) * each, one, out)

  run = take
  if mesh is not None:
    spec = placed(cache, mesh).k_LBKHS.spec
    run = jax.shard_map(
      take, mesh=mesh, in_specs=(spec, P()), out_specs=spec, check_vma=False
    )
  k, v = run(cache.k_LBKHS, row_B), run(cache.v_LBKSH, row_B)
  return Cache(k, v, cache.length_B[row_B], cache.turned)


def copy(
  to: Cache, rows, source: Cache, source_rows, mesh=None, layered: bool | None = None
) -> Cache:
  """`to` with its rows `rows` those of `source`, which is no longer; rows out of range
  are left out.

  mesh: that the program runs on; None: one device.
  layered: layer after layer; None: on a TPU. There rows of all layers at once are first
    gathered on every device, twice: 2.3 GB beside a cache of 11 (36 layers, 64 rows of
    1,024 tokens, compiled for v5e, jax 0.10.2).
  """
  width = source.room

  def put(layer, pair):
    k, v = pair
    if to.turned:
      k, v = k.at[layer, rows, :width], v.at[layer, rows, :width]
    else:
      k, v = k.at[layer, rows, :, :, :width], v.at[layer, rows, :, :width]
    return (
      k.set(source.k_LBKHS[layer, source_rows], mode="drop"),
      v.set(source.v_LBKSH[layer, source_rows], mode="drop"),
    )

  pair = to.k_LBKHS, to.v_LBKSH
  if layered is None:
    layered = mesh_lib.platform(mesh) == "tpu"
  if layered:
    pair = jax.lax.fori_loop(0, len(to.k_LBKHS), put, pair)
  else:
    pair = put(slice(None), pair)
  length_B = to.length_B.at[rows].set(source.length_B[source_rows], mode="drop")
  return Cache(*pair, length_B, to.turned)


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
    return one(node)

  return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, Cache))
