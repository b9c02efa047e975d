"""config.json of the model families <-> Arch, strictly.

A field that is not known here, or is known and cannot be honoured, is refused by name,
because a model that loads and computes something else is worse than none. `write` is
the inverse of `read`.

Left out: biases of the output and MLP projections, quantised weights, images.
"""

import dataclasses

from pxy import config
from pxy.model.arch import Arch
from pxy.weights import rotations

# Fields of config.json that do not change what the decoder computes.
_INERT = {
  "architectures", "attention_dropout", "auto_map", "bos_token_id",
  "cache_implementation", "dtype", "eos_token_id", "initializer_range",
  "is_llama_config", "model_type", "pad_token_id", "pretraining_tp", "torch_dtype",
  "transformers.js_config", "transformers_version", "use_cache", "_name_or_path",
}  # fmt: skip

# Fields that are read only to make sure that they ask for nothing.
_OFF = {
  "attention_bias": False,
  # No published Gemma 3 has it, and transformers takes no notice of it.
  "attn_logit_softcapping": None,
  "mlp_bias": False,
  "partial_rotary_factor": 1.0,
  "rope_interleaved": False,
  "use_bidirectional_attention": False,
}

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}

_GEMMA3 = {
  "qk_norm": True,
  "post_norm": True,
  "embed_scale": True,
  "norm_plus_one": True,
}
_FAMILIES = {
  "llama": {},
  "qwen2": {"qkv_bias": True},
  "qwen3": {"qk_norm": True},
  "gemma3_text": _GEMMA3,
}
_CLASSES = {
  "llama": "LlamaForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
}

MOST_LAYERS = 4096
"""For which a pattern is written out before the weights show how many there are."""

_NEEDED = object()


class _Fields:
  """What is left of a config.json; each field is taken out once, by type."""

  def __init__(self, values: dict):
    self.left = dict(values)

  def take(self, name: str, kind: type, default=_NEEDED):
    """The field's value; `default` where it is missing or null."""
    value = self.left.pop(name, None)
    if value is None and default is not _NEEDED:
      return default
    return rotations.typed(name, value, kind)


def read(values: dict) -> Arch:
  """The Arch of a parsed HF config.json; config.Error names what is not supported."""
  fields = _Fields(values)
  take, left = fields.take, fields.left
  family = left.pop("model_type", None)
  if not isinstance(family, str) or family not in _FAMILIES:
    raise config.Error(
      f"config.json: model_type {family!r} is not supported; {', '.join(_FAMILIES)} are"
    )
  gemma = family == "gemma3_text"
  heads, width = take("num_attention_heads", int), take("hidden_size", int)
  # Of these families the width of a head does not follow from the others.
  implied = _NEEDED if gemma or family == "qwen3" else width // max(heads, 1)
  act_name = "hidden_activation" if gemma else "hidden_act"
  act = take(act_name, str, "gelu_pytorch_tanh" if gemma else "silu")
  if act not in _ACTIVATIONS:
    raise config.Error(f"config.json: {act_name} {act!r} is not supported")
  layers, head_dim = take("num_hidden_layers", int), take("head_dim", int, implied)
  window, pattern = _windows(fields, family, layers)
  arch = Arch(
    vocab_size=take("vocab_size", int),
    layers=layers,
    d_model=width,
    heads=heads,
    kv_heads=take("num_key_value_heads", int, heads),
    head_dim=head_dim,
    d_ff=take("intermediate_size", int),
    context=take("max_position_embeddings", int),
    norm_eps=take("rms_norm_eps", float, 1e-6),
    tied=take("tie_word_embeddings", bool, gemma),
    activation=_ACTIVATIONS[act],
    window=window,
    local_pattern=pattern,
    **rotations.read(
      theta=take("rope_theta", float, None),
      scaling=take("rope_scaling", dict, None),
      parameters=take("rope_parameters", dict, None),
      local=take("rope_local_base_freq", float, None) if gemma else None,
      two=gemma,
    ),
    **(_caps(fields) if gemma else {}),
    **_FAMILIES[family],
  )
  for name, value in left.items():
    # Qwen2 has its biases built in. In the other families the flag also asks for one on
    # the output projection.
    built_in = family == "qwen2" and name == "attention_bias"
    if name in _OFF and not built_in and value in (_OFF[name], None):
      continue
    if name not in _INERT:
      raise config.Error(f"config.json: field {name!r} ({value!r}) is not supported")
  return canonical(arch)


