"""MODEL -> architecture, parameters, tokenizer.

MODEL is `builtin:tiny`, an HF-style folder (config.json, safetensors, tokenizer), or
the folder of a run, whose newest complete checkpoint is taken. A run folder keeps the
architecture and the tokenizer under `model/`, so it can be read when its base is gone.
"""

import dataclasses
import pathlib
from typing import Any

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import hf

BUILTIN = pathlib.Path(__file__).parent.parent / "builtin"


@dataclasses.dataclass(frozen=True)
class Policy:
  """A language model: all that sampling and scoring need."""

  arch: arch_lib.Arch
  params: Any
  tokenizer: tokenizer_lib.Tokenizer
  name: str
  folder: pathlib.Path
  """Where its tokenizer, and so its chat template, stands."""


def folder(model: str) -> pathlib.Path:
  """The folder MODEL names; config.Error if there is none."""
  if model.startswith("builtin:"):
    path = BUILTIN / model.removeprefix("builtin:")
    if not path.is_dir():
      names = ", ".join(sorted(p.name for p in BUILTIN.iterdir() if p.is_dir()))
      raise config.Error(f"model {model!r}: pxy ships {names or 'none'}")
    return path
  path = pathlib.Path(model)
  if not path.is_dir():
    raise config.Error(
      f"model {model!r}: no such folder; give builtin:tiny, an HF-style folder"
      " (config.json, *.safetensors, tokenizer) or a run folder"
    )
  return path


def load(model: str, step: int | None = None) -> Policy:
  """Reads MODEL; `step` picks a checkpoint of a run folder (default: the newest)."""
  path = folder(model)
  if (path / "checkpoints").is_dir():
    from pxy.train import checkpoint  # Orbax takes a second to import

    arch = hf.arch(path / "model")
    params = checkpoint.params(path / "checkpoints", decoder.abstract(arch), step)
    path = path / "model"
  else:
    arch, params = hf.load(path)
  tokenizer = tokenizer_lib.load(path)
  if tokenizer.vocab_size > arch.vocab_size:
    raise config.Error(
      f"model {model!r}: its tokenizer has {tokenizer.vocab_size} tokens, its"
      f" embedding {arch.vocab_size}: they do not belong together"
    )
  return Policy(arch, params, tokenizer, model, path)
