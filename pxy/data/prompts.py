"""Prompts of a task as a function of the step.

  batch(step) = order[step * P : (step + 1) * P],   order = epoch after epoch, shuffled

The order is a grain MapDataset: random access, each epoch its own permutation, batches
run on across epochs. So the data's position is the step, and nothing is to be saved.

Every row is read, checked, rendered and measured before training starts. Prompts over
`max_prompt_tokens` are dropped and counted, never cut: half a question has another
answer.

Left out: weights of tasks, streaming of files larger than memory.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from pxy import config
from pxy.data import arithmetic, rows
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What a response answers.

  Attributes:
    ids: int32 [S], up to where the answer begins.
    text: contents of the row's messages, with blank lines between them.
    answer: the reference answer.
    task: the row's data source, by which it is graded and reported.
    uid: row number in the task, by which its samples are keyed.
    columns: the whole row, for user-defined graders.
  """

  ids: np.ndarray
  text: str
  answer: str
  task: str
  uid: int
  columns: dict


class Source:
  """The prompts of a task and split.

  Attributes:
    dropped: prompts left out because they are too long.
    duplicates: prompts that an earlier row has, kept.
    split: the split these are, or None when the file does not say.
  """

  def __init__(
    self,
    prompts: Sequence[Prompt],
    *,
    seed: int = 0,
    dropped: int = 0,
    split: str | None = None,
  ):
    self._prompts = prompts
    self._order = grain.MapDataset.source(prompts).seed(seed % 2**32).shuffle().repeat()
    self.dropped, self.split = dropped, split
    self.duplicates = len(prompts) - len({p.ids.tobytes() for p in prompts})

  def __len__(self) -> int:
    return len(self._prompts)

  def batch(self, step: int, n: int) -> list[Prompt]:
    """The n prompts of a step, a pure function of (seed, step)."""
    return [self._order[i] for i in range(step * n, (step + 1) * n)]

  def first(self, n: int) -> list[Prompt]:
    """The first n prompts in the task's order, or all if there are fewer."""
    return list(self._prompts[:n])

  def epoch(self, step: int, n: int) -> float:
    """How often the prompts have been gone through before `step`, n a step."""
    return step * n / len(self)


def load(
  data: config.Data,
  tokenizer: tokenizer_lib.Tokenizer,
  split: str = "train",
  seed: int = 0,
) -> Source:
  """The task's prompts.

  A file whose rows name several splits (`extra_info.split` or `split`) gives the rows
  of this one; other files give all their rows for any split.

  Raises:
    config.Error: unknown task, unreadable file, a row that cannot be used, or no prompt
      short enough.
  """
  is_file = not data.task.startswith("arithmetic/")
  found = list(_file(data, split) if is_file else _arithmetic(data.task, split))
  prompts, longest = [], 0
  for uid, row in found:
    ids = template.render(tokenizer, row.messages, data.template, data.system)
    longest = max(longest, len(ids))
    if len(ids) <= data.max_prompt_tokens:
      prompts.append(
        Prompt(
          ids=np.asarray(ids, np.int32),
          text=_text(row),
          answer=row.answer,
          task=row.task,
          uid=uid,
          columns=row.columns,
        )
      )
  if not prompts:
    raise config.Error(
      f"{data.task}: all {len(found)} prompts are longer than data.max_prompt_tokens"
      f" {data.max_prompt_tokens}: raise it (the longest has {longest})"
    )
  named = not is_file or any(row.split == split for _, row in found)
  return Source(
    prompts,
    seed=seed,
    dropped=len(found) - len(prompts),
    split=split if named else None,
  )


@dataclasses.dataclass(frozen=True)
class Summary:
  """What `check` found: rows by task and by split, and the problems, one line each."""

  rows: int
  tasks: dict[str, int]
  splits: dict[str, int]
  duplicates: int
  longest: int
  problems: list[str]


def check(path: str | pathlib.Path) -> Summary:
  """Reads every row of a file. `longest` is in characters."""
  good, problems = [], []
  for row in rows.read(path):
    if isinstance(row, config.Error):
      problems.append(str(row))
    else:
      good.append(row)
  texts = [_text(row) for row in good]
  return Summary(
    rows=len(good) + len(problems),
    tasks=dict(collections.Counter(row.task for row in good)),
    splits=dict(collections.Counter(row.split or "(none)" for row in good)),
    duplicates=len(texts) - len(set(texts)),
    longest=max(map(len, texts), default=0),
    problems=problems,
  )


def check_command(path: str | pathlib.Path) -> None:
  """`pxy data check FILE`: prints what is there; config.Error when rows are wrong."""
  summary = check(path)
  for line in summary.problems[:20]:
    print(line)
  if len(summary.problems) > 20:
    print(f"... and {len(summary.problems) - 20} more")
  if summary.problems:
    raise config.Error(
      f"{path}: {len(summary.problems)} of {summary.rows} rows cannot be used;"
      " mend them as said above"
    )
  if not summary.rows:
    raise config.Error(f"{path}: no rows")
  print(f"{path}: {summary.rows} rows, all usable")
  for name, counts in (("tasks", summary.tasks), ("splits", summary.splits)):
    print(f"  {name:<12}" + ", ".join(f"{key} {n}" for key, n in counts.items()))
  print(f"  {'duplicates':<12}{summary.duplicates}")
  print(f"  {'longest':<12}{summary.longest} characters")


def _text(row: rows.Row) -> str:
  return "\n\n".join(message["content"] for message in row.messages)


def _arithmetic(task: str, split: str) -> Iterator[tuple[int, rows.Row]]:
  level = task.partition("/")[2]
  for uid, problem in enumerate(arithmetic.problems(level, split)):
    yield (
      uid,
      rows.Row(
        messages=[{"role": "user", "content": problem.question}],
        answer=problem.answer,
        task=f"arithmetic/{problem.level}",
        split=split,
        columns={"question": problem.question, "level": problem.level},
      ),
    )


def _file(data: config.Data, split: str) -> list[tuple[int, rows.Row]]:
  if not data.task.endswith((".jsonl", ".parquet")):
    raise config.Error(
      f"task {data.task!r}: expected arithmetic/LEVEL, or a .jsonl or .parquet file"
    )
  found = []
  # A user's function may judge without a reference answer.
  for uid, row in enumerate(rows.read(data.task, need_answer=":" not in data.grader)):
    if isinstance(row, config.Error):
      raise row
    found.append((uid, row))
  if not found:
    raise config.Error(f"{data.task}: no rows")
  splits = sorted({row.split for _, row in found if row.split})
  if len(splits) < 2:
    return found
  if split not in splits:
    raise config.Error(
      f"{data.task}: no rows of split {split!r}; there are {', '.join(splits)}"
    )
  return [(uid, row) for uid, row in found if row.split == split]
