"""What the files of a cell say, as numbers by name; a run's, and those of `pxy probe`.

Evaluations are kept problem by problem, with what their responses look like, and so is
most of `pxy probe`, whose names docs/measures.md has, and `pxy align` on the model
before training (`align/...`). All else is one number a run, such as those of its curve
of training (`train/...`).
"""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pxy import fields
from pxy.bucket import mirror
from pxy.evaluate import behaviour, by_problem, scores
from pxy.measures import arrays, estimate
from pxy.show import log
from pxy.study import names, plan

WINDOW = 10
"""Steps of a trailing mean."""
CURVES = ("critic/score/mean", "rollout/entropy")
"""What is read of each step of training."""
COLUMNS = ["step", "split", "uid", "response", "reward"]
"""And of each response of an evaluation."""
THOUGHTS = [f"thoughts/{kind}" for kind in behaviour.KINDS]
"""And where it is asked: how many of each kind, counted here unless that is done."""
WHOLE = ("cell.json", "probe.json", "align.json", "run/summary.json")
"""Files of a cell that are read whole."""
BY_PROBLEM = "probe.parquet"
_READ = (*WHOLE, BY_PROBLEM, "run/metrics.jsonl", "run/completions.parquet")


def fetch(out: pathlib.Path) -> None:
  """Has here what is read of the cells of a study, if it is in a bucket."""
  mirror.refresh(out, lambda name: name.endswith(tuple(f"/{x}" for x in _READ)))


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Which responses were right: problems by rising id, 1, 0 or nan; and how many
  thoughts they have of each kind, where that is known."""

  ids: tuple[str, ...]
  correct_PR: np.ndarray
  responses_P: np.ndarray
  thoughts_P: dict[str, np.ndarray]

  def thoughts(self, measure: str) -> estimate.Spec | None:
    """`thoughts/KIND`, per response, or `thoughts/KIND_rate`, per thought."""
    if not self.thoughts_P:
      return None
    of = behaviour.thought_sums(self.thoughts_P, self.responses_P)[measure]
    method = "of all thoughts" if measure.endswith("_rate") else "in a response"
    return estimate.ratio(measure, self.ids, *of, method)


def evaluated(run: pathlib.Path, thoughts: bool) -> pa.Table:
  """Rows of a run's first and last evaluation, from its completions: COLUMNS, and where
  it is asked THOUGHTS, if there are texts, or were.

  Raises fields.Error where these are gone.
  """
  path = run / "completions.parquet"
  try:
    there, of = pq.read_schema(path).names, ("split", "=", "eval")
    steps = pq.read_table(path, columns=["step"], filters=[of])
    ends = pc.min_max(steps["step"]).as_py().values()
    own = [name for name in ("completion", *THOUGHTS) if thoughts and name in there]
    table = pq.read_table(
      path, columns=COLUMNS + own, filters=[of, ("step", "in", set(ends))]
    )
  except FileNotFoundError:
    raise fields.Error(
      f"{mirror.name(path)}: not there, and its cell is done: bring it back, or remove"
      " the cell's folder and run it again"
    ) from None
  if "completion" not in own:
    return table
  texts = table["completion"].to_pylist()
  table = table.drop_columns("completion")
  if None in texts:
    return table
  counts = [behaviour.count(text) for text in texts]
  for name, kind in zip(THOUGHTS, behaviour.KINDS, strict=True):
    table = table.append_column(name, pa.array([x[kind] for x in counts], pa.int32()))
  return table


def evaluations(run: pathlib.Path, thoughts: bool = False) -> dict[str, Evaluation]:
  """Those before and after a run's training; errors as of `evaluated`."""
  table = evaluated(run, thoughts)
  ends = pc.min_max(table["step"]).as_py()
  return {
    name: _evaluation(table.filter(pc.field("step") == at))
    for name, at in ((plan.BEFORE, ends["min"]), ("after", ends["max"]))
  }


def _evaluation(table: pa.Table) -> Evaluation:
  ids = [f"{uid:09}" for uid in table["uid"].to_pylist()]
  units, row_PR = arrays.arrange(ids, table["response"].to_pylist())

  def each(name):
    return arrays.take(table[name].to_numpy(zero_copy_only=False), row_PR)

  thoughts_P = {
    kind: np.nansum(each(name), 1)
    for name, kind in zip(THOUGHTS, behaviour.KINDS, strict=True)
    if name in table.column_names
  }
  there_P = (row_PR >= 0).sum(1)
  return Evaluation(units, scores.correct(each("reward")), there_P, thoughts_P)


