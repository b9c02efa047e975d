"""Calibration and ranking against brute force, and against models made calibrated."""

import itertools

import numpy as np
import pytest

from pxy import fields
from pxy.measures import arrays, calibration, estimate, ranking

NAN = np.nan


def ids(n):
  return [f"p{i:04}" for i in range(n)]


def value(spec):
  return estimate.measure(spec).value


def small(seed, P=4, R=2):
  """Scores with many ties, and grades."""
  rng = np.random.default_rng(seed)
  correct_PR = rng.integers(0, 2, (P, R)).astype(float)
  correct_PR[0, 0], correct_PR[1, 0] = 0, 1
  return rng.integers(0, 3, (P, R)) / 2, correct_PR


def every_order(score_N, right_N, of):
  """The mean of of(right answers in order) over all orders of falling scores."""
  found = []
  for order in itertools.permutations(range(len(score_N))):
    if all(score_N[a] >= score_N[b] for a, b in itertools.pairwise(order)):
      found.append(of(right_N[list(order)]))
  return np.mean(found)


@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_the_mean_over_all_orders_of_ties(seed):
  score_PR, correct_PR = small(seed)
  score_N, right_N = score_PR.ravel(), correct_PR.ravel()
  higher = [
    (a > b) + (a == b) / 2
    for a, x in zip(score_N, right_N, strict=True)
    for b, y in zip(score_N, right_N, strict=True)
    if x > y
  ]
  found = estimate.measures(
    [
      ranking.auroc(ids(4), "agreement", score_PR, correct_PR),
      *ranking.risk(ids(4), "agreement", score_PR, correct_PR),
    ]
  )
  assert found["calibration/auroc"].value == pytest.approx(np.mean(higher))
  area = every_order(
    score_N, right_N, lambda x: np.mean(np.cumsum(1 - x) / np.arange(1, 9))
  )
  assert found["calibration/aurc"].value == pytest.approx(area)
  half = every_order(score_N, right_N, lambda x: x[:4].mean())
  assert found["calibration/accuracy@50"].value == pytest.approx(half)


def test_a_problem_drawn_twice_is_twice_there():
  score_PR, correct_PR = small(5)
  weight_P = np.array([2, 0, 1, 3])
  order = ranking.ranked(score_PR, correct_PR)
  again = ranking.ranked(*(np.repeat(x, weight_P, 0) for x in (score_PR, correct_PR)))
  for of in (
    ranking.auroc_B,
    ranking.aurc_B,
    lambda o, w: ranking.accuracy_B(o, w, 0.8),
    calibration.ece_B,
  ):
    found = of(order, weight_P[None].astype(float))
    np.testing.assert_allclose(found, of(again, np.ones((1, 6))), rtol=1e-12)


def test_what_lacks_a_score_or_a_grade_takes_no_part():
  score_PR, correct_PR = small(6, 6)
  score_PR[2], correct_PR[3, 1] = NAN, NAN
  found = estimate.measure(ranking.auroc(ids(6), "agreement", score_PR, correct_PR))
  keep = ~np.isnan(score_PR + correct_PR)
  flat = ranking.auroc(
    ids(keep.sum()), "agreement", score_PR[keep][:, None], correct_PR[keep][:, None]
  )
  assert found.n == 5 and found.value == pytest.approx(value(flat))
  right = np.ones((3, 2))
  assert estimate.measure(ranking.auroc(ids(3), "agreement", right, right)) is None


def test_a_score_that_says_nothing_is_at_its_null():
  rng = np.random.default_rng(7)
  rate_P = rng.beta(0.5, 0.5, (200, 1))
  correct_PR = (rng.random((200, 32)) < rate_P).astype(float)
  score_PR = rng.random((200, 1)) + 0.01 * rng.random((200, 32))
  found = estimate.measure(ranking.auroc(ids(200), "stated", score_PR, correct_PR))
  low, high = found.null[1:]
  assert low < found.value < high
  # As wide as 200 problems make it, not as 6,400 coins would.
  assert high - low > 0.1


def test_what_was_not_answered_is_not_dealt_out():
  """A score that says nothing, where two of five responses have no answer."""
  rng, outside = np.random.default_rng(3), 0
  for _ in range(4):
    correct_PR = (rng.random((100, 8)) < 0.6).astype(float)
    score_PR = rng.random((100, 8))
    unanswered_PR = rng.random((100, 8)) < 0.4
    score_PR[unanswered_PR], correct_PR[unanswered_PR] = np.nan, 0
    for spec in ranking.risk(ids(100), "stated", score_PR, correct_PR):
      one = estimate.measure(spec)
      outside += not one.null[1] <= one.value <= one.null[2]
  assert outside <= 3, f"{outside} of 12 outside of their null"


def test_leave_one_out():
  none, absent = arrays.NONE, arrays.ABSENT
  answer_PR = np.array(
    [[3, 3, 1, none], [2, 2, absent, absent], [5, absent, absent, 9]]
  )
  found = calibration.agreement(answer_PR).conf_PR
  np.testing.assert_allclose(
    found, [[1 / 3, 1 / 3, 0, NAN], [1, 1, NAN, NAN], [0, NAN, NAN, 0]]
  )


def test_leave_one_out_is_unbiased_and_the_modes_share_is_not():
  rng = np.random.default_rng(8)
  belief_PA = rng.dirichlet([0.5] * 6, 4000)
  answer_PR = calibration._draw(rng, belief_PA, 8)
  gold_P1 = calibration._draw(rng, belief_PA, 1)
  right_PR = answer_PR == gold_P1
  conf_PR = calibration.agreement(answer_PR).conf_PR
  assert conf_PR.mean() == pytest.approx(right_PR.mean(), abs=0.01)
  _, count_PA = arrays.local(answer_PR)
  mode_P = count_PA.max(1) / 8
  assert mode_P.mean() > belief_PA.max(1).mean() + 0.02


