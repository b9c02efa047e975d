"""Bias by hand, and against models without any."""

import numpy as np
import pytest

from pxy.measures import bias, estimate

NAN = np.nan


def ids(n):
  return [f"p{i:04}" for i in range(n)]


def value(spec):
  return estimate.measure(spec).value


def test_shares():
  found = bias.shares(np.array([[0, 0, 1, -1], [-1, -1, -2, -2]]), 3)
  np.testing.assert_allclose(found, [[2 / 3, 1 / 3, 0], [NAN, NAN, NAN]])


def test_marginal_by_hand():
  share_PA = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1, 0, 0], [NAN] * 3])
  found = {
    s.name: value(s) for s in bias.marginal(ids(4), share_PA, np.array([0, 1, 2, 2]))
  }
  q, g = np.array([5, 1, 0]) / 6, np.ones(3) / 3
  assert found["bias/tv"] == pytest.approx(np.abs(q - g).sum() / 2)
  smooth = (3 * g + 0.5) / (3 + 1.5)
  assert found["bias/kl"] == pytest.approx(sum(q[:2] * np.log(q[:2] / smooth[:2])))
  assert found["bias/entropy"] == pytest.approx(-sum(q[:2] * np.log(q[:2])))
  assert found["bias/top_share"] == pytest.approx(5 / 6)


def answers(rng, P, R, marginal_A, noise_A, noise):
  """A model that is right, or else draws from noise_A; gold from marginal_A."""
  kinds = len(marginal_A)
  gold_P = rng.choice(kinds, P, p=marginal_A)
  drawn_PR = rng.choice(kinds, (P, R), p=noise_A)
  wrong_PR = rng.random((P, R)) < noise
  return np.where(wrong_PR, drawn_PR, gold_P[:, None]), gold_P


def test_even_errors_are_in_the_null_and_a_favourite_is_not():
  rng, marginal_A = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
  inside = 0
  for _ in range(20):
    answer_PR, gold_P = answers(rng, 200, 8, marginal_A, marginal_A, 0.6)
    one = estimate.measure(
      bias.marginal(ids(200), bias.shares(answer_PR, 4), gold_P)[0]
    )
    inside += one.null[1] <= one.value <= one.null[2]
  assert inside >= 17, f"{inside} of 20 unbiased models"
  answer_PR, gold_P = answers(rng, 500, 8, marginal_A, [1.0, 0, 0, 0], 0.6)
  for spec in bias.marginal(ids(500), bias.shares(answer_PR, 4), gold_P):
    one = estimate.measure(spec)
    assert not one.null[1] <= one.value <= one.null[2], spec.name
  # 60 % of all answers are moved to the favourite: TV is .6 * .6.
  tv = estimate.measure(bias.marginal(ids(500), bias.shares(answer_PR, 4), gold_P)[0])
  assert tv.low < 0.36 < tv.high


def test_without_a_prompt():
  rng = np.random.default_rng(1)
  share_PA = rng.dirichlet([4.0, 2, 1], 300)
  far, kl = bias.without_prompt(ids(300), share_PA, np.full(3, 2000), prior="start")
  one = estimate.measure(far)
  assert one.value == pytest.approx(np.abs(share_PA.mean(0) - 1 / 3).sum() / 2)
  assert one.low > one.null[2]
  assert kl.name == "bias/kl_start" and value(kl) > 0


def test_what_is_answered_without_a_prompt_is_a_sample():
  rng, beyond = np.random.default_rng(2), {"bias/tv_start": 0, "bias/kl_start": 0}
  for _ in range(20):
    share_PA = rng.dirichlet(np.full(8, 3.0), 480)
    count_A = rng.multinomial(64, np.full(8, 1 / 8))
    for spec in bias.without_prompt(ids(480), share_PA, count_A, prior="start"):
      one = estimate.measure(spec)
      beyond[spec.name] += one.value > one.null[2]
  assert max(beyond.values()) <= 3, f"{beyond} of 20 above the null"


def test_other_answers():
  given_PR = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
  other_PR = np.array([[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]])
  assert value(bias.other(ids(3), given_PR, other_PR)) == 3 / 7


def test_an_answer_that_the_reference_lacks_is_not_infinite():
  share_PA = np.array([[1.0, 0], [1, 0]])
  for spec in bias.marginal(ids(2), share_PA, np.array([1, 1])):
    assert np.isfinite(value(spec)), spec.name


def test_cue():
  correct_PR = np.array([[1.0, 1], [1, 0], [0, 1], [0, 0]])
  one = bias.cue(["x", "y", "x", "y"], correct_PR, [True, True, False, False])
  found = estimate.measure(one)
  assert (found.value, found.n) == (0.75 - 0.25, 2)
  alone = estimate.measure(bias.cue(ids(4), correct_PR, [True, True, False, False]))
  assert (alone.value, alone.n) == (0.5, 4)


def test_ambiguous_questions():
  # Of 8 responses 4 say unknown; 3 of the other 4 follow the stereotype.
  answered_PR = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], float)
  biased_PR = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], float)
  follows, s_amb = bias.ambiguous(ids(2), answered_PR, biased_PR)
  assert value(follows) == 0.75
  assert value(s_amb) == pytest.approx((1 - 0.5) * (2 * 0.75 - 1))


def test_choices():
  # Item x in its 3 orders, and y in its: A is always right, C never.
  items, letter_P = ["x"] * 3 + ["y"] * 3, np.array([0, 1, 2, 2, 0, 1])
  correct_PR = np.array([[1.0], [1], [0], [0], [1], [0]])
  found = estimate.measure(bias.choices(items, letter_P, correct_PR))
  assert found.value == pytest.approx(np.std([1, 0.5, 0]))
  assert found.n == 2
  rng = np.random.default_rng(2)
  item_P, letter_P = np.repeat(ids(100), 4), np.tile(np.arange(4), 100)
  fair_PR = (rng.random((400, 4)) < 0.5).astype(float)
  one = estimate.measure(bias.choices(item_P, letter_P, fair_PR))
  assert one.null[1] <= one.value <= one.null[2]
  fair_PR[letter_P == 0] = 1
  one = estimate.measure(bias.choices(item_P, letter_P, fair_PR))
  assert one.value > one.null[2]
