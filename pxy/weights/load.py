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
    names = sorted(p.name for p in BUILTIN.iterdir() if p.is_dir())
    if model.removeprefix("builtin:") not in names:
      shipped = ", ".join(f"builtin:{name}" for name in names)
      raise config.Error(f"model {model!r}: pxy ships {shipped}")
    return BUILTIN / model.removeprefix("builtin:")
  path = pathlib.Path(model)
  if not model or not path.is_dir():
    raise config.Error(
      f"model {model!r}: no such folder; give builtin:tiny, an HF-style folder"
      " (config.json, *.safetensors, tokenizer) or a run folder"
    )
  return path


def _is_run(path: pathlib.Path) -> bool:
  return (path / "checkpoints").is_dir() or (path / "model" / "config.json").is_file()


def arch(model: str) -> arch_lib.Arch:
  """The architecture of MODEL alone: no weights are read."""
  path = folder(model)
  return hf.arch(path / "model" if _is_run(path) else path)


def load(model: str, step: int | None = None) -> Policy:
  """Reads MODEL; `step` picks a checkpoint of a run folder (default: the newest)."""
  path = folder(model)
  if _is_run(path):
    from pxy.train import checkpoint  # Orbax takes a second to import

    sizes = hf.arch(path / "model")
    params = checkpoint.params(path / "checkpoints", decoder.abstract(sizes), step)
    path = path / "model"
  elif step is not None:
    raise config.Error(
      f"--step {step}: {model} is no run folder, so it has no checkpoints; leave it out"
    )
  else:
    sizes, params = hf.load(path)
  tokenizer = tokenizer_lib.load(path)
  if tokenizer.vocab_size > sizes.vocab_size:
    raise config.Error(
      f"model {model!r}: its tokenizer has {tokenizer.vocab_size} tokens, its"
      f" embedding {sizes.vocab_size}: they do not belong together"
    )
  return Policy(sizes, params, tokenizer, model, path)
