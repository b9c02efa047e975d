"""Tiny random GGUF files of what llama.cpp keeps in its own way, for transformers.

Weights follow from a tensor's name, as in hf_worlds.py. Where `says` is False, the file
does not say to transformers all that it says to llama.cpp (the scale of q.k, scaled
rotations), and the model's config.json is given to it beside the file.
"""

import dataclasses

import numpy as np
import test_gguf

from pxy.model import arch as arch_lib
from pxy.weights import names

import hf_worlds

TOKENS, WINDOW = 10, 4

_GEMMA3 = test_gguf.GEMMA3 | {
  "layers": 7,
  "window": WINDOW,
  "local_pattern": test_gguf.FIVE_IN_SIX,
}
_LLAMA3 = {"layers": 2, "head_dim": 64, "rope_theta": 5e5, "tied": False}


@dataclasses.dataclass(frozen=True)
class Case:
  family: str
  changes: dict
  says: bool = False

  @property
  def arch(self) -> arch_lib.Arch:
    return dataclasses.replace(test_gguf.ARCH, d_model=16, d_ff=24, **self.changes)


CASES = {
  "llama3": Case("llama", _LLAMA3 | {"rope_scaling": test_gguf.LLAMA3}),
  "gemma3": Case(
    "gemma3", _GEMMA3 | {"heads": 2, "kv_heads": 1, "head_dim": 256}, True
  ),
  "gemma3_narrow": Case("gemma3", _GEMMA3 | {"head_dim": 12}),
  "gemma3_scaled": Case(
    "gemma3",
    _GEMMA3 | {"rope_scaling": arch_lib.Scaling(8.0), "logit_softcap": 3.0},
  ),
}


def ids():
  """The text of every case, int32 [TOKENS]."""
  return np.random.default_rng(0).integers(6, 269, TOKENS).astype(np.int32)


def write(path, name: str):
  """The file of a case."""
  case, params = CASES[name], {}
  for tensor in names.tensors(case.arch):
    value = tensor.read(hf_worlds.weight(tensor.name, tensor.shape))
    tree = params
    for key in tensor.path[:-1]:
      tree = tree.setdefault(key, {})
    if tensor.layer is None:
      tree[tensor.path[-1]] = value
    else:
      tree.setdefault(tensor.path[-1], []).append(value)
  fields, tensors = test_gguf.contents(case.arch, params, case.family)
  return test_gguf.write(path, fields, tensors)
