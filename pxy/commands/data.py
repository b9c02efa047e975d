"""`pxy data check TASK`: every row of a file or another source, without a model.

A row that cannot be used is one line: where it is, which field, what was found, what
was expected, and how to write it.
"""

import collections
import dataclasses

from pxy import config
from pxy.data import prompts, sources


@dataclasses.dataclass(frozen=True)
class Summary:
  """What `check` found: rows by task and by split, and the problems, one line each."""

  rows: int
  tasks: dict[str, int]
  splits: dict[str, int]
  duplicates: int
  longest: int
  problems: list[str]
  answers: list[str]


def check(task: str, grader: str = "auto") -> Summary:
  """Reads every row of a task, or of each part of a mixture. `longest` is in
  characters."""
  good, problems = [], []
  for _, part in sources.parts(str(task)):
    for row in sources.every(part, sources.needs_answer(grader, part)):
      if isinstance(row, config.Error):
        problems.append(str(row))
      else:
        good.append(row)
  texts = [prompts.text_of(row) for row in good]
  return Summary(
    rows=len(good) + len(problems),
    tasks=dict(collections.Counter(row.task for row in good)),
    splits=dict(collections.Counter(row.split or "(none)" for row in good)),
    duplicates=len(texts) - len(set(texts)),
    longest=max(map(len, texts), default=0),
    problems=problems,
    answers=[row.answer for row in good],
  )


def command(options) -> None:
  """Prints what is there; config.Error when rows are wrong."""
  from pxy.rewards import gold, tasks

  path = options.file
  tasks.is_own(options.task)
  summary = check(path, options.task)
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
  if options.task == "math":
    for line in gold.refuse(summary.answers, config.Reward()):
      print(f"  {line}")
