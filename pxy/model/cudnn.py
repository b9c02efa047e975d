"""Attention on a GPU: cuDNN's flash attention, of packed rows and of one token.

It takes no segment ids, but, since Hopper, where each sequence of a row starts and how
long it is: what no token may see is then not computed. More sequences than a row has
places for, a window that is an array, and older cards take a mask of T x T per row,
which all heads share. Of one token, it decodes with pages: those of a layer's rows are
pages of the stacked cache, which is neither cut nor copied, and a row is read as far as
it is filled.

Its arguments are tested on a CPU, with jax.nn's own XLA version; on an H100 both ways
agree with it.
"""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp

from pxy import imports
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process

# jax.nn's own way to cuDNN, which has more arguments: where sequences start in a row.
fused = imports.later("jax._src.cudnn.fused_attention_stablehlo")

# What it does with them is known of this version on; before, grouped heads were given
# wrong offsets (jax-ml/jax 39521).
_KNOWN = jax.__version_info__ >= (0, 11, 2)

# Sequences, padding included, that a row has places for. cuDNN's backward pass asks for
# memory as if each were a row: for 1 x 16,384 tokens, 16 heads of 128 and 128 places,
# 32 GB.
_RUNS = 8


def misfit(q_BTNH, softcap) -> str:
  """What keeps it from having these queries' attention and its gradient, in words; ""
  where nothing does."""
  tokens, _, width = q_BTNH.shape[1:]
  return _first(
    *_lacks(q_BTNH.dtype, width, softcap),
    (f"{tokens} tokens, an odd number,", tokens % 2),
  )


def _lacks(dtype, width, softcap):
  """What it has neither for training nor for decoding: (words, whether it is so)."""
  dtype = jnp.dtype(dtype)
  yield f"{dtype.name}, which is not of 16 bits", dtype.itemsize != 2
  # Of 256 it has one since Hopper, for which nothing here asks.
  yield f"heads of {width}", width % 8 or width > 128
  yield "a softcap", softcap is not None


def _first(*reasons) -> str:
  """The words of the first that is so; "" where none is."""
  return next((why for why, so in reasons if so), "")


def packed(q_BTNH, k_BTKH, v_BTKH, segments_BT, window, *, most, how):
  """Causal attention within equal segment ids -> out_BTNH; queries come scaled.

  Args:
    window: tokens seen, itself included: int, int array, or None for all.
    most: runs of equal ids that a row has at most, where that is known.
    how: `cudnn`, or `xla`, which means the same.
  """
  under = functools.partial(_under_mask, window=window, how=how)
  if isinstance(window, jax.Array) or not _takes_runs(how):
    if how == "cudnn" and isinstance(window, jax.Array):
      process.say_once(
        "attention of packed rows: layers whose windows differ take a mask of T x T for"
        " each row"
      )
    return under(q_BTNH, k_BTKH, v_BTKH, segments_BT)
  found = runs(segments_BT, most or _RUNS)
  if most is not None:
    return _by_runs(q_BTNH, k_BTKH, v_BTKH, found, window=window, how=how)
  return jax.lax.cond(
    found.fit,
    lambda q, k, v: _by_runs(q, k, v, found, window=window, how=how),
    lambda q, k, v: under(q, k, v, segments_BT),
    q_BTNH, k_BTKH, v_BTKH,
  )  # fmt: skip


def _takes_runs(how: str) -> bool:
  """Whether sequences are told by where they start; says so once where they are not."""
  takes = how == "xla" or (_KNOWN and _capability() >= 9.0)
  if not takes:
    why = "this card" if _KNOWN else f"jax {jax.__version__}"
    process.say_once(
      f"attention of packed rows: with {why} cuDNN takes a mask of T x T for each row;"
      " a Hopper card and jax 0.11.2 (Python 3.12) do without, in a third of the time"
    )
  return takes


def _capability() -> float:
  return float(jax.local_devices(backend="gpu")[0].compute_capability)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Runs:
  """Where equal ids stand side by side in rows: the first M runs of each row."""

  length_BM: jax.Array
  """Tokens; -1 where there is no such run."""
  start_BM: jax.Array
  """Place of the first token, -1 where there is no such run."""
  fit: jax.Array
  """No row has more."""


def runs(segments_BT, most: int) -> Runs:
  """The first `most` runs of equal ids of each row; padding is one as well."""
  new_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
  run_BT = jnp.cumsum(new_BT, axis=1)
  run_M = jnp.arange(most)
  length_BM = (run_BT[:, None] == run_M[None, :, None]).sum(-1)
  start_BM = jnp.cumsum(length_BM, axis=1) - length_BM
  there_BM = length_BM > 0
  return Runs(
    jnp.where(there_BM, length_BM, -1),
    jnp.where(there_BM, start_BM, -1),
    (run_BT[:, -1] < most).all(),
  )


