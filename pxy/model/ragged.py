"""Attention of one new token per row on a TPU, a Pallas kernel: what rows hold is read.

The steps of its grid are the blocks of keys that some row has to see, row after row,
and no others; how many there are is known when the program runs. Two tables say which
row and which block a step is of, so the next block is on its way while one is worked
on, also from row to row. A row that sees nothing but its own token takes no step.
Scores never leave the core; block by block

    top' = max(top, max_s x_s),  a' = a exp(top - top') + sum_s exp(x_s - top') (v_s, 1)

from the new token's own score, key and value on. So the order of a row's sums is that
of its length, the window and the size of a block alone.

The stacked cache is given whole, with the number of the layer, and is not cut.

Left out: JAX's own kernels (pallas.ops.tpu.paged_attention, ragged_paged_attention),
which want keys as [K, pages, page, H] or beside their values: a copy of pxy's cache;
the second core of a v4 or v5p chip.
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


def block(kv_heads: int, width: int, dtype, room: int) -> int:
  """Keys of a step, which are read from HBM together with their values."""
  size, each = _MOST, 2 * kv_heads * width * jnp.dtype(dtype).itemsize
  while size > _LEAST and size * each > _BYTES:
    size //= 2
  return min(size, room)


def fits(kv_heads: int, width: int, dtype) -> bool:
  """Whether the core's memory has room for two steps, one that is worked on and one
  that comes."""
  width = max(width, 128)
  each = 2 * kv_heads * width * jnp.dtype(dtype).itemsize
  return 2 * each * block(kv_heads, width, dtype, _MOST) <= _ROOM


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


def steps(length_B, window: int, size: int, room: int) -> Steps:
  """The steps to what rows with room for `room` keys see in blocks of `size`."""
  rows, (first_B, end_B, count_B) = len(length_B), spans(length_B, window, size, room)
  behind_B = (jnp.tri(rows, dtype=jnp.int32) * count_B[None]).sum(1)
  i_I = jnp.arange(rows * -(-room // size))
  row_I = jnp.minimum((i_I[:, None] >= behind_B[None]).sum(1), rows - 1)
  # A row's step at block 0, by a sum: a gather of single numbers is long on a TPU.
  zero_B = behind_B - count_B - first_B // size
  own_IB = row_I[:, None] == jnp.arange(rows)[None]
  zero_I = jnp.where(own_IB, zero_B[None], 0).sum(1)
  block_I = jnp.where(i_I < behind_B[-1], i_I - zero_I, 0)
  count_1 = jnp.maximum(behind_B[-1:], 1)  # one of rubbish, where no row sees a key
  return Steps(
    *(x.astype(jnp.int32) for x in (count_1, row_I, block_I, first_B, end_B))
  )


def spans(length_B, window: int, size: int, room: int):
  """(the first key that a row sees, the one behind the last, blocks that hold them), of
  numpy's arrays or jax's."""
  first_B, end_B = (length_B - window + 1).clip(0), length_B.clip(0, room)
  return first_B, end_B, (-(-end_B // size) - first_B // size) * (first_B < end_B)


def cached(
  q_BNH, k_BKH, v_BKH, k_LBKHS, v_LBKSH, layer, steps, *,
  softcap=None, interpret=False,
):  # fmt: skip
  """Attention over the keys of a layer that `steps` name and the new token -> out_BNH.

  Queries come scaled; layer is an int32 array of no dimensions. interpret: run the
  kernel's program as XLA operations, for tests on a CPU.
  """
  rows, heads, width = q_BNH.shape
  _, _, kv_heads, _, room = k_LBKHS.shape
  group, size = heads // kv_heads, block(kv_heads, width, k_LBKHS.dtype, room)

  def own(*shape):
    return pl.BlockSpec((None, *shape), lambda i, row_I, *_: (row_I[i], 0, 0, 0))

  keys = pl.BlockSpec(
    (None, None, kv_heads, width, size),
    lambda i, row_I, block_I, *rest: (rest[-1][0], row_I[i], 0, 0, block_I[i]),
  )
  values = pl.BlockSpec(
    (None, None, kv_heads, size, width),
    lambda i, row_I, block_I, *rest: (rest[-1][0], row_I[i], 0, block_I[i], 0),
  )
  one, many = own(kv_heads, 1, width), own(kv_heads, group, width)
  shapes = (kv_heads, group, 1), (kv_heads, group, 1), (kv_heads, group, width)
  out_BKGH = pl.pallas_call(
    functools.partial(_step, softcap=softcap),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=5,
      grid=(steps.count_1[0],),
      in_specs=[many, one, one, keys, values],
      out_specs=many,
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in shapes],
    ),
    out_shape=jax.ShapeDtypeStruct((rows, kv_heads, group, width), v_BKH.dtype),
    name=NAME,
    interpret=interpret,
  )(
    steps.row_I, steps.block_I, steps.first_B, steps.end_B, layer.reshape(1),
    q_BNH.reshape(rows, kv_heads, group, width), k_BKH[:, :, None], v_BKH[:, :, None],
    k_LBKHS, v_LBKSH,
  )  # fmt: skip
  alone_B = (steps.first_B >= steps.end_B)[:, None, None, None]
  return jnp.where(alone_B, v_BKH[:, :, None], out_BKGH).reshape(q_BNH.shape)


def _step(
  row_I, block_I, first_B, end_B, _, q_KGH, k_K1H, v_K1H, k_KHS, v_KSH, out_KGH,
  top_KG1, sum_KG1, sums_KGH, *, softcap,
):  # fmt: skip
  """One block of one row."""
  i, size = pl.program_id(0), v_KSH.shape[1]
  b, at = row_I[i], block_I[i] * size
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
    scores = cap(jnp.dot(q_KGH[h], k_KHS[h], preferred_element_type=jnp.float32))
    s = at + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    scores = jnp.where((s >= first) & (s < end), scores, MASKED)
    top = jnp.maximum(top_KG1[h], scores.max(-1, keepdims=True))
    keep, weights = jnp.exp(top_KG1[h] - top), jnp.exp(scores - top)
    # Behind the row's last token there may be anything, also what is no number.
    s = at + jax.lax.broadcasted_iota(jnp.int32, v_KSH.shape[1:], 0)
    v = jnp.where(s < end, v_KSH[h], jnp.zeros_like(v_KSH[h]))
    new = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    top_KG1[h], sums_KGH[h] = top, sums_KGH[h] * keep + new
    sum_KG1[h] = sum_KG1[h] * keep + weights.sum(-1, keepdims=True)

  @pl.when(at + size >= end)
  def _end():
    out_KGH[...] = (sums_KGH[...] / sum_KG1[...]).astype(out_KGH.dtype)
