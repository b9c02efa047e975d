"""A key-value cache in pages: rows grow by a page at a time, out of one pool.

Where a row of cache.py has room for the longest text, here it has a table: position s
of row b is place s % S of page `page_BP[b, s // S]`. Rows may name the same page, which
is then read by all and written by none. Which page is whose is decided on the host
(sampling/pages.py); here pages are read, written and filled.

On a mesh the pool is in as many parts as the rows, and a row's pages are numbers within
its own part: no token's attention needs another device's page. So all that touches a
page runs on each part for itself, but for `carry`, which copies from one to another.

Left out: pages of another size than the kernel's.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pxy.parallel import mesh as mesh_lib

PAGE = 128
"""Tokens of a page: the lanes of a TPU, on which a page's keys lie side by side."""

CARRIED = 32
"""Pages that one `carry` takes: what the tokens of half a long response fill."""


@dataclasses.dataclass(frozen=True)
class Size:
  """Of a pool. Static: part of a program's name."""

  pages: int
  """Of all parts together."""
  tokens: int
  """Of a page."""
  parts: int
  """1: each device has them all."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pool:
  """Keys (rotated) and values of B rows, in N pages of S tokens."""

  k_LNKHS: jax.Array
  v_LNKSH: jax.Array
  page_BP: jax.Array
  """int32, pages of each row in their order; behind its last one any page."""
  length_B: jax.Array
  still_B: jax.Array
  """Rows that take no token."""
  parts: int = dataclasses.field(default=1, metadata={"static": True})

  @property
  def page(self) -> int:
    """Tokens of a page."""
    return self.v_LNKSH.shape[3]

  @property
  def room(self) -> int:
    """Tokens that a row can have."""
    return self.page_BP.shape[1] * self.page


def empty(arch, rows: int, room: int, size: Size, dtype="float32") -> Pool:
  """`rows` empty rows, each of which can have `room` tokens, a multiple of a page."""
  heads, width = arch.kv_heads, arch.head_dim
  shape = arch.layers, size.pages, heads
  return Pool(
    jnp.zeros((*shape, width, size.tokens), dtype),
    jnp.zeros((*shape, size.tokens, width), dtype),
    jnp.zeros((rows, room // size.tokens), jnp.int32),
    jnp.zeros(rows, jnp.int32),
    jnp.ones(rows, bool),
    size.parts,
  )


def specs(pool: Pool, mesh) -> Pool:
  """How a pool is split: rows and pages over (data, fsdp), heads over tensor."""
  rows = mesh_lib.ROWS if pool.parts > 1 else None
  whole = _pages(pool.k_LNKHS.shape[2], mesh, rows)
  return Pool(whole, whole, P(rows, None), P(rows), P(rows), pool.parts)


def _pages(heads: int, mesh, rows=mesh_lib.ROWS) -> P:
  """How keys and values are split; rows: the axes of the parts."""
  return P(None, rows, None if heads % mesh.shape["tensor"] else "tensor", None, None)


def placed(pool: Pool, mesh) -> Pool:
  """Where it lives on a mesh: a tree of shardings."""
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(pool, mesh))


def _alone(run, mesh, spec, *ins):
  """`run` of each part of a pool, or of its pages, to itself, with what else it is
  given split as `ins` say."""
  ins = spec, *ins
  return jax.shard_map(run, mesh=mesh, in_specs=ins, out_specs=spec, check_vma=False)


def append(pool: Pool, k_LBKH, v_LBKH, mesh=None) -> Pool:
  """One more token in each row that takes one; a full row stays as it is, but for its
  length.

  mesh: that the program runs on; None: one device.
  """
  run = _written if mesh_lib.platform(mesh) == "tpu" else _scattered
  if mesh is not None:
    spec = specs(pool, mesh)
    new = P(None, spec.length_B[0], spec.k_LNKHS[2], None)
    run = _alone(run, mesh, spec, new, new)
  return run(pool, k_LBKH, v_LBKH)


def _longer(pool: Pool, k, v) -> Pool:
  length_B = jnp.where(pool.still_B, pool.length_B, pool.length_B + 1)
  return dataclasses.replace(pool, k_LNKHS=k, v_LNKSH=v, length_B=length_B)


def _places(pool: Pool):
  """(page, place in it, whether it takes a token) of each row's next position."""
  at_B = jnp.minimum(pool.length_B, pool.room - 1)
  page_B = jnp.take_along_axis(pool.page_BP, (at_B // pool.page)[:, None], 1)[:, 0]
  return page_B, at_B % pool.page, ~pool.still_B & (pool.length_B < pool.room)


def _written(pool: Pool, k_LBKH, v_LBKH) -> Pool:
  """`append` as one small write per row, in place.

  A TPU's scatter wants a token's layers and H side by side, and copies the cache to and
  fro in every step to have it so: 23 GB of temporaries for a cache of 11 (compiled for
  v5e, jax 0.10.2). Left alone the writes pull the layout the same way.
  """
  page_B, at_B, takes_B = _places(pool)

  def put(x, new, start, takes):
    old = jax.lax.dynamic_slice(x, start, new.shape)
    new = jnp.where(takes, new.astype(x.dtype), old)
    x = jax.lax.dynamic_update_slice(x, new, start)
    return layout.with_layout_constraint(x, layout.Layout(tuple(range(x.ndim))))

  def one(b, pair):
    k, v = pair
    page, at, takes = page_B[b], at_B[b], takes_B[b]
    new_k, new_v = (
      jax.lax.dynamic_slice_in_dim(x, b, 1, axis=1) for x in (k_LBKH, v_LBKH)
    )
    k = put(k, new_k[..., None], (0, page, 0, 0, at), takes)
    return k, put(v, new_v[:, :, :, None], (0, page, 0, at, 0), takes)

  pair = pool.k_LNKHS, pool.v_LNKSH
  return _longer(pool, *jax.lax.fori_loop(0, len(page_B), one, pair))


def _scattered(pool: Pool, k_LBKH, v_LBKH) -> Pool:
  """`append` as a scatter."""
  page_B, at_B, takes_B = _places(pool)
  page_B = jnp.where(takes_B, page_B, pool.k_LNKHS.shape[1])  # none: left out

  def put(place, from_LBKH, dtype):
    from_BLKH = jnp.moveaxis(from_LBKH, 1, 0).astype(dtype)
    return place.set(from_BLKH, mode="drop")

  k, v = pool.k_LNKHS, pool.v_LNKSH
  return _longer(
    pool,
    put(k.at[:, page_B, :, :, at_B], k_LBKH, k.dtype),
    put(v.at[:, page_B, :, at_B], v_LBKH, v.dtype),
  )


def fill(pool: Pool, source, page_RA, row_RA, block_RA, mesh=None) -> Pool:
  """Pages of each part with what a contiguous cache holds: page `page_RA[r, a]` of part
  r gets the tokens from S `block_RA[r, a]` on of the source's row `row_RA[r, a]`.

  Pages out of range are left out. Lengths stay. mesh: that the program runs on; None:
  one device.
  """
  size, short = pool.page, -source.room % pool.page
  keys, values = source.k_LBKHS, source.v_LBKSH
  if short:
    keys = jnp.pad(keys, [(0, 0)] * 4 + [(0, short)])
    values = jnp.pad(values, [(0, 0)] * 3 + [(0, short), (0, 0)])
  split = mesh is not None and keys.shape[1] % mesh_lib.row_shards(mesh) == 0

  def run(pool, keys, values, page_RA, row_RA, block_RA):
    page_A, row_A, block_A = page_RA[0], row_RA[0], block_RA[0]

    def cut(x, axis):
      """Pages of a layer's rows."""
      if split:
        x = jax.lax.all_gather(x, mesh_lib.ROWS, tiled=True)
      x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
      return jnp.moveaxis(x, axis, 0)[block_A, row_A]

    # Layer after layer: rows of all layers at once would be on every device, twice.
    def one(layer, pair):
      k, v = pair
      k = k.at[layer, page_A].set(cut(keys[layer], 3), mode="drop")
      return k, v.at[layer, page_A].set(cut(values[layer], 2), mode="drop")

    pair = pool.k_LNKHS, pool.v_LNKSH
    k, v = jax.lax.fori_loop(0, len(pool.k_LNKHS), one, pair)
    return dataclasses.replace(pool, k_LNKHS=k, v_LNKSH=v)

  if mesh is not None:
    spec = specs(pool, mesh)
    held = P(None, mesh_lib.ROWS if split else None, spec.k_LNKHS[2], None, None)
    lanes = P(spec.length_B[0], None)
    run = _alone(run, mesh, spec, held, held, lanes, lanes, lanes)
  return run(pool, keys, values, page_RA, row_RA, block_RA)


def carry(k_LNKHS, v_LNKSH, giver, taker, from_A, to_A, mesh):
  """(keys, values) with page `from_A[a]` of part `giver` in page `to_A[a]` of part
  `taker`.

  Pages out of range are left out, and what was there stays. giver, taker: two numbers
  of parts. mesh: that the program runs on.
  """

  def run(pair, giver, taker, from_A, to_A):
    here = jax.lax.axis_index(mesh_lib.ROWS)
    at_A = jnp.where(here == taker, to_A, pair[0].shape[1])

    def one(layer, pair):
      def carried(x):
        # A sum of bits: that of numbers takes -0 for 0, and on a CPU what is tiny.
        bits = jax.lax.bitcast_convert_type(x[layer, from_A], f"int{x.itemsize * 8}")
        there = jax.lax.psum(jnp.where(here == giver, bits, 0), mesh_lib.ROWS)
        there = jax.lax.bitcast_convert_type(there, x.dtype)
        return x.at[layer, at_A].set(there, mode="drop")

      return tuple(map(carried, pair))

    return jax.lax.fori_loop(0, len(pair[0]), one, pair)

  pages = _pages(k_LNKHS.shape[2], mesh)
  run = _alone(run, mesh, (pages, pages), P(), P(), P(), P())
  return run((k_LNKHS, v_LNKSH), giver, taker, from_A, to_A)


def layer(k_LNKHS, v_LNKSH, page_BP, number):
  """k_BKHS, v_BKSH of one layer: every page of every row, a copy."""
  rows, pages = page_BP.shape
  k, v = (
    jax.lax.dynamic_index_in_dim(x, number, keepdims=False)[page_BP]
    for x in (k_LNKHS, v_LNKSH)
  )
  k_BKHS = k.transpose(0, 2, 3, 1, 4).reshape(rows, *k.shape[2:4], -1)
  heads, size, width = v.shape[2:]
  v_BKSH = v.transpose(0, 2, 1, 3, 4).reshape(rows, heads, pages * size, width)
  return k_BKHS, v_BKSH
