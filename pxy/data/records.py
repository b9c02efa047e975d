"""Files of rows: JSONL, JSON, CSV and parquet, zipped or in shards, row by row.

  FILE.jsonl    an object a line
  FILE.json     a list of objects, or an object a line
  FILE.csv      a header, then a row a line or more; numbers are read as such, but
                questions and answers keep their letters: 007, 1.50
  FILE.parquet
  ... .gz       the first three, zipped
  data/*.parquet, data/**/*.jsonl, data/train-*   all that match, in the order of names
  gs://bucket/folder/FILE, gs://bucket/data-*.parquet   the same, fetched once

What is read may come from anywhere, so sizes are bounded before memory is taken: a row
has at most ROW characters, a task ROWS rows, and a zipped file that unfolds to more
than RATIO times its size is none. What cannot be read is one line with the cure.
"""

import collections
import glob
import gzip
import io
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Collection, Iterator

from pxy import config, imports
from pxy.bucket import mirror, objects

pyarrow = imports.later("pyarrow")  # for tables, which most runs have none of
csv, parquet = imports.later("pyarrow.csv"), imports.later("pyarrow.parquet")

EXAMPLE = '{"prompt": "What is 1 + 2?", "answer": "3"}'
KINDS = ".jsonl, .json, .csv or .parquet"
ROW = 2**24
"""Characters of a line, or of a row in a list."""
ROWS = 10_000_000
TABLE = 2**30
"""Bytes of a CSV file, which is read as a whole."""
COLUMNS = 10_000
RATIO = 200
"""Times that a zipped file may grow; text grows 5 to 20 times."""
_SMALL = 2**26
"""Bytes that any zipped file may unfold to."""
_BATCH = 1024
"""Rows of a table that are in memory as objects at a time."""
_STEP = 2**16
_NAME = re.compile(r"(?P<stem>.*?)(?P<kind>\.jsonl|\.json|\.csv|\.parquet)(?:\.gz)?")
_WILD = re.compile(r"[*?\[]")
_SHARD = re.compile(r"(.*?)-(\d{5})-of-(\d{5})(.*)")
_LFS = b"version https://git-lfs.github.com/spec/"


def named(word: str) -> bool:
  """Whether a word is meant as a file, or as a pattern of files."""
  return bool(_NAME.fullmatch(pathlib.PurePath(word).name) or _WILD.search(word))


def stem(word: str) -> str:
  """The name of what is in a file or pattern: `train` of data/train-*.parquet."""
  path = pathlib.Path(word)
  found = _NAME.fullmatch(path.name)
  whole = found["stem"] if found else path.name
  if path.is_file() or not _WILD.search(path.name):
    return whole
  parts = (
    _WILD.split(part)[0].rstrip("-_. ") for part in (whole, *path.parent.parts[::-1])
  )
  return next(filter(None, parts), path.name)


def paths(word: str) -> list[pathlib.Path]:
  """The files that a word names, in the order of their names; those of a bucket here.

  Raises config.Error: there is none, one is of another kind, or a shard is missing.
  """
  if objects.is_url(word):
    _meant(word, list(objects.matching(word)))
    return list(mirror.data(word))
  path = pathlib.Path(word)
  if path.is_dir():
    raise config.Error(
      f"{path}: a folder; name the files in it, such as {path}/*.parquet"
    )
  if path.is_file():
    found = [path]
  elif _WILD.search(word):
    found = sorted(map(pathlib.Path, glob.glob(word, recursive=True)))
    found = [path for path in found if path.is_file()]
    if not found:
      raise config.Error(f"{word}: no file matches, and no other task has such a name")
  else:
    raise config.Error(f"{path}: no such file")
  _meant(word, list(map(str, found)))
  return found


