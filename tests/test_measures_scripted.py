"""A model whose habits are known by construction comes out with these numbers."""

import numpy as np
import pytest

from pxy.measures import (
  arrays,
  bias,
  bound,
  calibration,
  diversity,
  estimate,
  hallucination,
  kept,
  ranking,
  robust,
)

P, R, KINDS = 600, 32, 5
IDS = [f"p{i:04}" for i in range(P)]
RNG = np.random.default_rng(0)


def holds(spec, truth):
  """The measure, which is near the truth: within twice its interval, since one of 20
  intervals is to miss."""
  found = estimate.measure(spec)
  low, high = 2 * found.low - found.value, 2 * found.high - found.value
  assert low <= truth <= high, f"{spec.name}: {found} is far from {truth}"
  return found


def right(rate_P, responses=R):
  shape = len(rate_P), responses
  return (RNG.random(shape) < np.asarray(rate_P)[:, None]).astype(float)


@pytest.fixture(scope="module")
def halves():
  """Right with .8 on one half of the problems and with .1 on the other."""
  return right(np.where(np.arange(P) % 2, 0.8, 0.1))


def test_what_it_can(halves):
  for k in (1, 4, 8):
    holds(bound.pass_at(IDS, halves, k), 1 - (0.2**k + 0.9**k) / 2)
    holds(bound.pass_all(IDS, halves, k), (0.8**k + 0.1**k) / 2)
  for tau in (0.3, 0.5):
    holds(bound.cover(IDS, halves, tau), 0.5)


def test_what_training_did_to_it(halves):
  new_PR = right(np.where(np.arange(P) % 2, 1.0, 0.02))
  one = estimate.difference(
    [bound.pass_at(IDS, new_PR, 1)], [bound.pass_at(IDS, halves, 1)]
  )
  assert one.low <= (0.2 - 0.08) / 2 <= one.high and one.low > 0
  many = estimate.difference(
    [bound.pass_at(IDS, new_PR, 8)], [bound.pass_at(IDS, halves, 8)]
  )
  truth = (0.2**8 + 0.9**8 - 0.98**8) / 2
  assert many.low <= truth <= many.high and many.high < 0
  # Surer on one half, and worse by (1 - .02)^k - .9^k on the other: from k = 2 on.
  found = bound.crossing(IDS, new_PR, halves)
  assert found["bound/crossing"].value == 2
  assert found["bound/crosses"].value == 1


def test_how_robust_it_is():
  rate_G = RNG.beta(2, 2, P)
  parts = {"plain": rate_G, "mark": rate_G, "distractor": rate_G / 2}
  correct_PR = np.stack([right(rate_P) for rate_P in parts.values()], 1)
  groups, variants = np.repeat(IDS, 3), list(parts) * P
  specs = robust.specs(groups, variants, correct_PR.reshape(-1, R))
  found = {spec.name.removeprefix("robust/"): spec for spec in specs}
  a, square = rate_G.mean(), np.mean(rate_G**2)
  holds(found["change_mark"], 0)
  holds(found["change_distractor"], -a / 2)
  holds(found["pdr_distractor"], 0.5)
  mark = holds(found["flip_mark"], 2 * (a - square))
  assert mark.null[1] <= mark.value <= mark.null[2]
  flip = holds(found["flip_distractor"], 1.5 * a - square)
  assert flip.value > flip.null[2], "a (1 - a/2) + a/2 (1 - a) is more than 2 a (1 - a)"
  holds(found["shift_mark"], 0)
  assert holds(found["shift_distractor"], square / 4).low > 0
  worst = holds(found["worst"], np.mean(rate_G**3) / 2)
  assert worst.null[0] == pytest.approx(np.mean(rate_G**3), abs=0.03)


