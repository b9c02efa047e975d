"""Estimators and sign filters, against the oracle, by hand and by their properties."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy import config
from pxy.rl import advantage

import reference

KINDS = tuple(advantage.ADVANTAGES)
CENTRED = ("grpo", "mean", "rloo", "batch")
"""A claim about these: they sum to 0, and see only differences of rewards."""
COMPARING = (*CENTRED, "asymmetric", "maxrl", "pass-at-k")
"""And about these: equal rewards give 0."""
P, R = 3, 4


def _numbers(low, high):
  return st.integers(low * 8, high * 8).map(lambda n: n / 8)  # exact in binary


def _worlds(values):
  rewards = st.lists(st.lists(values, min_size=R, max_size=R), min_size=P, max_size=P)
  valid = st.lists(
    st.lists(st.booleans(), min_size=R, max_size=R), min_size=P, max_size=P
  )
  return rewards.map(np.array), valid.map(np.array)


graded = _worlds(_numbers(-2, 2))
binary = _worlds(st.sampled_from([0.0, 1.0]))


def _estimate(kind, rewards_PR, valid_PR):
  return np.asarray(
    advantage.estimate(config.Term(advantage=kind), rewards_PR, valid_PR)
  )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(rewards_PR=graded[0] | binary[0], valid_PR=graded[1])
def test_estimators_are_those_of_the_oracle(kind, rewards_PR, valid_PR):
  want = reference.advantages(kind, rewards_PR, valid_PR)
  rewards_PR = np.where(valid_PR, rewards_PR, np.nan)  # not valid: may be anything
  got = _estimate(kind, rewards_PR, valid_PR)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
  on_device = _estimate(kind, jnp.asarray(rewards_PR), jnp.asarray(valid_PR))
  np.testing.assert_allclose(on_device, want, rtol=1e-4, atol=1e-5)


def test_golden():
  """Rewards 1, 0, 0, 0: mean 1/4; unbiased variance (9/16 + 3/16) / 3 = 1/4, std 1/2.

  grpo (3/4, -1/4 ...) / (1/2 + 1e-6); mean 3/4, -1/4; rloo 1 - 0 and 0 - 1/3;
  w-reinforce lam and -1.
  """
  rewards, valid = np.array([[1.0, 0, 0, 0]]), np.ones((1, 4), bool)

  def first_two(kind):
    return _estimate(kind, rewards, valid)[0, :2]

  np.testing.assert_allclose(first_two("grpo"), [0.75 / 0.500001, -0.25 / 0.500001])
  np.testing.assert_allclose(first_two("mean"), [0.75, -0.25])
  np.testing.assert_allclose(first_two("rloo"), [1, -1 / 3], rtol=1e-6)
  np.testing.assert_allclose(first_two("reinforce"), [1, 0])
  np.testing.assert_allclose(first_two("sign"), [1, -1])
  np.testing.assert_allclose(first_two("w-reinforce"), [0.1, -1], rtol=1e-6)
  # As one batch with a second group of 1, 1, 1, 0: mean 1/2, variance 8 (1/4) / 7.
  both = np.concatenate([rewards, [[1.0, 1, 1, 0]]])
  adv = advantage.batch(both, np.ones((2, 4), bool))
  want = 0.5 / (np.sqrt(2 / 7) + 1e-6)
  np.testing.assert_allclose(adv[:, 0], want, rtol=1e-6)


@pytest.mark.parametrize("kind", CENTRED)
@settings(max_examples=30, deadline=None)
@given(
  rewards_PR=graded[0], valid_PR=graded[1], shift=_numbers(-50, 50), seed=st.integers(0)
)
def test_shifts_and_permutations(kind, rewards_PR, valid_PR, shift, seed):
  adv_PR = _estimate(kind, rewards_PR, valid_PR)
  shifted_PR = _estimate(kind, rewards_PR + shift, valid_PR)
  np.testing.assert_allclose(shifted_PR, adv_PR, rtol=1e-6, atol=1e-6)
  order = np.random.default_rng(seed).permutation(R)
  moved_PR = _estimate(kind, rewards_PR[:, order], valid_PR[:, order])
  np.testing.assert_allclose(moved_PR, adv_PR[:, order], rtol=1e-6, atol=1e-6)
  totals = adv_PR.sum() if kind == "batch" else adv_PR.sum(axis=1)
  np.testing.assert_allclose(totals, 0, atol=1e-5)


@pytest.mark.parametrize("kind", COMPARING)
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_equal_rewards_give_exactly_zero(kind, as_array):
  """Three times 0.1 is not 0.3: a mean that rounds would make everybody negative."""
  for value in (0.1, 0.7, 1 / 3, 1e6 / 7):
    rewards_PR = as_array(np.full((5, 3), value, np.float32))
    adv_PR = _estimate(kind, rewards_PR, as_array(np.ones((5, 3), bool)))
    assert (adv_PR == 0).all(), f"{kind} of three rewards of {value}: {adv_PR[0]}"


@pytest.mark.parametrize("kind", [kind for kind in COMPARING if kind != "batch"])
def test_a_group_of_one_has_no_contrast(kind):
  valid_PR = np.array([[True, False, False], [False, False, False]])
  adv_PR = _estimate(kind, np.full((2, 3), np.nan), valid_PR & False)
  assert (adv_PR == 0).all()
  adv_PR = _estimate(kind, np.array([[1.0, np.nan, np.nan]] * 2), valid_PR)
  assert (adv_PR == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_is_the_mean_over_groups_of_k(k):
  rewards_PR = np.array(list(itertools.product([0.0, 0.5, 1.0, -1.0], repeat=R)))
  valid_PR = np.random.default_rng(0).random(rewards_PR.shape) < 0.8
  term = config.Term(advantage="pass-at-k", k=k)
  want_PR = reference.advantages("pass-at-k", rewards_PR, valid_PR, k=k)
  assert (want_PR > 0).any() and (want_PR < 0).any()
  for as_array in (np.asarray, jnp.asarray):
    got_PR = advantage.estimate(term, as_array(rewards_PR), as_array(valid_PR))
    np.testing.assert_allclose(got_PR, want_PR, rtol=1e-5, atol=1e-6)


def expected(weigh, n, p):
  """E[mean_i A_i d log P(r_i) / dp] over n answers, each right with probability p."""
  rewards_PR = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
  chance_P1 = np.prod(np.where(rewards_PR > 0, p, 1 - p), axis=1, keepdims=True)
  score_PR = np.where(rewards_PR > 0, 1 / p, -1 / (1 - p))
  adv_PR = weigh(rewards_PR, np.ones(rewards_PR.shape, bool))
  return float((chance_P1 * adv_PR * score_PR).sum() / n)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_maxrl_goes_to_maximum_likelihood(n, p):
  """Its gradient is that of sum_(k < n) pass@k / k, that is sum (1 - p)^(k - 1), whose
  limit is 1 / p = d log p / dp; that of `mean` is (1 - 1/n) d p / dp."""
  want = sum((1 - p) ** (k - 1) for k in range(1, n))
  np.testing.assert_allclose(expected(advantage.maxrl, n, p), want, rtol=1e-6)
  np.testing.assert_allclose(expected(advantage.mean, n, p), 1 - 1 / n, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_moves_pass_at_k(k, n=6, p=0.3):
  """Before the division by the standard deviation its gradient is that of pass@k, times
  1/k - 1/n, for the baseline holds the sample itself."""

  def weigh(rewards_PR, valid_PR):
    b_P1 = np.array([[reference.passed(row > 0, k)] for row in rewards_PR])
    return advantage.pass_at_k(rewards_PR, valid_PR, k) * np.sqrt(b_P1 * (1 - b_P1))

  slope = k * (1 - p) ** (k - 1)
  np.testing.assert_allclose(expected(weigh, n, p), (1 / k - 1 / n) * slope, rtol=1e-6)


def test_random_labels_are_the_rewards_of_the_batch_by_a_key():
  rng = np.random.default_rng(3)
  rewards_PR, valid_PR = rng.random((6, 5)), rng.random((6, 5)) < 0.7
  rewards_PR[~valid_PR] = np.nan
  term = config.Term(advantage="reinforce", control="random-label")
  keys = [jax.random.fold_in(jax.random.key(0), step) for step in (0, 1)]
  first, other = (advantage.compute(term, rewards_PR, valid_PR, k)[0] for k in keys)
  again = advantage.compute(term, rewards_PR.copy(), valid_PR, keys[0])[0]
  np.testing.assert_array_equal(first, again)
  true = np.float32(rewards_PR)
  for adv_PR in (first, other):
    assert sorted(adv_PR[valid_PR]) == sorted(true[valid_PR]), "only places change"
    assert (adv_PR[valid_PR] != true[valid_PR]).sum() > valid_PR.sum() / 2
    assert (adv_PR[~valid_PR] == 0).all()
  assert (first != other).any(), "each step has labels of its own"
  on_device = advantage.compute(
    term, jnp.asarray(rewards_PR), jnp.asarray(valid_PR), keys[0]
  )[0]
  np.testing.assert_allclose(on_device, first, rtol=1e-6)
  with pytest.raises(config.Error, match="'random-label' draws labels: give it a key"):
    advantage.compute(term, rewards_PR, valid_PR)


@pytest.mark.parametrize("kind", ["grpo", "mean", "reinforce"])
def test_all_down_keeps_the_norm_and_loses_the_labels(kind):
  rewards_PR = np.array([[1.0, 0, 0, 1], [1, 1, 0, 9], [0, 0, 0, 0]])
  valid_PR = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
  adv_PR, _ = advantage.compute(config.Term(advantage=kind), rewards_PR, valid_PR)
  for select in ("all", "negative"):
    term = config.Term(advantage=kind, control="all-down", select=select)
    down_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR)
    np.testing.assert_allclose((down_PR**2).sum(1), (adv_PR**2).sum(1), rtol=1e-6)
    assert (down_PR <= 0).all() and (down_PR[~valid_PR] == 0).all()
    assert (np.ptp(down_PR[0]), np.ptp(down_PR[1, :3])) == (0, 0), "right as wrong"
    assert (selected_PR[:2] == valid_PR[:2]).all()


SOLVED, MIXED, UNSOLVED = [1.0, 1, 1], [1.0, 0, 0], [0.0, 0, 0]


@pytest.mark.parametrize(
  "select, negative, want_selected, want_adv",
  [
    # All samples count in the mean, those of no contrast with an advantage of 0.
    ("all", "advantage", [[1, 1, 1], [1, 1, 1], [1, 1, 1]], None),
    # A < 0: only the wrong ones of the mixed group.
    ("negative", "advantage", [[0, 0, 0], [0, 1, 1], [0, 0, 0]], None),
    ("positive", "advantage", [[0, 0, 0], [1, 0, 0], [0, 0, 0]], None),
    # r <= 0: every wrong sample, all-wrong groups included, with A = -1.
    ("negative", "reward", [[0, 0, 0], [0, 1, 1], [1, 1, 1]], -1.0),
    ("positive", "reward", [[1, 1, 1], [1, 0, 0], [0, 0, 0]], 1.0),
  ],
)
def test_both_definitions_of_negative(select, negative, want_selected, want_adv):
  rewards_PR = np.array([SOLVED, MIXED, UNSOLVED])
  term = config.Term(select=select, negative=negative, advantage="mean")
  adv_PR, selected_PR = advantage.compute(term, rewards_PR, np.ones((3, 3), bool))
  assert selected_PR.tolist() == np.array(want_selected, bool).tolist()
  if want_adv is None:
    third = 1 / 3
    want_PR = [[0, 0, 0], [2 * third, -third, -third], [0, 0, 0]]
    np.testing.assert_allclose(adv_PR, want_PR, rtol=1e-6)
  else:
    assert (adv_PR[selected_PR] == want_adv).all()


@settings(max_examples=40, deadline=None)
@given(
  rewards_PR=graded[0],
  valid_PR=graded[1],
  kind=st.sampled_from(KINDS),
  filter=st.sampled_from(
    [("all", "advantage")]
    + [(s, n) for s in ("negative", "positive") for n in ("advantage", "reward")]
  ),
)
def test_excluded_samples_have_no_influence(rewards_PR, valid_PR, kind, filter):
  select, negative = filter
  term = config.Term(advantage=kind, select=select, negative=negative)
  adv_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR)
  other_PR = np.where(valid_PR, rewards_PR, np.nan)
  again_PR, same_PR = advantage.compute(term, other_PR, valid_PR)
  assert (adv_PR == again_PR).all() and (selected_PR == same_PR).all()
  assert not (selected_PR & ~valid_PR).any() and (adv_PR[~valid_PR] == 0).all()


def test_filters_split_the_samples():
  rng = np.random.default_rng(0)
  rewards_PR, valid_PR = rng.integers(0, 2, (9, 5)) * 1.0, rng.random((9, 5)) < 0.8
  for negative in ("advantage", "reward"):
    _, low_PR = advantage.compute(
      config.Term(select="negative", negative=negative), rewards_PR, valid_PR
    )
    adv_PR, high_PR = advantage.compute(
      config.Term(select="positive", negative=negative), rewards_PR, valid_PR
    )
    assert not (low_PR & high_PR).any()
    rest_PR = valid_PR & ~low_PR & ~high_PR
    assert (adv_PR[rest_PR] == 0).all()
    assert negative == "advantage" or not rest_PR.any()


@pytest.mark.parametrize("kind", KINDS)
def test_under_jit(kind):
  term = config.Term(advantage=kind, select="negative")
  rewards_PR = np.random.default_rng(1).integers(0, 2, (P, R)).astype(np.float32)
  valid_PR = np.ones((P, R), bool)
  want = advantage.compute(term, rewards_PR, valid_PR)
  got = jax.jit(lambda r, v: advantage.compute(term, r, v))(rewards_PR, valid_PR)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  assert (np.asarray(got[1]) == want[1]).all()


def test_overlong():
  """Limit 10, buffer 4: the penalty grows from 0 at 6 tokens by 1/4 for each."""
  rewards_PR, valid_PR = np.ones((1, 4)), np.array([[True, True, True, False]])
  rest = {
    "length_PR": np.array([[3, 6, 10, 9]]),
    "truncated_PR": np.array([[False, False, True, False]]),
    "limit": 10,
    "buffer": 4,
  }

  def rule(overlong):
    return advantage.overlong(overlong, rewards_PR, valid_PR, **rest)

  same_PR, all_PR = rule("keep")
  assert (same_PR == 1).all() and (all_PR == valid_PR).all()
  same_PR, few_PR = rule("mask")
  assert (same_PR == 1).all() and few_PR.tolist() == [[True, True, False, False]]
  less_PR, all_PR = rule("penalty")
  assert less_PR.tolist() == [[1, 1, 0, 0.25]] and (all_PR == valid_PR).all()


def test_unknown_names():
  with pytest.raises(config.Error, match=r"'gae': must be one of grpo, .*, or a f"):
    config.Term(advantage="gae")
  with pytest.raises(config.Error, match="overlong 'cut'"):
    advantage.overlong("cut", [], [], length_PR=[], truncated_PR=[], limit=1)


RANK = """
import numpy as np

