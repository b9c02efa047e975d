"""The folder of a run: config.json, metrics.jsonl, completions.parquet, checkpoints/,
model/ (architecture and tokenizer), and at the end summary.json and the reports.
"""

import json
import pathlib
import platform
from importlib import metadata

from pxy import __version__, config, files


class RunFolder:
  """Decides between a new run and a continued one, and refuses a mix-up.

  Raises:
    config.Error: resume is `never` and the folder holds a run, or `must` and it holds
      none, or it holds a run of another config.
  """

  def __init__(self, path: pathlib.Path, cfg, resume: str):
    self.path = pathlib.Path(path)
    self.checkpoints = self.path / "checkpoints"
    self._cfg = cfg
    file = self.path / "config.json"
    if self.path.exists() and not self.path.is_dir():
      raise config.Error(f"--out {self.path}: a file is in the way")
    self._held = held = file.is_file()
    if held and resume == "never":
      raise config.Error(
        f"--out {self.path} holds a run: give another folder, remove it, or continue it"
        " with --resume auto"
      )
    if not held and resume == "must":
      raise config.Error(f"--out {self.path}: no run to resume (no config.json)")
    if held:
      _same(read_json(file), config.to_dict(cfg), self.path)

  def keep(self, step: int) -> int | None:
    """The step up to which records are kept (report/log.py); None in a new run."""
    return step if self._held else None

  def start(self, arch, tokenizer) -> None:
    """Writes what names the run: its config, architecture and tokenizer."""
    from pxy.weights import hf

    try:
      files.write_json(self.path / "config.json", config.to_dict(self._cfg))
      hf.save_arch(self.path / "model", arch, tokenizer)
      tokenizer.save(self.path / "model")
    except OSError as error:
      raise config.Error(
        f"--out {self.path}: {error.strerror or error}; choose a folder that can be"
        " written"
      ) from error


def read_json(path: pathlib.Path):
  """JSON of a file; config.Error names it when it is broken."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise config.Error(f"{path}: {error}") from error


def _same(held: dict, wanted: dict, path) -> None:
  fields = sorted(_differences(held, wanted))
  if fields:
    raise config.Error(
      f"--out {path} holds a run of another config ({', '.join(fields[:5])} differ):"
      " give another folder, or the same options as before"
    )


def _differences(a, b, at=""):
  """Dotted names of the fields in which two JSON values differ; `steps` may grow."""
  if isinstance(a, dict) and isinstance(b, dict):
    for name in a.keys() | b.keys():
      if not (at == "" and name in FREE):
        yield from _differences(a.get(name), b.get(name), f"{at}.{name}".lstrip("."))
  elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
    for i, pair in enumerate(zip(a, b, strict=True)):
      yield from _differences(*pair, f"{at}.{i}")
  elif a != b:
    yield at


# Fields that change nothing of what was done so far: they may change on resume.
FREE = ("steps", "eval_every", "save_every", "save")


def versions() -> dict[str, str]:
  """Versions of what a run's numbers depend on."""
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  found = {name: metadata.version(name) for name in names}
  return {"pxy": __version__, "python": platform.python_version(), **found}
