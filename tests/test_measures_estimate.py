"""Values, intervals, differences and nulls, whatever is measured."""

import json

import numpy as np
import pytest

from pxy import fields
from pxy.measures import arrays, bound, estimate, names, passk


def ids(n):
  return [f"p{i:05d}" for i in range(n)]


def spec(value_P, **more):
  return estimate.mean("kept/cloze", ids(len(value_P)), value_P, "mean", **more)


def test_a_mean_with_its_interval():
  value_P = np.random.default_rng(0).normal(2, 3, 400)
  found = estimate.measure(spec(value_P))
  assert found.value == pytest.approx(value_P.mean())
  half = 1.96 * value_P.std() / 20
  assert found.low == pytest.approx(found.value - half, abs=0.05)
  assert found.high == pytest.approx(found.value + half, abs=0.05)
  assert (found.n, found.null) == (400, None) and "400 problems" in found.method


def test_the_same_input_gives_the_same_bits():
  value_P = np.random.default_rng(0).normal(size=50)
  first, second = (estimate.measure(spec(value_P)) for _ in range(2))
  assert first == second


def test_the_interval_of_the_difference_of_equal_models_covers_zero():
  rng, P, R, repeats = np.random.default_rng(1), 100, 16, 2000
  # pass@4 of skewed rates, a third of them near 0: what is measured in earnest.
  table = [1 - passk.none_of(R, c, 4) for c in range(R + 1)]
  covered = 0
  for _ in range(repeats):
    rate_P = rng.beta(0.3, 1, P)
    a, b = (spec(np.take(table, rng.binomial(R, rate_P))) for _ in range(2))
    found = estimate.difference([a], [b])
    covered += found.low <= 0 <= found.high
  assert 0.93 < covered / repeats < 0.97, covered / repeats


def test_a_model_differs_from_itself_by_exactly_zero():
  value_P = np.random.default_rng(2).random(77)
  one = spec(value_P)
  runs = [one, spec(value_P**2), spec(value_P**3)]
  for same in ([one], runs):
    found = estimate.difference(same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0)
  assert estimate.beyond_zero(estimate.spread([one], [one])) == 1


def test_pairing_takes_off_what_is_hard_for_both():
  rng = np.random.default_rng(3)
  hard_P = rng.normal(0, 1, 300)
  a, b = (spec(hard_P + rng.normal(0, 0.1, 300) + shift) for shift in (0.05, 0))
  found, alone = estimate.difference([a], [b]), estimate.measure(a)
  assert found.high - found.low < (alone.high - alone.low) / 5
  assert found.low > 0
  assert estimate.beyond_zero(estimate.spread([a], [b])) < 0.01


def test_only_common_problems_are_compared():
  value_P = np.arange(6.0)
  a = spec(np.where(value_P < 2, np.nan, value_P + 1))
  b = spec(np.where(value_P > 4, np.nan, value_P))
  found = estimate.difference([a], [b])
  assert (found.value, found.n) == (1, 3)
  with pytest.raises(fields.Error, match="no problem in common"):
    estimate.difference([spec([1.0, np.nan])], [spec([np.nan, 1.0])])
  with pytest.raises(fields.Error, match="one measure"):
    estimate.difference([a], [bound.guessable(ids(2), [[1], [0]])])


@pytest.mark.parametrize("runs", [2, 3, 6])
def test_the_interval_of_a_few_runs_covers_zero(runs):
  # All luck is that of the runs: what one more run would say, no problem can.
  rng, covered, repeats = np.random.default_rng(4), 0, 400
  base = [spec(np.zeros(20))]
  for _ in range(repeats):
    found = estimate.difference(
      [spec(np.full(20, x)) for x in rng.normal(size=runs)], base
    )
    covered += found.low <= 0 <= found.high
  assert 0.92 < covered / repeats < 0.98, covered / repeats


def test_runs_are_paired_by_place_where_there_are_as_many():
  rng = np.random.default_rng(5)
  shift_S = rng.normal(size=4)
  old = [spec(np.full(20, x)) for x in shift_S]
  new = [spec(np.full(20, x + 1)) for x in shift_S]
  same, fewer = estimate.difference(new, old), estimate.difference(new, old[:3])
  assert same.low == pytest.approx(1) and same.high == pytest.approx(1)
  assert fewer.value == pytest.approx(shift_S.mean() + 1 - shift_S[:3].mean())
  assert fewer.high - fewer.low > 2 and "4 against 3 runs" in fewer.method


