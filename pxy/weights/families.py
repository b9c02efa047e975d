"""config.json of the model families <-> Arch, strictly.

A field that is known and cannot be honoured is refused by name, because a model that
loads and computes something else is worse than none. One that is not known here is

    let through   if its name is of those that never change what a decoder computes:
                  defaults of generation, labels, marks of tools (_LEFTOVER)
    let through   if its value says that nothing is asked for: null, false, 0 or empty,
                  unless there false is what asks (_NEUTRAL has is_causal and the like)
    refused       by name else

and `ignored` names those that were let through. `write` is the inverse of `read`.

Left out: biases of the output and MLP projections, quantised weights, images.
"""

import dataclasses
import re

from pxy import config
from pxy.model.arch import Arch
from pxy.weights import rotations

# Fields that any config.json has and that do not change what the decoder computes.
_INERT = {
  "architectures", "attention_dropout", "auto_map", "bos_token_id",
  "cache_implementation", "dtype", "eos_token_id", "initializer_range",
  "is_llama_config", "model_type", "pad_token_id", "pretraining_tp", "torch_dtype",
  "transformers.js_config", "transformers_version", "use_cache", "_name_or_path",
}  # fmt: skip

# Fields that need not be there and do not either; `ignored` names them.
_LEFTOVER = re.compile(
  # Of generation.
  r"(max|min)_length|max_new_tokens|do_sample|early_stopping|num_beams|num_beam_groups"
  r"|diversity_penalty|temperature|top_[kp]|typical_p|repetition_penalty"
  r"|length_penalty|(encoder_)?no_repeat_ngram_size|bad_words_ids|num_return_sequences"
  r"|remove_invalid_values|exponential_decay_length_penalty|(begin_)?suppress_tokens"
  # Of classifiers, and of what is returned.
  r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params"
  r"|classifier_activation|return_dict(_in_generate)?|output_(attentions|scores)"
  r"|output_hidden_states"
  # Of training, of tools, and of tokenizers: ids beside those that every file has.
  r"|\w*(dropout|_pdrop)|gradient_checkpointing|use_reentrant|neftune_noise_alpha"
  r"|unsloth_\w+|_?attn_implementation(_\w+)?|_flash_attn_2_enabled|_commit_hash"
  r"|use_flash_attention(_2)?|use_flash_attn|torchscript|use_bfloat16|tf_legacy_loss"
  r"|base_model_[tpe]p_plan|is_decoder|chunk_size_feed_forward|prefix|tokenizer_class"
  r"|model_max_length|max_sequence_length|seq_length|\w+_token_(ids?|index)"
  r"|(bos|eos|pad|unk|mask|sep|cls)_token",
  re.ASCII,
)

# Fields that are read only to make sure that they ask for nothing.
_NEUTRAL = {
  "attention_bias": False,
  # No published Gemma 3 has it, and transformers takes no notice of it.
  "attn_logit_softcapping": None,
  "causal": True,
  "is_causal": True,
  "mlp_bias": False,
  "partial_rotary_factor": 1.0,
  "rms_norm": True,
  "rope_interleaved": False,
  "rotary_pct": 1.0,
  "use_bidirectional_attention": False,
  "use_rope": True,
}

# What a family has without being asked. In the others attention_bias also asks for one
# on the output projection. The tensors show whether it is there.
_BUILT_IN = {"qwen2": {"attention_bias"}}

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
  "mistral": {},
  "smollm3": {},
}
_CLASSES = {
  "llama": "LlamaForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
  "mistral": "MistralForCausalLM",
  "smollm3": "SmolLM3ForCausalLM",
}
_THETAS = {"gemma3_text": 1_000_000.0, "smollm3": 2_000_000.0}
"""Base of the rotations where a file says none; 10,000 in the others."""

_KINDS = {False: "full_attention", True: "sliding_attention"}
"""layer_types, by whether a layer has a window."""

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
  return _read(values)[0]


def ignored(values: dict) -> tuple[str, ...]:
  """Names of the fields that `read` lets through unread, but for those that any
  config.json has; errors as `read`'s."""
  return _read(values)[1]


