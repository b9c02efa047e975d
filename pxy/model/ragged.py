"""Attention of one new token per row on a TPU, a Pallas kernel: what rows hold is read.

The steps of its grid are the blocks of keys that some row has to see, row after row,
and no others; how many there are is known when the program runs. Two tables say which
row and which block a step is of, so the next block is on its way while one is worked
on, also from row to row. A row that sees nothing but its own token takes no step.
Scores never leave the core; block by block

    top' = max(top, max_s x_s),  a' = a exp(top - top') + sum_s exp(x_s - top') (v_s, 1)

from the new token's own score, key and value on. So the order of a row's sums is that
of its length, the window and the size of a block alone.

The cache is a pool of pages (paged.py), given whole with the number of the layer, and
is not cut. A block is as many of a row's pages as hide a step, each fetched by itself
from where it lies. Behind a row's last page nothing is fetched: there a step names the
page that stands in its place already, and Pallas leaves alone what has not changed.

Left out: JAX's own kernels (pallas.ops.tpu.paged_attention, ragged_paged_attention),
which want keys as [K, pages, page, H] or beside their values: a copy of pxy's pool;
the second core of a v4 or v5p chip; reading a page that rows share once for all.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from pxy import imports

# Late: Pallas costs a sixth of a second, and only a TPU has the kernel.
pl = imports.later("jax.experimental.pallas")
pltpu = imports.later("jax.experimental.pallas.tpu")

NAME = "pxy_ragged"

# Keys of a step: as many as make these bytes with their values, so that a step's own
# time (0.35 us) is about that of its bytes. The last block of a row is half in vain.
_BYTES, _LEAST, _MOST = 2**18, 128, 512

_ROOM = 2**23
"""Bytes of the core's memory for blocks: half of what a kernel may have."""

MASKED = -1e30
"""Far below any score, and finite: a row without a visible key must not give nan."""


GIVEN = 11
"""Operands of the kernel before the pool's pages: the grid's bound, 7 tables, and the
token's query, key and value."""


