"""Attention: everything that mixes tokens, behind two functions with one meaning.

    out_tn = sum_s softmax_s(cap(scale * q_tn . k_sk)) v_sk,   k = the group of head n

`packed` is for whole rows: token t sees token s <= t of its own segment, and of the one
that its sequence goes on from, and no further back than the window. `cached` is for one
new token per row, which sees the row's cache and itself; cudnn.held is the same where
the cache has it already. Scores and softmax are float32 whatever the inputs are. Query
heads of a group share a key-value head, which is never repeated in memory.

`packed` is one of these, by the platform of the mesh's devices (without a mesh, that of
JAX's default backend), known when the program is traced:

  xla     plain JAX, on a CPU and wherever the others cannot. The backward pass forms
          the scores again, so what is kept of a layer's attention is its queries, keys
          and values. It alone has a jax.jvp.
  splash  on a TPU: splash.py.
  cudnn   on a GPU, for 16-bit inputs without a softcap: cudnn.py.

The compiler cannot split a kernel over devices, so over a mesh each runs what it has:
rows are split over (data, fsdp), heads over tensor.

`cached` reads the cache once, and that is its time. On a TPU the cache is a pool of
pages (paged.py), and ragged.py a kernel that reads each row as far as it is filled, and
a layer where it stands. Elsewhere it is plain JAX, which takes a layer out of the
stacked cache (a GPU copies it first: three times the bytes; a CPU has layers apart) and
reads as much of it in each row; of a pool it first puts the rows' pages together. A GPU
that can takes cudnn.held instead.

Left out: tokamax, whose public attention takes the same mask, for eight packages more.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from pxy import config
from pxy.model import cache as kv
from pxy.model import cudnn, ragged, splash
from pxy.model import paged as paged_lib
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process

# More tokens than any row has.
_FAR = 2**30

# Queries are taken in blocks that see only the keys up to their end: of a causal score
# matrix about half is formed, and never all of it at once. On a CPU 32 x 256 tokens ran
# five times faster than in one piece.
_BLOCK, _BLOCKS = 32, 8

# Bytes of scores up to which a GPU takes a row in one piece: each block has products of
# its own shapes, and XLA tries dozens of programs for each (33 s for the demo's model).
_PIECE = 2**28


def _cap(scores, softcap):
  return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def packed(
  q_BTNH,
  k_BTKH,
  v_BTKH,
  segments_BT,
  *,
  scale,
  softcap=None,
  window=None,
  windows=(),
  most=None,
  mesh=None,
  kernel=None,
  prefix_BT=None,
):
  """Causal attention within equal segment ids, and to prefixes -> out_BTNH.

  Args:
    window: tokens seen, itself included: int, int array (per layer), or None for all.
    windows: the values that `window` can have where it is an array.
    most: runs of equal ids that a row has at most, where that is known.
    mesh: the mesh that the program runs on; None: one device.
    kernel: by name; None: by platform. On a platform that is not its own splash is
      interpreted and cudnn is jax.nn's XLA version: right, and slow.
    prefix_BT: id of a segment that is seen as well, 0 for none; for xla alone, without
      a window (an AssertionError). None: none.

  Raises:
    config.Error: the mesh's tensor axis does not divide the key-value heads.
  """
  platform = mesh_lib.platform(mesh)
  kernel = kernel or _kernel(platform, q_BTNH, softcap)
  if prefix_BT is not None:
    assert kernel == "xla" and window is None, (kernel, window)
  if kernel == "splash":
    run = functools.partial(
      splash.packed, softcap=softcap, windows=windows, interpret=platform != "tpu"
    )
  elif kernel == "cudnn":
    how = "cudnn" if platform == "gpu" else "xla"
    run = functools.partial(cudnn.packed, most=most, how=how)
  else:
    whole = platform == "gpu" and _score_bytes(q_BTNH) <= _PIECE
    return _xla(
      q_BTNH, k_BTKH, v_BTKH, segments_BT, prefix_BT, window, scale, softcap, whole
    )
  if mesh is not None:
    run = _split(run, mesh, q_BTNH.shape[0], k_BTKH.shape[2])
  return run(q_BTNH * scale, k_BTKH, v_BTKH, segments_BT, window)


def sharer(arch, platform: str):
  """arch, if sequences of a row may share what is before them: on a CPU, where xla is
  taken in any case; a window counts places of a row, which forbids it. Else None."""
  return arch if platform == "cpu" and set(arch.windows()) == {None} else None


def _kernel(platform, q_BTNH, softcap):
  """The kernel of a platform that can do this."""
  if platform == "tpu":
    return "splash"
  if platform != "gpu":
    return "xla"
  if why := cudnn.misfit(q_BTNH, softcap):
    process.say_once(
      f"attention of packed rows: with {why} cuDNN is not asked, and XLA makes all"
      " scores"
    )
    return "xla"
  return "cudnn"


def _split(run, mesh, rows, kv_heads):
  """`run` on each device's rows and heads. Rows that do not divide are not split."""
  if kv_heads % mesh.shape["tensor"]:
    raise config.Error(
      f"mesh.tensor {mesh.shape['tensor']} does not divide kv_heads {kv_heads}: set"
      f" mesh.tensor to a divisor of {kv_heads}"
    )
  split_rows = None if rows % mesh_lib.row_shards(mesh) else mesh_lib.ROWS
  heads = P(split_rows, None, "tensor", None)

  def split(q, k, v, segments, window):
    # An int or None is part of the program, an array its input.
    inputs = (window,) if isinstance(window, jax.Array) else ()
    return jax.shard_map(
      lambda q, k, v, segments, *inputs: run(q, k, v, segments, *inputs or (window,)),
      mesh=mesh,
      in_specs=(heads, heads, heads, P(split_rows, None), *[P()] * len(inputs)),
      out_specs=heads,
      check_vma=False,
    )(q, k, v, segments, *inputs)

  return split


