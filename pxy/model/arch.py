"""What a decoder is: one frozen record of sizes and flags.

Every family the code knows is a setting of these flags, not a class. `from_hf` reads a
config.json strictly: a field it does not know, or knows and cannot honour, is refused
by name, because a model that loads and computes something else is worse than none.

Sources: the Llama, Qwen2, Qwen3 and Gemma 2 reports. Left out: scaled rotary
embeddings, biases on the output and MLP projections, experts.
"""

import dataclasses
import math
from typing import Literal

from pxy import config


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
    for name in (*sizes, "head_dim"):  # counts are int32 on the device
      if getattr(self, name) >= 2**31:
        raise config.Error(f"arch: {name} is {getattr(self, name)}, must be below 2^31")
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


# Fields of config.json that do not change what the decoder computes.
_INERT = {
  "architectures", "attention_dropout", "auto_map", "bos_token_id", "dtype",
  "eos_token_id", "initializer_range", "is_llama_config", "max_window_layers",
  "model_type", "pad_token_id", "pretraining_tp", "torch_dtype",
  "transformers.js_config", "transformers_version", "use_cache", "_name_or_path",
}  # fmt: skip

# Fields that are read only to make sure that they ask for nothing.
_OFF = {
  "mlp_bias": False,
  "rope_interleaved": False,
  "rope_scaling": None,
  "use_sliding_window": False,
}

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_FAMILIES = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}
_CLASSES = {
  "llama": "LlamaForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
}


def from_hf(values: dict) -> Arch:
  """The Arch of a parsed HF config.json; config.Error names what is not supported."""
  left = dict(values)
  family = left.pop("model_type", None)
  if not isinstance(family, str) or family not in _FAMILIES:
    raise config.Error(
      f"config.json: model_type {family!r} is not supported; {', '.join(_FAMILIES)} are"
    )

  def take(name, kind, *default):
    value = left.pop(name, default[0] if default else None)
    if value is None and default:
      return default[0]
    if kind is float and type(value) is int and abs(value) < 2**53:
      value = float(value)
    if type(value) is not kind:
      raise config.Error(f"config.json: {name} is {value!r}, expected {kind.__name__}")
    return value

  heads, width = take("num_attention_heads", int), take("hidden_size", int)
  rope = left.pop("rope_parameters", None) or {}
  plain = isinstance(rope, dict) and not set(rope) - {"rope_type", "rope_theta"}
  if not plain or rope.get("rope_type", "default") != "default":
    raise config.Error(f"config.json: rope_parameters {rope!r} is not supported")
  left.setdefault("rope_theta", rope.get("rope_theta"))
  theta = take("rope_theta", float, 10_000.0)
  act = take("hidden_act", str, "silu")
  if act not in _ACTIVATIONS:
    raise config.Error(f"config.json: hidden_act {act!r} is not supported")
  arch = Arch(
    vocab_size=take("vocab_size", int),
    layers=take("num_hidden_layers", int),
    d_model=width,
    heads=heads,
    kv_heads=take("num_key_value_heads", int, heads),
    head_dim=take("head_dim", int, width // max(heads, 1)),
    d_ff=take("intermediate_size", int),
    context=take("max_position_embeddings", int),
    rope_theta=theta,
    norm_eps=take("rms_norm_eps", float, 1e-6),
    tied=take("tie_word_embeddings", bool, False),
    activation=_ACTIVATIONS[act],
    **_FAMILIES[family],
  )
  # Qwen2's code has its biases built in; the flag of the other families also asks for
  # one on the output projection.
  off = dict(_OFF) if family == "qwen2" else _OFF | {"attention_bias": False}
  if not left.get("use_sliding_window"):
    left.pop("sliding_window", None)
  kinds = left.get("layer_types") or []
  if isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds):
    left.pop("layer_types", None)
  for name, value in left.items():
    if name in off and value in (off[name], None):
      continue
    if name not in _INERT:
      raise config.Error(f"config.json: field {name!r} ({value!r}) is not supported")
  return arch


def to_hf(arch: Arch) -> dict:
  """The config.json of an Arch; config.Error if no known family has its flags."""
  names = {v: k for k, v in _ACTIVATIONS.items()}
  values = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "float32",
    "head_dim": arch.head_dim,
    "hidden_act": names[arch.activation],
    "hidden_size": arch.d_model,
    "initializer_range": 0.02,
    "intermediate_size": arch.d_ff,
    "max_position_embeddings": arch.context,
    "mlp_bias": False,
    "num_attention_heads": arch.heads,
    "num_hidden_layers": arch.layers,
    "num_key_value_heads": arch.kv_heads,
    "rms_norm_eps": arch.norm_eps,
    "rope_theta": arch.rope_theta,
    "tie_word_embeddings": arch.tied,
    "use_cache": True,
    "vocab_size": arch.vocab_size,
  }
  for family, flags in _FAMILIES.items():
    out = {"architectures": [_CLASSES[family]], "model_type": family} | values
    if family == "qwen2":
      del out["attention_bias"]
    if all(getattr(arch, k) == v for k, v in flags.items()) and from_hf(out) == arch:
      return out
  raise config.Error(
    f"arch: no HF family among {', '.join(_FAMILIES)} has these flags together: {arch}"
  )