def _read(values: dict) -> tuple[Arch, tuple[str, ...]]:
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
  context = take("max_position_embeddings", int)
  arch = Arch(
    vocab_size=take("vocab_size", int),
    layers=layers,
    d_model=width,
    heads=heads,
    kv_heads=take("num_key_value_heads", int, heads),
    head_dim=head_dim,
    d_ff=take("intermediate_size", int),
    context=context,
    norm_eps=take("rms_norm_eps", float, 1e-6),
    tied=take("tie_word_embeddings", bool, gemma or family == "smollm3"),
    activation=_ACTIVATIONS[act],
    window=window,
    local_pattern=pattern,
    rope_pattern=_turns(fields, layers) if family == "smollm3" else (),
    **rotations.read(
      theta=take("rope_theta", float, None),
      scaling=take("rope_scaling", dict, None),
      parameters=take("rope_parameters", dict, None),
      local=take("rope_local_base_freq", float, None) if gemma else None,
      two=gemma,
      usual=_THETAS.get(family, 10_000.0),
      context=context,
      original=take("original_max_position_embeddings", int, None),
    ),
    **(_caps(fields) if gemma else {}),
    **_FAMILIES[family],
  )
  names = []
  for name, value in left.items():
    if name in _INERT or (name in _NEUTRAL and value in (None, _NEUTRAL[name])):
      continue
    let = name in _BUILT_IN.get(family, ()) or _LEFTOVER.fullmatch(name)
    if not let and (value or name in _NEUTRAL):  # a value: not null, false, 0 or empty
      raise config.Error(f"config.json: field {name!r} ({value!r}) is not supported")
    names.append(name)
  return canonical(arch), tuple(names)


def _turns(fields: _Fields, layers: int) -> tuple[bool, ...]:
  """rope_pattern: which layers turn queries and keys. SmolLM3 lists it as 1 or 0."""
  every = fields.take("no_rope_layer_interval", int, 4)
  turns = fields.take("no_rope_layers", list, None)
  if layers > MOST_LAYERS:
    raise config.Error(f"config.json: num_hidden_layers is {layers}, in a smollm3")
  if turns is None:
    if not 0 < every <= MOST_LAYERS:
      raise config.Error(f"config.json: no_rope_layer_interval is {every}")
    return tuple((i + 1) % every > 0 for i in range(every))
  known = all(isinstance(t, int) and t in (0, 1) for t in turns)
  if not known or not 0 < layers <= len(turns):
    raise config.Error(
      f"config.json: no_rope_layers is {turns!r}, expected {layers} of 0, 1"
    )
  return tuple(map(bool, turns[:layers]))


def _windows(fields: _Fields, family: str, layers: int):
  """(window, local_pattern): which layers see how far back."""
  kinds = fields.take("layer_types", list, None)
  if family == "llama":
    if fields.left.get("use_sliding_window") is False:
      # A width that is switched off is none.
      fields.left |= {"sliding_window": None, "max_window_layers": None}
    for name in ("use_sliding_window", "sliding_window", "max_window_layers"):
      if fields.left.get(name) in (None, False):
        fields.left.pop(name, None)
    window, pattern = None, ()
  elif family == "mistral":
    # Every layer has it, unless it is null; files that do not say mean 4,096.
    there = fields.left.get("sliding_window", 4096) is not None
    window, pattern = fields.take("sliding_window", int, 4096 if there else None), ()
    fields.left.pop("max_window_layers", None)
    on = fields.take("use_sliding_window", bool, there)
    if on != there or (kinds and set(map(str, kinds)) != {_KINDS[there]}):
      raise config.Error(
        f"config.json: sliding_window is {window}, which in a mistral every layer has:"
        f" use_sliding_window {on} or layer_types {kinds!r} say otherwise"
      )
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
    if family == "smollm3":  # and the layers that do not turn are the local ones
      pattern = tuple(not turns for turns in _turns(_Fields(fields.left), layers))
  if window is not None and layers > MOST_LAYERS:
    raise config.Error(f"config.json: num_hidden_layers is {layers}, with windows")
  if kinds is None:
    return window, pattern if window is not None else ()
  known = {kind: local for local, kind in _KINDS.items()}
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
  turns = arch.turns() if arch.rope_pattern else (True,)
  changes = {"rope_pattern": () if all(turns) else _period(turns)}
  if all(local) or not any(local):
    changes |= {"window": arch.window if any(local) else None, "local_pattern": ()}
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
  if family not in ("llama", "smollm3"):
    del out["mlp_bias"]
  if family in ("qwen2", "mistral"):
    del out["attention_bias"]
  if family == "mistral":
    out["sliding_window"] = arch.window
  if family == "smollm3":
    out["no_rope_layers"] = [int(turns) for turns in arch.turns()]
    out["layer_types"] = [_KINDS[w is not None] for w in arch.windows()]
    # Else ids of its own vocabulary count, also in a smaller one.
    out |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
  if arch.rope_scaling is not None:
    out["rope_scaling"] = rotations.write(arch.rope_scaling)
  if family not in ("llama", "mistral") and (gemma or arch.window is not None):
    # Gemma's code wants a window also where no layer has one.
    out["sliding_window"] = arch.window or arch.context
    out["layer_types"] = [_KINDS[w is not None] for w in arch.windows()]
    if not gemma:
      out["use_sliding_window"] = True
    if not gemma and family != "smollm3":
      first = [w is not None for w in arch.windows()].index(True)
      out["max_window_layers"] = first
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
