"""The record of a run: metrics.jsonl, one object a line, and completions.parquet.

Both are append-only, and both belong to a step. A run that goes on from the checkpoint
of step n keeps what was written up to n and drops the rest, so no step is missing and
none stands twice, wherever the run was cut:

- lines reach the operating system as they are written (a killed process loses none) and
  the disk at `flush`, which comes before the checkpoint that relies on them;
- completions are buffered and become parquet files in completions/, each published
  whole by a rename, at `flush` or when the buffer is full. Memory is bounded by the
  buffer;
- `close` joins these into completions.parquet, row group by row group. A run that was
  cut leaves completions/; `completions` reads either, and a resumed run takes up both.
  The joined file names the last part that it holds, so a cut `close` doubles nothing.

nan and infinities are null in JSON: `metrics` gives them back as None. `mark` counts
what is there; a checkpoint holds the counts of its step, so that a run whose records
were damaged since is noticed.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pxy import config

SCHEMA = pa.schema(
  [
    ("step", pa.int64()),
    ("split", pa.string()),  # "train", or "eval"
    ("phase", pa.string()),
    ("uid", pa.int64()),  # the prompt's row number
    ("response", pa.int32()),  # 0 to R - 1
    ("prompt", pa.string()),
    ("completion", pa.string()),
    ("answer", pa.string()),
    ("reward", pa.float32()),  # null where there is no grade
    ("advantage", pa.float32()),
    ("outcome", pa.string()),  # "scored", "ungradable" or "failed"
    ("why", pa.string()),
    ("stop", pa.string()),  # "stop" or "length"
    ("tokens", pa.int32()),
    ("version", pa.int32()),  # updates made by the policy that sampled it
  ]
)
"""Columns of completions.parquet; a row may leave any out but the step."""

BUFFER_BYTES = 32 * 2**20


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
    self._lock = threading.Lock()  # rescue.py flushes from another thread
    with _named(self._folder):
      self._folder.mkdir(parents=True, exist_ok=True)
    self._open(-1 if resume is None else resume, evaluated)

  def rewind(self, step: int) -> None:
    """Drops what was recorded after this step, and goes on from it."""
    self.flush()
    self._file.close()
    self._open(step, True)

  def _open(self, keep_to: int, evaluated: bool) -> None:
    self._rows: list[dict] = []
    self._bytes = 0
    self._path = self._folder / "metrics.jsonl"
    with _named(self._path):
      _truncate_metrics(self._path, keep_to, evaluated)
    with _named(self._folder / "completions"):
      self._count = _truncate_parts(self._folder, keep_to, evaluated)
    held = metrics(self._folder)
    self._lines = len(held)
    self._evaluated = {record["step"] for record in held if "eval" in record}
    self._trained = max((r["step"] for r in held if "eval" not in r), default=-1)
    with _named(self._path):
      self._file = open(self._path, "a", encoding="utf-8")

  def mark(self) -> dict[str, int]:
    """How many records and completions there are so far."""
    return {"metrics.jsonl": self._lines, "completions": self._count}

  def write(self, record: dict, completions: Sequence[dict] = ()) -> None:
    """Appends one record and its rows of SCHEMA.

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
    rows = [_row(given | row) for row in completions]
    with _named(self._path):
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
      self._rows += rows
      self._count += len(rows)
      self._bytes += sum(
        len(str(r["prompt"])) + len(str(r["completion"])) for r in rows
      )
      if self._bytes > BUFFER_BYTES:
        self._publish()

  def flush(self) -> None:
    """Everything written so far is on the disk when this returns."""
    with self._lock:
      with _named(self._path):
        self._file.flush()
        os.fsync(self._file.fileno())
      self._publish()

  def close(self) -> None:
    """Flushes, and joins the completions into one file."""
    if self._file.closed:
      return
    try:
      self.flush()
    finally:
      with _named(self._path):
        self._file.close()
    parts = _parts(self._folder)
    single = self._folder / "completions.parquet"
    if any(part != single for part in parts):
      with _named(single):
        _write(single, _batches(parts), through=_number(parts[-1]))
    shutil.rmtree(self._folder / "completions", ignore_errors=True)

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, kind, *_) -> None:
    # What ends the run is the news, not that its records could not be joined then.
    with contextlib.suppress(*[config.Error] if kind else []):
      self.close()

  def _publish(self) -> None:
    if not self._rows:
      return
    table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
    folder = self._folder / "completions"
    with _named(folder):
      folder.mkdir(exist_ok=True)
      number = 1 + max(map(_number, _parts(self._folder)), default=0)
      _write(folder / f"{number:08d}.parquet", table.to_batches())
    self._rows, self._bytes = [], 0