def _windows(fields: _Fields, family: str, layers: int):
  """(window, local_pattern): which layers see how far back."""
  kinds = fields.take("layer_types", list, None)
  if family == "llama":
    for name in ("sliding_window", "use_sliding_window"):
      if fields.left.get(name) in (None, False):
        fields.left.pop(name, None)
    window, pattern = None, ()
  elif family == "gemma3_text":
    window = fields.take("sliding_window", int, 4096)
    every = fields.take("sliding_window_pattern", int, 6)
    every = fields.take("_sliding_window_pattern", int, every)
    if not 0 < every <= MOST_LAYERS:
      raise config.Error(f"config.json: sliding_window_pattern is {every}")
    pattern = tuple((i + 1) % every > 0 for i in range(every))
  else:
    on = fields.take("use_sliding_window", bool, False)
    window = fields.take("sliding_window", int, None) if on else None
    fields.left.pop("sliding_window", None)
    first = fields.take("max_window_layers", int, 28)
    pattern = tuple(i >= first for i in range(min(layers, MOST_LAYERS)))
  if window is not None and layers > MOST_LAYERS:
    raise config.Error(f"config.json: num_hidden_layers is {layers}, with windows")
  if kinds is None:
    return window, pattern if window is not None else ()
  known = {"sliding_attention": True, "full_attention": False}
  if len(kinds) != layers or not all(isinstance(k, str) and k in known for k in kinds):
    raise config.Error(
      f"config.json: layer_types is {kinds!r}, expected {layers} of {', '.join(known)}"
    )
  pattern = tuple(known[kind] for kind in kinds)
  if any(pattern) and window is None:
    raise config.Error(
      "config.json: layer_types asks for sliding_attention, but no sliding_window is on"
    )
  return window, pattern if window is not None else ()


def _caps(fields: _Fields) -> dict:
  """What Gemma has besides: the soft cap of logits, and the scale of attention."""
  scalar = fields.take("query_pre_attn_scalar", int, 256)
  if not 0 < scalar < 2**20:  # so far the scale says which number it is of
    raise config.Error(f"config.json: query_pre_attn_scalar is {scalar}")
  return {
    "logit_softcap": fields.take("final_logit_softcapping", float, None),
    "attn_scale": scalar**-0.5,
  }


def canonical(arch: Arch) -> Arch:
  """The one Arch among those that compute the same as this one."""
  windows = arch.windows() if arch.window is not None else ()
  local = tuple(w is not None for w in windows)
  changes = {}
  if all(local) or not any(local):
    changes = {"window": arch.window if any(local) else None, "local_pattern": ()}
  else:
    changes["local_pattern"] = _period(local)
  if not any(local) or (arch.rope_local_theta, None) == (
    arch.rope_theta,
    arch.rope_scaling,
  ):
    changes["rope_local_theta"] = None
  if arch.attn_scale == arch.head_dim**-0.5:
    changes["attn_scale"] = None
  return dataclasses.replace(arch, **changes)


def _period(local: tuple[bool, ...]) -> tuple[bool, ...]:
  """The shortest pattern that, repeated, begins with `local`."""
  for n in range(1, len(local)):
    if local[n:] == local[:-n]:
      return local[:n]
  return local


def write(arch: Arch) -> dict:
  """The config.json of an Arch; config.Error if no known family has its flags."""
  arch = canonical(arch)
  for family, flags in _FAMILIES.items():
    if all(getattr(arch, k) == v for k, v in flags.items()):
      out = _write(arch, family)
      if out is not None and read(out) == arch:
        return out
  raise config.Error(
    f"arch: no HF family among {', '.join(_FAMILIES)} has these flags together: {arch}"
  )


def _write(arch: Arch, family: str) -> dict | None:
  """What the family would say of it; None: it has no words for it."""
  names = {v: k for k, v in _ACTIVATIONS.items()}
  gemma = family == "gemma3_text"
  out = {
    "architectures": [_CLASSES[family]],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "float32",
    "head_dim": arch.head_dim,
    "hidden_activation" if gemma else "hidden_act": names[arch.activation],
    "hidden_size": arch.d_model,
    "initializer_range": 0.02,
    "intermediate_size": arch.d_ff,
    "max_position_embeddings": arch.context,
    "mlp_bias": False,
    "model_type": family,
    "num_attention_heads": arch.heads,
    "num_hidden_layers": arch.layers,
    "num_key_value_heads": arch.kv_heads,
    "rms_norm_eps": arch.norm_eps,
    "rope_theta": arch.rope_theta,
    "tie_word_embeddings": arch.tied,
    "use_cache": True,
    "vocab_size": arch.vocab_size,
  }
  if family != "llama":
    del out["mlp_bias"]
  if family == "qwen2":
    del out["attention_bias"]
  if arch.rope_scaling is not None:
    out["rope_scaling"] = rotations.write(arch.rope_scaling)
  if family != "llama" and (gemma or arch.window is not None):
    # Gemma's code wants a window also where no layer has one.
    out["sliding_window"] = arch.window or arch.context
    out["layer_types"] = [
      "full_attention" if window is None else "sliding_attention"
      for window in arch.windows()
    ]
    if not gemma:
      first = [w is not None for w in arch.windows()].index(True)
      out |= {"use_sliding_window": True, "max_window_layers": first}
  if gemma:
    scalar = _scalar(arch.scale)
    if scalar is None:
      return None
    out |= {
      "attn_logit_softcapping": None,
      "final_logit_softcapping": arch.logit_softcap,
      "query_pre_attn_scalar": scalar,
      "rope_local_base_freq": arch.rope_local_theta or arch.rope_theta,
    }
  return out


def _scalar(scale: float) -> int | None:
  """n with n ** -0.5 == scale, as Gemma's config has it; None: there is no such."""
  n = round(scale**-2)
  return n if n > 0 and n**-0.5 == scale else None