def _by_runs(q_BTNH, k_BTKH, v_BTKH, found: Runs, *, window, how):
  """Causal attention within runs, by where they start."""
  if how == "xla":  # the same meaning
    t = jnp.arange(q_BTNH.shape[1])[None, :, None]
    start_BTM, length_BTM = found.start_BM[:, None], found.length_BM[:, None]
    in_BTM = (start_BTM <= t) & (t < start_BTM + length_BTM)
    run_BT = jnp.where(in_BTM.any(-1), in_BTM.argmax(-1), -1 - t[..., 0])
    return _under_mask(q_BTNH, k_BTKH, v_BTKH, run_BT, window=window, how=how)
  # The offsets are of one more run than there may be.
  offset_BM = jnp.pad(found.start_BM, ((0, 0), (0, 1)), constant_values=-1)
  return fused.dot_product_attention(
    q_BTNH, k_BTKH, v_BTKH,
    q_seqlen=found.length_BM, kv_seqlen=found.length_BM,
    q_offsets=offset_BM, kv_offsets=offset_BM,
    scale=1.0, mask_type=fused.MaskType.PADDING_CAUSAL, sliding_window_length=window,
  )  # fmt: skip


def _under_mask(q_BTNH, k_BTKH, v_BTKH, segments_BT, *, window, how):
  """jax.nn's attention under a mask of T x T."""
  seen_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
  if window is not None:
    t = jnp.arange(segments_BT.shape[1])
    seen_BTS &= (t[:, None] - t[None, :] < window)[None]
  return jax.nn.dot_product_attention(
    q_BTNH, k_BTKH, v_BTKH, mask=seen_BTS[:, None], scale=1.0, is_causal=True,
    implementation=how,
  )  # fmt: skip


def holds(arch, dtype, mesh) -> bool:
  """Whether `held` can be had: one GPU, 16-bit, no softcap and no window."""
  return mesh_lib.platform(mesh) == "gpu" and not lacks(arch, dtype, mesh)


def lacks(arch, dtype, mesh) -> str:
  """What on a GPU keeps `held` from being had, in words; "" where nothing does."""
  return _first(
    (f"jax {jax.__version__} (0.11.2 has what it takes)", not _KNOWN),
    ("several GPUs", mesh is not None),
    *_lacks(dtype, arch.head_dim, arch.attn_softcap),
    ("windows", set(arch.windows()) != {None}),
  )


def held(q_BNH, k_LBSKH, v_LBSKH, layer, length_B, *, scale, how="cudnn"):
  """Attention of one token over the first `length_B` > 0 positions of a layer.

  The stacked cache is given whole, and the token's own key and value are in it. Pages
  are of a power of two, the largest that divides S: let it be 64 or more.

  how: `cudnn`, or `xla`, which means the same. Returns out_BNH.
  """
  _, rows, room, kv_heads, width = k_LBSKH.shape
  page = room & -room
  each = room // page
  first = jnp.asarray(layer, jnp.int32) * (rows * each)
  page_BP = first + jnp.arange(rows * each, dtype=jnp.int32).reshape(rows, each)
  k, v = (x.reshape(-1, page, kv_heads, width) for x in (k_LBSKH, v_LBSKH))
  if how == "xla":
    k_BSKH, v_BSKH = (x[page_BP].reshape(rows, room, kv_heads, width) for x in (k, v))
    out_B1NH = jax.nn.dot_product_attention(
      q_BNH[:, None], k_BSKH, v_BSKH, scale=scale, key_value_seq_lengths=length_B,
      implementation="xla",
    )  # fmt: skip
    return out_B1NH[:, 0]
  page_B1P1, none = page_BP[:, None, :, None], jnp.zeros(0, q_BNH.dtype)
  # Beneath fused.paged_attention, which wants every page to be of some row. By name:
  # jax 0.12 has two more arguments than 0.11, of which nothing is wanted.
  later = {"score_mod_args": (), "score_mod": None}
  there = inspect.signature(fused._dot_product_attention).parameters
  out_B1NH = fused._dot_product_attention(
    query=q_BNH[:, None], key=k, value=v,
    bias=none, variadic_args=(False, False),  # nor its gradient
    q_seqlen=jnp.ones_like(length_B), kv_seqlen=length_B,
    q_offsets=none, kv_offsets=none,
    page_table_k=page_B1P1, page_table_v=page_B1P1,
    scale=scale, seed=0, dropout_rate=0.0,
    mask_type=fused.MaskType.PADDING, layout=fused.AttentionLayout.BTNH.value,
    sliding_window_length=None, cudnn_version=fused.check_cudnn_version(),
    return_residual=False, **{k: x for k, x in later.items() if k in there},
  )  # fmt: skip
  return out_B1NH[:, 0]
