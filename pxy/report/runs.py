"""Run folders, read: what a report is made from.

Runs whose configs differ in the seed alone form a group. A group's curve is the mean
over its runs, step by step, with the standard error of that mean; so are its scores.
One run has the standard errors of its evaluation, over problems.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from pxy import config
from pxy.show import log

Score = tuple[float, float]
"""Value and standard error; nan where unknown."""


@dataclasses.dataclass(frozen=True)
class Phase:
  """Steps `first` to `last`, both included."""

  name: str
  space: str
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class Series:
  """A metric over steps; se is nan for a single run."""

  step: np.ndarray
  mean: np.ndarray
  se: np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
  """One run folder: its config, training steps, evaluations by step, and summary."""

  path: pathlib.Path
  config: dict
  steps: list[dict]
  evals: dict[int, dict]
  summary: dict
  interruptions: tuple[str, ...] = ()
  """How each process but the last ended, and where the next went on."""
  accepted: tuple[str, ...] = ()
  """What was another than before when it went on, as `--accept` allowed."""
  alignments: dict[int, dict] = dataclasses.field(default_factory=dict)
  """What `pxy align` measured, by step."""
  bounds: dict[int, list[dict]] = dataclasses.field(default_factory=dict)
  """Reports of `pxy bound`, one a task, by step."""
  probes: dict[int, list[dict]] = dataclasses.field(default_factory=dict)
  """Reports of `pxy probe`, one a task, by step."""
  probed: dict[int, dict[str, dict]] = dataclasses.field(default_factory=dict)
  """{step: {NAME: {value, low, high}}} of the weights in training (probe_every)."""
  gates: dict[int, dict] = dataclasses.field(default_factory=dict)
  """What `pxy gate` decided, by step."""

  @functools.cached_property
  def phases(self) -> list[Phase]:
    """As the steps tell them, in order."""
    found: list[Phase] = []
    for record in self.steps:
      name, step = str(record.get("phase", "")), record["step"]
      if found and found[-1].name == name:
        found[-1] = dataclasses.replace(found[-1], last=step)
      else:
        found.append(Phase(name, str(record.get("space", "")), step, step))
    return found

  def values(self, name: str) -> dict[int, float]:
    """Step -> value, where the metric is known."""
    return {r["step"]: r[name] for r in self.steps if _known(r.get(name))}

  def score(self, step: int, name: str) -> Score:
    """A metric of the evaluation at a step."""
    found = self.evals.get(step, {}).get(name) or {}
    return _float(found.get("value")), _float(found.get("se"))


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ in the seed alone."""

  name: str
  runs: list[Run]

  @property
  def seeds(self) -> list[int]:
    """Of its runs, sorted."""
    return sorted(run.config.get("seed", 0) for run in self.runs)

  @property
  def phases(self) -> list[Phase]:
    """Those of the run that came furthest through them."""
    return max((run.phases for run in self.runs), key=len)

  @property
  def first_eval(self) -> int | None:
    """The first step at which all were evaluated; None while there is none."""
    steps = self.eval_steps
    return steps[0] if steps else None

  @property
  def last_eval(self) -> int | None:
    """The last evaluation that is not the first; None while there is none."""
    steps = self.eval_steps
    return steps[-1] if len(steps) > 1 else None

  @property
  def eval_steps(self) -> list[int]:
    """Steps at which every run of the group was evaluated."""
    return sorted(set.intersection(*(set(run.evals) for run in self.runs)))

  @property
  def eval_names(self) -> list[str]:
    """Metrics of the evaluations, in the order in which they were written."""
    names = (n for run in self.runs for e in run.evals.values() for n in e)
    return list(dict.fromkeys(names))

  def has(self, name: str) -> bool:
    """Whether a metric is known at a step that all runs have."""
    return len(self.series(name).step) > 0

  def series(self, name: str) -> Series:
    """A metric at the steps that all runs have."""
    each = [run.values(name) for run in self.runs]
    steps = sorted(set.intersection(*map(set, each)))
    table = np.array([[v[s] for s in steps] for v in each], np.float64)
    table = table.reshape(len(each), len(steps))
    return Series(np.array(steps), table.mean(0), _se(table))

  def score(self, step: int | None, name: str) -> Score:
    """A metric of an evaluation: over problems for one run, over seeds for several."""
    if step is None:
      return np.nan, np.nan
    each = [run.score(step, name) for run in self.runs]
    if len(each) == 1:
      return each[0]
    values = np.array([value for value, _ in each])
    return float(values.mean()), float(_se(values[:, None])[0])


