"""Tiny random models of every HF family, for the comparison with transformers.

A case is what its config class is called with. Weights follow from a tensor's name, by
numpy alone, so that pxy and transformers make the same ones apart; they are float16
numbers, which every type of file holds exactly.
"""

import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from pxy.model import cache as kv
from pxy.model import decoder

TOKENS, NEW = 20, 8
"""Tokens of the text that is read, and of those that are drawn greedily after it."""

SIZES = {
  "attention_dropout": 0.0,
  "hidden_size": 32,
  "intermediate_size": 48,
  "max_position_embeddings": 64,
  "num_attention_heads": 4,
  "num_hidden_layers": 3,
  "num_key_value_heads": 2,
  "vocab_size": 40,
  "head_dim": 8,
  "bos_token_id": 1,
  "eos_token_id": None,
  "pad_token_id": 0,
}
_LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 100.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
_YARN = {
  "rope_type": "yarn",
  "rope_theta": 100.0,
  "factor": 4.0,
  "original_max_position_embeddings": 64,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.5}
_PLAIN = {"rope_type": "default", "rope_theta": 50.0}
_GLOBAL_LOCAL = {"full_attention": _LINEAR, "sliding_attention": _PLAIN}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
_WIDE = {"head_dim": 12}
_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
_GEMMA = {"sliding_window": 5, "query_pre_attn_scalar": 8, "head_dim": 12}

CASES = {
  "llama": ("llama", _UNTIED | {"num_key_value_heads": 4}),
  "llama_tied": ("llama", _TIED | {"rope_parameters": _PLAIN}),
  "llama_wide_heads": ("llama", _UNTIED | _WIDE),
  "llama_one_kv": ("llama", _UNTIED | {"num_key_value_heads": 1}),
  "llama_llama3": ("llama", _TIED | {"rope_parameters": _LLAMA3}),
  "llama_linear": ("llama", _UNTIED | {"rope_parameters": _LINEAR}),
  "llama_yarn": (
    "llama",
    _TIED | {"rope_parameters": _YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
  ),
  "smollm2": ("llama", _TIED | {"rms_norm_eps": 1e-5, "num_hidden_layers": 5}),
  "qwen2": ("qwen2", _TIED),
  "qwen2_untied": ("qwen2", _UNTIED | {"rope_parameters": _LLAMA3}),
  "qwen2_window": ("qwen2", _TIED | _WINDOW),
  "qwen3": ("qwen3", _TIED | _WIDE),
  "qwen3_untied": ("qwen3", _UNTIED | {"num_key_value_heads": 4}),
  "qwen3_linear": ("qwen3", _UNTIED | {"rope_parameters": _LINEAR}),
  "qwen3_yarn": ("qwen3", _UNTIED | {"rope_parameters": _YARN}),
  "qwen3_yarn_exact": (
    "qwen3",
    _UNTIED
    | {
      "rope_parameters": _YARN
      | {"truncate": False, "attention_factor": 1.7, "beta_fast": 8, "beta_slow": 0.5}
    },
  ),
  "qwen3_window": (
    "qwen3",
    _UNTIED | _WINDOW | {"layer_types": [_SLIDING, _FULL, _SLIDING]},
  ),
  "gemma3": ("gemma3_text", _GEMMA | {"num_hidden_layers": 7}),
  "gemma3_scaled": (
    "gemma3_text",
    _GEMMA
    | {"layer_types": [_SLIDING, _FULL, _SLIDING], "rope_parameters": _GLOBAL_LOCAL},
  ),
  "gemma3_softcap": ("gemma3_text", _GEMMA | {"final_logit_softcapping": 2.0}),
  "gemma3_global": (
    "gemma3_text",
    _GEMMA | {"layer_types": [_FULL] * 3, "rope_parameters": _GLOBAL_LOCAL},
  ),
  "gemma3_local_untied": (
    "gemma3_text",
    _GEMMA | _UNTIED | {"layer_types": [_SLIDING] * 3, "num_key_value_heads": 1},
  ),
  "mistral": ("mistral", _WIDE | {"num_key_value_heads": 1, "sliding_window": None}),
  "mistral_window": ("mistral", _TIED | {"sliding_window": 5}),
  "smollm3": ("smollm3", {"num_hidden_layers": 5}),
  "smollm3_yarn": (
    "smollm3",
    _UNTIED | {"no_rope_layers": [0, 1, 1, 0], "rope_parameters": _YARN},
  ),
  "smollm3_window": (
    "smollm3",
    {"no_rope_layers": [1, 0, 0], "use_sliding_window": True, "sliding_window": 5},
  ),
}


def ids():
  """The text of every case, int32 [TOKENS]."""
  rng = np.random.default_rng(0)
  return rng.integers(2, SIZES["vocab_size"], TOKENS).astype(np.int32)


def weight(name: str, shape):
  """The tensor of that name, float32, of float16 numbers."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  value = rng.normal(size=shape)
  value = 1 + 0.3 * value if name.endswith("norm.weight") else 0.25 * value
  return value.astype(np.float16).astype(np.float32)


NOISE = 3e-5
"""Of the largest value: what the same float32 sums may differ by, added up in another
order. Two kinds of CPU were seen to differ by half of it, in transformers itself; an
option that is left out moves a logit by more than three times as much."""


def assert_close(got, want, what: str) -> None:
  """Equal but for float32's noise. Integers have none: they must be equal."""
  worst = distance(got, want)
  assert worst <= NOISE, f"{what}: {worst:.1e} of the largest value is no noise"


def distance(got, want) -> float:
  """The largest difference, as a share of the largest value wanted."""
  want = np.asarray(want)
  return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def hidden(arch, params, ids_T, layers: int):
  """hidden_TD behind the first `layers` layers and the last norm."""
  part = jax.tree.map(lambda x: x[:layers], params["layers"])
  arch = dataclasses.replace(arch, layers=layers)
  ids_1T = jnp.asarray(ids_T)[None]
  positions_1T, ones = jnp.arange(len(ids_T))[None], jnp.ones_like(ids_1T)
  params = params | {"layers": part}
  return np.asarray(decoder.forward(arch, params, ids_1T, positions_1T, ones)[0])


def normed(arch, params, x_TD):
  """The last norm of x_TD."""
  scale_D = params["norm"]["scale"] + arch.norm_plus_one
  return x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + arch.norm_eps) * scale_D


def greedy(arch, params, ids_T) -> list[int]:
  """The NEW likeliest tokens after a text, with the cache."""
  params = jax.device_put(params)
  length_B = jnp.array([len(ids_T)])
  hidden_BD, cache = decoder.prefill(arch, params, jnp.asarray(ids_T)[None], length_B)
  cache = kv.resize(cache, jnp.array([0]), len(ids_T) + NEW)
  out = []
  for _ in range(NEW):
    token_B = decoder.logits(arch, params, hidden_BD).argmax(-1)
    out.append(int(token_B[0]))
    hidden_BD, cache = decoder.decode(arch, params, token_B, cache)
  return out
