"""avg@k, pass@k, maj@k with standard errors, from a table of right and wrong answers.

Of n responses to a problem c are right. The chance that k of them, drawn without
replacement, hold at least one right one is

    pass@k = 1 - C(n-c, k) / C(n, k)                          (Chen et al., 2107.03374)

which is unbiased for the pass rate of k fresh responses; 1 - (1 - c/n)^k is not.

Every score is a mean over problems, and its standard error is that of this mean:
problems are the independent draws, the responses to one problem are not. Samples
without a grade are nan and take no part; a problem with fewer than k graded responses
has no pass@k.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from pxy import fields

Score = tuple[float, float]
"""Value and standard error; nan where there is too little data for it."""


def over_problems(value_P: np.ndarray) -> Score:
  """Mean over problems and its standard error; nan entries are left out."""
  value_P = np.asarray(value_P, np.float64)
  value_P = value_P[~np.isnan(value_P)]
  n = len(value_P)
  if n == 0:
    return np.nan, np.nan
  se = value_P.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
  return float(value_P.mean()), float(se)


def ratio(above_P: np.ndarray, below_P: np.ndarray) -> Score:
  """sum(above) / sum(below) and its standard error, with problems as the draws.

  The error is that of the linearised ratio r:
  sqrt(P/(P-1) sum_p (a_p - r b_p)^2) / sum_p b_p.
  """
  above_P, below_P = np.asarray(above_P, np.float64), np.asarray(below_P, np.float64)
  total, n = below_P.sum(), len(below_P)
  if total == 0:
    return np.nan, np.nan
  r = above_P.sum() / total
  if n < 2:
    return float(r), np.nan
  se = np.sqrt(n / (n - 1) * np.sum((above_P - r * below_P) ** 2)) / total
  return float(r), float(se)


def mean_PR(value_PR: np.ndarray) -> Score:
  """Mean over problems of the mean over their responses; nan is left out."""
  value_PR = np.asarray(value_PR, np.float64)
  known_PR = ~np.isnan(value_PR)
  count_P = known_PR.sum(1)
  sum_P = np.where(known_PR, value_PR, 0).sum(1)
  return over_problems(np.where(count_P > 0, sum_P / np.maximum(count_P, 1), np.nan))


def counts(correct_PR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(n_P, c_P): graded and right responses, of 1 (right), 0 (wrong), nan (no grade).

  Raises fields.Error for anything else, say a score of -1 to 1.
  """
  correct_PR = np.asarray(correct_PR, np.float64)
  other = correct_PR[~(np.isnan(correct_PR) | np.isin(correct_PR, (0, 1)))]
  if other.size:
    raise fields.Error(
      f"correct must be 1, 0 or nan, found {other[0]:g}: scores.correct reads a score"
    )
  n_P = (~np.isnan(correct_PR)).sum(1)
  return n_P, np.nansum(correct_PR, axis=1).astype(np.int64)


def none_of(n: int, c: int, k: int) -> float:
  """C(n-c, k) / C(n, k): that none of k is right, of n with c right; nan if k > n."""
  if k > n:
    return math.nan
  # A product of factors in [0, 1]: no big numbers.
  i = np.arange(k)
  return float(np.prod(np.maximum(n - c - i, 0) / (n - i)))


def pass_P(correct_PR: np.ndarray, k: int) -> np.ndarray:
  """Unbiased pass@k of each problem; nan with fewer than k graded responses."""
  return by_counts(correct_PR, lambda n, c: 1 - none_of(n, c, k))


def by_counts(correct_PR: np.ndarray, of: Callable[[int, int], float]) -> np.ndarray:
  """of(n, c) for each problem [P]; each pair is computed once."""
  n_P, c_P = counts(correct_PR)
  pairs, place_P = np.unique(n_P * (1 << 32) + c_P, return_inverse=True)
  found = [of(int(pair) >> 32, int(pair) % (1 << 32)) for pair in pairs]
  return np.array(found, np.float64)[place_P]


def pass_at_k(correct_PR: np.ndarray, k: int) -> Score:
  """Unbiased pass@k from responses that are 1 (right), 0 (wrong) or nan (no grade)."""
  return over_problems(pass_P(correct_PR, k))


def maj_at_k(
  correct_PR: np.ndarray, answers: Sequence[Sequence[Hashable | None]], k: int
) -> Score:
  """Accuracy of the commonest answer among k.

  The R responses are cut into R // k blocks, whose votes are averaged. None is no vote;
  a block without votes is wrong; equally common answers share the vote.
  """
  correct_PR = np.asarray(correct_PR, np.float64)
  maj_P = np.full(len(correct_PR), np.nan)
  for p, (right, given) in enumerate(zip(correct_PR, answers, strict=True)):
    # A grade may be missing for one of several equal answers: any of them serves.
    known = [(a, r) for a, r in zip(given, right, strict=True) if not np.isnan(r)]
    blocks = [known[i : i + k] for i in range(0, len(known) - k + 1, k)]
    if blocks:
      maj_P[p] = np.mean([_vote(block) for block in blocks])
  return over_problems(maj_P)


def _vote(block) -> float:
  votes: dict[Hashable, list[float]] = {}
  for answer, right in block:
    if answer is not None:
      votes.setdefault(answer, []).append(right)
  if not votes:
    return 0.0
  most = max(map(len, votes.values()))
  return float(np.mean([np.mean(v) for v in votes.values() if len(v) == most]))


def groups(correct_PR: np.ndarray) -> dict[str, int]:
  """How many problems are solved by all, by none and by some of their responses.

  Only the last ones, `mixed`, teach a method that compares the responses of a group.
  Problems without a graded response are in none of the three.
  """
  correct_PR = np.asarray(correct_PR, np.float64)
  graded_P = (~np.isnan(correct_PR)).any(1)
  any_right_P = (correct_PR == 1).any(1)
  any_wrong_P = (correct_PR == 0).any(1)
  return {
    "solved": int(np.sum(graded_P & ~any_wrong_P)),
    "unsolved": int(np.sum(graded_P & ~any_right_P)),
    "mixed": int(np.sum(any_right_P & any_wrong_P)),
  }
