"""The record of a run: metrics.jsonl, one object a line, and completions.parquet.

Both are append-only, and both belong to a step. A run that goes on from the checkpoint
of step n keeps what was written up to n and drops the rest, so no step is missing and
none stands twice, wherever the run was cut:

- lines reach the operating system as they are written (a killed process loses none) and
  the disk at `flush`, which comes before the checkpoint that relies on them;
- completions (completions.py) are published at `flush` or when a buffer is full, and
  joined into one file by `close`.

nan and infinities are null in JSON: `metrics` gives them back as None. `mark` counts
what is there; a checkpoint holds the counts of its step, so that a run whose records
were damaged since is noticed.
"""

import contextlib
import json
import math
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pxy import config, files, imports

completions = imports.later("pxy.show.completions")  # pyarrow, once a run begins


class Log:
  """Writes a run's records; a context manager.

  Args:
    folder: the run's folder; it is made if missing.
    resume: keep what was recorded up to this step, drop the rest and go on; None drops
      everything and starts anew.
    evaluated: whether the evaluation of that step is among it: one that came after the
      checkpoint has its line, but perhaps not its completions, and is made again.
    also: called with every record, e.g. to mirror it elsewhere.

  Raises:
    config.Error: from any method, when the disk does not let it do its work, or holds
      records that cannot be read.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    resume: int | None = None,
    evaluated: bool = True,
    also: Sequence[Callable[[dict], None]] = (),
  ):
    self._folder = pathlib.Path(folder)
    self._also = tuple(also)
    self._lock = threading.Lock()  # safety/rescue.py flushes from another
    with completions.named(self._folder):
      self._folder.mkdir(parents=True, exist_ok=True)
    self._open(-1 if resume is None else resume, evaluated)

  def rewind(self, step: int) -> None:
    """Drops what was recorded after this step, and goes on from it."""
    self.flush()
    self._file.close()
    self._open(step, True)

  def _open(self, keep_to: int, evaluated: bool) -> None:
    self._path = self._folder / "metrics.jsonl"
    with completions.named(self._path):
      _truncate_metrics(self._path, keep_to, evaluated)
    with completions.named(self._folder / "completions"):
      self._table = completions.Table(self._folder, keep_to, evaluated)
    held = metrics(self._folder)
    self._lines = len(held)
    self._evaluated = {record["step"] for record in held if "eval" in record}
    self._trained = max((r["step"] for r in held if "eval" not in r), default=-1)
    with completions.named(self._path):
      self._file = open(self._path, "a", encoding="utf-8")

  def mark(self) -> dict[str, int]:
    """How many records and completions there are so far."""
    return {"metrics.jsonl": self._lines, "completions": self._table.count}

  def write(self, record: dict, rows: Sequence[dict] = ()) -> None:
    """Appends one record and its rows of completions.SCHEMA.

    A training step is {"step", "phase", name: number, ...}, an evaluation has "eval":
    {metric: {"value", "se"}} besides. An evaluation that is recorded already is not
    recorded again: a run cut between an evaluation and the next checkpoint repeats it.

    Raises:
      ValueError: a training step is not beyond the last one, or a row has an unknown
        column.
    """
    step = int(record["step"])
    kind = "eval" if "eval" in record else "train"
    if kind == "eval" and step in self._evaluated:
      return
    if kind == "train" and step <= self._trained:
      raise ValueError(f"step {step} is recorded already (last: {self._trained})")
    line = json.dumps(_plain(record), allow_nan=False)
    given = {"step": step, "split": kind, "phase": record.get("phase")}
    rows = [completions.row(given | row) for row in rows]
    with completions.named(self._path):
      self._file.write(line + "\n")
      self._file.flush()
    self._lines += 1
    for also in self._also:
      also(record)
    if kind == "eval":
      self._evaluated.add(step)
    else:
      self._trained = step
    with self._lock:
      self._table.add(rows)

  def flush(self) -> None:
    """Everything written so far is on the disk when this returns."""
    with self._lock:
      with completions.named(self._path):
        self._file.flush()
        os.fsync(self._file.fileno())
      self._table.flush()

  def close(self) -> None:
    """Flushes, and joins the completions into one file."""
    if self._file.closed:
      return
    try:
      self.flush()
    finally:
      with completions.named(self._path):
        self._file.close()
    self._table.join()

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, kind, *_) -> None:
    # What ends the run is the news, not that its records could not be joined then.
    with contextlib.suppress(*[config.Error] if kind else []):
      self.close()


def metrics(folder: str | os.PathLike) -> list[dict]:
  """All whole records of a run, in order; a torn last line is left out.

  Raises config.Error, with file and line, where a line is no record.
  """
  path = pathlib.Path(folder) / "metrics.jsonl"
  return [record for _, record in _records(path)] if path.exists() else []


def _records(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
  """Each whole line, and the record that it holds."""
  with open(path, encoding="utf-8", errors="replace") as file:
    for number, line in enumerate(file, 1):
      if not line.endswith("\n"):
        return
      record = None
      with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(line)
      if not isinstance(record, dict) or type(record.get("step")) is not int:
        raise config.Error(
          f"{path}, line {number}: no record of a step ({line[:40]!r}); take the line"
          " out or bring the file back"
        )
      yield line, record


def _truncate_metrics(path: pathlib.Path, step: int, evaluated: bool) -> None:
  def stays(record):
    at = record["step"]
    return at < step or (at == step and (evaluated or "eval" not in record))

  if path.exists():
    keep = [line for line, record in _records(path) if stays(record)]
    files.write_text(path, "".join(keep))


def _plain(value):
  """JSON values: numpy scalars unwrapped, nan and infinities null."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
