"""What a decoder is: one frozen record of sizes and flags.

Every family the code knows is a setting of these flags, not a class; which settings
those are says weights/families.py.

Sources: the Llama, Llama 3, Qwen2, Qwen3, Gemma 2, Gemma 3 and SmolLM3 reports, and
YaRN's (arXiv 2309.00071). Left out: rotary embeddings scaled in other ways, biases on
the output and MLP projections, experts.
"""

import dataclasses
import math
from typing import Literal

from pxy import config


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Slower rotations, for more context than a model was first trained with.

  turns = context * frequency / 2 pi,  kept = clip((turns - low) / (high - low), 0, 1),
  frequency <- frequency * (kept + (1 - kept) / factor). Without `ramp` kept is 0.
  YaRN lets kept fall from 1 to 0 over the numbers of the pairs instead, from the one of
  `high` turns to the one of `low`.
  """

  factor: float
  ramp: tuple[float, float, int] | None = None
  """(low, high, context): rotations that turn more than `high` times in the context
  stay, those of fewer than `low` turns are slowed; None: all are slowed."""
  over: Literal["turns", "pairs", "whole_pairs"] = "turns"
  """What the ramp is linear in; of whole pairs, its ends are rounded outwards."""
  attention: float = 1.0
  """Factor on the rotated queries and keys."""

  def __post_init__(self):
    low, high, context = self.ramp or (0.0, 1.0, 1)
    sound = 1 <= self.factor < math.inf and 0 <= low < high < math.inf
    if not (sound and 0 < context < 2**31):
      raise config.Error(
        f"arch: {self}: factor must be >= 1, low < high, and context positive"
      )
    if self.over != "turns" and not (self.ramp and 1e-6 <= low < high <= 1e6):
      raise config.Error(f"arch: {self}: low and high of YaRN must be 1e-6 to 1e6")
    if not 0 < self.attention < math.inf:
      raise config.Error(f"arch: {self}: attention must be positive")


@dataclasses.dataclass(frozen=True)
class Arch:
  """Sizes and flags of a decoder. Hashable: a static argument of jitted functions."""

  vocab_size: int
  layers: int
  d_model: int
  heads: int
  kv_heads: int
  head_dim: int
  d_ff: int
  context: int
  """Most tokens of a sequence."""
  rope_theta: float = 10_000.0
  rope_scaling: Scaling | None = None
  """Of the rotations to rope_theta."""
  rope_pattern: tuple[bool, ...] = ()
  """Which layers turn queries and keys, repeated over the depth; (): all."""
  rope_local_theta: float | None = None
  """The base in layers with a window, unscaled; None: as in the others."""
  norm_eps: float = 1e-6
  tied: bool = True
  """The head is the transposed embedding."""
  qkv_bias: bool = False
  qk_norm: bool = False
  """RMSNorm over each query and key head, before the rotation."""
  post_norm: bool = False
  """RMSNorm also on what attention and MLP add to the stream."""
  attn_softcap: float | None = None
  """s -> cap * tanh(s / cap) on attention scores."""
  logit_softcap: float | None = None
  window: int | None = None
  """Tokens a local layer sees, itself included; None: all of them."""
  local_pattern: tuple[bool, ...] = ()
  """Which layers have the window, repeated over the depth; (): all."""
  embed_scale: bool = False
  """Multiply embeddings by sqrt(d_model)."""
  norm_plus_one: bool = False
  """Norm scales are stored as their difference from 1."""
  activation: Literal["silu", "gelu_tanh"] = "silu"
  attn_scale: float | None = None
  """Factor on q.k; None: head_dim ** -0.5."""

  def __post_init__(self):
    sizes = ("vocab_size", "layers", "d_model", "heads", "kv_heads", "d_ff", "context")
    for name in (*sizes, "rope_theta", "norm_eps"):
      if not 0 < getattr(self, name) < math.inf:
        raise config.Error(f"arch: {name} is {getattr(self, name)}, must be positive")
    for name in ("rope_local_theta", "attn_softcap", "logit_softcap", "attn_scale"):
      if not 0 < (1 if getattr(self, name) is None else getattr(self, name)) < math.inf:
        raise config.Error(f"arch: {name} is {getattr(self, name)}, must be positive")
    if not 0 < (1 if self.window is None else self.window) < 2**30:
      raise config.Error(f"arch: window is {self.window}, must be 1 to 2^30 - 1")
    for name in (*sizes, "head_dim"):  # counts are int32 on the device
      if getattr(self, name) >= 2**31:
        raise config.Error(f"arch: {name} is {getattr(self, name)}, must be below 2^31")
    by_turns = self.rope_scaling is None or self.rope_scaling.over == "turns"
    if not (by_turns or self.rope_theta > 1):
      raise config.Error(f"arch: rope_theta is {self.rope_theta}, YaRN's is above 1")
    if self.heads % self.kv_heads:
      raise config.Error(
        f"arch: {self.heads} heads do not split over {self.kv_heads} kv_heads"
      )
    if self.head_dim < 2 or self.head_dim % 2:
      raise config.Error(f"arch: head_dim is {self.head_dim}, must be even")

  @property
  def scale(self) -> float:
    """Factor on q.k."""
    return self.head_dim**-0.5 if self.attn_scale is None else self.attn_scale

  def windows(self) -> tuple[int | None, ...]:
    """The window of each layer; None where it sees everything."""
    local = self.local_pattern or (True,)
    return tuple(
      self.window if local[i % len(local)] else None for i in range(self.layers)
    )

  def turns(self) -> tuple[bool, ...]:
    """Whether each layer turns its queries and keys by their positions."""
    pattern = self.rope_pattern or (True,)
    return tuple(pattern[i % len(pattern)] for i in range(self.layers))


def of_width(width: config.Width, vocab: int) -> Arch:
  """The architecture of a model that is trained from scratch, over `vocab` pieces."""
  return Arch(
    vocab_size=vocab,
    layers=width.layers,
    d_model=width.d_model,
    heads=width.heads,
    kv_heads=width.kv_heads,
    head_dim=width.head_dim,
    d_ff=width.d_ff,
    context=width.context,
    tied=width.tied,
  )
