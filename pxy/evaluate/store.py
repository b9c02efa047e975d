"""Stored samples: every response of an evaluation, in files that anything can read.

  DIR/NAME.json            what was asked: weights, task, sampling rule, seed, how many
  DIR/NAME.problems.jsonl  a row for each problem, in the task's order
  DIR/NAME.jsonl           a row for each response, in the problems' order
  DIR/NAME.parts/          of a call that has not ended: what it has drawn so far

A store holds `samples` responses to each of the first `problems` of a task, no more and
no fewer. What it is of (`of` in NAME.json) never changes, and NAME has its digest; the
numbers and the contexts may grow. Response r to a problem depends on the seed, the
problem and r alone, and the files are in one order, so a store that has grown is byte
for byte one that was asked for at once; no time of day and no duration stands in it.

DIR may be gs://bucket/folder. Then the files stand in its mirror (bucket/mirror.py),
each chunk goes up in whole objects before the next is drawn, and who writes NAME holds
DIR/NAME.parts/lock.json beside the lock that it has on a disk.

Each row has a `check`, a digest of the row and of what the store is of. So a row that
was edited, that is another model's or another rule's, is found wherever it stands,
while order and duplicates of rows do not matter. It is no signature.

Log-probs are sums over a response, in nats: those of its tokens would be ten times as
many bytes, and `pxy.evaluate.likelihood` has them again from the ids that are kept.

Left out: stores of several gigabytes; a store is read as a whole.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pxy import __version__, config, fields, files
from pxy.bucket import lock as lock_lib
from pxy.bucket import mirror, objects
from pxy.data import records
from pxy.rewards import tasks

FORMAT = "pxy samples 1"
_CURE = "remove the line, and ask again with --save: what is missing is drawn anew"
_FILE = r"[\w@+.-]+\.jsonl"
"""What the file of a store's responses may be called."""
_OWN = ("problem", "place", "uid", "digest", "prompt", "answer", "task", "other")
_OWN += ("in_think",)  # of those prompts alone that end so
"""Fields of a problem's row; a column of that name is under `columns`."""


def digest(*parts) -> str:
  """SHA-256 of JSON values, in 16 hexadecimal digits."""
  text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def name(model: str, step: int | None, of: dict) -> str:
  """NAME of the files: readable, and with a digest of all that the store is of.

  Args:
    model: as it was named; the last part of its path is taken.
    step: of the checkpoint.
    of: has weights, task, split, sampling and seed, among others.
  """
  own = re.split(r"[:/\\]", model.rstrip("/\\"))[-1]
  own += "" if step is None else f"@{step}"
  rule = of["sampling"]
  words = [own, of["task"], of["split"], f"t{rule['temperature']:g}"]
  words += [f"p{rule['top_p']:g}"] if rule["top_p"] < 1 else []
  words += [f"seed{of['seed']}", digest(of)[:8]]
  words = [re.sub(r"[^\w@+.-]+", "-", word, flags=re.ASCII) for word in words]
  return ".".join(word.strip("-.")[:48] for word in words)


# Rows and lines.


def problem(prompt, place: int, prompt_id: str, other: str | None) -> dict:
  """The row of a problem (data.prompts.Prompt); `other`: whose prompt is the other."""
  own = {
    "problem": prompt_id,
    "place": place,
    "uid": prompt.uid,
    "digest": digest(prompt.ids.tolist()),
    "prompt": prompt.text,
    "answer": prompt.answer,
    "task": prompt.task,
    "other": other,
  } | ({"in_think": True} if prompt.in_think else {})
  columns = _plain(prompt.columns)
  hidden = {k: v for k, v in columns.items() if k in _OWN or k in ("columns", "check")}
  hidden = {k: v for k, v in hidden.items() if v != own.get(k)}
  row = own | {k: v for k, v in columns.items() if k not in (*_OWN, "columns", "check")}
  return row | ({"columns": hidden} if hidden else {})


