"""How a GGUF file spells scaled rotary embeddings.

    linear   rope.scaling.factor, once rope.scale_linear; rope.scaling.type is linear,
             which it also is where a file does not say
    llama3   no fields, but a tensor rope_freqs.weight of h = H / 2 numbers,
             by which the frequencies theta^(-2i / H) are divided

The tensor was computed from (factor, low, high, context), which are in no field. They
are found again: the slowest rotation is divided by the factor, and the other three are
those of every Llama 3.1 to 3.3. What these four give is compared with the tensor, so
what is read computes what the file asks for, or is refused.

    turns = context * frequency / 2 pi
    kept = clip((turns - low) / (high - low), 0, 1)
    rope_freqs = 1 / (kept + (1 - kept) / factor)

llama.cpp keeps the query and key rows of such files as pairs; pair i turns by frequency
i there and here, so the tensor's order is the same.

Sources: llama.cpp's convert_hf_to_gguf.py and llama-model.cpp. Left out: YaRN, LongRoPE
and its tensors, other (low, high, context).
"""

import math

import numpy as np

from pxy import config
from pxy.model.arch import Scaling
from pxy.weights import gguf_file

FREQS = "rope_freqs.weight"

_RAMP = (1.0, 4.0, 8192)
_CLOSE = 2e-6
"""Relative; a tensor computed in float32 was within 3e-7 of this in float64."""


def linear(kind: str, factor: float, older: float) -> Scaling | None:
  """The scaling of the fields rope.scaling.type, .factor and rope.scale_linear.

  A factor of 0 says nothing, as in llama.cpp. config.Error: a type not known here.
  """
  if kind not in ("none", "linear"):
    raise config.Error(f"rope.scaling.type {kind!r} is not supported; none, linear are")
  factor = factor or older or 1.0
  return None if kind == "none" or factor == 1 else Scaling(factor)


def llama3(file: gguf_file.File, theta: float, head_dim: int) -> Scaling | None:
  """The scaling that `rope_freqs.weight` was computed from; None: it is all ones.

  Raises:
    config.Error: it is of another shape, or no scaling known here computes it.
  """
  found = file.tensors[FREQS].shape
  if found != (head_dim // 2,):
    raise config.Error(f"tensor {FREQS} is {found}, the metadata imply {head_dim // 2}")
  freqs_h = file.read(FREQS).astype(np.float64)
  if (freqs_h == 1).all():
    return None
  # As its shortest decimal: 8.0 is 8.0, and not what float64 makes of a rounded one.
  factor = float(str(np.float32(freqs_h[-1])))
  if factor >= 1 and np.allclose(
    freqs_h, _divisors(theta, head_dim, factor), rtol=_CLOSE, atol=0
  ):
    return Scaling(factor, _RAMP)
  low, high, context = _RAMP
  raise config.Error(
    f"tensor {FREQS} scales the rotations in a way that is not supported; Llama 3's is"
    f" (here: factor {factor:g}, low {low:g}, high {high:g}, context {context})"
  )


def _divisors(theta: float, head_dim: int, factor: float):
  """By what each frequency is divided, float64 [h]."""
  low, high, context = _RAMP
  with np.errstate(over="ignore"):  # a base near 0: infinitely fast is kept as well
    frequency_h = theta ** (-2.0 * np.arange(head_dim // 2) / head_dim)
  turns_h = context * frequency_h / (2 * math.pi)
  kept_h = np.clip((turns_h - low) / (high - low), 0, 1)
  return 1 / (kept_h + (1 - kept_h) / factor)