def metrics(folder: str | os.PathLike) -> list[dict]:
  """All whole records of a run, in order; a torn last line is left out.

  Raises config.Error, with file and line, where a line is no record.
  """
  path = pathlib.Path(folder) / "metrics.jsonl"
  return [record for _, record in _records(path)] if path.exists() else []


def completions(
  folder: str | os.PathLike, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
  """The completions table of a run, finished or not, in pieces that fit in memory."""
  yield from _batches(_parts(pathlib.Path(folder)), columns)


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


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
  """What the disk refuses, or cannot give back, as an Error that names the file."""
  try:
    yield
  except (OSError, pa.ArrowException) as error:
    why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    raise config.Error(
      f"{path}: {why}; make it readable and writable, with room on its disk, and"
      " continue with --resume auto"
    ) from error


def _parts(folder: pathlib.Path) -> list[pathlib.Path]:
  """The parquet files of a run, in order."""
  single = folder / "completions.parquet"
  held = [single] if single.exists() else []
  through = _number(single) if held else 0
  parts = sorted((folder / "completions").glob("[0-9]*.parquet"))
  return held + [part for part in parts if _number(part) > through]


def _number(path: pathlib.Path) -> int:
  """A part's number; the joined file's is that of the last part in it."""
  if path.stem.isdigit():
    return int(path.stem)
  with _named(path):
    found = (pq.read_metadata(path).metadata or {}).get(b"through", b"0")
  return int(found) if found.isdigit() else 0


def _truncate_metrics(path: pathlib.Path, step: int, evaluated: bool) -> None:
  def stays(record):
    at = record["step"]
    return at < step or (at == step and (evaluated or "eval" not in record))

  if path.exists():
    keep = [line for line, record in _records(path) if stays(record)]
    _replace(path, lambda temp: temp.write_text("".join(keep), encoding="utf-8"))


def _truncate_parts(folder: pathlib.Path, step: int, evaluated: bool) -> int:
  """Returns how many rows stay."""

  def stays(batch):
    at = batch["step"].to_numpy()
    train = np.array([s != "eval" for s in batch["split"].to_pylist()], bool)
    return (at < step) | ((at == step) & (evaluated | train))

  parts = _parts(folder)
  for stale in set((folder / "completions").glob("*")) - set(parts):
    stale.unlink()
  count = 0
  # The joined file goes last: it tells which parts are stale.
  for path in reversed(parts):
    rows = functools.partial(_batches, [path])
    keep = [stays(b) for b in rows(columns=["step", "split"])]
    if not any(k.any() for k in keep):
      path.unlink()
    elif not all(k.all() for k in keep):
      kept = (b.filter(pa.array(stays(b))) for b in rows())
      _write(path, kept, through=_number(path))
    count += sum(int(k.sum()) for k in keep)
  return count


def _batches(paths, columns=None) -> Iterator[pa.RecordBatch]:
  for path in paths:
    with _named(path), pq.ParquetFile(path) as file:
      yield from file.iter_batches(columns=columns)


def _write(path: pathlib.Path, batches: Iterable[pa.RecordBatch], through=0) -> None:
  def write(temp):
    with pq.ParquetWriter(temp, SCHEMA, compression="zstd") as writer:
      writer.add_key_value_metadata({"through": str(through)})
      for batch in batches:
        writer.write_batch(batch)

  _replace(path, write)


def _replace(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
  """Makes the file whole beside its place, then puts it there."""
  temp = path.with_name(f".{path.name}.partial")
  write(temp)
  with open(temp, "rb") as file:
    os.fsync(file.fileno())
  os.replace(temp, path)


def _row(row: dict) -> dict:
  unknown = set(row) - set(SCHEMA.names)
  if unknown:
    raise ValueError(f"completions have no column {min(unknown)!r}")
  row = {name: None for name in SCHEMA.names} | row
  for name, value in row.items():
    if isinstance(value, str):
      # Lone surrogates have no UTF-8.
      row[name] = value.encode("utf-8", "replace").decode("utf-8")
    elif isinstance(value, (float, np.floating)) and not math.isfinite(value):
      row[name] = None
  return row


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
