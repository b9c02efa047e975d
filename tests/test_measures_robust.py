"""Robustness against all pairs and tuples of responses."""

import itertools

import numpy as np
import pytest

from pxy import fields
from pxy.measures import estimate, robust

GROUPS = ["g", "g", "g", "h", "h", "h"]
VARIANTS = ["plain", "mark", "renamed"] * 2
ANSWER_PR = np.array(
  [[0, 0, 1, 1], [0, 1, 1, 0], [2, 2, 2, 0], [3, 3, 3, 4], [3, 4, -1, 3], [5, 5, 0, 0]]
)
GOLD_P = np.array([0, 0, 2, 3, 3, 5])
CORRECT_PR = (ANSWER_PR == GOLD_P[:, None]).astype(float)


def measured(**more):
  specs = robust.specs(GROUPS, VARIANTS, CORRECT_PR, ANSWER_PR, GOLD_P, **more)
  return {spec.name: spec for spec in specs}


def value(spec):
  return estimate.measure(spec).value


def pairs(first, second, same):
  return np.mean([same(a, b) for a in first for b in second])


def test_a_variant_against_the_plain_question():
  found = measured()
  plain, mark = CORRECT_PR[[0, 3]], CORRECT_PR[[1, 4]]
  assert value(found["robust/accuracy_mark"]) == mark.mean()
  assert value(found["robust/change_mark"]) == mark.mean() - plain.mean()
  assert value(found["robust/pdr_mark"]) == pytest.approx(
    1 - mark.mean() / plain.mean()
  )
  flips = [pairs(a, b, lambda x, y: x != y) for a, b in zip(plain, mark, strict=True)]
  assert value(found["robust/flip_mark"]) == pytest.approx(np.mean(flips))
  # (x - x')(...): the square of a difference of two independent pairs of responses.
  two = list(itertools.permutations(range(4), 2))
  shifts = [
    np.mean([(a[i] - b[k]) * (a[j] - b[m]) for i, j in two for k, m in two])
    for a, b in zip(plain, mark, strict=True)
  ]
  assert value(found["robust/shift_mark"]) == pytest.approx(np.mean(shifts))


def test_worst_is_of_all_tuples():
  found = value(measured()["robust/worst"])
  expected = [
    np.mean([min(t) for t in itertools.product(*CORRECT_PR[rows])])
    for rows in ([0, 1, 2], [3, 4, 5])
  ]
  assert found == pytest.approx(np.mean(expected))


def test_agreement_is_of_variants_that_keep_the_answer():
  found = measured()["robust/agreement"]
  expected = [
    pairs(ANSWER_PR[a], ANSWER_PR[b], lambda x, y: x == y and x >= 0)
    for a, b in ((0, 1), (3, 4))
  ]
  assert value(found) == pytest.approx(np.mean(expected))
  assert "2 variants" in found.method, "a renamed question has another answer"


def test_nulls_are_two_responses_to_one_question():
  """Groups that are all alike: each draw of them gives the null itself."""
  same = {
    s.name: s
    for s in robust.specs(
      ["g", "g", "h", "h"],
      ["plain", "mark"] * 2,
      CORRECT_PR[[0, 1, 0, 1]],
      ANSWER_PR[[0, 1, 0, 1]],
      np.zeros(4, int),
    )
  }
  two = list(itertools.permutations(range(4), 2))
  right, answer = CORRECT_PR[0], ANSWER_PR[0]
  for name, of in {
    "robust/flip_mark": lambda i, j: right[i] != right[j],
    "robust/worst": lambda i, j: right[i] * right[j],
    "robust/agreement": lambda i, j: answer[i] == answer[j],
  }.items():
    expected = np.mean([of(i, j) for i, j in two])
    assert estimate.measure(same[name]).null == pytest.approx([expected] * 3), name


def test_a_variant_that_changes_nothing_is_at_its_nulls():
  G, V, R, covered, unmoved = 150, 3, 16, 0, 0
  ids = np.repeat([f"{g:03}" for g in range(G)], V)
  for seed in range(12):
    rng = np.random.default_rng(seed)
    upto_GA = np.cumsum(rng.dirichlet([0.4] * 5, G), 1)
    drawn = (rng.random((G, V, R, 1)) >= upto_GA[:, None, None]).sum(-1)
    gold_G = rng.integers(5, size=G)
    correct = (drawn == gold_G[:, None, None]).astype(float)
    found = estimate.measures(
      robust.specs(
        ids,
        ["plain", "mark", "order"] * G,
        correct.reshape(-1, R),
        drawn.reshape(-1, R),
        np.repeat(gold_G, V),
      )
    )
    for name in ("flip_mark", "flip_order", "worst", "agreement"):
      one = found[f"robust/{name}"]
      assert one.null[1] < one.value < one.null[2], name
    covered += found["robust/change_mark"].low <= 0 <= found["robust/change_mark"].high
    unmoved += found["robust/shift_mark"].low <= 0 <= found["robust/shift_mark"].high
  assert min(covered, unmoved) >= 10, f"{covered}, {unmoved} of 12 intervals cover 0"


def test_a_group_that_lacks_a_variant_has_no_number_there():
  specs = robust.specs(GROUPS[:5], VARIANTS[:5], CORRECT_PR[:5])
  found = estimate.measures(specs)
  assert found["robust/change_renamed"].n == 1
  assert found["robust/change_mark"].n == 2
  assert found["robust/worst"].n == 1
  assert "robust/agreement" not in found


def test_what_cannot_be_is_refused():
  with pytest.raises(fields.Error, match="twice"):
    robust.specs(["g", "g"], ["plain", "plain"], CORRECT_PR[:2])
  with pytest.raises(fields.Error, match="no problem has the variant 'plain'"):
    robust.specs(["g"], ["mark"], CORRECT_PR[:1])
