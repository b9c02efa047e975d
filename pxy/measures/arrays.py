"""Rows of a file as arrays, in an order that is not the file's.

A measure takes [P, R]: problems by rising id, the responses of each by their number.
Which row of a file is where is settled here, once: a row that comes twice counts once.
Answers become whole numbers, equal where the answers are.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from pxy import fields

NONE, ABSENT = -1, -2
"""Codes: a response without an answer; no response at all."""


def arrange(
  ids: Sequence[str], numbers: Sequence[int]
) -> tuple[tuple[str, ...], np.ndarray]:
  """(problem ids, row_PR): which row holds response r to problem p, -1 where none does.

  Of rows with the same id and number any one is taken: they must be the same rows.
  """
  row = {key: i for i, key in enumerate(zip(ids, numbers, strict=True))}
  units = tuple(sorted(set(ids)))
  place = {unit: p for p, unit in enumerate(units)}
  row_PR = np.full((len(units), max(numbers, default=-1) + 1), -1)
  for (unit, r), i in row.items():
    row_PR[place[unit], r] = i
  return units, row_PR


def take(values: Sequence[float], row_PR: np.ndarray) -> np.ndarray:
  """A column of the rows as [P, R]; nan where there is no row."""
  padded = np.append(np.asarray(values, np.float64), np.nan)
  return padded[row_PR]


def codes(
  answers: Sequence[Sequence[Hashable | None]], gold: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
  """(answer_PR, gold_P) as whole numbers; NONE and ABSENT are below 0.

  A row of answers may be shorter than others: what lacks is ABSENT. gold may be empty.
  """
  if gold and len(gold) != len(answers):
    raise fields.Error(f"{len(gold)} right answers for {len(answers)} problems")
  number: dict[Hashable, int] = {}
  longest = max(map(len, answers), default=0)
  answer_PR = np.full((len(answers), longest), ABSENT)
  for p, row in enumerate(answers):
    for r, answer in enumerate(row):
      code = NONE if answer is None else number.setdefault(answer, len(number))
      answer_PR[p, r] = code
  gold_P = np.array([number.setdefault(a, len(number)) for a in gold], np.int64)
  return answer_PR, gold_P


def rates(value_PR: np.ndarray) -> np.ndarray:
  """The mean of each problem's responses [P]; nan is left out, and where all is nan."""
  value_PR = np.asarray(value_PR, np.float64)
  known_PR = ~np.isnan(value_PR)
  count_P = known_PR.sum(1)
  total_P = np.where(known_PR, value_PR, 0).sum(1)
  return np.where(count_P > 0, total_P / np.maximum(count_P, 1), np.nan)


def local(answer_PR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(kind_PR, count_PA): answers numbered within their problem, and how many each has.

  NONE and ABSENT stay below 0 and are not counted.
  """
  kind_PR = np.minimum(answer_PR, 0)
  counts = []
  for p, row in enumerate(answer_PR):
    on = row >= 0
    _, kind, count = np.unique(row[on], return_inverse=True, return_counts=True)
    kind_PR[p, on] = kind
    counts.append(count)
  count_PA = np.zeros((len(counts), max(map(len, counts), default=0)))
  for row, count in zip(count_PA, counts, strict=True):
    row[: len(count)] = count
  return kind_PR, count_PA
