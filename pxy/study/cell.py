"""One cell: a plain `pxy train`, then `pxy probe`, in a folder that says how it stands.

    DIR/world/dsrl/seed0/run/         what `pxy train` writes
    DIR/world/dsrl/seed0/probe.json   what `pxy probe` found
    DIR/world/dsrl/seed0/probe.parquet  and of which problems
    DIR/world/samples/                the responses that it asked for, of all cells
    DIR/world/before/seed0/align.json what `pxy align` found before training
    DIR/world/dsrl/seed0/log.txt      what both said
    DIR/world/dsrl/seed0/cell.json    once it has ended: done, or failed and why

DIR may be gs://bucket/folder: then `pxy train` and `pxy probe` keep run and responses
there, and all else is written in a mirror and goes up when a command has ended.

A cell that is done is left alone; one that was killed goes on where the run's last
checkpoint is; one that failed is tried again when the study is started again.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import signal
import sys

from pxy import __version__, fields, files
from pxy.bucket import mirror, objects
from pxy.study import plan

DONE, FAILED, OPEN = "done", "failed", "open"
_HERE = pathlib.Path()
_WRITTEN = ("log.txt", "probe.parquet", "probe.json", "align.json")
"""By its commands, in the cell's folder; what says that one has ended comes after the
rest."""
_SUMMARY = "run/summary.json"


def commands(cell: plan.Cell, out: pathlib.Path) -> list[list[str]]:
  """What is run, one after the other: the words after `pxy`. Any of them may be run by
  hand."""
  folder, world = out / cell.name, cell.world
  run = mirror.name(folder / "run")
  if not cell.trains:
    return [[
      "align", world.before, *world.align, "--seed", str(cell.seed),
      "--json", str(folder / "align.json"),
    ]]  # fmt: skip
  made = [[*cell.training(), "--out", run]]
  if cell.probes:
    against = ("--against", world.before) if world.before else ()
    made.append([
      "probe", run, *cell.probes, *against, "--save",
      mirror.name(out / world.name / "samples"), "--json", str(folder / "probe.json"),
      "--by-problem", str(folder / "probe.parquet"),
    ])  # fmt: skip
  return made


def ended(words: list[str], folder: pathlib.Path) -> bool:
  """Whether one of a cell's commands has done what it is for."""
  if words[0] == "train":
    return (folder / _SUMMARY).is_file()
  return (folder / f"{words[0]}.json").is_file()


def begun(folder: pathlib.Path) -> None:
  """Has here what is known of a cell that is to be worked on, if it is in a bucket."""
  mirror.refresh(folder, lambda name: name in ("cell.json", _SUMMARY, *_WRITTEN))


def left(folder: pathlib.Path) -> None:
  """What a command has left here is in the bucket, if there is one, and the other way
  round."""
  for name in _WRITTEN:
    mirror.give(folder / name)
  mirror.refresh(folder, lambda name: name == _SUMMARY)


def argv(words: list[str]) -> list[str]:
  """A command of this very pxy."""
  return [sys.executable, "-m", "pxy", *words]


def identity(cell: plan.Cell, cfg) -> dict:
  """What makes its numbers, but for the code: the config, and what is asked."""
  asked = commands(cell, _HERE)[0]
  if cell.trains:
    asked = [*cell.probes, *filter(None, [cell.probes and cell.world.before])]
  whole = json.dumps([cfg and fields.changed(cfg), asked], sort_keys=True)
  return {"config": hashlib.sha256(whole.encode()).hexdigest()[:16]}


def versions() -> dict:
  """Of the code that runs."""
  return {"pxy": __version__, "jax": importlib.metadata.version("jax")}


def code() -> str:
  """Of pxy's own files: what they are at the moment, in twelve letters."""
  folder, found = pathlib.Path(__file__).parent.parent, hashlib.sha256()
  for path in sorted(folder.rglob("*.py")):
    found.update(f"{path.relative_to(folder).as_posix()}\0".encode())
    found.update(path.read_bytes() + b"\0")
  return found.hexdigest()[:12]


def state(cell: plan.Cell, out: pathlib.Path) -> dict:
  """cell.json; {"state": "open"} where it has not ended."""
  try:
    found = json.loads((out / cell.name / "cell.json").read_text(encoding="utf-8"))
  except (FileNotFoundError, ValueError):
    return {"state": OPEN}
  return found if isinstance(found, dict) and "state" in found else {"state": OPEN}


def write(cell: plan.Cell, out: pathlib.Path, word: str, **more) -> dict:
  """Says how a cell has ended: what cell.json now holds."""
  value = {"state": word, "versions": versions(), **more}
  files.write_json(out / cell.name / "cell.json", value)
  mirror.give(out / cell.name / "cell.json")
  return value


def tail(folder: pathlib.Path, start: int, code: int) -> str:
  """Why a command failed: the last thing that it said, and how it ended.

  Args:
    start: bytes of the log before it began. code: its exit code, below 0 a signal's.
  """
  try:
    data = (folder / "log.txt").read_bytes()[start:]
  except FileNotFoundError:
    data = b""
  lines = data.decode("utf-8", errors="replace").split("\n")
  said = [line.strip() for line in lines if line.strip()] or ["it said nothing"]
  ended = ""
  if code < 0:  # by the kernel, for memory, say
    ended = f"ended by signal {-code} ({signal.strsignal(-code)}); its last words: "
  return ended + said[-1][: 300 - len(ended)]


def step(folder: pathlib.Path) -> int:
  """Steps that its run has written down, on this machine."""
  run = mirror.name(folder / "run")
  here = mirror.Mirror(run, "run").path if objects.is_url(run) else folder / "run"
  try:
    with open(here / "metrics.jsonl", "rb") as file:
      file.seek(0, 2)
      file.seek(max(0, file.tell() - 65536))
      lines = file.read().split(b"\n")
  except FileNotFoundError:
    return 0
  for line in reversed(lines):
    try:
      return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
      continue
  return 0
