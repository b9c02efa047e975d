"""All scores of one evaluation: (value, standard error) by name.

In the loop and standalone, the numbers come from here. A response is correct when its
score is above one half: right for 0/1 and for -1/+1 graders, and a strict reading of
graders that give parts of a point.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np

from pxy.evaluate import behaviour
from pxy.measures import passk


def correct(score_PR: np.ndarray) -> np.ndarray:
  """1 right, 0 wrong, nan where there is no score."""
  score_PR = np.asarray(score_PR, np.float64)
  return np.where(np.isnan(score_PR), np.nan, score_PR > 0.5)


def powers(responses: int) -> tuple[int, ...]:
  """The k of a pass@k curve: 1, 2, 4, ... and `responses` itself."""
  ks = [2**i for i in range(responses.bit_length())]
  return tuple(sorted({*ks, responses}))


def scores(
  score_PR: np.ndarray,
  *,
  ks: Sequence[int] | None = None,
  texts: Sequence[Sequence[str]] | None = None,
  answers: Sequence[Sequence[Hashable | None] | None] | None = None,
  length_PR: np.ndarray | None = None,
  truncated_PR: np.ndarray | None = None,
) -> dict[str, passk.Score]:
  """Name -> (value, standard error over problems), for R responses to P problems.

  Always: avg@R, pass@k for each k <= R (powers of two unless given), score/mean,
  groups/{solved, unsolved, mixed} (counts), ungraded (share of responses without a
  score, which the others leave out). Besides, where the input is given: maj@R
  (answers), thoughts/* (texts), length/mean, truncated. A problem whose answers are
  None, for its grader has no notion of one, takes no part in maj@R; without any other
  there is none.
  """
  score_PR = np.asarray(score_PR, np.float64)
  problems, responses = score_PR.shape
  correct_PR = correct(score_PR)
  out = {f"avg@{responses}": passk.mean_PR(correct_PR)}
  for k in powers(responses) if ks is None else ks:
    if k <= responses:
      out[f"pass@{k}"] = passk.pass_at_k(correct_PR, k)
  votes = [p for p, group in enumerate(answers or ()) if group is not None]
  if votes:
    given = [answers[p] for p in votes]
    out[f"maj@{responses}"] = passk.maj_at_k(correct_PR[votes], given, responses)
  out["score/mean"] = passk.mean_PR(score_PR)
  out["ungraded"] = passk.mean_PR(np.isnan(score_PR))
  for name, n in passk.groups(correct_PR).items():
    # A count of independent problems: binomial.
    se = math.sqrt(n * (1 - n / problems)) if problems else math.nan
    out[f"groups/{name}"] = float(n), se
  if length_PR is not None and truncated_PR is not None:
    out |= behaviour.length_scores(length_PR, truncated_PR)
  if texts is not None:
    out |= behaviour.thought_scores(texts)
  return out


def to_json(found: dict[str, passk.Score]) -> dict[str, dict[str, float | None]]:
  """As records and summary.json hold them; nan is null."""
  return {
    name: {"value": _number(value), "se": _number(se)}
    for name, (value, se) in found.items()
  }


def _number(x: float) -> float | None:
  return float(x) if math.isfinite(x) else None
