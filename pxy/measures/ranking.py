"""What a score says about which responses are right, whatever its scale.

    AUROC     = P(score of a right response > that of a wrong one), ties one half
    risk(m)   = error rate of the m responses with the highest scores
    AURC      = mean of risk(m) over m = 1 .. all
    accuracy at coverage s = 1 - risk(s all)

Responses with equal scores are taken in every order: what a curve does within a tie is
its mean over them. All responses are pooled, and the problems are what is drawn. The
null deals the problems' grades out anew: a score that says nothing, with as many
problems as there are, not as many as there are responses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pxy.measures import estimate

COVERAGES = (50, 80)
"""Percent of the responses, those with the highest scores."""
_POOLED = "pooled responses, ties in every order; null: grades dealt out anew"


@dataclasses.dataclass(frozen=True)
class Ranked:
  """Responses by falling score; those of one problem with equal scores are one cell.

  Attributes:
    problem_M: of each cell; all_M, right_M: its responses, and the right ones.
    first_U: the cell at which each of the different scores begins.
    score_U: these scores.
  """

  problem_M: np.ndarray
  all_M: np.ndarray
  right_M: np.ndarray
  first_U: np.ndarray
  score_U: np.ndarray

  def counts(self, weight_BP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(all_BU, right_BU): responses of each score, with the problems' weights."""
    weight_BM = weight_BP[:, self.problem_M]
    all_BU = np.add.reduceat(weight_BM * self.all_M, self.first_U, axis=1)
    return all_BU, np.add.reduceat(weight_BM * self.right_M, self.first_U, axis=1)


def ranked(score_PR, correct_PR) -> Ranked:
  """Those with a score and a grade (neither is nan)."""
  score_PR, correct_PR = np.asarray(score_PR, float), np.asarray(correct_PR, float)
  known_PR = ~(np.isnan(score_PR) | np.isnan(correct_PR))
  problem_N, _ = np.nonzero(known_PR)
  score_N, right_N = score_PR[known_PR], correct_PR[known_PR]
  order = np.argsort(-score_N, kind="stable")  # a problem's equal scores stay together
  score_N, problem_N, right_N = score_N[order], problem_N[order], right_N[order]
  other_N = np.append(True, np.diff(score_N) != 0)[: len(score_N)]
  cell_M = np.flatnonzero(
    other_N | np.append(True, np.diff(problem_N) != 0)[: len(score_N)]
  )
  return Ranked(
    problem_M=problem_N[cell_M],
    all_M=np.diff(np.append(cell_M, len(score_N))).astype(np.float64),
    right_M=np.add.reduceat(right_N, cell_M) if len(cell_M) else right_N,
    first_U=np.flatnonzero(other_N[cell_M]),
    score_U=score_N[other_N],
  )


def auroc_B(order: Ranked, weight_BP: np.ndarray) -> np.ndarray:
  """nan where all are right or all wrong."""
  all_BU, right_BU = order.counts(weight_BP)
  wrong_BU = all_BU - right_BU
  lower_BU = wrong_BU.sum(1, keepdims=True) - np.cumsum(wrong_BU, 1) + wrong_BU / 2
  pairs_B = right_BU.sum(1) * wrong_BU.sum(1)
  return estimate.divide((right_BU * lower_BU).sum(1), pairs_B)


def aurc_B(order: Ranked, weight_BP: np.ndarray) -> np.ndarray:
  """Mean risk over all coverages."""
  all_BU, right_BU = order.counts(weight_BP)
  wrong_BU = all_BU - right_BU
  before_BU = np.cumsum(all_BU, 1) - all_BU
  errors_BU = np.cumsum(wrong_BU, 1) - wrong_BU
  # Within a tie of n with error rate r, after C responses with E errors:
  # sum_{j=1..n} (E + j r) / (C + j) = n r + (E - r C) (H(C+n) - H(C)).
  total = int(all_BU.sum(1).max(initial=0))
  harmonic = np.append(0, np.cumsum(1 / np.arange(1, total + 1)))
  before, after = before_BU.astype(int), (before_BU + all_BU).astype(int)
  rate_BU = wrong_BU / np.maximum(all_BU, 1)
  steps_BU = harmonic[after] - harmonic[before]
  area_BU = wrong_BU + (errors_BU - rate_BU * before_BU) * steps_BU
  return estimate.divide(area_BU.sum(1), all_BU.sum(1))


