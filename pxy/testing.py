"""Small things to test with: an architecture, its parameters, the byte tokenizer."""

import dataclasses

import jax
import numpy as np

from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.text import tokenizer as tokenizer_lib


def tokenizer() -> tokenizer_lib.Bytes:
  """The byte tokenizer: every text is its bytes, and there are three control tokens."""
  return tokenizer_lib.Bytes()


def arch(**changes) -> arch_lib.Arch:
  """Two layers, 4 heads on 2 key-value heads, the byte tokenizer's vocabulary."""
  tiny = arch_lib.Arch(
    vocab_size=260,
    layers=2,
    d_model=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    d_ff=48,
    context=128,
  )
  return dataclasses.replace(tiny, **changes)


def params(arch: arch_lib.Arch, seed: int = 0, spread: float = 0.3) -> dict:
  """Parameters drawn in numpy, which unlike `decoder.init` compiles nothing (5 s).

  Every leaf is `spread` wide, norm scales around 1, so that no flag is without effect.
  """
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    value = spread * rng.standard_normal(leaf.shape, np.float32)
    return value + (path[-1].key == "scale" and not arch.norm_plus_one)

  return jax.tree_util.tree_map_with_path(draw, decoder.abstract(arch))
