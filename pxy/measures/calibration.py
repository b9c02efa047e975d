"""Calibration: is a response right as often as its confidence says?

A confidence comes from the responses themselves (`agreement`: the share of the others
that give the same answer; the share of the commonest among R is too high, by .13 at
R = 8 and .075 at 16 for a calibrated model) or from elsewhere (`given`: P(True), what
the model states, exp(mean log p)). Each can draw what a calibrated model would give in
its place: whether an answer is right is drawn once for all the responses that give it.
This is why the null of P problems with R responses is so much wider than that of PR
coins. That of agreement is a little high (.077 where calibrated models read .066, at
R = 16 and P = 200), for the shares of R answers are more uneven than what is behind
them.

    Brier = mean (confidence - correct)^2
    ECE^2 = sum_b n_b/N [(p_b - y_b)^2 - y_b (1-y_b) / (n_b-1)]

over bins b of equal mass, with mean confidence p_b and accuracy y_b; the second term
takes off what n_b coins would give. ECE is its root, 0 where it is below 0. Equal
confidences share a bin. What is left for a calibrated model, for the R - 1 others are a
noisy reading of its belief, is in the null, never in the formula.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from pxy import fields
from pxy.measures import arrays, estimate, ranking

BINS = 10


@dataclasses.dataclass(frozen=True)
class Confidence:
  """Confidences, and those of a calibrated model.

  Attributes:
    name: `agreement`, `p_true`, ...
    conf_PR: 0 to 1; nan where there is none.
    calibrated: rng -> (conf_PR, correct_PR) of a calibrated model.
  """

  name: str
  conf_PR: np.ndarray
  calibrated: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def agreement(answer_PR: np.ndarray) -> Confidence:
  """Leave-one-out agreement, from codes of answers (arrays.codes); want R >= 32.

  A response without an answer has none, but counts among the others. The calibrated
  model answers by the shares seen, and so is the right answer drawn.
  """
  kind_PR, count_PA = arrays.local(answer_PR)
  there_PR = answer_PR != arrays.ABSENT
  belief_PA = estimate.divide(count_PA, there_PR.sum(1, keepdims=True))
  belief_PA = np.nan_to_num(belief_PA)

  def calibrated(rng):
    drawn_PR = _draw(rng, belief_PA, there_PR.shape[1])
    drawn_PR = np.where(there_PR, drawn_PR, arrays.ABSENT)
    gold_P = _draw(rng, belief_PA, 1)
    return _others_equal(drawn_PR, belief_PA.shape[1]), _graded(drawn_PR, gold_P)

  conf_PR = _others_equal(kind_PR, count_PA.shape[1])
  return Confidence("agreement", conf_PR, calibrated)


def given(name: str, conf_PR, answer_PR: np.ndarray) -> Confidence:
  """Confidences from elsewhere, 0 to 1, of responses with an answer.

  Those of different answers may sum to more than 1; so in the calibrated model each
  answer is right or wrong by itself, with the chance that is stated for it.
  """
  conf_PR = np.where(answer_PR >= 0, np.asarray(conf_PR, np.float64), np.nan)
  if np.nanmin(conf_PR, initial=0) < 0 or np.nanmax(conf_PR, initial=1) > 1:
    raise fields.Error(
      f"{name}: a confidence is 0 to 1, found {np.nanmin(conf_PR, initial=0):g} to"
      f" {np.nanmax(conf_PR, initial=1):g}; for another score there is ranking.auroc"
    )
  kind_PR, count_PA = arrays.local(answer_PR)
  of_PR = np.maximum(kind_PR, 0)

  def calibrated(rng):
    chance_PR = np.take_along_axis(rng.random(count_PA.shape), of_PR, axis=1)
    return conf_PR, np.where(np.isnan(conf_PR), np.nan, chance_PR < conf_PR)

  return Confidence(name, conf_PR, calibrated)


def sequence(logp_PR, tokens_PR) -> np.ndarray:
  """exp(mean log p of a response's tokens), a confidence for `given`."""
  logp_PR, tokens_PR = np.asarray(logp_PR, float), np.asarray(tokens_PR, float)
  return np.exp(estimate.divide(logp_PR, tokens_PR))


def _others_equal(kind_PR, kinds: int):
  p_N, r_N = np.nonzero(kind_PR >= 0)
  cell_N = p_N * kinds + kind_PR[p_N, r_N]
  others_P = (kind_PR != arrays.ABSENT).sum(1) - 1
  conf_PR = np.full(kind_PR.shape, np.nan)
  conf_PR[p_N, r_N] = estimate.divide(np.bincount(cell_N)[cell_N] - 1, others_P[p_N])
  return conf_PR


def _draw(rng, belief_PA, times: int):
  """Answers drawn by belief [P, times]; NONE for what is left to 1."""
  upto_PA = np.cumsum(belief_PA, 1)
  u_PT = rng.random((len(belief_PA), times))
  # Beliefs in all there is sum to 1 but for rounding.
  u_PT *= np.where(upto_PA[:, -1:] > 1 - 1e-9, upto_PA[:, -1:], 1)
  # All rows in one search: row p lies between p and p + 1.
  problems, kinds = belief_PA.shape
  row_P1 = np.arange(problems)[:, None]
  found = np.searchsorted((upto_PA + row_P1).ravel(), (u_PT + row_P1).ravel(), "right")
  kind_PT = found.reshape(u_PT.shape) - row_P1 * kinds
  return np.where(kind_PT >= kinds, arrays.NONE, kind_PT)


def _graded(kind_PR, gold_P1):
  right_PR = (kind_PR == gold_P1) & (gold_P1 >= 0)
  return np.where(kind_PR >= 0, right_PR.astype(np.float64), np.nan)


def specs(
  ids: Sequence[str], confidence: Confidence, correct_PR
) -> list[estimate.Spec]:
  """Brier, AUROC, risk-coverage area, accuracy at coverage, and ECE."""
  name, conf_PR = confidence.name, confidence.conf_PR
  correct_PR = np.asarray(correct_PR, np.float64)

  def brier(conf_PR, correct_PR):
    return arrays.rates((conf_PR - correct_PR) ** 2)

  def null(of):
    return lambda rng: of(*confidence.calibrated(rng))

  def ece(conf_PR, correct_PR):
    order = ranking.ranked(conf_PR, correct_PR)
    return float(ece_B(order, np.ones((1, len(conf_PR))))[0])

  on_P = ~np.isnan(conf_PR + correct_PR).all(1)
  units = tuple(x for x, on in zip(ids, on_P, strict=True) if on)
  order = ranking.ranked(conf_PR[on_P], correct_PR[on_P])
  return [
    estimate.mean(
      ranking.named("brier", name),
      ids,
      brier(conf_PR, correct_PR),
      "mean square; null: calibrated",
      null=null(lambda conf, right: float(np.nanmean(brier(conf, right)))),
      least=0,
      most=1,
    ),
    ranking.auroc(ids, name, conf_PR, correct_PR),
    *ranking.risk(ids, name, conf_PR, correct_PR),
    estimate.Spec(
      ranking.named("ece", name),
      units,
      functools.partial(ece_B, order),
      f"debiased, {BINS} bins of equal mass; null: calibrated",
      null=null(ece),
      biased=True,
      least=0,
      most=1,
      size=len(order.problem_M),
      made=estimate.Made("ece", units, conf_PR[on_P], correct_PR[on_P]),
    ),
  ]


def ece_B(order: ranking.Ranked, weight_BP: np.ndarray) -> np.ndarray:
  """Debiased calibration error of confidences in the order of ranking.ranked."""
  all_BU, right_BU = order.counts(weight_BP)
  bin_BU = _bins(all_BU)
  out = np.full(len(weight_BP), np.nan)
  for b, (n_U, right_U, bin_U) in enumerate(zip(all_BU, right_BU, bin_BU, strict=True)):
    n, right, conf = (
      np.bincount(bin_U, x, BINS) for x in (n_U, right_U, n_U * order.score_U)
    )
    on = n > 1  # a lone response says nothing about a rate
    if on.any():
      n, p, y = n[on], conf[on] / n[on], right[on] / n[on]
      square = np.sum(n / n.sum() * ((p - y) ** 2 - y * (1 - y) / (n - 1)))
      out[b] = np.sqrt(max(square, 0.0))
  return out


def _bins(all_BU):
  """The bin of each confidence, by where the middle of its mass lies."""
  middle_BU = np.cumsum(all_BU, 1) - all_BU / 2
  share_BU = estimate.divide(middle_BU, all_BU.sum(1, keepdims=True))
  return np.minimum((BINS * np.nan_to_num(share_BU)).astype(int), BINS - 1)


def reliability(confidence: Confidence, correct_PR) -> list[dict[str, float]]:
  """The points of a reliability diagram, by rising confidence: {confidence, accuracy,
  low, high, n}, low to high what a calibrated model gives in this bin."""
  conf_PR, correct_PR = confidence.conf_PR, np.asarray(correct_PR, np.float64)
  if np.isnan(conf_PR + correct_PR).all():
    return []
  order = ranking.ranked(conf_PR, correct_PR)
  all_1U, right_1U = order.counts(np.ones((1, len(conf_PR))))
  bin_U = _bins(all_1U)[0]
  # Falling scores: a bin reaches down to the lowest score in it.
  lowest = {int(b): float(s) for b, s in zip(bin_U, order.score_U, strict=True)}
  used, least = list(lowest), np.array(list(lowest.values()))
  rng = np.random.default_rng([estimate.SEED, 3])

  def accuracies(conf_PR, correct_PR):
    known = ~np.isnan(conf_PR + correct_PR)
    place = np.searchsorted(-least, -conf_PR[known])
    place = np.minimum(place, len(used) - 1)
    n, right = (np.bincount(place, x, len(used)) for x in (None, correct_PR[known]))
    return estimate.divide(right, n)

  null_TU = [accuracies(*confidence.calibrated(rng)) for _ in range(estimate.NULLS)]
  points = []
  for i, b in enumerate(used):
    n, right = all_1U[0, bin_U == b], right_1U[0, bin_U == b]
    found = np.array([row[i] for row in null_TU])
    found = found[~np.isnan(found)]
    band = np.percentile(found, estimate.LEVELS) if len(found) else (np.nan, np.nan)
    points.append(
      {
        "confidence": float(n @ order.score_U[bin_U == b] / n.sum()),
        "accuracy": float(right.sum() / n.sum()),
        "low": float(band[0]),
        "high": float(band[1]),
        "n": int(n.sum()),
      }
    )
  return points[::-1]
