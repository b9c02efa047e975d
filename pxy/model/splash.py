"""Attention of packed rows on a TPU: JAX's splash kernel.

The scores are formed in blocks that never leave the core, blocks that no token may see
(the upper triangle, what lies behind a window) are skipped, and the backward pass forms
the scores again from what was kept: queries, keys, values, the output and one
log-sum-exp per query and head. Query heads of a group read the same key-value head.

The kernel's mask is static. Where the window is an array, one kernel is made for each
value it can have and the layer runs one of them: a layer scan stays one program.

Source: jax.experimental.pallas.ops.tpu.splash_attention; the block sizes are MaxText's.
Left out: jax.jvp, which the kernel does not have; blocks that are skipped because all
of their segments differ (the mask cannot know them).
"""

import functools

import jax
import jax.numpy as jnp

from pxy import imports

# Late: Pallas costs a sixth of a second, and only a TPU has the kernel.
_SPLASH = "jax.experimental.pallas.ops.tpu.splash_attention"
splash = imports.later(f"{_SPLASH}.splash_attention_kernel")
masks = imports.later(f"{_SPLASH}.splash_attention_mask")

# By this name a checkpoint policy can keep the kernel's output and log-sum-exp.
NAME = "attention"

# From a row's length: the largest block that pads it by no more than an eighth.
_BLOCKS, _PADDING = (512, 256, 128), 1.125


def packed(
  q_BTNH, k_BTKH, v_BTKH, segments_BT, window, *, softcap, windows, interpret=False
):
  """Causal attention within equal segment ids -> out_BTNH; queries come scaled.

  Args:
    window: int, int array of no dimensions, or None for all.
    windows: the values that `window` can have where it is an array.
    interpret: run the kernel's program as XLA operations: for tests on a CPU.
  """
  tokens, heads = q_BTNH.shape[1:3]
  size = _padded(tokens)[0]
  pad = [(0, 0), (0, size - tokens)]
  # Padding comes last, where by causality no token sees it.
  segments_BT = jnp.pad(segments_BT, pad)
  q_BNTH, k_BKTH, v_BKTH = (
    jnp.pad(x, [*pad, (0, 0), (0, 0)]).transpose(0, 2, 1, 3)
    for x in (q_BTNH, k_BTKH, v_BTKH)
  )

  def run(window, *inputs):
    kernel = _kernel(tokens, heads, window, softcap, interpret)
    return jax.vmap(kernel)(*inputs)

  inputs = q_BNTH, k_BKTH, v_BKTH, splash.SegmentIds(segments_BT, segments_BT)
  if not isinstance(window, jax.Array):
    out_BNTH = run(window, *inputs)
  else:
    kinds = sorted({min(w, tokens) for w in windows})
    which = sum(jnp.int32(window > w) for w in kinds[:-1])
    branches = [functools.partial(run, w) for w in kinds]
    out_BNTH = jax.lax.switch(which, branches, *inputs)
  return out_BNTH.transpose(0, 2, 1, 3)[:, :tokens]


def _padded(tokens):
  """(tokens of a row with its padding, block)."""
  least = -(-tokens // _BLOCKS[-1]) * _BLOCKS[-1]
  sizes = [(-(-tokens // block) * block, block) for block in _BLOCKS]
  return next(pair for pair in sizes if pair[0] <= _PADDING * least)


def _kernel(tokens, heads, window, softcap, interpret):
  """Attention of one row: (q_NTH, k_KTH, v_KTH, segment ids) -> out_NTH."""
  size, block = _padded(tokens)
  shape = (size, size)
  if window is None or window >= tokens:
    mask = masks.CausalMask(shape)
  else:
    mask = masks.LocalMask(shape, (window - 1, 0), 0)
  return splash.make_splash_mha_single_device(
    masks.MultiHeadMask([mask] * heads),
    block_sizes=splash.BlockSizes(
      block_q=block, block_kv=block,
      block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block,
    ),
    attn_logits_soft_cap=softcap,
    residual_checkpoint_name=NAME,
    interpret=interpret,
  )  # fmt: skip