def _score_bytes(q_BTNH) -> int:
  rows, tokens, heads, _ = q_BTNH.shape
  return 4 * rows * heads * tokens**2


def _xla(q_BTNH, k_BTKH, v_BTKH, segments_BT, prefix_BT, window, scale, softcap, whole):
  rows, tokens, heads, width = q_BTNH.shape
  kv_heads = k_BTKH.shape[2]
  q = (q_BTNH * scale).reshape(rows, tokens, kv_heads, heads // kv_heads, width)
  q_BKGTH = q.transpose(0, 2, 3, 1, 4)
  k_BKTH, v_BKTH = k_BTKH.transpose(0, 2, 1, 3), v_BTKH.transpose(0, 2, 1, 3)

  def block(start, end):
    seen_BTS = segments_BT[:, start:end, None] == segments_BT[:, None, :end]
    if prefix_BT is not None:
      before_BT = prefix_BT[:, start:end]
      seen_BTS |= (before_BT[:, :, None] == segments_BT[:, None, :end]) & (
        before_BT > 0
      )[..., None]
    ago_TS = jnp.arange(start, end)[:, None] - jnp.arange(end)[None, :]
    seen_BTS &= (ago_TS >= 0)[None]
    if window is not None:
      seen_BTS &= (ago_TS < window)[None]
    q, k, v = q_BKGTH[:, :, :, start:end], k_BKTH[:, :, :end], v_BKTH[:, :, :end]
    return _masked(q, k, v, seen_BTS, softcap)

  size = tokens if whole else max(_BLOCK, -(-tokens // _BLOCKS))
  outs = [block(i, min(i + size, tokens)) for i in range(0, tokens, size)]
  out_BKGTH = jnp.concatenate(outs, axis=3)
  return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(q_BTNH.shape)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=4)
def _masked(q_BKGTH, k_BKSH, v_BKSH, seen_BTS, softcap):
  """Attention where `seen`. A group's queries are one matrix to its keys."""
  rows, kv_heads, group, tokens, width = q_BKGTH.shape
  flat, split = (rows, kv_heads, group * tokens), (rows, kv_heads, group, tokens)
  scores = jnp.einsum(
    "bkth,bksh->bkts",
    q_BKGTH.reshape(*flat, width),
    k_BKSH,
    preferred_element_type=jnp.float32,
  )
  scores = _cap(scores.reshape(*split, -1), softcap)
  scores = jnp.where(seen_BTS[:, None, None], scores, ragged.MASKED)
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  out = jnp.einsum(
    "bkts,bksh->bkth",
    weights.astype(v_BKSH.dtype).reshape(*flat, -1),
    v_BKSH,
    preferred_element_type=jnp.float32,
  )
  out = out.reshape(q_BKGTH.shape) / weights.sum(-1, keepdims=True)
  return out.astype(v_BKSH.dtype)


def cached(
  q_BNH, k_BKH, v_BKH, cache, layer, *,
  scale, softcap=None, window=None, live=None, plan=None, mesh=None,
):  # fmt: skip
  """Attention of one new token per row, and of what its row of the cache holds.

  q_BNH, k_BKH, v_BKH are the new token's. Returns out_BNH.

  Args:
    cache: kv.Cache or paged.Pool, of which row b's first `length_B[b]` positions count,
      in layer `layer`. One that is turned (cudnn.held) has the new token already.
    window: tokens seen, the new one included: int, int array, or None for all.
    live: positions that are looked at, from the first; None, and of a pool: all.
    plan: as `planned` says of this pool: those that count are looked at.
    mesh: the mesh that the program runs on; None: one device.
  """
  if isinstance(cache, kv.Cache) and cache.turned:
    assert softcap is None and window is None, (
      "cudnn.holds says where a cache is turned"
    )
    return cudnn.held(
      q_BNH, cache.k_LBKHS, cache.v_LBKSH, layer,
      jnp.minimum(cache.length_B + 1, cache.room), scale=scale,
      how="cudnn" if mesh_lib.platform(mesh) == "gpu" else "xla",
    )  # fmt: skip
  q_BNH = q_BNH * scale
  if isinstance(cache, kv.Cache):
    held = kv.layer(cache, layer, live)
    return _cached(q_BNH, k_BKH, v_BKH, *held, cache.length_B, softcap, window)
  layer, interpret = jnp.int32(layer), mesh_lib.platform(mesh) != "tpu"

  def run(q_BNH, k_BKH, v_BKH, pool, layer, steps, window):
    given = pool.k_LNKHS, pool.v_LNKSH, pool.page_BP, layer
    if steps is None:
      held, length_B = paged_lib.layer(*given), pool.length_B
      return _cached(q_BNH, k_BKH, v_BKH, *held, length_B, softcap, window)
    return ragged.cached(
      q_BNH, k_BKH, v_BKH, *given, steps, softcap=softcap, interpret=interpret
    )

  steps = None if plan is None else _of_window(plan, window)
  array = window if isinstance(window, jax.Array) else None
  if mesh is not None:
    spec, inner = paged_lib.specs(cache, mesh), run
    new, rows = P(spec.length_B[0], spec.k_LNKHS[2], None), spec.length_B
    run = jax.shard_map(
      lambda *args: inner(*args[:-1], window if args[-1] is None else args[-1]),
      mesh=mesh, in_specs=(new, new, new, spec, P(), rows, P()), out_specs=new,
      check_vma=False,
    )  # fmt: skip
    return run(q_BNH, k_BKH, v_BKH, cache, layer, steps, array)
  return run(q_BNH, k_BKH, v_BKH, cache, layer, steps, window)


def planned(cache, windows, mesh=None, kernel=None) -> dict[int, ragged.Steps] | None:
  """What a token's attention has to read of a cache; None where it reads rows alike.

  Args:
    windows: those that layers have, int or None for all.
    mesh: the mesh that the program runs on; None: one device.
    kernel: of a pool, `ragged` or `xla`; None: by platform. Elsewhere than on a TPU
      `ragged` is interpreted: right, and slow.
  """
  if isinstance(cache, kv.Cache):
    return None
  kv_heads, width = cache.k_LNKHS.shape[2:4]
  platform, dtype = mesh_lib.platform(mesh), cache.k_LNKHS.dtype.name
  kv_heads = _own(kv_heads, mesh)
  if kernel is None:
    kernel = "ragged" if _ragged(platform, kv_heads, width, dtype) else "xla"
  if kernel == "xla":
    return None
  size = ragged.block(kv_heads, width, dtype, cache.page, cache.room)

  def run(length_B, page_BP):
    windows_W = sorted({window or _FAR for window in windows})
    given = size, page_BP, cache.page
    return {window: ragged.steps(length_B, window, *given) for window in windows_W}

  if mesh is not None:
    rows = paged_lib.specs(cache, mesh).length_B
    run = jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
  return run(cache.length_B, cache.page_BP)


def _of_window(plan, window):
  """The steps of a layer with this window: int, int array, or None."""
  if not isinstance(window, jax.Array):
    return plan[window or _FAR]
  windows = sorted(plan)
  kind = sum(jnp.int32(window > w) for w in windows[:-1])
  return jax.tree.map(
    lambda *x: jax.lax.select_n(kind, *x), *[plan[w] for w in windows]
  )


def _cached(q_BNH, k_BKH, v_BKH, k_BKHS, v_BKSH, length_B, softcap, window):
  """`cached` in plain JAX; queries come scaled."""
  rows, heads, width = q_BNH.shape
  kv_heads = k_BKH.shape[1]
  q = q_BNH.reshape(rows, kv_heads, heads // kv_heads, width)
  old = jnp.einsum("bkgh,bkhs->bkgs", q, k_BKHS, preferred_element_type=jnp.float32)
  new = jnp.einsum("bkgh,bkh->bkg", q, k_BKH, preferred_element_type=jnp.float32)
  s = jnp.arange(k_BKHS.shape[3])
  seen_BS = s[None, :] < length_B[:, None]
  if window is not None:
    seen_BS &= length_B[:, None] - s[None, :] < window
  old = jnp.where(seen_BS[:, None, None, :], _cap(old, softcap), ragged.MASKED)
  new = _cap(new, softcap)[..., None]
  top = jnp.maximum(old.max(-1, keepdims=True), new)
  old, new = jnp.exp(old - top), jnp.exp(new - top)
  out = jnp.einsum(
    "bkgs,bksh->bkgh",
    old.astype(v_BKSH.dtype),
    v_BKSH,
    preferred_element_type=jnp.float32,
  )
  out += new * v_BKH[:, :, None, :]
  out /= old.sum(-1, keepdims=True) + new
  return out.astype(v_BKH.dtype).reshape(q_BNH.shape)


def pages(arch, dtype, mesh) -> bool:
  """Whether a cache here is a pool of pages in any case."""
  platform, kv_heads = mesh_lib.platform(mesh), _own(arch.kv_heads, mesh)
  return platform == "tpu" or _ragged(platform, kv_heads, arch.head_dim, dtype)


def fills(arch, dtype, mesh, pool: bool) -> bool:
  """Whether a row of the cache is read as far as it is filled: of a pool by `ragged`,
  else by cudnn.held."""
  if not pool:
    return cudnn.holds(arch, dtype, mesh)
  platform, kv_heads = mesh_lib.platform(mesh), _own(arch.kv_heads, mesh)
  return _ragged(platform, kv_heads, arch.head_dim, dtype)


def read(arch, length_B, room: int, dtype, mesh, page: int | None = None):
  """Tokens that are read of rows with `length_B` tokens and room for `room`, a mean
  over layers; numpy. page: tokens of a pool's page; None: the cache is no pool."""
  if not fills(arch, dtype, mesh, page is not None):
    return np.full(len(length_B), float(room))
  if page is None:
    size = page = 1
  else:
    heads = _own(arch.kv_heads, mesh)
    size = ragged.block(heads, arch.head_dim, dtype, page, room)

  def seen(window):
    first_B, end_B, count_B = ragged.spans(length_B, window, size, room)
    return np.where(count_B > 0, -(-end_B // page) * page - first_B // size * size, 0)

  layers = collections.Counter(window or _FAR for window in arch.windows())
  return sum(n * seen(window) for window, n in layers.items()) / arch.layers


def _own(kv_heads, mesh) -> int:
  """Key-value heads of a layer on each device, as kv.placed splits them."""
  split = 1 if mesh is None else mesh.shape["tensor"]
  return kv_heads if kv_heads % split else kv_heads // split


def _ragged(platform, kv_heads, width, dtype) -> bool:
  """Whether ragged.py does this; on a TPU where it does not, says so once."""
  fits = platform == "tpu" and ragged.fits(kv_heads, width, dtype)
  if platform == "tpu" and not fits:
    process.say_once(
      f"{kv_heads} key-value heads of {width} in {dtype} are too many for the TPU's"
      " kernel: each token puts together what all slots can hold, layer by layer; raise"
      " sampling.tensor"
    )
  return fits