def _meant(word: str, found: list[str]) -> None:
  """Refuses files of other kinds, and shards NAME-00000-of-00003 that lack one."""
  there: dict[tuple, set[int]] = {}
  for one in found:
    folder, name = os.path.split(one)
    if not _NAME.fullmatch(name) or name.endswith(".parquet.gz"):
      raise config.Error(f"{one}: expected a {KINDS} file, the first three also as .gz")
    if match := _SHARD.fullmatch(name):
      base, number, of, end = match.groups()
      there.setdefault((folder, base, of, end), set()).add(int(number))
  if "[" in word or not _WILD.search(word):  # which say that some are meant
    return
  for (folder, base, of, end), numbers in there.items():
    missing = next((i for i in range(int(of)) if i not in numbers), None)
    if missing is not None:
      lacking = os.path.join(folder, f"{base}-{missing:05}-of-{of}{end}")
      raise config.Error(
        f"{lacking}: this shard is missing; fetch it, or say which are meant, as"
        f" {base}-0000[01]-*"
      )


def each(word: str, texts: Collection[str] = ()) -> Iterator[tuple[str, object]]:
  """("FILE, line 3", value) of each row of what the word names; the value is a
  config.Error where the row cannot be read.

  Args:
    texts: columns that are text even where a CSV file has numbers in them.

  Raises config.Error when a file cannot be read.
  """
  count = 0
  for path in paths(word):
    name, kind = mirror.name(path), _NAME.fullmatch(path.name)["kind"]
    readers = {".jsonl": jsonl, ".json": _json, ".parquet": _parquet}
    read = _csv(path, texts) if kind == ".csv" else readers[kind](path)
    try:
      _there(path)
      for where, value in read:
        count += 1
        if count > ROWS:
          raise config.Error(f"{word}: more than {ROWS:,} rows; cut it")
        yield f"{name}, {where}", value
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise config.Error(
        f"{name}: not a readable gzip file ({_line(error)}); fetch it again"
      ) from None
    except config.Error as error:
      raise config.Error(str(error).replace(str(path), name)) from None


def _there(path: pathlib.Path) -> None:
  """Refuses files that hold nothing, or only say where their content is."""
  with path.open("rb") as file:
    head = file.read(len(_LFS))
  if not head:
    raise config.Error(f"{path}: no rows, an empty file of 0 bytes; fetch it again")
  if head == _LFS:
    raise config.Error(
      f"{path}: a Git LFS pointer, not the file that it stands for; fetch that with"
      " `git lfs pull`"
    )


