"""Where rows come from: the words that `data.task` may hold.

  arithmetic/LEVEL             the embedded world of sums (arithmetic.py)
  world/KIND?seed=N            the embedded world of facts (world_problems.py)
  facts/KIND                   facts of the real world, of two packages (facts.py)
  FILE.jsonl, data/*.parquet   rows in six dialects (rows.py), of files of several kinds
                               (records.py), here or at gs://bucket/folder
  gym:NAME?OPTION=VALUE,...    any task of reasoning-gym (gym.py, rewards/gym.py)
  tfds:NAME?prompt=F,answer=F  any TFDS builder (builders.py)
  variants:TASK                any of these, each question in five wordings
                               (variants.py)
  thresholds:TASK              any of these, each question with three prices of a wrong
                               answer (thresholds.py)
  0.7 * TASK + 0.3 * TASK      a mixture of these, by weight

A mixture is a word like the others, so it can be named wherever a task can: in a
config, on the command line, for an evaluation.
"""

import dataclasses
import glob
import math
import pathlib
import re
from collections.abc import Iterator

from pxy import config
from pxy.data import arithmetic, records, rows, thresholds, variants, world_problems

_PART = re.compile(r"(?P<weight>[0-9.eE+-]+)\s*\*\s*(?P<task>\S.*)")
_EACH = {module.PREFIX: module for module in (variants, thresholds)}
"""Modules that make several rows of each row of another task."""
_WORDS = ("arithmetic/", "world/", "facts/", "gym:", "tfds:")
_KINDS = (
  f"arithmetic/LEVEL, world/KIND, facts/KIND, a {records.KINDS} file (or several,"
  " data/*.parquet), gym:NAME, tfds:NAME, variants:TASK, thresholds:TASK, or a mixture"
  " such as '0.7 * gym:chain_sum + 0.3 * rows.jsonl'"
)


def parts(task: str) -> list[tuple[float, str]]:
  """(weight, task) of each source; a task that is no mixture has weight 1."""
  words = re.split(r"\s\+\s", task.strip())
  found = [_PART.fullmatch(word.strip()) for word in words]
  if len(words) == 1 and re.match(r"[^\s*]*\*\S", words[0]) and any(glob.iglob(task)):
    return [(1.0, task)]  # 2024*.parquet
  if not any(found):
    return [(1.0, task)]
  out = []
  for word, match in zip(words, found, strict=True):
    try:
      weight = float(match["weight"]) if match else math.nan
    except ValueError:
      weight = math.nan
    if not 0 < weight < math.inf:
      raise config.Error(
        f"task {task!r}: {word!r} has no weight above 0; write a mixture as"
        " '0.7 * TASK + 0.3 * TASK'"
      )
    out.append((weight, match["task"].strip()))
  return out


def files(task: str) -> list[pathlib.Path]:
  """The files that a source's rows are read from; none where they are made."""
  return records.paths(_plain(task)) if is_file(task) else []


def needs_answer(judge: config.Judge, task: str) -> bool:
  """Whether each row needs a reference: a user's function may judge without one, and so
  does reasoning-gym."""
  if _plain(task).startswith("gym:"):
    return False
  return any(":" not in one and one != "gym" for one in config.weights(judge))


def is_file(task: str) -> bool:
  """Whether a source is one of files, whose columns can be named."""
  task = _plain(task)
  return not task.startswith(_WORDS) and records.named(task)


def _plain(task: str) -> str:
  """The task whose rows a task is made of."""
  for prefix in _EACH:
    task = task.removeprefix(prefix)
  return task


def read(
  task: str, split: str, need_answer: bool, columns: str = ""
) -> list[tuple[int, rows.Row]]:
  """(row number, row) of a split of one source.

  A file whose rows name several splits (`extra_info.split` or `split`) gives the rows
  of this one; other files give all their rows for any split. Raises config.Error for
  the first row that cannot be used.

  columns: of files, by field; see rows.mapping.
  """
  for prefix, each in _EACH.items():
    if task.startswith(prefix):
      inner = _inner(task, prefix)
      found = read(inner, split, need_answer, columns)
      return [
        (uid * each.COUNT + i, row)
        for uid, one in found
        for i, row in enumerate(each.of(one))
      ]
  if task.startswith("arithmetic/"):
    return list(enumerate(_arithmetic(task, split)))
  if task.startswith("world/"):
    return list(enumerate(_world(task, split)))
  if task.startswith("facts/"):
    from pxy.data import facts  # of an extra

    return facts.read(task, split)
  if task.startswith("gym:"):
    from pxy.data import gym  # an extra

    return gym.read(task, split)
  if task.startswith("tfds:"):
    from pxy.data import builders

    return builders.read(task, split, need_answer)
  return _file(task, split, need_answer, columns)


def every(
  task: str, need_answer: bool, columns: str = ""
) -> Iterator[rows.Row | config.Error]:
  """The rows of all splits of one source; for files, what is wrong with the others."""
  for prefix, each in _EACH.items():
    if task.startswith(prefix):
      for row in every(_inner(task, prefix), need_answer, columns):
        yield from [row] if isinstance(row, config.Error) else each.of(row)
      return
  if is_file(task):
    yield from rows.read(task, need_answer=need_answer, columns=columns)
    return
  splits = tuple(arithmetic.SIZES)
  if task.startswith("tfds:"):
    from pxy.data import builders

    splits = builders.splits(task)
  for split in splits:
    for _, row in read(task, split, need_answer):
      yield row


def _inner(task: str, prefix: str) -> str:
  inner = task.removeprefix(prefix)
  for other in _EACH:
    if inner.startswith(other):
      raise config.Error(
        f"task {task!r}: {prefix.rstrip(':')} of {other.rstrip(':')}; write {inner!r}"
      )
  return inner


def _arithmetic(task: str, split: str) -> Iterator[rows.Row]:
  level = task.partition("/")[2]
  for problem in arithmetic.problems(level, split):
    yield rows.Row(
      messages=[{"role": "user", "content": problem.question}],
      answer=problem.answer,
      task=f"arithmetic/{problem.level}",
      split=split,
      columns={"question": problem.question, "level": problem.level},
    )


def _world(task: str, split: str) -> Iterator[rows.Row]:
  for problem in world_problems.problems(task, split):
    yield rows.Row(
      messages=[{"role": "user", "content": problem.question}],
      answer=problem.answer,
      task=task,
      split=split,
      columns=dataclasses.asdict(problem),
    )


def _file(task, split, need_answer, columns) -> list[tuple[int, rows.Row]]:
  if not is_file(task) and not pathlib.Path(task).is_dir():
    raise config.Error(f"task {task!r}: expected {_KINDS}")
  found, seen = [], rows.Seen(need_answer)
  read = rows.read(task, need_answer=need_answer, columns=columns)
  for uid, row in enumerate(read):
    if isinstance(row, config.Error):
      raise row
    seen.check(row)
    found.append((uid, row))
  if not found:
    raise config.Error(f"{task}: no rows; write them, such as {records.EXAMPLE}")
  splits = sorted({row.split for _, row in found if row.split})
  if len(splits) < 2:
    return found
  if split not in splits:
    raise config.Error(
      f"{task}: no rows of split {split!r}; there are {', '.join(splits)}"
    )
  return [(uid, row) for uid, row in found if row.split == split]
