"""The measures of the bound against enumeration."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from pxy.measures import bound, estimate

NAN = np.nan
CORRECT_PR = np.array(
  [[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 0, 0, NAN, 0]]
)
IDS = ["a", "b", "c", "d"]


def value(spec):
  return estimate.measure(spec).value


def graded(row):
  return row[~np.isnan(row)]


def over_subsets(k, of):
  return np.mean(
    [
      np.mean([of(sum(s)) for s in itertools.combinations(graded(row), k)])
      for row in CORRECT_PR
    ]
  )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_of_all_subsets(k):
  found = value(bound.pass_at(IDS, CORRECT_PR, k))
  assert found == pytest.approx(over_subsets(k, lambda c: c > 0))
  found = value(bound.pass_all(IDS, CORRECT_PR, k))
  assert found == pytest.approx(over_subsets(k, lambda c: c == k))
  for tau in (0.2, 0.5, 0.6, 1.0):
    found = value(bound.gpass_at(IDS, CORRECT_PR, k, tau))
    assert found == pytest.approx(over_subsets(k, lambda c, t=tau: c >= max(t * k, 1)))


def test_a_problem_with_fewer_responses_has_no_number():
  assert estimate.measure(bound.pass_at(IDS, CORRECT_PR, 6)).n == 3
  assert "k = n" in bound.pass_at(IDS, CORRECT_PR, 6).method
  assert estimate.measure(bound.pass_at(IDS, CORRECT_PR, 7)) is None


def test_ks():
  assert bound.ks(64) == (1, 2, 4, 8, 16, 64)
  assert bound.ks(100) == (1, 2, 4, 8, 16, 100)
  assert bound.ks(1) == (1,)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_cover_is_of_the_posterior(tau):
  c_P, n_P = [2, 0, 6, 1], [6, 6, 6, 5]
  each = [
    scipy.stats.beta(c + 1, n - c + 1).sf(tau) for c, n in zip(c_P, n_P, strict=True)
  ]
  assert value(bound.cover(IDS, CORRECT_PR, tau)) == pytest.approx(np.mean(each))


def test_cover_of_a_thousand_responses():
  correct_PR = np.arange(1024)[None] < np.array([[100], [512], [1000]])
  found = bound.cover(list("abc"), correct_PR.astype(float), 0.5)
  assert value(found) == pytest.approx((0 + 0.5 + 1) / 3, abs=0.01)


def test_shuffled_answers_are_those_of_another_problem_of_the_kind():
  answer_PR = np.array([[0, 0], [1, 1], [5, 5], [6, -2], [7, 7]])
  gold_P = np.array([0, 1, 5, 6, 7])
  shuffled = bound.shuffle(answer_PR, gold_P, ["x", "x", "y", "y", "y"])
  for seed in range(5):
    correct_PR = shuffled(np.random.default_rng(seed))
    assert np.nansum(correct_PR) == 0, "no answer is right for any other problem"
    assert np.isnan(correct_PR).sum() == 1
  # All with one right answer: what is right stays so, for that is chance too.
  same = bound.shuffle(np.zeros((5, 2), int), np.zeros(5, int), ["x"] * 5)
  assert same(np.random.default_rng(0)).all()


def test_chance_stands_beside_pass_at_k():
  rng = np.random.default_rng(0)
  P, R, kinds = 300, 32, 8
  gold_P = rng.integers(kinds, size=P)
  answer_PR = rng.integers(kinds, size=(P, R))  # a model that guesses
  correct_PR = (answer_PR == gold_P[:, None]).astype(float)
  shuffled = bound.shuffle(answer_PR, gold_P, ["code"] * P)
  ids = [f"{p:03}" for p in range(P)]
  found = estimate.measure(bound.pass_at(ids, correct_PR, 4, shuffled=shuffled))
  by_chance = 1 - (1 - 1 / kinds) ** 4
  assert found.value == pytest.approx(by_chance, abs=0.02)
  assert found.null[0] == pytest.approx(by_chance, abs=0.01)
  assert found.null[1] < found.value < found.null[2]
  name = bound.pass_at(ids, correct_PR, 4, verified=True).name
  assert name == "bound/verified_pass@4"


def test_solved_sets_over_all_halves():
  base_PR = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0, 1, 0, 1]])
  new_PR = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])

  def sets(pairs_P):
    both = gained = lost = 0
    for pairs in pairs_P:
      for old, new in pairs:
        both += (old and new) / len(pairs)
        gained += (new and not old) / len(pairs)
        lost += (old and not new) / len(pairs)
    return {
      "bound/srr": both / (both + lost),
      "bound/ndr": gained / (both + gained),
      "bound/nscr": (gained - lost) / (both + gained + lost),
    }

  halves = list(itertools.combinations(range(4), 2))
  models = sets(
    [(old[list(a)].any(), np.delete(new, a).any()) for a in halves]
    for old, new in zip(base_PR, new_PR, strict=True)
  )
  nothing = sets(
    [(row[list(a)].any(), np.delete(row, a).any()) for a in halves] for row in base_PR
  )
  for spec in bound.solved(IDS, new_PR, base_PR):
    assert value(spec) == pytest.approx(models[spec.name])
  for name, stat in bound._apart(base_PR, base_PR, 2).items():
    assert stat(np.ones((1, 4)))[0] == pytest.approx(nothing[name])


def test_a_base_against_itself_reads_as_much_as_its_null():
  # 500 problems with rates ~ Beta(.3, 1): NDR is .064 at 64 responses, not 0.
  rng = np.random.default_rng(1)
  rate_P = rng.beta(0.3, 1, (500, 1))
  ids = [f"{p:03}" for p in range(500)]
  old, new = ((rng.random((500, 128)) < rate_P).astype(float) for _ in range(2))
  found = estimate.measures(bound.solved(ids, new, old))
  ndr, srr, nscr = (found[f"bound/{name}"] for name in ("ndr", "srr", "nscr"))
  assert ndr.value == pytest.approx(0.064, abs=0.015)
  assert srr.value == pytest.approx(0.936, abs=0.015)
  for one in (ndr, srr):
    assert one.null[1] < one.value < one.null[2]
  assert nscr.null is None and nscr.low < 0 < nscr.high
  # The very same responses, as of one seed, are no other than fresh ones.
  for name, one in estimate.measures(bound.solved(ids, old, old)).items():
    if name != "bound/nscr":
      assert one.value == pytest.approx(one.null[0], abs=0.005), name


def test_a_problem_with_fewer_grades_takes_part_in_the_sets():
  rng = np.random.default_rng(3)
  new_PR, base_PR = rng.integers(0, 2, (2, 30, 8)).astype(float)
  ids = [f"{p:02}" for p in range(30)]
  whole = estimate.measures(bound.solved(ids, new_PR[:, :6], base_PR[:, :6]))
  new_PR[0, 6:], base_PR[0, 6:] = np.nan, np.nan
  fewer = estimate.measures(bound.solved(ids, new_PR, base_PR))
  assert fewer["bound/srr"].n == whole["bound/srr"].n == 30


def test_a_problem_without_grades_does_not_hide_that_curves_cross():
  rng = np.random.default_rng(0)
  ids = [f"p{i:02}" for i in range(60)]
  new_PR = np.repeat((rng.random(60) < 0.5)[:, None], 64, 1).astype(float)
  base_PR = (rng.random((60, 64)) < 0.2).astype(float)
  whole = bound.crossing(ids, new_PR, base_PR)["bound/crosses"].value
  assert whole > 0.9
  for grades in (0, 7):
    few_PR = base_PR.copy()
    few_PR[3, grades:] = np.nan
    found = bound.crossing(ids, new_PR, few_PR)["bound/crosses"]
    assert found.value > 0.9 and found.n == 59, f"{grades} grades of one problem"
  few = bound.crossing(ids, new_PR[:, :4], base_PR[:, :4])
  assert few == {}, "4 responses have no curve, and 0 would pass a gate"


def test_chance_leaves_out_a_problem_that_is_alone_of_its_kind():
  answer_PR, gold_P = np.array([[1, 1], [2, 2], [3, 3]]), np.array([1, 2, 3])
  chance = bound.shuffle(answer_PR, gold_P, ["a", "a", "b"])
  right_PR = chance(np.random.default_rng(0))
  assert np.isnan(right_PR[2]).all() and not right_PR[:2].any()


def test_crossing():
  # The new model: surer where it can, and blind elsewhere.
  P, n = 200, 64
  base_PR = np.zeros((P, n))
  base_PR[:, :4] = 1
  new_PR = np.zeros((P, n))
  new_PR[:100, :48] = 1
  ids = [f"{p:03}" for p in range(P)]
  found = bound.crossing(ids, new_PR, base_PR)
  curve = [
    value(bound.pass_at(ids, new_PR, k)) - value(bound.pass_at(ids, base_PR, k))
    for k in (1, 2, 4, 8, 16)
  ]
  first = next(k for k, x in zip((1, 2, 4, 8, 16), curve, strict=True) if x <= 0)
  assert found["bound/crossing"].value == first and curve[0] > 0
  assert found["bound/crosses"].value > 0.95
  back = bound.crossing(ids, base_PR, new_PR)
  assert "bound/crossing" not in back, "a curve that starts lower crosses nowhere"
  assert back["bound/crosses"].value == 0
  same = bound.crossing(ids, base_PR, base_PR)
  assert same["bound/crosses"].value == 0 and same["bound/crosses"].null[0] == 0


def test_equal_models_cross_as_often_as_the_null_says():
  rng = np.random.default_rng(2)
  ids = [f"{p:03}" for p in range(100)]
  inside = 0
  for _ in range(20):
    rate_P = rng.beta(0.3, 1, (100, 1))
    old, new = ((rng.random((100, 32)) < rate_P).astype(float) for _ in range(2))
    found = bound.crossing(ids, new, old)["bound/crosses"]
    inside += found.null[1] <= found.value <= found.null[2]
  assert inside >= 17


def test_perplexity_has_the_quartiles_of_responses():
  rng = np.random.default_rng(3)
  tokens_PR = rng.integers(1, 20, (40, 6))
  logp_PR = -rng.random((40, 6)) * tokens_PR
  ids = [f"{p:02}" for p in range(40)]
  asked_P = np.arange(40) < 30
  each = np.exp(-logp_PR / tokens_PR)[:30]
  found = estimate.measures(
    bound.perplexity(ids, "base_new", logp_PR, tokens_PR, asked_P)
  )
  for label, q in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
    one = found[f"bound/ppl_base_new_{label}"]
    assert one.value == np.quantile(each, q, method="inverted_cdf")
    assert one.n == 30


def test_each_problem_counts_the_same_in_a_perplexity():
  logp_PR = -np.log(np.array([[2.0, 2, 2], [3, NAN, NAN], [3, NAN, NAN]]))
  found = bound.perplexity(list("abc"), "base_base", logp_PR, np.ones((3, 3)))
  assert value(found[1]) == pytest.approx(3), "two of three problems"


def test_sometimes_and_guessed():
  assert bound.sometimes(CORRECT_PR).tolist() == [True, False, False, True]
  assert bound.guessed([[0, 0], [0, 1]]).tolist() == [False, True]
  assert value(bound.guessable(["a", "b"], [[0, 0], [0, 1]])) == 0.5
  assert math.isnan(bound.passk.none_of(3, 1, 4))