def test_a_distance_has_a_basic_interval_that_holds_it():
  rng = np.random.default_rng(5)
  x_P = rng.normal(size=100)

  def distance(weight_BP):
    return np.abs(weight_BP @ x_P / weight_BP.sum(1))

  for biased in (False, True):
    one = estimate.Spec(
      "bias/tv", tuple(ids(100)), distance, "", biased=biased, least=0
    )
    found = estimate.measure(one)
    assert 0 <= found.low <= found.value <= found.high


def test_what_is_undefined_is_absent():
  nothing = spec([np.nan, np.nan])
  assert estimate.measure(nothing) is None
  assert estimate.measures([nothing, estimate.mean("bias/cue", [], [], "")]) == {}
  half = estimate.ratio("bias/follows", ids(2), [1.0, 0], [1.0, 0], "")
  found = estimate.measure(half)  # drawn twice, the second problem leaves nothing
  assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_null_is_simulated():
  found = estimate.measure(spec([1.0, 2.0], null=lambda rng: rng.normal(5, 1)))
  value, low, high = found.null
  assert value == pytest.approx(5, abs=0.2)
  assert (low, high) == pytest.approx((3.04, 6.96), abs=0.4)


def test_json():
  found = estimate.measure(spec([1.0, 2.0], null=lambda rng: 7.0)).to_json()
  assert json.loads(json.dumps(found, allow_nan=False)) == {
    "value": 1.5,
    "low": 1.0,
    "high": 2.0,
    "null": {"value": 7.0, "low": 7.0, "high": 7.0},
    "n": 2,
    "method": "mean; percentile bootstrap of 2 problems",
  }


def test_ids_rise_and_differ():
  for wrong in (["b", "a"], ["a", "a"]):
    with pytest.raises(fields.Error, match=r"arrays\.arrange"):
      estimate.mean("kept/cloze", wrong, [1.0, 2.0], "")


def test_order_and_duplicates_of_rows_change_nothing():
  rng = np.random.default_rng(6)
  rows = [(f"q{p}", r, float(rng.random() < 0.3)) for p in range(30) for r in range(8)]
  rows = [row for row in rows if row[:2] != ("q7", 3)]

  def measured(rows):
    problem, number, value = zip(*rows, strict=True)
    units, row_PR = arrays.arrange(problem, number)
    correct_PR = arrays.take(value, row_PR)
    assert np.isnan(correct_PR).sum() == 1
    return estimate.measure(bound.pass_at(units, correct_PR, 2))

  mixed = rows + rows[::3]
  rng.shuffle(mixed)
  mixed = [(p, int(r), float(x)) for p, r, x in mixed]
  assert measured(mixed) == measured(rows)


def test_codes():
  answer_PR, gold_P = arrays.codes([["a", None, "b"], ["c", "a"]], ["b", "d"])
  a, b, c, d = 0, 1, 2, 3
  none, absent = arrays.NONE, arrays.ABSENT
  assert answer_PR.tolist() == [[a, none, b], [c, a, absent]]
  assert gold_P.tolist() == [b, d]
  kind_PR, count_PA = arrays.local(np.array([[5, 9, 5], [none, 2, absent]]))
  assert kind_PR.tolist() == [[0, 1, 0], [none, 0, absent]]
  assert count_PA.tolist() == [[2, 1], [1, 0]]
  with pytest.raises(fields.Error, match="1 right answers for 2"):
    arrays.codes([["a"], ["b"]], ["a"])


def test_holm():
  assert estimate.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
    [0.03, 0.06, 0.06, 0.02]
  )
  assert estimate.holm([0.9, 0.8]) == [1, 1]
  assert estimate.holm([]) == []


def test_names():
  assert names.sentence("bound/pass@64") != names.sentence("bound/verified_pass@256")
  assert names.sentence("calibration/ece") == names.sentence("calibration/ece_p_true")
  for wrong in ("bound/pass@", "bound/passs@4", "bound/cover", "x"):
    with pytest.raises(fields.Error, match="no measure"):
      names.sentence(wrong)
  with pytest.raises(fields.Error, match="no measure"):
    estimate.mean("kept/all", ["a"], [1.0], "")
