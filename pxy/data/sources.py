"""Where rows come from: the words that `data.task` may hold.

  arithmetic/LEVEL             the embedded world of sums (arithmetic.py)
  world/KIND?seed=N            the embedded world of facts (world_problems.py)
  facts/KIND                   facts of the real world, of two packages (facts.py)
  FILE.jsonl, FILE.parquet     rows in four dialects (rows.py)
  gym:NAME?OPTION=VALUE,...    any task of reasoning-gym (gym.py, rewards/gym.py)
  tfds:NAME?prompt=F,answer=F  any TFDS builder (builders.py)
  variants:TASK                any of these, each question in five wordings
                               (variants.py)
  0.7 * TASK + 0.3 * TASK      a mixture of these, by weight

A mixture is a word like the others, so it can be named wherever a task can: in a
config, on the command line, for an evaluation.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from pxy import config
from pxy.data import arithmetic, rows, variants, world_problems

_PART = re.compile(r"(?P<weight>[0-9.eE+-]+)\s*\*\s*(?P<task>\S.*)")
_FILES = (".jsonl", ".parquet")
_KINDS = (
  "arithmetic/LEVEL, world/KIND, facts/KIND, a .jsonl or .parquet file, gym:NAME,"
  " tfds:NAME, variants:TASK, or a mixture such as"
  " '0.7 * gym:chain_sum + 0.3 * rows.jsonl'"
)


def parts(task: str) -> list[tuple[float, str]]:
  """(weight, task) of each source; a task that is no mixture has weight 1."""
  words = re.split(r"\s\+\s", task.strip())
  found = [_PART.fullmatch(word.strip()) for word in words]
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


def needs_answer(judge: config.Judge, task: str) -> bool:
  """Whether each row needs a reference: a user's function may judge without one, and so
  does reasoning-gym."""
  task = task.removeprefix(variants.PREFIX)
  if task.startswith("gym:"):
    return False
  return any(":" not in one and one != "gym" for one in config.weights(judge))


def read(task: str, split: str, need_answer: bool) -> list[tuple[int, rows.Row]]:
  """(row number, row) of a split of one source.

  A file whose rows name several splits (`extra_info.split` or `split`) gives the rows
  of this one; other files give all their rows for any split. Raises config.Error for
  the first row that cannot be used.
  """
  if task.startswith(variants.PREFIX):
    inner = task.removeprefix(variants.PREFIX)
    if inner.startswith(variants.PREFIX):
      raise config.Error(f"task {task!r}: variants of variants; write {inner!r}")
    return variants.read(read(inner, split, need_answer))
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
  return _file(task, split, need_answer)


def every(task: str, need_answer: bool) -> Iterator[rows.Row | config.Error]:
  """The rows of all splits of one source; for files, what is wrong with the others."""
  if task.startswith(variants.PREFIX):
    for row in every(task.removeprefix(variants.PREFIX), need_answer):
      yield from [row] if isinstance(row, config.Error) else variants.of(row)
    return
  if task.endswith(_FILES) and not task.startswith(("gym:", "tfds:")):
    yield from rows.read(task, need_answer=need_answer)
    return
  splits = tuple(arithmetic.SIZES)
  if task.startswith("tfds:"):
    from pxy.data import builders

    splits = builders.splits(task)
  for split in splits:
    for _, row in read(task, split, need_answer):
      yield row


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


def _file(task: str, split: str, need_answer: bool) -> list[tuple[int, rows.Row]]:
  if not task.endswith(_FILES):
    raise config.Error(f"task {task!r}: expected {_KINDS}")
  found = []
  for uid, row in enumerate(rows.read(task, need_answer=need_answer)):
    if isinstance(row, config.Error):
      raise row
    found.append((uid, row))
  if not found:
    raise config.Error(f"{task}: no rows")
  splits = sorted({row.split for _, row in found if row.split})
  if len(splits) < 2:
    return found
  if split not in splits:
    raise config.Error(
      f"{task}: no rows of split {split!r}; there are {', '.join(splits)}"
    )
  return [(uid, row) for uid, row in found if row.split == split]