def ids(prompts: Iterable) -> list[str]:
  """Names of problems: of their source, question and answer, and of nothing else; equal
  rows are numbered."""
  seen, out = {}, []
  for prompt in prompts:
    found = digest(prompt.task, prompt.text, prompt.answer)
    seen[found] = seen.get(found, 0) + 1
    out.append(found if seen[found] == 1 else f"{found}-{seen[found]}")
  return out


def item(problem: dict, response: dict) -> tasks.Item:
  """What a grader is given of two rows."""
  columns = {k: v for k, v in problem.items() if k not in (*_OWN, "columns", "check")}
  return tasks.Item(
    response=response["text"],
    answer=problem["answer"],
    prompt=problem["prompt"],
    task=problem["task"],
    ids=response["ids"],
    columns=columns | problem.get("columns", {}),
    in_think=problem.get("in_think") is True,
  )


def _plain(value):
  """The same as JSON has it; null for a number that is none."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (bool, int, str)):
    return value
  return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _line(key: str, row: dict) -> str:
  row = {k: v for k, v in row.items() if k != "check"}
  row["check"] = digest(key, row)
  return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def _lines(path: pathlib.Path, key: str, valid) -> Iterator[dict]:
  """The rows of a file; config.Error names the line that is none of this store."""
  for where, row in records.jsonl(path):
    at = f"{mirror.name(path)}, {where}"
    if isinstance(row, config.Error):
      raise config.Error(f"{at}: damaged ({fields.line(row)[:80]}); {_CURE}")
    if not isinstance(row, dict) or "check" not in row:
      raise config.Error(f"{at}: no row of stored samples; {_CURE}")
    try:
      kept = row["check"] == digest(key, {k: v for k, v in row.items() if k != "check"})
      kept = kept and valid(row)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
      kept = False
    if not kept:
      raise config.Error(
        f"{at}: edited, or of another model, task, rule or seed than"
        f" {_stem(path)}.json says; {_CURE}"
      )
    yield row


def _is_problem(row: dict) -> bool:
  texts = all(
    isinstance(row[k], str) for k in ("problem", "digest", "prompt", "answer", "task")
  )
  return texts and _natural(row["place"]) and _natural(row["uid"])


def _is_response(row: dict) -> bool:
  numbers = [row["score"], row["entropy"], *row["logp"].values()]
  return (
    isinstance(row["problem"], str)
    and isinstance(row["text"], str)
    and isinstance(row["extracted"], (str, type(None)))
    and _natural(row["r"])
    and _natural(row["seed"])
    and row["stop"] in ("stop", "length")
    and row["status"] in ("scored", "ungradable", "failed")
    and set(map(type, row["ids"])) == {int}
    and min(row["ids"]) >= 0
    and max(row["ids"]) < 2**31
    and all(x is None or _number(x) for x in numbers)
    and all(map(_number, row["metrics"].values()))
  )


def _natural(x) -> bool:
  return type(x) is int and 0 <= x < 2**32


def _number(x) -> bool:
  return type(x) is float or (type(x) is int and abs(x) < 2**53)


def _stem(path: pathlib.Path) -> str:
  """NAME of one of a store's files."""
  if path.parent.name.endswith(".parts"):
    return path.parent.name.removesuffix(".parts")
  return re.sub(r"(\.problems)?\.jsonl?$", "", path.name)


# Reading.


