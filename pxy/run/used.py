"""What a run is made of, by digest: used.json holds it, and a resume compares it.

The config names files and functions; what stands in them may change under a run that
goes on. So each thing that its numbers depend on and that is not in the config has an
entry here, under a name of same.MADE_OF. An entry says where things lie, too, which is
not compared.

Every byte of a data file is read once more at the start of each attempt (a few seconds
a GB): sizes and times tell nothing for certain. Rows that are made and not
read (gym:, tfds:, the worlds) are digested as they came out. Code is that of a function
and of what it imports from beside it, not of installed packages.

Left out: files that a grader opens by itself, and the weights a run started from where
no KL term needs them again: they are in the checkpoint.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata

from pxy import config, imports
from pxy.bucket import mirror
from pxy.data import prompts as prompts_lib
from pxy.data import sources
from pxy.rewards import tasks
from pxy.run import responses
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib
from pxy.train import checkpoint, manifest
from pxy.weights import load

LARGE = 1 << 30
"""Bytes above which it is said that files are being read."""
_REWARDS = pathlib.Path(tasks.__file__).parent
_MACHINERY = ("__init__", "given", "jail", "pool", "remote", "worker")
"""Of pxy/rewards: how grading is done, not what is right."""
_PACKAGES = {"math": ("math-verify", "sympy"), "gym": ("reasoning-gym",)}
"""What graders of pxy ask, beside code of its own."""


def of_train(
  cfg: config.Train, policy: load.About, prompts: Sequence[prompts_lib.Prompt]
) -> dict[str, dict]:
  """Entries of a reinforcement-learning run; `prompts` of training and evaluation."""
  words = dict.fromkeys((cfg.data.task, cfg.eval.task or cfg.data.task))
  parts = dict.fromkeys(part for word in words for _, part in sources.parts(word))
  held = {part: sources.files(part) for part in parts}
  if cfg.data.rollouts:
    held[cfg.data.rollouts] = responses.files(cfg.data.rollouts)
  data = {"files": _files(file for found in held.values() for file in found)}
  if not all(held.values()):
    data["rows"] = _rows([p.uid, p.task, p.text, p.answer] for p in prompts)
  out = {
    "data": data,
    "grader": _graders(_judges(cfg), {prompt.task for prompt in prompts}),
    "tokenizer": _tokenizer(policy),
    "model": {"path": str(policy.folder), "arch": _arch(policy.arch)},
  }
  own = {
    value
    for phase in cfg.phases
    for term in phase.terms
    for value in dataclasses.asdict(term).values()
    if isinstance(value, str) and imports.is_path(value)
  }
  if own:
    out["terms"] = {"files": _files(_code(own))}
  if cfg.data.template != "plain":
    out["template"] = _template(policy, cfg.data.template)
  if cfg.needs_reference:
    out["reference"] = {"files": _files(_weights(cfg.model))}
  return out


def of_pretrain(
  cfg: config.Pretrain, policy: load.About, documents: Sequence
) -> dict[str, dict]:
  """Entries of a pre-training run."""
  return {
    "data": {"rows": _rows(dataclasses.astuple(one) for one in documents)},
    "grader": _graders(_judges(cfg), [cfg.corpus.kind]),
    "tokenizer": _tokenizer(policy),
    "template": _template(policy, cfg.data.template),
  }


def _files(paths: Iterable[pathlib.Path]) -> list[dict]:
  """Where files lie, with size and SHA-256, each once."""
  paths = list(dict.fromkeys(paths))
  size = sum(path.stat().st_size for path in paths)
  if size > LARGE:
    print(
      f"pxy: reading {size / LARGE:.1f} GiB of data files, for their digests",
      file=sys.stderr,
    )
  return [
    {
      "path": mirror.name(path),
      "bytes": path.stat().st_size,
      "sha256": manifest.digest(path),
    }
    for path in paths
  ]


def _rows(rows: Iterable) -> dict:
  """Number and digest of rows of JSON values."""
  found, count = hashlib.sha256(), 0
  for count, row in enumerate(rows, 1):  # noqa: B007
    found.update(json.dumps(row).encode() + b"\n")
  return {"count": count, "sha256": found.hexdigest()}


def _judges(cfg: config.Train | config.Pretrain) -> list[str]:
  """Graders of training and evaluation."""
  judges = cfg.data.judge, config.judge_of_evaluation(cfg)
  return list(dict.fromkeys(name for judge in judges for name in config.weights(judge)))


def _graders(graders: Sequence[str], named: Iterable[str]) -> dict:
  """Files of the user's functions; which of pxy's grade, their code and packages.

  named: the rows' sources, by which `auto` goes.
  """
  own = [grader for grader in graders if tasks.is_own(grader)]
  names = sorted({tasks.name(grader, task) for grader in own for task in named})
  out = {"files": _files(_code(set(graders) - set(own)))}
  if names:
    code = hashlib.sha256()
    for path in sorted(_REWARDS.glob("*.py")):
      if path.stem not in _MACHINERY:
        code.update(path.name.encode() + b"\n" + path.read_bytes())
    packages = [package for name in names for package in _PACKAGES.get(name, ())]
    versions = {package: _version(package) for package in packages}
    out |= {"names": names, "sha256": code.hexdigest(), "versions": versions}
  return out


def _code(functions: Iterable[str]) -> list[pathlib.Path]:
  """Files of functions of the user's own, by name."""
  return [file for name in sorted(functions) for file in imports.sources(name)]


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _template(policy: load.About, kind: str) -> dict:
  text = template.source(template.using(policy.tokenizer, kind)) or ""
  found = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
  path = str(policy.folder) if kind == "chat" else kind
  return {"path": path, "sha256": found.hexdigest()}


def _tokenizer(policy: load.About) -> dict:
  """Its pieces, and the ids that it gives a role; not what else its config says."""
  tokenizer = policy.tokenizer
  roles = {
    "kind": type(tokenizer).__name__,
    "size": tokenizer.vocab_size,
    "controls": tokenizer.controls,
    "stops": tokenizer.stop_ids,
    "prefix": tokenizer.prefix_ids,
    "end": [tokenizer.end_id, tokenizer.document_id, tokenizer.pad_id],
    "named": {
      name: tokenizer_lib.content(value)
      for name, value in tokenizer.settings.items()
      if name.endswith("_token")
    },
  }
  found = hashlib.sha256(json.dumps(roles, sort_keys=True).encode())
  with tempfile.TemporaryDirectory() as folder:
    tokenizer.save(folder)
    for path in sorted(pathlib.Path(folder).iterdir()):
      if path.name != "tokenizer_config.json":
        found.update(path.name.encode() + b"\n" + path.read_bytes())
  return {"path": str(policy.folder), "sha256": found.hexdigest()}


def _arch(arch) -> dict:
  """What of an architecture is not as most are: a later pxy may add to the others."""
  values = dataclasses.asdict(arch)
  return {
    field.name: values[field.name]
    for field in dataclasses.fields(arch)
    if getattr(arch, field.name) != field.default
  }


def _weights(model: str) -> list[pathlib.Path]:
  """Files that tell one set of weights from another: of a run, the newest checkpoint's
  manifest, which has the digests of all that is in it."""
  place = load.place(model)
  if place.is_file():
    return [place]
  if load.is_run(place):
    folder = place / "checkpoints"
    newest = [folder / f"{step:08d}" for step in checkpoint.steps(folder)[-1:]]
    return [path / manifest.NAME for path in newest]
  return sorted(place.glob("*.safetensors"))
