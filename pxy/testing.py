"""Small things to test with: an architecture, and the byte tokenizer it fits."""

import dataclasses

from pxy.model import arch as arch_lib
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