def read(folder: pathlib.Path) -> Run:
  """A run folder, finished or not.

  Raises:
    config.Error: it is no run folder, or its files are damaged.
  """
  folder = pathlib.Path(folder)
  if not (folder / "metrics.jsonl").is_file():
    raise config.Error(
      f"{folder}: no run folder (it has no metrics.jsonl); give a folder that --out of"
      " `pxy train` named"
    )
  try:
    records = log.metrics(folder)
    interruptions = _interruptions(folder / "attempts.jsonl")
    accepted = _accepted(folder / "used.json")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    summary = {}
    if (folder / "summary.json").is_file():
      summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    alignments = _kept(folder / "align")
    bounds, probes = (
      {step: _reports(found) for step, found in _kept(folder / kind).items()}
      for kind in ("bound", "probe")
    )
    gates = {step: _decided(found) for step, found in _kept(folder / "gate").items()}
  except (OSError, ValueError) as error:
    raise config.Error(f"{folder}: damaged run folder: {error}") from error
  return Run(
    folder,
    settings,
    [r for r in records if "eval" not in r],
    {r["step"]: r["eval"] for r in records if "eval" in r},
    summary,
    interruptions,
    accepted,
    alignments,
    bounds,
    probes,
    _probed(records),
    gates,
  )


def _kept(folder: pathlib.Path) -> dict[int, dict | list]:
  """The JSON of STEP.json, by step."""
  return {
    int(path.stem): json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.json"))
  }


def _reports(found) -> list[dict]:
  """Reports as --json has them; ValueError for what is none."""
  reports = found if isinstance(found, list) else [found]
  for report in reports:
    if not isinstance(report, dict) or not isinstance(report.get("measures"), dict):
      raise ValueError("a report of pxy bound or pxy probe has `measures`")
  return reports


def _decided(found) -> dict:
  """What `pxy gate` keeps; ValueError for what is none."""
  rows = found.get("gates") if isinstance(found, dict) else None
  if not isinstance(rows, list) or not all(
    isinstance(one, dict) and isinstance(one.get("line"), str) for one in rows
  ):
    raise ValueError("what pxy gate decided has `gates`, each with its `line`")
  return found


def _probed(records: Sequence[dict]) -> dict[int, dict[str, dict]]:
  """A step's record has the numbers of the weights that it began with, an evaluation's
  those of the weights that it is of."""
  out: dict[int, dict[str, dict]] = {}
  for record in records:
    step = record["step"] - ("eval" not in record)
    for name, value in record.items():
      if name.startswith("probe/"):
        name = name.removeprefix("probe/")
        stem, _, end = name.rpartition("/")
        if end not in ("low", "high"):
          stem, end = name, "value"
        out.setdefault(step, {}).setdefault(stem, {})[end] = value
  return out


def _interruptions(path: pathlib.Path) -> tuple[str, ...]:
  """Read from a run's attempts: a killed process leaves no line for its end."""
  if not path.is_file():
    return ()
  notes, found = [], []
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    with contextlib.suppress(ValueError):  # torn, as the process died
      note = json.loads(line)
      notes += [note] if isinstance(note, dict) else []
  for before, after in itertools.pairwise(notes):
    if "begin" not in after or before.get("how") == "finished":
      continue
    how = "killed"
    if "end" in before:
      how = f"{before['how']} at step {before['end']}"
    found.append(f"{how}, on from step {after['begin']}")
  return tuple(found)


def _accepted(path: pathlib.Path) -> tuple[str, ...]:
  """Read from what a run was made of (run/folder.py)."""
  if not path.is_file():
    return ()
  held = json.loads(path.read_text(encoding="utf-8"))
  try:
    return tuple(
      f"another {note['name']} from step {note['step']} on" for note in held["accepted"]
    )
  except (TypeError, KeyError):
    raise ValueError(f"{path.name} is not what a run writes") from None


def group(runs: Sequence[Run]) -> list[Group]:
  """Runs by config without the seed, in the order in which they come."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    rest = {k: v for k, v in run.config.items() if k != "seed"}
    found.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
  names = [_name(members) for members in found.values()]
  return [
    Group(name if names.count(name) == 1 else f"{name} ({i + 1})", members)
    for i, (name, members) in enumerate(zip(names, found.values(), strict=True))
  ]


def _name(runs: Sequence[Run]) -> str:
  """The whole words with which all folders begin, without what differs between seeds:
  `dsrl` of dsrl-s0 and dsrl-s1. Where there are none: the first, and how many more."""
  folders = [run.path.resolve().name for run in runs]
  if len(folders) == 1:
    return folders[0]
  words = [re.findall(r"[^\W_]*[^\W\d_]|\d+|[\W_]+", folder) for folder in folders]
  places = zip(*words, strict=False)
  shared = itertools.takewhile(lambda found: len(set(found)) == 1, places)
  common = "".join(found[0] for found in shared)
  name = re.sub(r"(^|[-_. ]+)(seed|s)?[-_. ]*$", "", common)
  return name or f"{folders[0]} + {len(folders) - 1} more"


def _known(value) -> bool:
  return isinstance(value, (int, float)) and np.isfinite(value)


def _float(value) -> float:
  return float(value) if _known(value) else np.nan


def _se(table: np.ndarray) -> np.ndarray:
  """Standard error of the mean over the leading axis."""
  n = len(table)
  return (
    table.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(table.shape[1:], np.nan)
  )