class Numbers:
  """What is asked of the files of a cell, by name; they are read once.

  Args:
    folder: the cell's.
  """

  def __init__(self, folder: pathlib.Path):
    self._probe = _values(parsed(folder / "probe.json"))
    self._summary = parsed(folder / "run" / "summary.json")
    self._align = parsed(folder / "align.json")
    self._curve = _curve(folder / "run")
    path = folder / BY_PROBLEM
    self._problems = by_problem.read(path) if path.is_file() else None

  def probed(self, measure: str, when: str) -> estimate.Spec | None:
    """A measure of `pxy probe` by problem, as of `get`."""
    if self._problems is None:
      return None
    return by_problem.spec(self._problems, measure, base=when != "after")

  def get(self, measure: str, when: str = "after") -> float | None:
    """One number of the run, `after` training or `before`; None: there is none."""
    kind = names.KINDS.fullmatch(measure)
    if kind is None:
      return self._probe.get(measure if when == "after" else f"base {measure}")
    if name := kind["eval"]:
      return self._summary.get(when, {}).get(name, {}).get("value")
    if name := kind["align"]:
      found = self._align.get("splits", {}).get("all", {})
      return found.get(name, {}).get("value")
    if when != "after":
      return None
    if score := kind["score"]:
      return steps_to(self._curve["critic/score/mean"], float(score))
    last = self._curve["rollout/entropy"][-WINDOW:]
    return float(np.mean(last)) if last else None

  def all(self) -> dict[str, float]:
    """Those that need no further word, for a table of every number."""
    asked = [f"align/{name}" for name in ("cosine", "inner", "negative")]
    asked += ["train/entropy", *self._summary_names()]
    found = {name: self.get(name) for name in asked}
    return {name: x for name, x in found.items() if x is not None} | self._probe

  def alignment(self, measure: str) -> tuple[list[str], list[float]] | None:
    """`align/...` by problem: ids, and the mean of each one's responses."""
    name = names.KINDS.fullmatch(measure)["align"]
    by: dict[int, list[float]] = {}
    for row in self._align.get("responses", ()):
      if row["tokens"]:
        value = float(row["inner"] < 0) if name == "negative" else row[name]
        by.setdefault(row["uid"], []).append(value)
    if not by:
      return None
    return [f"{uid:09}" for uid in sorted(by)], [
      float(np.mean(by[uid])) for uid in sorted(by)
    ]

  def reached(self, measure: str) -> bool:
    """Whether the run has the score of `train/steps@SCORE` at all."""
    level = float(names.KINDS.fullmatch(measure)["score"])
    return _first(self._curve["critic/score/mean"], level) is not None

  def curve(self) -> list[float]:
    """Mean score of the responses of every WINDOW steps of training."""
    score_T = self._curve["critic/score/mean"]
    ends = range(WINDOW, len(score_T) + 1, WINDOW)
    return [float(np.mean(score_T[end - WINDOW : end])) for end in ends]

  def _summary_names(self) -> list[str]:
    wanted = ("thoughts/", "length/")
    return [x for x in self._summary.get("after", {}) if x.startswith(wanted)]


def steps_to(score_T: list[float], level: float) -> float | None:
  """Steps until the mean of the last WINDOW scores is `level`; all of them where it
  never is, so that a mean over runs is that of steps within the run's length."""
  return float(_first(score_T, level) or len(score_T)) if score_T else None


def _first(score_T: list[float], level: float) -> int | None:
  """The first step at which the mean of the last WINDOW scores is `level`."""
  ends = range(WINDOW, len(score_T) + 1)
  return next((n for n in ends if np.mean(score_T[n - WINDOW : n]) >= level), None)


def _curve(run: pathlib.Path) -> dict[str, list[float]]:
  """Numbers of a run's steps by name. A step without the number has none: of stored
  samples the entropy is not known, and one that is not finite is null."""
  found: dict[str, dict[int, float]] = {name: {} for name in CURVES}
  for row in log.metrics(run):
    for name, by_step in found.items():
      if row.get(name) is not None:
        by_step[row["step"]] = row[name]
  return {name: [of[at] for at in sorted(of)] for name, of in found.items()}


def _values(found) -> dict[str, float]:
  """What a probe found: values by name, and those of the base as `base NAME`."""
  out = {}
  for report in found if isinstance(found, list) else [found]:
    for key, mark in (("measures", ""), ("base_measures", "base ")):
      for name, one in report.get(key, {}).items():
        if one["value"] is not None:
          out[mark + name] = one["value"]
  return out


def parsed(path: pathlib.Path):
  """What a file holds; {} where there is none."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return {}
  except ValueError as error:
    raise fields.Error(
      f"{mirror.name(path)}: not JSON ({error}): remove it, and run its cell again"
    ) from None