@dataclasses.dataclass(frozen=True)
class Stored:
  """A store as arrays, [P, R] for R responses to P problems; nan: there is none.

  Attributes:
    path: NAME.jsonl.
    about: NAME.json.
    problems: rows of the problems, the task's columns among them.
    ids: int32 token ids with the stop token, ids[p][r].
    texts: of the responses, texts[p][r].
    answers: extracted ones, answers[p][r]; None where there is none.
    score_PR: of the grader.
    answer_right_PR: 1 right, 0 wrong: `answer` where the grader tells it beside its
      score, else whether the score is above one half.
    verified_PR: 1 where every step was true as well, of graders that tell.
    abstained_PR: 1 where no answer was attempted, of graders that tell.
    length_PR: tokens, the stop token included.
    truncated_PR: bool, whether the length limit has ended the response.
    entropy_PR: nats, over the tokens of a response, under the prompt.
    logp: log p of a response at temperature 1, by context: `prompt` always.
  """

  path: pathlib.Path
  about: dict
  problems: list[dict]
  ids: list[list[np.ndarray]]
  texts: list[list[str]]
  answers: list[list[str | None]]
  score_PR: np.ndarray
  answer_right_PR: np.ndarray
  verified_PR: np.ndarray
  abstained_PR: np.ndarray
  length_PR: np.ndarray
  truncated_PR: np.ndarray
  entropy_PR: np.ndarray
  logp: dict[str, np.ndarray]

  def first(self, problems: int, samples: int) -> "Stored":
    """The first responses to the first problems."""
    return self.take(range(min(problems, len(self.problems))), samples)

  def take(self, places: Sequence[int], samples: int | None = None) -> "Stored":
    """The first responses, or all, to the problems at some places, in that order."""
    places = list(places)

    def cut(value):
      if isinstance(value, np.ndarray):
        return value[places, :samples]
      return [value[p][:samples] for p in places]

    own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    same = {k: own.pop(k) for k in ("path", "about", "problems", "logp")}
    same["problems"] = [same["problems"][p] for p in places]
    same["logp"] = {k: cut(v) for k, v in same["logp"].items()}
    return Stored(**same, **{k: cut(v) for k, v in own.items()})


def read(path: str | pathlib.Path) -> list[Stored]:
  """The stores of a folder, by name; or the one that a file belongs to.

  Order and duplicates of rows do not matter. Rows beyond the numbers in NAME.json are
  left out.

  Raises:
    config.Error: no store, a row that is damaged, edited or of another store, or a
      store that was not finished.
  """
  path = held(str(path)) or pathlib.Path(path)
  if path.is_dir():
    names = sorted({_stem(p) for p in path.glob("*.problems.jsonl")})
    if not names:
      raise config.Error(
        f"{mirror.name(path)}: no stored samples; make some with pxy eval --save"
      )
    return [_stored(path, name) for name in names]
  if not path.is_file():
    raise config.Error(f"{path}: no such file or folder; name what --save was given")
  return [_stored(path.parent, _stem(path))]


def held(word: str) -> pathlib.Path | None:
  """The folder of stores, or the file of one, that a word names, here; None for what is
  no such thing. Of a bucket it is as it was when this process first asked.

  Raises config.Error: there is nothing at that URL, or the bucket refuses.
  """
  if not objects.is_url(word):
    path = pathlib.Path(word)
    found = path.is_dir() or (path.is_file() and items(path) is not None)
    return path if found else None
  if not records.named(word):
    return mirror.flat(word)
  folder, _, name = word.rpartition("/")
  stem = _stem(pathlib.Path(name))
  problems = f"{stem}.problems.jsonl"
  if name == problems or not re.fullmatch(_FILE, name):
    return None
  if problems not in objects.Bucket(folder, root=True).listed(problems, deep=False):
    return None
  return mirror.flat(folder, f"{stem}.") / name


def _stored(folder: pathlib.Path, name: str) -> Stored:
  about = _about(folder, name)
  held = _held(folder, name, digest(about["of"]))
  contexts, samples = about["contexts"], about["samples"]
  try:
    problems = [held.problems[place] for place in range(about["problems"])]
    groups = [
      [held.rows[row["problem"], r] for r in range(samples)] for row in problems
    ]
    whole = all(r["logp"].keys() >= set(contexts) for group in groups for r in group)
  except KeyError:
    whole = False
  if not whole:
    raise config.Error(
      f"{mirror.name(folder / name)}.jsonl: not finished, {len(held.rows)} of"
      f" {about['problems']} x {samples} responses with all contexts: run the same pxy"
      " eval --save again, and it goes on"
    )
  return of_rows(folder / f"{name}.jsonl", about, problems, groups)