def rank(rewards_PR, valid_PR, lam):
  below_PRR = rewards_PR[:, None] < rewards_PR[..., None]
  return lam * (below_PRR & valid_PR[:, None]).sum(-1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A term whose advantage is a function of this source."""
  monkeypatch.chdir(tmp_path)

  def term(source, name="rank", **fields):
    (tmp_path / "my.py").write_text(source)
    return config.Term(advantage=f"my.py:{name}", **fields)

  return term


def test_a_function_of_the_users_own_by_its_import_path(own):
  rewards_PR = np.array([[1.0, 3, 2, 9], [5, 5, np.nan, 4]])
  valid_PR = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], bool)
  term = own(RANK, lam=0.5)
  adv_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR)
  assert adv_PR.dtype == np.float32
  assert adv_PR.tolist() == [[0, 1, 0.5, 0], [0.5, 0.5, 0, 0]]
  assert (selected_PR == valid_PR).all()
  term = own(RANK, lam=0.5, select="positive")
  adv_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR)
  assert selected_PR.astype(int).tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(
  "source, says",
  [
    ("def rank(rewards_PR, valid_PR): return rewards_PR[0]",
     r"advantage 'my.py:rank' gave an array \(\d,\), where \(\d+, \d\) is wanted"),
    ("def rank(rewards_PR, valid_PR): return 1.0", "gave float, not an array"),
    ("def rank(rewards_PR, valid_PR): return valid_PR", "type bool, where float"),
    ("def rank(rewards_PR, valid_PR): return rewards_PR - rewards_PR.mean()",
     "no finite number; those that do not count have reward nan"),
    ("def rank(rewards_PR): return rewards_PR", r"takes \(rewards_PR\), but is called"),
    ("def rank(r, v, height): return r", "takes .*by name .* lam, .*'height'"),
    ("rank = 3", "cannot load 'my.py:rank': TypeError"),
    ("import no_such_module", "cannot load 'my.py:rank': ModuleNotFoundError"),
    ("raise SystemExit(3)", "SystemExit"),
    ("def other(): pass", "no attribute 'rank'"),
  ],
)  # fmt: skip
def test_what_is_wrong_with_a_function_is_said_in_one_line(own, source, says):
  term, valid_PR = own(source), np.array([[True, True, False]] * 2)
  with pytest.raises(config.Error, match=says) as refusal:
    advantage.compute(term, np.ones((2, 3)), valid_PR)
  assert "my.py:rank" in str(refusal.value) and "\n" not in str(refusal.value)
  # Before a run begins, the same is said of what shows without samples to leave out.
  if "finite" not in says:
    cfg = config.Train(phases=(config.Phase(terms=(term,)),))
    with pytest.raises(config.Error, match=r"^phases\.0\.terms\.0\.advantage\b"):
      config.check(cfg)


def test_a_file_that_has_changed_is_read_again(own):
  rewards_PR, valid_PR = np.ones((1, 2)), np.ones((1, 2), bool)
  for i in (1, 2):
    term = own(f"def rank(rewards_PR, valid_PR): return {i} * rewards_PR # {'x' * i}")
    assert (advantage.compute(term, rewards_PR, valid_PR)[0] == i).all()


def test_pass_at_k_needs_more_than_k_responses():
  phases = (config.Phase(terms=(config.Term(advantage="pass-at-k", k=4),)),)
  for responses in (4, 5):
    cfg = config.Train(phases=phases, data=config.Data(responses=responses))
    if responses == 5:
      config.check(cfg)
    else:
      with pytest.raises(config.Error, match=r"terms\.0\.k 4: must be below data.resp"):
        config.check(cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_needs_responses_to_compare_where_the_advantage_compares(kind):
  cfg = config.Train(
    phases=(config.Phase(terms=(config.Term(advantage=kind),)),),
    data=config.Data(responses=1),
  )
  rewards_PR = np.arange(4.0)[:, None]
  if _estimate(kind, rewards_PR, np.ones((4, 1), bool)).any():
    config.check(cfg)
  else:
    with pytest.raises(config.Error, match=r"compares .*: data.responses must be >= 2"):
      config.check(cfg)
