"""completions.parquet: every response of a run with its grade, one a row.

Rows are buffered and become parquet files in completions/, each published whole by a
rename, at `flush` or when the buffer is full: memory is bounded by the buffer. `join`
makes one file of them, row group by row group. A run that was cut leaves completions/;
`read` reads either, and a resumed run takes up both. The joined file names the last
part that it holds, so a cut `join` doubles nothing.
"""

import contextlib
import functools
import math
import os
import pathlib
import shutil
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


class Table:
  """Appends rows of SCHEMA.

  Args:
    folder: the run's folder.
    keep_to, evaluated: which rows are kept, as in log.Log.
  """

  def __init__(self, folder: pathlib.Path, keep_to: int, evaluated: bool):
    self._folder = folder
    self._rows: list[dict] = []
    self._bytes = 0
    self.count = _truncate(folder, keep_to, evaluated)
    """Rows, published or not."""

  def add(self, rows: Sequence[dict]) -> None:
    """Takes rows that `row` made."""
    self._rows += rows
    self.count += len(rows)
    self._bytes += sum(len(str(r["prompt"])) + len(str(r["completion"])) for r in rows)
    if self._bytes > BUFFER_BYTES:
      self.flush()

  def flush(self) -> None:
    """Publishes what is buffered."""
    if not self._rows:
      return
    table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
    folder = self._folder / "completions"
    with named(folder):
      folder.mkdir(exist_ok=True)
      number = 1 + max(map(_number, _parts(self._folder)), default=0)
      _write(folder / f"{number:08d}.parquet", table.to_batches())
    self._rows, self._bytes = [], 0

  def join(self) -> None:
    """Makes one file of all that is published."""
    parts = _parts(self._folder)
    single = self._folder / "completions.parquet"
    if any(part != single for part in parts):
      with named(single):
        _write(single, _batches(parts), through=_number(parts[-1]))
    shutil.rmtree(self._folder / "completions", ignore_errors=True)


def read(
  folder: str | os.PathLike, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
  """The completions table of a run, finished or not, in pieces that fit in memory."""
  yield from _batches(_parts(pathlib.Path(folder)), columns)


def row(row: dict) -> dict:
  """A row as SCHEMA has it; ValueError for a column that it has not."""
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


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
  """What the disk refuses, or cannot give back, as an Error that names the file."""
  try:
    yield
  except (OSError, pa.ArrowException) as error:
    why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    raise config.Error(
      f"{path}: {why}; make it readable and writable, with room on its disk, and"
      " continue with --resume auto"
    ) from error


def _replace(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
  """Makes the file whole beside its place, then puts it there."""
  temp = path.with_name(f".{path.name}.partial")
  write(temp)
  with open(temp, "rb") as file:
    os.fsync(file.fileno())
  os.replace(temp, path)


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
  with named(path):
    found = (pq.read_metadata(path).metadata or {}).get(b"through", b"0")
  return int(found) if found.isdigit() else 0


def _truncate(folder: pathlib.Path, step: int, evaluated: bool) -> int:
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
    with named(path), pq.ParquetFile(path) as file:
      yield from file.iter_batches(columns=columns)


def _write(path: pathlib.Path, batches: Iterable[pa.RecordBatch], through=0) -> None:
  def write(temp):
    with pq.ParquetWriter(temp, SCHEMA, compression="zstd") as writer:
      writer.add_key_value_metadata({"through": str(through)})
      for batch in batches:
        writer.write_batch(batch)

  _replace(path, write)