def of_rows(
  path: pathlib.Path, about: dict, problems: list[dict], groups: list[list[dict]]
) -> Stored:
  """A store of rows that are at hand: groups[p][r]."""

  def each(of, dtype=np.float64):
    found = [[of(row) for row in group] for group in groups]
    return np.array(found, dtype).reshape(len(groups), about["samples"])

  def told(row, what):
    return row["metrics"].get(what, math.nan)

  def right(row):
    if row["score"] is None:
      return math.nan
    return row["metrics"].get("answer", float(row["score"] > 0.5))

  def number(x):
    return math.nan if x is None else x

  return Stored(
    path=path,
    about=about,
    problems=problems,
    ids=[[np.array(row["ids"], np.int32) for row in group] for group in groups],
    texts=[[row["text"] for row in group] for group in groups],
    answers=[[row["extracted"] for row in group] for group in groups],
    score_PR=each(lambda row: number(row["score"])),
    answer_right_PR=each(right),
    verified_PR=each(lambda row: told(row, "verified")),
    abstained_PR=each(lambda row: told(row, "abstained")),
    length_PR=each(lambda row: len(row["ids"]), np.int64),
    truncated_PR=each(lambda row: row["stop"] == "length", bool),
    entropy_PR=each(lambda row: number(row["entropy"])),
    logp={
      name: each(lambda row, name=name: number(row["logp"][name]))
      for name in about["contexts"]
    },
  )


def items(path: pathlib.Path) -> Iterator[tasks.Item] | None:
  """What a grader is given for each row of NAME.jsonl, in the file's order; None if the
  file is of no store. Raises config.Error as `read` does, but needs no whole store."""
  path, stem = pathlib.Path(path), _stem(pathlib.Path(path))
  beside = path.with_name(f"{stem}.problems.jsonl")
  if path == beside or not beside.is_file():
    return None
  return _items(path, stem)


def _items(path: pathlib.Path, stem: str) -> Iterator[tasks.Item]:
  key = digest(_about(path.parent, stem)["of"])
  beside = path.with_name(f"{stem}.problems.jsonl")
  problems = {row["problem"]: row for row in _lines(beside, key, _is_problem)}
  for row in _lines(path, key, _is_response):
    if row["problem"] not in problems:
      raise config.Error(
        f"{mirror.name(path)}: problem {row['problem']} is not in {beside.name}"
      )
    yield item(problems[row["problem"]], row)


def _about(folder: pathlib.Path, name: str) -> dict:
  path = folder / f"{name}.json"
  cure = "bring it back, or remove its files and ask again with --save"
  try:
    about = records.loads(path.read_text(encoding="utf-8"))
    sizes = [about["problems"], about["samples"]]
    same = about["format"] == FORMAT and name.endswith(f".{digest(about['of'])[:8]}")
    if not (same and all(type(n) is int and 0 < n < 2**31 for n in sizes)):
      raise ValueError("edited, or of another store")
    if not all(isinstance(x, str) for x in about["contexts"]):
      raise ValueError("contexts are no names")
  except FileNotFoundError:
    raise config.Error(f"{mirror.name(path)}: missing; {cure}") from None
  except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
    raise config.Error(
      f"{mirror.name(path)}: not readable ({fields.line(error)}); {cure}"
    ) from None
  return about


@dataclasses.dataclass
class _Held:
  problems: dict[int, dict]
  """By place."""
  rows: dict[tuple[str, int], dict]
  """By problem and r."""


