"""A language model in a GGUF file: its metadata to Arch, its tensors to params.

The list of an HF checkpoint's tensors (names.py) is walked under llama.cpp's names, so
the same rules hold: every tensor is used once, every parameter is set once, and names
and shapes are compared with the metadata before anything is allocated.

In files of architecture `llama`, llama.cpp keeps the rows of each query and key head in
the order of rotated pairs (x_0, x_H/2, x_1, x_H/2+1, ...); they are put back into HF's
(x_0, ..., x_H/2-1, x_H/2, ...).

In files of architecture `gemma3` (the text part) the 1 that the model adds to the scale
of each norm is already in it, and is taken off. Three things are in no field, for they
are fixed in llama.cpp: every sixth layer sees everything, local layers turn by base
10,000 (newer files may say otherwise of both), and q.k is scaled by H^-1/2, in the 27B,
which is known by its 62 layers, by (D / N)^-1/2.

Sources: llama.cpp's convert_hf_to_gguf.py and llama-model.cpp, ggml's docs/gguf.md;
gguf_rotations.py for rotary embeddings. Left out: experts, windows of other families,
images, adapters, files in parts.
"""

import contextlib
import dataclasses
import functools
import re

from pxy import config
from pxy.model.arch import Arch
from pxy.weights import families, gguf_file, gguf_rotations, names

_GEMMA3 = {
  "qk_norm": True,
  "post_norm": True,
  "embed_scale": True,
  "norm_plus_one": True,
  "activation": "gelu_tanh",
}
_FAMILIES = {
  "llama": {},
  "qwen2": {"qkv_bias": True},
  "qwen3": {"qk_norm": True},
  "gemma3": _GEMMA3,
}
_GEMMA3_27B = 62
"""Layers of the one Gemma 3 with another scale of q.k."""

# Fields that are read only to make sure that they ask for nothing.
_OFF = {
  "expert_count": (0,),
  "expert_used_count": (0,),
  "attention.sliding_window": (0,),
}
_ONE_FILE = {"general.type": "model", "split.count": 1}

_NAMES = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}
_TWO_NORMS = {"post_attention_layernorm": "ffn_norm"}
_FOUR_NORMS = {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}


