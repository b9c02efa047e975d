"""Names and layouts of Hugging Face checkpoints, as a list that follows from an Arch.

    ours [layers,] in..., out...      theirs, one per layer: [prod(out), prod(in)]

`tensors(arch)` says for each tensor of a checkpoint where it goes. Loading and saving
walk the same list, so one is the inverse of the other.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from pxy.model import decoder
from pxy.model.arch import Arch


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of a checkpoint."""

  name: str
  path: tuple[str, ...]
  """Where it is in our tree."""
  layer: int | None
  """Which slice of the stacked array it is; None: the whole array."""
  ours: tuple[int, ...]
  """Shape in our tree, without the layer axis."""
  inputs: int | None
  """Leading axes of ours that a matrix contracts; 0: no matrix, only flattened; None:
  laid out as theirs."""

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape in the checkpoint."""
    if self.inputs is None:
      return self.ours
    ins, outs = self.ours[: self.inputs], self.ours[self.inputs :]
    return (math.prod(outs), math.prod(ins)) if self.inputs else (math.prod(outs),)

  def export(self, value):
    """Their array of ours."""
    return (
      value.reshape(self.shape[::-1]).T if self.inputs else value.reshape(self.shape)
    )

  def read(self, value):
    """Our array of theirs."""
    return (value.T if self.inputs else value).reshape(self.ours)


_EMBED, _HEAD = "model.embed_tokens.weight", "lm_head.weight"

_OUTER = {
  ("embed",): (_EMBED, None),
  ("norm", "scale"): ("model.norm.weight", 0),
  ("head",): (_HEAD, 1),
}

_LAYER = {
  ("attn_norm", "scale"): ("input_layernorm.weight", 0),
  ("attn", "q"): ("self_attn.q_proj.weight", 1),
  ("attn", "k"): ("self_attn.k_proj.weight", 1),
  ("attn", "v"): ("self_attn.v_proj.weight", 1),
  ("attn", "o"): ("self_attn.o_proj.weight", 2),
  ("attn", "q_bias"): ("self_attn.q_proj.bias", 0),
  ("attn", "k_bias"): ("self_attn.k_proj.bias", 0),
  ("attn", "v_bias"): ("self_attn.v_proj.bias", 0),
  ("attn", "q_norm", "scale"): ("self_attn.q_norm.weight", 0),
  ("attn", "k_norm", "scale"): ("self_attn.k_norm.weight", 0),
  ("mlp_norm", "scale"): ("post_attention_layernorm.weight", 0),
  ("mlp", "gate"): ("mlp.gate_proj.weight", 1),
  ("mlp", "up"): ("mlp.up_proj.weight", 1),
  ("mlp", "down"): ("mlp.down_proj.weight", 1),
}

# Where a layer has four norms, the second one's name means the norm after attention.
_POST_NORM = {
  ("attn_post_norm", "scale"): ("post_attention_layernorm.weight", 0),
  ("mlp_norm", "scale"): ("pre_feedforward_layernorm.weight", 0),
  ("mlp_post_norm", "scale"): ("post_feedforward_layernorm.weight", 0),
}


def tensors(arch: Arch) -> Iterator[Tensor]:
  """Every tensor of a checkpoint, each once; together they fill our tree."""
  layer = _LAYER | (_POST_NORM if arch.post_norm else {})
  for keys, leaf in jax.tree_util.tree_leaves_with_path(decoder.abstract(arch)):
    path = tuple(key.key for key in keys)
    if path[0] != "layers":
      name, inputs = _OUTER[path]
      yield Tensor(name, path, None, leaf.shape, inputs)
      continue
    name, inputs = layer[path[1:]]
    for i in range(arch.layers):
      yield Tensor(f"model.layers.{i}.{name}", path, i, leaf.shape[1:], inputs)


Put = Callable[[tuple[str, ...], np.ndarray], Any]


def gather(parts: Iterable[Tensor], reading, put: Put) -> dict:
  """Our tree from their tensors, as `tensors` lists them; one parameter at a time.

  Args:
    reading: called for each parameter; a context manager that gives a function from a
      Tensor to their array.
    put: (path, value) is given each parameter, float32 and with all its layers, and
      what it returns stands in the tree: values on a device, say.
  """
  out: dict = {}
  for path, group in itertools.groupby(parts, lambda tensor: tensor.path):
    tree = out
    for key in path[:-1]:
      tree = tree.setdefault(key, {})
    with reading() as read:
      tree[path[-1]] = put(path, _whole(list(group), read))
  return out


def _whole(parts: list[Tensor], read) -> np.ndarray:
  """A parameter, float32, of the tensors that are its layers, or of the one it is."""
  stacked = parts[0].layer is not None
  out = np.empty((len(parts),) * stacked + parts[0].ours, np.float32)
  for tensor in parts:
    out[tensor.layer if stacked else ...] = tensor.read(read(tensor))
  return out


def superfluous(arch: Arch, name: str) -> str | None:
  """What a tensor outside the list repeats: another one's name, "" for a constant."""
  if arch.tied and name == _HEAD:
    return _EMBED
  return "" if name.endswith(".rotary_emb.inv_freq") else None
