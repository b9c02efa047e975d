"""Reference answers that `math` cannot grade against, found before they cost a run.

Plain numbers and words need no reading. Each other answer goes
through the pool, as samples do: it was written by whoever made the data, and reading it
takes the same libraries. Of very many, the first `MOST` are read.
"""

import dataclasses
from collections.abc import Iterable

from pxy import config
from pxy.rewards import equal, pool, sample, tasks
from pxy.show import progress

MOST = 2000
"""Answers that are read, at 0.01 to 0.1 s each."""
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Found:
  """What the check has found.

  Attributes:
    distinct: different answers.
    formulas: of these, those that have to be read.
    checked: of these, those that were.
    unusable: answers that samples cannot be compared with, and why.
    rows: how many of the rows have such an answer.
  """

  distinct: int
  formulas: int
  checked: int
  unusable: dict[str, str]
  rows: int

  def lines(self) -> list[str]:
    """The result for a person: a summary, and some of what is wrong."""
    text = f"reference answers: {self.distinct:,} distinct, {self.formulas:,} formulas"
    if self.checked < self.formulas:
      text += f" of which the first {self.checked:,} were read"
    if not self.unusable:
      return [f"{text}, all can be graded against"]
    whys = list(self.unusable.values())
    more = [f"... and {len(whys) - _SHOWN} more"] if len(whys) > _SHOWN else []
    return [
      f"{text}, {len(whys)} cannot be graded against; their {self.rows} rows give"
      " right answers that are spelled the same, and no grade otherwise",
      *whys[:_SHOWN],
      *more,
    ]


def to_read(judge: config.Judge, rows: Iterable[tuple[str, str, dict]]) -> list[str]:
  """The answers that `math` compares with, also where `auto` chooses it.

  rows: (task, answer, columns) of each.
  """
  return [
    text
    for task, answer, columns in rows
    if "math" in tasks.names(judge, task)
    for text in sample.right(answer, columns)
  ]


def check(answers: Iterable[str], reward: config.Reward) -> Found:
  """Tries to read each of the answers, in a pool of its own, with a progress bar."""
  counts: dict[str, int] = {}
  for answer in answers:
    counts[answer] = counts.get(answer, 0) + 1
  formulas = [a for a in counts if not equal.plain(tasks.reference(a))]
  chosen, unusable = formulas[:MOST], {}
  if not chosen:
    return Found(len(counts), 0, 0, {}, 0)
  with pool.Pool(reward, "gold") as p:
    futures = [p.submit(tasks.Item("", answer)) for answer in chosen]
    with progress.counting("reference answers", len(chosen)) as count:
      for i, (answer, future) in enumerate(zip(chosen, futures, strict=True), 1):
        outcome = future.result()
        if outcome.status != "scored":
          at = f"the answer {answer[:60]!r}: "
          unusable[answer] = (
            outcome.why if "the answer" in outcome.why else at + outcome.why
          )
        count(i)
  rows = sum(counts[answer] for answer in unusable)
  return Found(len(counts), len(formulas), len(chosen), unusable, rows)


def refuse(answers: list[str], reward: config.Reward) -> list[str]:
  """What to say of a run's answers; config.Error if too many cannot be used."""
  found = check(answers, reward)
  if found.rows > reward.max_failed * len(answers):
    raise config.Error(
      f"grader 'math': {found.rows} of {len(answers)} reference answers cannot be"
      f" graded against ({next(iter(found.unusable.values()))}), more than"
      f" reward.max_failed {reward.max_failed:.0%}; mend the data, or use the grader"
      " 'boxed', which compares strings"
    )
  return found.lines()
