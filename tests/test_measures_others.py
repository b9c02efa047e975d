"""Hallucination, knowledge kept and diversity by hand and by enumeration."""

import itertools

import numpy as np
import pytest

from pxy.measures import diversity, estimate, hallucination, kept

NAN = np.nan


def ids(n):
  return [f"p{i:04}" for i in range(n)]


def value(spec):
  return estimate.measure(spec).value


def test_hallucination_by_band():
  correct_PR = np.array([[1.0, 1, 0, 0], [0, 0, NAN, NAN], [1, 0, 0, 0]])
  attempted_PR = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 0]])
  found = {
    s.name: value(s)
    for s in hallucination.specs(
      ids(3), ["head", "unknown", "head"], correct_PR, attempted_PR
    )
  }
  # head: 3 right, 2 wrong, 3 abstained of 8; unknown: 1 wrong, 1 abstained of 2.
  assert found["hallucination/head_correct"] == 3 / 8
  assert found["hallucination/head_wrong"] == 2 / 8
  assert found["hallucination/head_abstained"] == 3 / 8
  assert found["hallucination/head_given_attempted"] == 3 / 5
  a, b = 3 / 8, 3 / 5
  assert found["hallucination/head_f"] == pytest.approx(2 * a * b / (a + b))
  assert found["hallucination/unknown_wrong"] == 1 / 2
  (head, unknown) = hallucination.score(
    ids(3), ["head", "unknown", "head"], correct_PR, attempted_PR, 0.75
  )
  assert head.name == "hallucination/head_score@0.75"
  assert value(head) == pytest.approx((3 - 3 * 2) / 8)
  assert value(unknown) == pytest.approx(-3 / 2)


def test_a_point_for_abstaining_is_no_right_answer():
  (right, wrong, abstained, given, f) = hallucination.specs(
    ["a"], ["unknown"], [[1.0, 1.0]], [[0, 0]]
  )
  assert (value(right), value(wrong), value(abstained), value(f)) == (0, 0, 1, 0)
  assert estimate.measure(given) is None, "nothing was attempted"


def test_kept():
  one = kept.nll(ids(3), "document", [10.0, 20, NAN], [8.0, 21, 5], [4, 6, 2])
  assert one.name == "kept/nll_document"
  assert value(one) == pytest.approx((2 - 1) / 10) and estimate.measure(one).n == 2
  token, sequence = kept.kl(
    ids(2), "forward", [[1.0, 3], [2, NAN]], [[10, 10], [20, 9]]
  )
  assert value(token) == pytest.approx((2 + 2) / (10 + 20))
  assert value(sequence) == pytest.approx(2)
  assert sequence.name == "kept/sequence_kl_forward"
  assert value(kept.cloze(ids(2), [-1.0, -2], [-3.0, -3])) == 1.5


def test_distinct_is_of_all_subsets():
  solution_PR = np.array([[0, 0, 1, 2, -1], [3, 3, 3, -1, -1], [4, -1, -1, -1, -1]])
  for m in (1, 2, 3):
    expected = [
      np.mean([len(set(s)) for s in itertools.combinations(row[row >= 0], m)])
      for row in solution_PR
      if (row >= 0).sum() >= m
    ]
    found = estimate.measure(diversity.distinct(ids(3), solution_PR, m))
    assert found.value == pytest.approx(np.mean(expected))
    assert found.n == len(expected)


def test_two_models_are_compared_where_both_solve_often_enough():
  often, seldom = np.array([[0, 1, 2], [0, 0, 1]]), np.array([[0, 0, 0], [1, -1, -1]])
  a, b = (diversity.distinct(ids(2), x, 2) for x in (often, seldom))
  found = estimate.difference([a], [b])
  assert (found.value, found.n) == (2 - 1, 1)


def test_chao1():
  assert diversity.chao1_of(np.array([1, 1, 1, 2, 5])) == 5 + 3 * 2 / (2 * 2)
  assert diversity.chao1_of(np.array([4, 7])) == 2
  rng = np.random.default_rng(0)
  solution_PR = rng.integers(0, 20, (200, 25))
  seen = np.mean([len(set(row)) for row in solution_PR.tolist()])
  found = value(diversity.chao1(ids(200), solution_PR))
  assert seen < 15 and found == pytest.approx(20, abs=1)


def test_entropy_by_chao_shen_is_nearer_than_the_plug_in():
  rng = np.random.default_rng(1)
  answer_PR = rng.integers(0, 20, (300, 20))
  found = value(diversity.answer_entropy(ids(300), answer_PR))
  plug_in = []
  for row in answer_PR:
    p = np.unique(row, return_counts=True)[1] / 20
    plug_in.append(-np.sum(p * np.log(p)))
  truth = np.log(20)
  assert np.mean(plug_in) < truth - 0.3
  assert found == pytest.approx(truth, abs=0.1)


def test_entropy_of_one_answer_is_zero_and_of_one_response_undefined():
  assert diversity.chao_shen(np.array([9])) == 0
  assert np.isnan(diversity.chao_shen(np.array([1])))
  assert np.isfinite(diversity.chao_shen(np.array([1, 1, 1])))
  none = np.full((2, 3), -1)
  assert estimate.measure(diversity.answer_entropy(ids(2), none)) is None


def test_token_entropy():
  one = diversity.token_entropy(ids(2), [[2.0, 4], [1, NAN]], [[4, 4], [2, 7]])
  assert value(one) == pytest.approx((3 + 1) / (4 + 2))


def test_ngrams_at_a_fixed_number_of_tokens():
  tokens = [[[1, 2, 1, 2], [1, 2, 3, 4]], [[1, 2], [3]]]
  one = diversity.ngrams(ids(2), tokens, 2, 6)
  # 12 21 12 | 12: two kinds of four; the second problem has 3 tokens.
  assert one.name == "diversity/distinct_2@6"
  found = estimate.measure(one)
  assert (found.value, found.n) == (0.5, 1)
