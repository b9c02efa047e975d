"""`pxy data check TASK`: every row of a file or another source, without a model.

A row that cannot be used is one line: where it is, which field, what was found, what
was expected, and how to write it.
"""

import collections
import dataclasses

from pxy import config
from pxy.data import prompts, records, rows, sources
from pxy.rewards import sample


@dataclasses.dataclass(frozen=True)
class Summary:
  """What `check` found: rows by task, by split and by the columns they were taken from,
  the problems and the rows that contradict others, one line each, and the answer, the
  source and the other right answers of each good row."""

  rows: int
  tasks: dict[str, int]
  splits: dict[str, int]
  columns: dict[str, int]
  duplicates: int
  longest: int
  problems: list[str]
  contradictions: list[str]
  answers: list[str]
  sources: list[str]
  accepted: list[dict]


_EXAMPLES = 3
_PROBLEMS = 100_000


def check(task: str, grader: str = "auto", columns: str = "") -> Summary:
  """Reads every row of a task, or of each part of a mixture. `longest` is in
  characters."""
  good, problems, contradictions = [], [], []
  for _, part in prompts.parts(config.Data(task=str(task), columns=columns)):
    need = sources.needs_answer(grader, part)
    seen = rows.Seen(need)
    for row in sources.every(part, need, columns):
      if isinstance(row, config.Error):
        problems.append(str(row))
        if len(problems) > _PROBLEMS:
          raise config.Error(f"{row} (and {_PROBLEMS:,} rows before it are wrong too)")
        continue
      good.append(row)
      try:
        if row.place:
          seen.check(row)
      except config.Error as error:
        contradictions.append(str(error))
  texts = [prompts.text_of(row) for row in good]
  return Summary(
    rows=len(good) + len(problems),
    tasks=dict(collections.Counter(row.task for row in good)),
    splits=dict(collections.Counter(row.split or "(none)" for row in good)),
    columns=dict(collections.Counter(row.fields for row in good if row.fields)),
    duplicates=len(texts) - len(set(texts)),
    longest=max(map(len, texts), default=0),
    problems=problems,
    contradictions=contradictions,
    answers=[row.answer for row in good],
    sources=[row.task for row in good],
    accepted=[
      {k: v for k, v in row.columns.items() if k == sample.ACCEPTED} for row in good
    ],
  )


def command(options) -> None:
  """Prints what is there; config.Error when rows are wrong."""
  from pxy.rewards import gold, tasks

  path = options.file
  tasks.is_own(options.task)
  summary = check(path, options.task, options.columns)
  problems = summary.problems + summary.contradictions
  for line in problems[:20]:
    print(line)
  if len(problems) > 20:
    print(f"... and {len(problems) - 20} more")
  if problems:
    raise config.Error(
      f"{path}: {len(problems)} of {summary.rows} rows cannot be used;"
      " mend them as said above"
    )
  if not summary.rows:
    raise config.Error(f"{path}: no rows; write them, such as {records.EXAMPLE}")
  print(f"{path}: {summary.rows} rows, all usable")
  counted = {"tasks": summary.tasks, "splits": summary.splits}
  if summary.columns:
    counted["columns"] = summary.columns
  for name, counts in counted.items():
    print(f"  {name:<12}" + ", ".join(f"{key} {n}" for key, n in counts.items()))
  print(f"  {'duplicates':<12}{summary.duplicates}")
  print(f"  {'longest':<12}{summary.longest} characters")
  for line in graders(summary, options.task):
    print(f"  {line}")
  rows = zip(summary.sources, summary.answers, summary.accepted, strict=True)
  if found := gold.to_read(options.task, rows):
    for line in gold.refuse(found, config.Reward()):
      print(f"  {line}")


def graders(summary: Summary, grader: str) -> list[str]:
  """Which grader each source gets, with three answers of it graded as a box has them.

  A source that `auto` does not know is named. A user's function is not called: it may
  want columns that a made-up response has not.
  """
  from pxy.rewards import known, pool, tasks

  examples: dict[str, dict[str, dict]] = {source: {} for source in summary.tasks}
  for source, answer, more in zip(
    summary.sources, summary.answers, summary.accepted, strict=True
  ):
    if answer and len(examples[source]) < _EXAMPLES:
      examples[source].setdefault(answer, more)
  lines = []
  for source, answers in examples.items():
    chosen = tasks.name(grader, source)
    line = f"{'grader':<12}{source}: {chosen}"
    if grader == "auto" and known.grader(source) is None:
      line += (
        ", for the source is unknown: only what needs no algebra is compared; name"
        " one with --task (math, number, ...)"
      )
    lines.append(line)
    if chosen == "gym" or chosen not in {*tasks.OWN, *tasks.FORKED}:
      continue
    with pool.Pool(config.Reward(workers=1), chosen) as workers:
      # Of several right answers the last, which counts if any does.
      items = [
        tasks.Item(
          f"\\boxed{{{sample.right(a, more)[-1]}}}", a, task=source, columns=more
        )
        for a, more in answers.items()
      ]
      futures = [workers.submit(item) for item in items]
      for item, future in zip(items, futures, strict=True):
        found = future.result()
        score = f"{found.score:g}" if found.status == "scored" else found.why
        wanted = " | ".join(item.answers)
        lines.append(f"{'':<14}{item.response:.60} for {wanted:.60}: {score}")
  return lines
