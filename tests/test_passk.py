"""pass@k against enumeration; standard errors against simulation."""

import itertools

import numpy as np
import pytest

from pxy import fields
from pxy.evaluate import scores
from pxy.measures import passk

NAN = np.nan


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_subsets(k):
  correct_PR = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], float)
  each = [
    np.mean([max(subset) for subset in itertools.combinations(row, k)])
    for row in correct_PR
  ]
  value, se = passk.pass_at_k(correct_PR, k)
  np.testing.assert_allclose(value, np.mean(each), rtol=1e-12)
  np.testing.assert_allclose(se, np.std(each, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_pass_at_k_by_hand():
  # n = 4, c = 2, k = 2: 1 - C(2,2)/C(4,2) = 5/6; 1 - (1/2)^2 = 3/4 would be biased.
  np.testing.assert_allclose(passk.pass_at_k([[1, 1, 0, 0]], 2)[0], 5 / 6)


def test_pass_at_1_is_avg_and_large_n_does_not_overflow():
  rng = np.random.default_rng(0)
  correct_PR = (rng.random((20, 1024)) < 0.01).astype(float)
  np.testing.assert_allclose(passk.pass_at_k(correct_PR, 1), passk.mean_PR(correct_PR))
  value, _ = passk.pass_at_k(correct_PR, 256)
  assert 0.5 < value <= 1


def test_pass_at_k_grows_with_k():
  rng = np.random.default_rng(1)
  correct_PR = (rng.random((30, 16)) < 0.3).astype(float)
  curve = [passk.pass_at_k(correct_PR, k)[0] for k in range(1, 17)]
  assert np.all(np.diff(curve) >= -1e-12)
  np.testing.assert_allclose(curve[-1], correct_PR.any(1).mean())


def test_samples_without_a_grade_take_no_part():
  with_gap = passk.pass_at_k([[1, NAN, 0], [0, 0, 0]], 2)
  without = passk.over_problems([1.0, 0.0])
  np.testing.assert_allclose(with_gap, without)
  value, se = passk.pass_at_k([[1, NAN, NAN]], 2)
  assert np.isnan(value) and np.isnan(se), "two responses are needed for pass@2"


def test_standard_error_is_the_spread_of_repeated_evaluations():
  rng = np.random.default_rng(2)
  repeats = []
  for _ in range(400):
    rate_P = rng.beta(1, 1, size=(50, 1))
    repeats.append(passk.mean_PR((rng.random((50, 8)) < rate_P).astype(float)))
  values, ses = np.array(repeats).T
  np.testing.assert_allclose(ses.mean(), values.std(), rtol=0.1)


def test_maj_at_k():
  correct_PR = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 0, 0]], float)
  answers = [["7", "8", "7", "9", "1"], ["2", "2", "3", None, None]]
  assert passk.maj_at_k(correct_PR, answers, 5)[0] == 0.5
  ties = passk.maj_at_k(np.array([[1.0, 0.0]]), [["a", "b"]], 2)[0]
  assert ties == 0.5, "equally common answers share the vote"
  silent = passk.maj_at_k(np.zeros((1, 2)), [[None, None]], 2)[0]
  assert silent == 0.0, "no answer is a wrong answer"
  blocks = passk.maj_at_k(np.array([[1.0, 1, 0, 0]]), [["a", "a", "b", "b"]], 2)[0]
  assert blocks == 0.5, "k < R averages over blocks of k"


def test_a_score_of_another_kind_is_refused():
  with pytest.raises(fields.Error, match="found -1"):
    passk.pass_at_k([[1, -1]], 1)


def test_groups_are_a_partition_of_what_is_graded():
  correct_PR = [[1, 1], [0, 0], [1, 0], [NAN, NAN], [NAN, 1]]
  assert passk.groups(correct_PR) == {"solved": 2, "unsolved": 1, "mixed": 1}


def test_scores_names_and_json():
  score_PR = np.array([[1.0, 0.0, NAN, 1.0], [-1.0, -1.0, 0.3, 0.9]])
  found = scores.scores(
    score_PR,
    texts=[["a"] * 4] * 2,
    answers=[["1"] * 4] * 2,
    length_PR=np.full((2, 4), 10),
    truncated_PR=np.zeros((2, 4), bool),
  )
  assert {"avg@4", "pass@1", "pass@2", "pass@4", "maj@4", "ungraded"} <= set(found)
  np.testing.assert_allclose(found["avg@4"][0], (2 / 3 + 1 / 4) / 2)
  np.testing.assert_allclose(found["ungraded"][0], 1 / 8)
  assert found["length/mean"] == (10.0, 0.0)
  plain = scores.to_json(scores.scores(score_PR[:1], ks=(1,)))
  assert plain["pass@1"]["se"] is None, "one problem has no standard error"


def test_powers():
  assert scores.powers(16) == (1, 2, 4, 8, 16)
  assert scores.powers(12) == (1, 2, 4, 8, 12)
  assert scores.powers(1) == (1,)