def accuracy_B(order: Ranked, weight_BP: np.ndarray, coverage: float) -> np.ndarray:
  """Accuracy of the share `coverage` with the highest scores."""
  all_BU, right_BU = order.counts(weight_BP)
  upto_BU, right_BU = np.cumsum(all_BU, 1), np.cumsum(right_BU, 1)
  out = np.full(len(weight_BP), np.nan)
  for b, (upto_U, right_U) in enumerate(zip(upto_BU, right_BU, strict=True)):
    if len(upto_U) and upto_U[-1]:
      m = coverage * upto_U[-1]
      out[b] = np.interp(m, np.append(0, upto_U), np.append(0, right_U)) / m
  return out


def auroc(ids: Sequence[str], confidence: str, score_PR, correct_PR) -> estimate.Spec:
  """AUROC of any score."""
  method = "pooled responses; null: grades dealt out anew"
  return _spec(ids, "auroc", confidence, method, score_PR, correct_PR)


def accuracy(
  ids: Sequence[str], confidence: str, score_PR, correct_PR, coverage: int
) -> estimate.Spec:
  """Accuracy of the `coverage` percent with the highest scores."""
  kind = f"accuracy@{coverage}"
  return _spec(ids, kind, confidence, _POOLED, score_PR, correct_PR)


def risk(
  ids: Sequence[str], confidence: str, score_PR, correct_PR
) -> list[estimate.Spec]:
  """Risk-coverage area, and accuracy at 50 and 80 % coverage."""
  return [
    _spec(ids, "aurc", confidence, _POOLED, score_PR, correct_PR),
    *(accuracy(ids, confidence, score_PR, correct_PR, c) for c in COVERAGES),
  ]


def named(measure: str, confidence: str) -> str:
  """The full name; agreement, the confidence that every model has, goes unsaid."""
  return f"calibration/{measure}" + (
    "" if confidence == "agreement" else f"_{confidence}"
  )


def pooled(kind: str, order: Ranked) -> estimate.Stat:
  """The statistic `auroc`, `aurc` or `accuracy@COVERAGE` of all responses."""
  if kind.startswith("accuracy@"):
    share = int(kind.removeprefix("accuracy@")) / 100
    return lambda weight_BP: accuracy_B(order, weight_BP, share)
  of = {"auroc": auroc_B, "aurc": aurc_B}[kind]
  return lambda weight_BP: of(order, weight_BP)


def _spec(ids, kind, confidence, method, score_PR, correct_PR):
  score_PR, correct_PR = np.asarray(score_PR, float), np.asarray(correct_PR, float)
  # A response without one of the two takes no part, and its grade is not dealt out;
  # nor does a problem without a response.
  known_PR = ~(np.isnan(score_PR) | np.isnan(correct_PR))
  on_P = known_PR.any(1)
  score_PR, correct_PR = (
    np.where(known_PR, x_PR, np.nan)[on_P] for x_PR in (score_PR, correct_PR)
  )
  units = tuple(x for x, on in zip(ids, on_P, strict=True) if on)
  order, each = ranked(score_PR, correct_PR), np.ones((1, len(units)))

  def null(rng):
    dealt = ranked(score_PR, correct_PR[rng.permutation(len(units))])
    return float(pooled(kind, dealt)(each)[0])

  return estimate.Spec(
    named(kind, confidence),
    units,
    pooled(kind, order),
    method,
    null=null,
    least=0,
    most=1,
    size=len(order.problem_M),
    made=estimate.Made(kind, units, score_PR, correct_PR),
  )