def block(kv_heads: int, width: int, dtype, page: int, room: int) -> int:
  """Keys of a step, whole pages, which are read from HBM together with their values."""
  size, each = _MOST, 2 * kv_heads * width * jnp.dtype(dtype).itemsize
  while size > _LEAST and size * each > _BYTES:
    size //= 2
  return min(max(page, size // page * page), room)


def fits(kv_heads: int, width: int, dtype) -> bool:
  """Whether the core's memory has room for two steps, one that is worked on and one
  that comes."""
  width = max(width, 128)
  each = 2 * kv_heads * width * jnp.dtype(dtype).itemsize
  return 2 * each * block(kv_heads, width, dtype, _LEAST, _MOST) <= _ROOM


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
  """What a token's attention reads: a row's block in each step."""

  count_1: jax.Array
  row_I: jax.Array
  block_I: jax.Array
  first_B: jax.Array
  """The first key that a row sees, and the one behind the last."""
  end_B: jax.Array
  stays_BJ: jax.Array
  """The page that is j-th of a block before the row's first step."""


def steps(length_B, window: int, size: int, page_BP, page: int) -> Steps:
  """The steps to what rows with pages `page_BP` of `page` keys see, in blocks of `size`
  keys."""
  rows, room = len(length_B), page_BP.shape[1] * page
  first_B, end_B, count_B = spans(length_B, window, size, room)
  behind_B = (jnp.tri(rows, dtype=jnp.int32) * count_B[None]).sum(1)
  i_I = jnp.arange(rows * -(-room // size))
  row_I = jnp.minimum((i_I[:, None] >= behind_B[None]).sum(1), rows - 1)
  # A row's step at block 0, by a sum: a gather of single numbers is long on a TPU.
  zero_B = behind_B - count_B - first_B // size
  own_IB = row_I[:, None] == jnp.arange(rows)[None]
  zero_I = jnp.where(own_IB, zero_B[None], 0).sum(1)
  block_I = jnp.where(i_I < behind_B[-1], i_I - zero_I, 0)
  count_1 = jnp.maximum(behind_B[-1:], 1)  # one of rubbish, where no row sees a key
  stays_BJ = _stays(first_B, end_B, count_B, size, page_BP, page)
  found = count_1, row_I, block_I, first_B, end_B, stays_BJ
  return Steps(*(x.astype(jnp.int32) for x in found))


def _stays(first_B, end_B, count_B, size, page_BP, page):
  """The j-th page that the rows before a row leave where it was; by sums, see above."""
  rows, pages = page_BP.shape
  each, b_B, p_P = size // page, jnp.arange(rows), jnp.arange(pages)
  last_B = (end_B - 1).clip(0) // page
  place_BJ = (last_B // each * each)[:, None] + jnp.arange(each)[None]
  # Of its last block, or of the one before, if the last one has no j-th page.
  place_BJ -= jnp.where(place_BJ > last_B[:, None], each, 0)
  there_BJ = (place_BJ >= (first_B // size * each)[:, None]) & (count_B > 0)[:, None]
  own_BJP = place_BJ[..., None] == p_P[None, None]
  left_BJ = jnp.where(own_BJP, page_BP[:, None], 0).sum(-1)
  row_BJ = jax.lax.cummax(jnp.where(there_BJ, b_B[:, None], -1))
  row_BJ = jnp.pad(row_BJ[:-1], ((1, 0), (0, 0)), constant_values=-1)
  # Where no row before has one: page 0, in all steps.
  return jnp.where(row_BJ[:, None] == b_B[None, :, None], left_BJ[None], 0).sum(1)


def page_at(j, i, pages: int, each: int, page: int, tables):
  """The page that step i has as its j-th."""
  row_I, block_I, first_B, end_B, stays_X, page_X = tables
  row, block = row_I[i], block_I[i]
  place = block * each + j
  here = page_X[row * pages + jnp.minimum(place, pages - 1)]
  before = page_X[row * pages + jnp.maximum(place - each, 0)]
  begun = block > first_B[row] // (each * page)
  stays = jnp.where(begun, before, stays_X[row * each + j])
  return jnp.where(place * page < end_B[row], here, stays)


def spans(length_B, window: int, size: int, room: int):
  """(the first key that a row sees, the one behind the last, blocks that hold them), of
  numpy's arrays or jax's."""
  first_B, end_B = (length_B - window + 1).clip(0), length_B.clip(0, room)
  return first_B, end_B, (-(-end_B // size) - first_B // size) * (first_B < end_B)


def cached(
  q_BNH, k_BKH, v_BKH, k_LNKHS, v_LNKSH, page_BP, layer, steps, *,
  softcap=None, interpret=False,
):  # fmt: skip
  """Attention over the keys of a layer that `steps` name and the new token -> out_BNH.

  Queries come scaled; layer is an int32 array of no dimensions; pages are as in
  paged.Pool. interpret: run the kernel's program as XLA operations, for tests on a CPU.
  """
  rows, heads, width = q_BNH.shape
  kv_heads, page, pages = k_LNKHS.shape[2], k_LNKHS.shape[4], page_BP.shape[1]
  group = heads // kv_heads
  each = block(kv_heads, width, k_LNKHS.dtype, page, pages * page) // page

  def own(*shape):
    return pl.BlockSpec((None, *shape), lambda i, row_I, *_: (row_I[i], 0, 0, 0))

  def at(j, i, *tables):
    *tables, layer_1 = tables
    return layer_1[0], page_at(j, i, pages, each, page, tables), 0, 0, 0

  def paged(*shape):
    shape = None, None, kv_heads, *shape
    return [pl.BlockSpec(shape, functools.partial(at, j)) for j in range(each)]

  one, many = own(kv_heads, 1, width), own(kv_heads, group, width)
  shapes = (kv_heads, group, 1), (kv_heads, group, 1), (kv_heads, group, width)
  out_BKGH = pl.pallas_call(
    functools.partial(_step, each=each, softcap=softcap),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=7,
      grid=(steps.count_1[0],),
      in_specs=[many, one, one, *paged(width, page), *paged(page, width)],
      out_specs=many,
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in shapes],
    ),
    out_shape=jax.ShapeDtypeStruct((rows, kv_heads, group, width), v_BKH.dtype),
    name=NAME,
    interpret=interpret,
  )(
    steps.row_I, steps.block_I, steps.first_B, steps.end_B, steps.stays_BJ.reshape(-1),
    page_BP.reshape(-1), layer.reshape(1),
    q_BNH.reshape(rows, kv_heads, group, width), k_BKH[:, :, None], v_BKH[:, :, None],
    *[k_LNKHS] * each, *[v_LNKSH] * each,
  )  # fmt: skip
  alone_B = (steps.first_B >= steps.end_B)[:, None, None, None]
  return jnp.where(alone_B, v_BKH[:, :, None], out_BKGH).reshape(q_BNH.shape)


def _step(
  row_I, block_I, first_B, end_B, stays_X, page_X, layer_1, q_KGH, k_K1H, v_K1H, *rest,
  each, softcap,
):  # fmt: skip
  """One block of one row."""
  k_JKHS, v_JKSH = rest[:each], rest[each : 2 * each]
  out_KGH, top_KG1, sum_KG1, sums_KGH = rest[2 * each :]
  i, page = pl.program_id(0), v_JKSH[0].shape[1]
  b, at = row_I[i], block_I[i] * (each * page)
  first, end = first_B[b], end_B[b]

  def cap(scores):
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)

  @pl.when(at <= first)
  def _begin():
    q, k = q_KGH[...].astype(jnp.float32), k_K1H[...].astype(jnp.float32)
    top_KG1[...] = cap((q * k).sum(-1, keepdims=True))
    sum_KG1[...] = jnp.ones_like(sum_KG1)
    sums_KGH[...] = jnp.broadcast_to(v_K1H[...].astype(jnp.float32), sums_KGH.shape)

  for h in range(q_KGH.shape[0]):
    scores = jnp.concatenate(
      [jnp.dot(q_KGH[h], k[h], preferred_element_type=jnp.float32) for k in k_JKHS], -1
    )
    s = at + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    scores = jnp.where((s >= first) & (s < end), cap(scores), MASKED)
    top = jnp.maximum(top_KG1[h], scores.max(-1, keepdims=True))
    keep, weights = jnp.exp(top_KG1[h] - top), jnp.exp(scores - top)
    sums = sums_KGH[h] * keep
    for j, v_KSH in enumerate(v_JKSH):
      # Behind the row's last token there may be anything, also what is no number.
      s = at + j * page + jax.lax.broadcasted_iota(jnp.int32, v_KSH.shape[1:], 0)
      v = jnp.where(s < end, v_KSH[h], jnp.zeros_like(v_KSH[h]))
      part = weights[:, j * page : (j + 1) * page].astype(v.dtype)
      sums += jnp.dot(part, v, preferred_element_type=jnp.float32)
    top_KG1[h], sums_KGH[h] = top, sums
    sum_KG1[h] = sum_KG1[h] * keep + weights.sum(-1, keepdims=True)

  @pl.when(at + each * page >= end)
  def _end():
    out_KGH[...] = (sums_KGH[...] / sum_KG1[...]).astype(out_KGH.dtype)