def _held(folder: pathlib.Path, name: str, key: str) -> _Held:
  """All rows of a store, but for the parts."""
  held = _Held({}, {})
  path = folder / f"{name}.problems.jsonl"
  for row in _lines(path, key, _is_problem) if path.is_file() else ():
    if held.problems.setdefault(row["place"], row) != row:
      raise config.Error(
        f"{mirror.name(path)}: two problems at place {row['place']}; {_CURE}"
      )
  path = folder / f"{name}.jsonl"
  _gather(held.rows, _lines(path, key, _is_response) if path.is_file() else ())
  return held


def _gather(rows: dict[tuple[str, int], dict], more: Iterable[dict]) -> None:
  """Adds rows; of the same response, the one that has more contexts stays."""
  for row in more:
    before = rows.setdefault((row["problem"], row["r"]), row)
    if len(row["logp"]) > len(before["logp"]):
      rows[row["problem"], row["r"]] = row


# Writing.


def writable(place: str) -> None:
  """Refuses a folder for --save that cannot be, before there is anything to keep."""
  if objects.is_url(place):
    objects.Bucket(place).listed(deep=False)
  else:
    files.writable(pathlib.Path(place) / "samples", f"--save {place}")


def beside(place: str | pathlib.Path, of: str, make: Callable[[], dict]) -> dict:
  """JSON that was made of `of` (a digest) and is kept at `place`; else it is made, and
  kept there. What is in a bucket is asked of that, and has no copy here."""
  place = mirror.name(pathlib.Path(place)) if isinstance(place, pathlib.Path) else place
  try:
    found = records.loads(mirror.read_text(place))
    if found["of"] == of:
      return found
  except (OSError, ValueError, TypeError, LookupError, RecursionError):
    pass  # not there, of something else, or damaged
  found = {"of": of} | make()
  mirror.write_text(place, files.json_text(found))
  return found