def test_brier():
  conf_PR = np.array([[0.9, 0.2], [0.5, NAN]])
  correct_PR = np.array([[1.0, 1], [0, 1]])
  one = calibration.given("stated", conf_PR, np.array([[0, 1], [0, 0]]))
  found = {s.name: s for s in calibration.specs(["a", "b"], one, correct_PR)}
  expected = ((0.01 + 0.64) / 2 + 0.25) / 2
  assert value(found["calibration/brier_stated"]) == pytest.approx(expected)


def brute_ece(conf_N, right_N, bins):
  """Equal mass without ties."""
  order = np.argsort(conf_N)
  square = 0.0
  for part in np.array_split(order, bins):
    p, y, n = conf_N[part].mean(), right_N[part].mean(), len(part)
    square += n / len(conf_N) * ((p - y) ** 2 - y * (1 - y) / (n - 1))
  return max(square, 0) ** 0.5


def test_ece_by_hand():
  rng = np.random.default_rng(9)
  conf_P = rng.random(200)
  right_P = (rng.random(200) < conf_P**3).astype(float)
  order = ranking.ranked(conf_P[:, None], right_P[:, None])
  found = calibration.ece_B(order, np.ones((1, 200)))[0]
  assert found == pytest.approx(brute_ece(conf_P, right_P, calibration.BINS))


def test_ece_does_not_depend_on_the_order_of_ties():
  rng = np.random.default_rng(10)
  conf_P = rng.integers(0, 4, 60) / 4
  right_P = rng.integers(0, 2, 60).astype(float)
  found = {
    float(
      calibration.ece_B(ranking.ranked(c[:, None], r[:, None]), np.ones((1, 60)))[0]
    )
    for c, r in (
      (conf_P[order], right_P[order]) for order in (np.arange(60), rng.permutation(60))
    )
  }
  assert len({round(x, 12) for x in found}) == 1


def calibrated(seed, P, R, kinds=6):
  rng = np.random.default_rng(seed)
  belief_PA = rng.dirichlet([0.5] * kinds, P)
  answer_PR = calibration._draw(rng, belief_PA, R)
  gold_P1 = calibration._draw(rng, belief_PA, 1)
  stated_PR = np.take_along_axis(belief_PA, answer_PR, 1)
  return answer_PR, stated_PR, (answer_PR == gold_P1).astype(float)


@pytest.mark.parametrize("kind", ["agreement", "stated"])
def test_a_calibrated_model_is_in_its_null_and_an_overconfident_one_is_not(kind):
  P, R, inside, repeats = 100, 16, 0, 12

  def confidence(answer_PR, stated_PR):
    if kind == "agreement":
      return calibration.agreement(answer_PR)
    return calibration.given("stated", stated_PR, answer_PR)

  def ece(one, correct_PR):
    (spec,) = (
      s for s in calibration.specs(ids(P), one, correct_PR) if "/ece" in s.name
    )
    return estimate._value(spec.stat, P), estimate.simulated(spec.null, P)

  for seed in range(repeats):
    answer_PR, stated_PR, correct_PR = calibrated(seed, P, R)
    found, (_, _, high) = ece(confidence(answer_PR, stated_PR), correct_PR)
    inside += found <= high
  assert inside >= 10, f"{inside} of {repeats} calibrated models"
  # All is put on the commonest answer: surer, and no more often right.
  mode_P1 = np.array([np.bincount(row).argmax() for row in answer_PR])[:, None]
  sure_PR = np.where(np.random.default_rng(0).random((P, R)) < 0.9, mode_P1, answer_PR)
  gold_PR = np.where(correct_PR == 1, answer_PR, -1).max(1, keepdims=True)
  one = confidence(sure_PR, np.full((P, R), 0.97))
  found, (_, _, high) = ece(one, (sure_PR == gold_PR).astype(float))
  assert found > high + 0.1


def test_points_of_a_diagram():
  answer_PR, stated_PR, correct_PR = calibrated(3, 400, 8)
  one = calibration.given("stated", stated_PR, answer_PR)
  points = calibration.reliability(one, correct_PR)
  assert len(points) == calibration.BINS
  assert sum(point["n"] for point in points) == 3200
  conf = [point["confidence"] for point in points]
  assert conf == sorted(conf)
  inside = [p["low"] <= p["accuracy"] <= p["high"] for p in points]
  assert sum(inside) >= 8, points
  wrong = calibration.reliability(one, 1 - correct_PR)
  assert not all(p["low"] <= p["accuracy"] <= p["high"] for p in wrong)


def test_sequence():
  found = calibration.sequence([[-2.0, NAN]], [[4, 0]])
  np.testing.assert_allclose(found, [[np.exp(-0.5), NAN]])


def test_a_model_that_never_answers_has_no_calibration():
  answer_PR, correct_PR = np.full((3, 4), arrays.NONE), np.zeros((3, 4))
  for one in (
    calibration.agreement(answer_PR),
    calibration.given("stated", correct_PR, answer_PR),
  ):
    assert estimate.measures(calibration.specs(ids(3), one, correct_PR)) == {}
    assert calibration.reliability(one, correct_PR) == []


def test_a_log_prob_is_no_confidence():
  with pytest.raises(fields.Error, match=r"found -2 to 1; .* ranking.auroc"):
    calibration.given("stated", [[-2.0, 0.5]], np.array([[0, 0]]))