class _Unzipped(gzip.GzipFile):
  """A zipped file that is no more than RATIO times as large as it looks."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path, "rb")
    self._path = path
    self._most = max(_SMALL, RATIO * path.stat().st_size)

  def read(self, size=-1):
    return self._checked(super().read(min(size, self._most + 1) if size >= 0 else size))

  def read1(self, size=-1):
    return self._checked(super().read1(size))

  def _checked(self, data: bytes) -> bytes:
    if self.tell() > self._most:
      raise config.Error(
        f"{self._path}: {_unfolds(self._most)}; unzip it yourself, if you trust it"
      )
    return data


def _unfolds(most: int) -> str:
  return f"unfolds to more than {most:,} bytes, over {RATIO} times its size"


def _bytes(path: pathlib.Path):
  return _Unzipped(path) if path.suffix == ".gz" else path.open("rb")


def _text(path: pathlib.Path) -> io.TextIOWrapper:
  return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", errors="surrogateescape")


def jsonl(path: pathlib.Path) -> Iterator[tuple[str, object]]:
  """(where, value) of each line; the value is a config.Error where it is not JSON."""
  number = 0
  with _text(path) as file:
    while line := file.readline(ROW + 1):
      number += 1
      if len(line) > ROW:
        yield f"line {number}", config.Error(f"{_LONG}, one object per line")
        return
      if line.strip():
        yield f"line {number}", _value(line)


_LONG = f"more than {ROW:,} characters; write smaller rows"


def _value(line: str):
  """The value of a line, or a config.Error."""
  try:
    line.encode("utf-8")  # fails for bytes that were not UTF-8
    return loads(line)
  except UnicodeEncodeError:
    return config.Error("not UTF-8 text; convert the file to UTF-8")
  except config.Error as error:
    return error
  except (ValueError, RecursionError) as error:
    return config.Error(
      f"not JSON ({_line(error)}); write one object per line, such as {EXAMPLE}"
    )


def loads(text: str):
  """The value of a JSON text, in which no object has a key twice.

  Raises:
    config.Error: one has: only the last value would count.
    ValueError, RecursionError: it is not JSON.
  """
  return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, object]]) -> dict:
  values = {}
  for key, value in pairs:
    if key in values:
      raise config.Error(f"key {key!r:.60}: twice in one object; keep one of them")
    values[key] = value
  return values


def _json(path: pathlib.Path) -> Iterator[tuple[str, object]]:
  """(where, value) of each object of a list; without one, of each line."""
  with _text(path) as file:
    head = file.read(_STEP).lstrip()
    if head.startswith("["):
      yield from _list(file, head[1:])
      return
  for where, value in jsonl(path):
    if where == "line 1" and str(value).startswith("not JSON"):
      raise config.Error(
        f"{path}: neither a list of objects nor an object a line; write [{EXAMPLE}]"
      )
    yield where, value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_BLANK = re.compile(r"[ \t\r\n]*")


def _list(file: io.TextIOWrapper, held: str) -> Iterator[tuple[str, object]]:
  """The elements of a list whose bracket was read; `held`: what was read behind it.

  As much text is held as the next element needs, up to ROW characters.
  """
  number, at, step = 0, 0, _STEP
  between = False  # whether a comma or the end must come next
  while True:
    at = _BLANK.match(held, at).end()
    if at == len(held):
      held, at = file.read(_STEP), 0
      if not held:
        yield f"row {number}", config.Error("the list has no end; fetch the file again")
        return
      continue
    if held[at] == "]" and (between or not number):
      rest = held[at + 1 :].strip() or file.read(_STEP).strip()
      if rest:
        yield f"row {number}", config.Error(f"text behind the list: {rest[:40]!r}")
      return
    if between:
      if held[at] != ",":
        text = held[at : at + 40]
        yield f"row {number}", config.Error(f"not JSON (no comma before {text!r})")
        return
      at, between = at + 1, False
      continue
    try:
      value, end = _DECODER.raw_decode(held, at)
      held[at:end].encode("utf-8")
      if end == len(held) and not isinstance(value, (dict, list)):
        raise ValueError("a number may go on")
    except UnicodeEncodeError:
      value = config.Error("not UTF-8 text; convert the file to UTF-8")
    except config.Error as error:
      value = error
    except RecursionError:
      value = config.Error("nested too deep; drop the column")
    except ValueError as error:
      more = file.read(step) if len(held) - at <= ROW else ""
      if more:
        held, at, step = held[at:] + more, 0, 2 * step
        continue
      reason = _LONG if len(held) - at > ROW else f"not JSON ({_line(error)})"
      value = config.Error(f"{reason}; write a list of objects such as {EXAMPLE}")
    yield f"row {number}", value
    if isinstance(value, config.Error):
      return  # where the next one begins is not known
    number, at, step, between = number + 1, end, _STEP, True


def _csv(path: pathlib.Path, texts: Collection[str]) -> Iterator[tuple[str, object]]:
  """(where, value) of each row; cells that are empty are not there."""
  with _bytes(path) as file:
    data = file.read(TABLE + 1)
  if len(data) > TABLE:
    raise config.Error(f"{path}: more than {TABLE:,} bytes; write parquet, or shards")
  columns = data.count(b",", 0, data.find(b"\n"))
  if columns > COLUMNS:
    raise config.Error(f"{path}: {columns:,} columns; at most {COLUMNS:,} are read")
  try:
    table = csv.read_csv(
      pyarrow.BufferReader(data),
      read_options=csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
      parse_options=csv.ParseOptions(newlines_in_values=True),
      convert_options=csv.ConvertOptions(
        column_types=dict.fromkeys(texts, pyarrow.string()),
        null_values=[""],
        strings_can_be_null=True,
      ),
    )
    names = table.column_names
  except (pyarrow.ArrowException, UnicodeDecodeError) as error:
    raise config.Error(
      f"{path}: not a readable CSV file ({_line(error)}); write it as UTF-8, with a"
      " header, commas, and quotes around fields that hold commas"
    ) from None
  _once(path, names)
  number = 0
  for batch in table.to_batches(max_chunksize=_BATCH):
    for values in batch.to_pylist():
      yield f"row {number}", {k: v for k, v in values.items() if v is not None}
      number += 1


def _once(path: pathlib.Path, names: list[str]) -> None:
  name, times = collections.Counter(names).most_common(1)[0] if names else ("", 1)
  if times > 1:
    raise config.Error(f"{path}: column {name!r:.60} twice; keep one of them")


def _parquet(path: pathlib.Path) -> Iterator[tuple[str, object]]:
  number = size = 0
  most = max(_SMALL, RATIO * path.stat().st_size)
  try:
    with parquet.ParquetFile(path) as file:
      batch_size = _batch(path, file.metadata, most)
      _once(path, file.schema_arrow.names)
      narrow = [field for field in file.schema_arrow if _is_narrow(field.type)]
      for batch in file.iter_batches(batch_size=batch_size):
        for values in batch.to_pylist():
          size += _size(values)
          if size > most:
            raise config.Error(f"{path}: {_unfolds(most)}; write it in several files")
          for field in narrow:
            values[field.name] = _widened(values[field.name], field.type)
          yield f"row {number}", values
          number += 1
  except config.Error:
    raise
  except (pyarrow.ArrowException, OSError) as error:
    raise config.Error(
      f"{path}: not a readable parquet file ({_line(error)[:200]})"
    ) from None
  except (ValueError, OverflowError) as error:
    raise config.Error(
      f"{path}: a value of rows {number} to {number + _BATCH} cannot be read"
      f" ({_line(error)[:200]}); write it as text, or drop the column"
    ) from None


def _size(value) -> int:
  """About the bytes of a value: what its columns share is counted for each row."""
  if isinstance(value, (str, bytes)):
    return len(value)
  if isinstance(value, dict):
    return sum(map(_size, value.values()))
  return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 8


def _batch(path: pathlib.Path, about: "parquet.FileMetaData", most: int) -> int:
  """Rows to read at a time: a value that all rows share stands in the file once.

  Raises config.Error where the file says of itself that it is too large.
  """
  sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
  size = sum(sizes)
  if about.num_rows > ROWS or size > most:
    raise config.Error(
      f"{path}: says that it has {about.num_rows:,} rows of {size:,} bytes; at most"
      f" {ROWS:,} of {most:,} are read: write it in several files"
    )
  return min(_BATCH, max(16, TABLE // 4 // max(1, *sizes, 1)))


_FLOATS = {"halffloat": ".3g", "float": ".7g"}


def _is_narrow(kind) -> bool:
  """Whether a column has floats of 16 or 32 bits in it."""
  inside = [kind.field(i).type for i in range(kind.num_fields)]
  return str(kind) in _FLOATS or any(map(_is_narrow, inside))


def _widened(value, kind):
  """The same, where a narrow float is the decimal that it means: 0.1 stays 0.1."""
  if isinstance(value, float) and str(kind) in _FLOATS and math.isfinite(value):
    short = float(format(value, _FLOATS[str(kind)]))
    return value if value.is_integer() else short
  if isinstance(value, dict):
    types = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return {key: _widened(part, types[key]) for key, part in value.items()}
  if isinstance(value, list) and kind.num_fields == 1:
    return [_widened(part, kind.field(0).type) for part in value]
  return value


def _line(error: BaseException) -> str:
  return " ".join(str(error).split())[:300]