class Writer:
  """A store that grows: `with Writer(DIR, NAME, of) as writer`.

  Rows become part of the store by `add`, a file of them at a time; `finish` makes the
  store whole. Whatever ends the process in between, what was added is there; where DIR
  is in a bucket, there as well.

  Attributes:
    about: NAME.json as it stands; None where there is none yet.
    problems: rows by place; rows: of responses, by (problem, r).
    size: problems and samples of the store when it was whole last; (0, 0) if never.

  Raises:
    config.Error: a row that is damaged, edited or of another store; NAME.json is of
      another; the folder cannot be written.
  """

  def __init__(self, folder: str | pathlib.Path, name: str, of: dict):
    self._mirror = mirror.Mirror(folder, "samples") if objects.is_url(folder) else None
    self.folder = self._mirror.path if self._mirror else pathlib.Path(folder)
    self.name, self._called = name, mirror.name(self.folder / name)
    self._of, self._key = of, digest(of)
    self._parts = self.folder / f"{name}.parts"

  def __enter__(self) -> "Writer":
    with contextlib.ExitStack() as stack:
      stack.callback(os.close, self._lock())
      if self._mirror is not None:
        parts = objects.Bucket(f"{self._mirror.url}/{self._parts.name}")
        lock = lock_lib.Lock(parts, "these samples", wait=True)
        self._permitted = stack.enter_context(lock).confirm
        self._mirror.pull(lambda name: name.startswith(f"{self.name}."))
      self.about = None
      if (self.folder / f"{self.name}.json").exists():
        self.about = _about(self.folder, self.name)
        if self.about["of"] != self._of:
          raise config.Error(
            f"{self._called}.json: of other samples than are asked for;"
            " remove it, or name another folder with --save"
          )
      held = _held(self.folder, self.name, self._key)
      self.problems, self.rows = held.problems, held.rows
      drawn = {problem for problem, _ in self.rows}
      places = (n for n, row in self.problems.items() if row["problem"] in drawn)
      self.size = _past(places), _past(r for _, r in self.rows)
      parts = sorted(self._parts.glob("*.jsonl"))
      for path in parts:
        _gather(self.rows, _lines(path, self._key, _is_response))
      self._number = _past(int(p.stem) for p in parts if p.stem.isdecimal())
      self._stack = stack.pop_all()
    return self

  def _lock(self) -> int:
    """An open file that holds the lock; waits for another process, whose samples need
    not be drawn again."""
    while True:
      self._parts.mkdir(parents=True, exist_ok=True)
      lock = os.open(self._parts, os.O_RDONLY)
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        print(
          f"{mirror.name(self._parts)}: another process works on these samples; waiting"
          " for it",
          file=sys.stderr,
        )
        fcntl.flock(lock, fcntl.LOCK_EX)
      except OSError:  # a file system without locks
        return lock
      with contextlib.suppress(FileNotFoundError):  # it removes the folder at its end
        if os.path.samestat(os.fstat(lock), self._parts.stat()):
          return lock
      os.close(lock)

  def __exit__(self, *_) -> None:
    with contextlib.suppress(OSError):  # it holds what was drawn
      self._parts.rmdir()
    self._stack.close()

  def begin(self, model: str, step: int | None, problems: Sequence[dict], **asked):
    """Writes what is asked for, before the work: `samples` and `contexts`.

    Raises config.Error where the store holds other problems than these.
    """
    for place, row in self.problems.items():
      row = {k: v for k, v in row.items() if k != "check"}
      if place < len(problems) and digest(row) != digest(problems[place]):
        raise config.Error(
          f"{self._called}.problems.jsonl: problem {place} of the task is"
          " another than these samples are of; bring the task's file back, or name"
          " another folder with --save"
        )
    self.problems = dict(enumerate(problems))
    self.about = {
      "format": FORMAT,
      "model": model,
      "step": step,
      "problems": len(problems),
      **asked,
      "of": self._of,
      "pxy": __version__,
    }
    files.write_json(self.folder / f"{self.name}.json", self.about)
    self._write("problems.jsonl", [self.problems[p] for p in range(len(problems))])
    self._share()

  def add(self, rows: Sequence[dict]) -> None:
    """Keeps rows of responses, all of them or none."""
    path = self._parts / f"{self._number:06d}.jsonl"
    files.write_text(path, "".join(_line(self._key, row) for row in rows))
    self.rows |= {(row["problem"], row["r"]): row for row in rows}
    self._number += 1
    self._share()

  def finish(self) -> Stored:
    """Writes all rows in their order; the store, as `read` has it."""
    problems = [self.problems[p] for p in range(self.about["problems"])]
    groups = [
      [self.rows[row["problem"], r] for r in range(self.about["samples"])]
      for row in problems
    ]
    rows = [row for group in groups for row in group]
    contexts = self.about["contexts"]
    rows = [row | {"logp": {c: row["logp"][c] for c in contexts}} for row in rows]
    self._write("jsonl", rows)
    for path in self._parts.iterdir():
      path.unlink()
    known = {(row["problem"], row["r"]) for row in rows}
    if more := [row for at, row in self.rows.items() if at not in known]:
      self.add(more)  # of a larger call that was ended: for the next one
    self._share()
    at = iter(rows)
    groups = [[next(at) for _ in group] for group in groups]
    return of_rows(self.folder / f"{self.name}.jsonl", self.about, problems, groups)

  def _share(self) -> None:
    """What is written here is in the bucket, where there is one, when this returns."""
    if self._mirror is not None:
      self._permitted()
      self._mirror.push()

  def _write(self, ending: str, rows: Iterable[dict]) -> None:
    text = "".join(_line(self._key, row) for row in rows)
    files.write_text(self.folder / f"{self.name}.{ending}", text)


def _past(numbers: Iterable[int]) -> int:
  """One more than the largest; 0 if there is none."""
  return 1 + max(numbers, default=-1)