def test_how_calibrated_it_is():
  ids, P = IDS[:200], 200
  belief_PA = RNG.dirichlet([0.5] * KINDS, P)
  answer_PR = calibration._draw(RNG, belief_PA, R)
  gold_P1 = calibration._draw(RNG, belief_PA, 1)
  correct_PR = (answer_PR == gold_P1).astype(float)
  belief_PR = np.take_along_axis(belief_PA, answer_PR, 1)
  stated = calibration.given("stated", belief_PR, answer_PR)
  found = {s.name: s for s in calibration.specs(ids, stated, correct_PR)}
  truth = np.mean((belief_PA * belief_PA * (1 - belief_PA)).sum(1))
  brier = holds(found["calibration/brier_stated"], truth)
  assert brier.null[1] <= brier.value <= brier.null[2]
  ece = estimate.measure(found["calibration/ece_stated"])
  assert ece.value <= ece.null[2]
  sure = calibration.given("sure", np.minimum(belief_PR + 0.3, 1), answer_PR)
  found = {s.name: s for s in calibration.specs(ids, sure, correct_PR)}
  by = float(np.mean(sure.conf_PR - belief_PR))
  ece = estimate.measure(found["calibration/ece_sure"])
  assert ece.low > ece.null[2] and ece.value == pytest.approx(by, abs=0.08)
  # P(y|x) knows which answers are right; P(y) does not.
  knows = ranking.auroc(ids, "prompt", np.log(belief_PR), correct_PR)
  blind = ranking.auroc(ids, "start", -RNG.random((P, R)), correct_PR)
  holds(blind, 0.5)
  found = estimate.measure(knows)
  assert found.low > 0.7 > found.null[2]


def test_when_it_abstains():
  bands = np.array(["head", "tail", "unknown"])[np.arange(P) % 3]
  attempts = {"head": 1.0, "tail": 0.8, "unknown": 0.3}
  rates = {"head": 0.9, "tail": 0.5, "unknown": 0.0}
  attempted_PR = right([attempts[band] for band in bands])
  correct_PR = attempted_PR * right([rates[band] for band in bands])
  specs = hallucination.specs(IDS, bands, correct_PR, attempted_PR)
  found = {spec.name.removeprefix("hallucination/"): spec for spec in specs}
  holds(found["head_correct"], 0.9)
  holds(found["tail_given_attempted"], 0.5)
  holds(found["tail_abstained"], 0.2)
  holds(found["tail_f"], 2 * 0.4 / 1.8)
  holds(found["unknown_wrong"], 0.3)
  for spec in hallucination.score(IDS, bands, correct_PR, attempted_PR, 0.75):
    truth = {"head": 0.9 - 3 * 0.1, "tail": 0.4 - 3 * 0.4, "unknown": -3 * 0.3}
    holds(spec, truth[spec.name.split("/")[1].split("_")[0]])


def test_what_it_favours():
  gold_P = RNG.integers(KINDS, size=P)
  favoured_PR = right(np.full(P, 0.3)).astype(bool)
  answer_PR = np.where(favoured_PR, 0, gold_P[:, None])
  tv, _, _, top = bias.marginal(IDS, bias.shares(answer_PR, KINDS), gold_P)
  found = holds(tv, 0.3 * (1 - 1 / KINDS))
  assert found.low > found.null[2]
  holds(top, 0.3 + 0.7 / KINDS)
  agrees_P = np.arange(P) % 2 == 0
  items = np.repeat(IDS[: P // 2], 2)
  holds(bias.cue(items, right(np.where(agrees_P, 0.7, 0.45)), agrees_P), 0.25)
  follows, s_amb = bias.ambiguous(IDS, right(np.full(P, 0.4)), right(np.full(P, 0.8)))
  holds(follows, 0.8)
  holds(s_amb, 0.4 * (2 * 0.8 - 1))


def test_what_it_kept_and_how_many_ways_it_has():
  tokens_P = RNG.integers(20, 60, P)
  base_P = tokens_P * RNG.gamma(2, 1, P)
  new_P = base_P + tokens_P * RNG.normal(0.1, 0.05, P)
  holds(kept.nll(IDS, "document", new_P, base_P, tokens_P), 0.1)
  solution_PR = RNG.integers(0, 8, (P, R))
  solution_PR[right(np.full(P, 0.5)) == 0] = arrays.NONE
  truth = 8 * (1 - (7 / 8) ** 6)
  holds(diversity.distinct(IDS, solution_PR, 6), truth)
  assert estimate.measure(diversity.chao1(IDS, solution_PR)).value == pytest.approx(
    8, abs=0.3
  )