def arch(file: gguf_file.File) -> Arch:
  """The Arch of a file's metadata; config.Error names what is not supported."""
  for name, value in _ONE_FILE.items():
    found = _take(dict(file.fields), name, type(value), value)
    if found != value:
      raise config.Error(f"{name} is {found!r}, only {value!r} can be read")
  family = _take(dict(file.fields), "general.architecture", str)
  if family not in _FAMILIES:
    raise config.Error(
      f"general.architecture {family!r} is not supported; {', '.join(_FAMILIES)} are"
    )
  if "token_embd.weight" not in file.tensors:
    raise config.Error("tensor token_embd.weight is missing")
  left = {
    name.removeprefix(f"{family}."): value
    for name, value in file.fields.items()
    if name.startswith(f"{family}.")
  }
  vocab = file.tensors["token_embd.weight"].shape[0]
  heads, width = (
    _take(left, name, int) for name in ("attention.head_count", "embedding_length")
  )
  head_dim = _take(left, "attention.key_length", int, width // max(heads, 1))
  theta = _take(left, "rope.freq_base", float, 10_000.0)
  layers = _take(left, "block_count", int)
  gemma = _gemma3(left, layers, width, heads) if family == "gemma3" else {}
  model = Arch(
    vocab_size=_take(left, "vocab_size", int, vocab),
    layers=layers,
    d_model=width,
    heads=heads,
    kv_heads=_take(left, "attention.head_count_kv", int, heads),
    head_dim=head_dim,
    d_ff=_take(left, "feed_forward_length", int),
    context=_take(left, "context_length", int),
    rope_theta=theta,
    norm_eps=_take(left, "attention.layer_norm_rms_epsilon", float),
    tied="output.weight" not in file.tensors,
    **_FAMILIES[family],
    **gemma,
  )
  scaling = _scaling(file, family, left, model)
  for name in ("attention.value_length", "rope.dimension_count"):
    if _take(left, name, int, head_dim) != head_dim:
      raise config.Error(f"{family}.{name} is not {head_dim}, the width of a head")
  for name, value in left.items():
    # An array has no one truth value, so its type is looked at first.
    plain = isinstance(value, str | int | float)
    if not (plain and name in _OFF and value in _OFF[name]):
      raise config.Error(f"field {family}.{name} ({value!r}) is not supported")
  return families.canonical(dataclasses.replace(model, rope_scaling=scaling))


def _gemma3(left: dict, layers: int, width: int, heads: int) -> dict:
  """What an Arch says of Gemma 3 besides its flags."""
  window = _take(left, "attention.sliding_window", int, 0) or None
  every = _take(left, "attention.sliding_window_pattern", int, 6)
  if not 0 < every <= families.MOST_LAYERS:
    raise config.Error(f"gemma3.attention.sliding_window_pattern is {every}")
  if window is not None and layers > families.MOST_LAYERS:
    raise config.Error(f"block_count says {layers} layers, with windows")
  wide = layers == _GEMMA3_27B and heads > 0 and width >= heads
  return {
    "window": window,
    "local_pattern": tuple((i + 1) % every > 0 for i in range(every)),
    "rope_local_theta": _take(left, "rope.freq_base_swa", float, 10_000.0),
    "attn_scale": (width // heads) ** -0.5 if wide else None,
    "logit_softcap": _take(left, "final_logit_softcapping", float, 0.0) or None,
  }


def _scaling(file: gguf_file.File, family: str, left: dict, model: Arch):
  """The scaling of the rotations; takes its fields from `left`."""
  _take(left, "rope.scaling.finetuned", bool, False)  # how it was trained, no more
  scaling = gguf_rotations.linear(
    _take(left, "rope.scaling.type", str, "linear"),
    _take(left, "rope.scaling.factor", float, 0.0),
    _take(left, "rope.scale_linear", float, 0.0),
  )
  if family != "llama" or gguf_rotations.FREQS not in file.tensors:
    return scaling
  ramp = gguf_rotations.llama3(file, model.rope_theta, model.head_dim)
  if scaling is not None and ramp is not None:
    raise config.Error(
      f"tensor {gguf_rotations.FREQS} beside {family}.rope.scaling.factor"
      f" {scaling.factor:g}: only one of them can be honoured"
    )
  return scaling or ramp


def params(
  file: gguf_file.File, model: Arch, put: names.Put = lambda path, value: value
) -> dict:
  """Parameters, each through `put`; config.Error: they are not those of `model`."""
  # Before the list is made: its length is what the metadata claims.
  if len(file.tensors) < model.layers:
    raise config.Error(
      f"block_count says {model.layers} layers, the file has {len(file.tensors)}"
      " tensors"
    )
  theirs = functools.partial(_name, model.post_norm)
  wanted = {theirs(tensor.name): tensor for tensor in names.tensors(model)}
  for name, tensor in wanted.items():
    if name not in file.tensors:
      raise config.Error(f"tensor {name} is missing")
    found = file.tensors[name].shape
    if found != tensor.shape:
      raise config.Error(f"tensor {name} is {found}, the metadata imply {tensor.shape}")
  swapped = file.fields["general.architecture"] == "llama"
  for name in file.tensors:  # that of the rotations is in the Arch by now
    if name not in wanted and not (swapped and name == gguf_rotations.FREQS):
      raise config.Error(f"tensor {name!r} is not known")

  def read(tensor):
    value = file.read(theirs(tensor.name))
    if model.norm_plus_one and tensor.path[-1] == "scale":
      value = value - 1
    if swapped and tensor.path[1:] in (("attn", "q"), ("attn", "k")):
      value = _halves(value, model.head_dim)
    return value

  reading = functools.partial(contextlib.nullcontext, read)
  return names.gather(wanted.values(), reading, put)


def _name(post_norm: bool, name: str) -> str:
  """llama.cpp's name of an HF tensor."""
  match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
  if match is None:
    return _NAMES[name]
  parts = _LAYER_NAMES | (_FOUR_NORMS if post_norm else _TWO_NORMS)
  return f"blk.{match[1]}.{parts[match[2]]}.{match[3]}"


def _halves(value, head_dim: int):
  """Rows of each head from rotated pairs to first and second halves."""
  pairs = value.reshape(-1, head_dim // 2, 2, value.shape[-1])
  return pairs.swapaxes(1, 2).reshape(value.shape)


def _take(fields: dict, name: str, kind: type, *default):
  """Removes a field and checks its type; without it, the default if there is one."""
  value = fields.pop(name, default[0] if default else None)
  if type(value) is not kind:
    raise config.Error(f"field {name} is {value!r}, expected {kind.__name__}")
  return value
