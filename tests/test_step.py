"""The train step: one result on any mesh, one compilation, nothing scored in vain."""

import dataclasses

import jax
import numpy as np
import pytest

from pxy import config
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.rl import metrics, objective, surrogate
from pxy.run import batch, clock
from pxy.train import step

import worlds

ARCH = dataclasses.replace(worlds.ARCH, vocab_size=32, layers=1)  # 2 x 2 x 2 divides it
SHAPE = batch.Shape(micro_max=4, micro_rows=4, row_tokens=12)
REWARDS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], np.float64)
GRPO = config.Term()
NEGATIVES = config.Term(
  space="marginal", select="negative", advantage="mean", coef=0.01
)
LR = 1e-3


def stepper(*sizes):
  # A large eps: rounding of a gradient near 0 must not decide on the sign of a step.
  optim = config.Optim(eps=1e-3)
  mesh = mesh_lib.make(config.Mesh(*sizes))
  compute = config.Compute(vocab_chunk=13)
  return step.Stepper(ARCH, compute, config.Sampling(), optim, mesh)


@pytest.fixture(scope="module")
def one():
  return stepper(1, 1, 1)


@pytest.fixture(scope="module")
def eight():
  return stepper(2, 2, 2)


def params():
  return jax.device_get(decoder.init(ARCH, jax.random.key(0)))


def prepared(term, rollouts=None):
  rollouts = worlds.rollouts(empty=False) if rollouts is None else rollouts
  return batch.prepare(
    config.Phase(terms=(term,)),
    rollouts,
    REWARDS,
    np.ones(REWARDS.shape, bool),
    contexts={"start": [1]},
    key=jax.random.key(1),
    shape=SHAPE,
  )


def test_one_device_equals_a_mesh_of_eight(one, eight):
  made = prepared(GRPO)
  assert made.used > 1, "gradients should be accumulated"

  def run(stepper):
    state, found = stepper.init(params()), []
    for _ in range(3):
      state, values = stepper.update(state, made.packed, made.used, LR, (GRPO,))
      found.append(metrics.values(values))
    return jax.device_get(state), found

  (state, found), (other_state, other_found) = run(one), run(eight)
  for a, b in zip(found, other_found, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)
  moved = 0.0
  for a, b, start in zip(
    *map(jax.tree.leaves, (state.params, other_state.params, params())), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    moved = max(moved, float(np.abs(a - start).max()))
  assert moved > LR, "the updates must have done something"


def test_the_step_compiles_once_whatever_the_rows_the_rate_and_the_phase(eight):
  state = eight.init(params())
  few, many = prepared(NEGATIVES), prepared(GRPO)
  assert few.used < many.used, "the batches should differ in their micro-batches"
  phases = [(few, 1e-5, NEGATIVES), (few, 1e-6, NEGATIVES), (many, 2e-4, GRPO)]
  counts = []
  with clock.Compiles() as compiles:
    for made, lr, term in phases:
      state, _ = eight.update(state, made.packed, made.used, lr, (term,))
      counts.append(compiles.count)
  assert counts[0] <= 1 and len(set(counts)) == 1, f"programs after each step: {counts}"


def test_what_is_not_finite_changes_nothing_and_is_counted(one):
  made = prepared(GRPO)
  state, good = one.update(one.init(params()), made.packed, made.used, LR, (GRPO,))
  before = jax.tree.map(np.copy, jax.device_get(state))
  adv_BT = np.where(made.packed.adv_BT > 0, np.inf, made.packed.adv_BT)
  packed = dataclasses.replace(made.packed, adv_BT=adv_BT)
  state, bad = one.update(state, packed, made.used, LR, (GRPO,))
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
    np.testing.assert_array_equal(a, b, "weights, moments and step are as before")
  state, again = one.update(state, made.packed, made.used, LR, (GRPO,))
  assert int(state.step) == 2
  skipped = [metrics.values(x)["actor/skipped"] for x in (good, bad, again)]
  assert skipped == [0, 1, 0]
  both = metrics.values(metrics.merge(metrics.merge(good, bad), bad))
  assert both["actor/skipped"] == 2, "updates of a step are counted, not averaged"


def test_a_new_field_of_a_term_reaches_the_train_step(one, monkeypatch):
  """objective.kernel drops what the data holds, by name; all else must arrive."""

  def bent(logp_BT, old_BT, adv_BT, *, bend):
    return -bend * logp_BT * adv_BT

  monkeypatch.setitem(surrogate.SURROGATES, "bent", bent)
  wider = dataclasses.make_dataclass(
    "Wider", [("bend", float, 0.0)], bases=(config.Term,), frozen=True
  )
  made = prepared(GRPO)
  logp_MBT = np.asarray(one.score(params(), made.packed, made.used))
  want = -3 * np.sum(made.packed.weight_BT * made.packed.adv_BT * logp_MBT)
  term = wider(clip="bent", bend=3.0)
  _, found = one.update(one.init(params()), made.packed, made.used, LR, (term,))
  got = metrics.values(found)["actor/pg_loss"]
  assert abs(want) > 1e-3
  np.testing.assert_allclose(got, want, rtol=1e-4, err_msg="objective.kernel lost it")


KL = dataclasses.replace(GRPO, kl="k2", kl_coef=0.1)


@pytest.mark.parametrize(
  "term, scored_PR, normal_PR",
  [
    (GRPO, [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], np.ones((3, 4))),
    (NEGATIVES, *[[[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]] * 2),
    (config.Term(advantage="reinforce"), REWARDS, np.ones((3, 4))),
    (KL, np.ones((3, 4)), np.ones((3, 4))),
  ],
  ids=["grpo", "negatives", "reinforce", "kl"],
)
def test_only_what_can_have_a_gradient_is_scored(one, term, scored_PR, normal_PR):
  rollouts = worlds.rollouts(empty=False)
  length_PR = rollouts.response_len_B.reshape(REWARDS.shape)
  made = prepared(term, rollouts)
  scored_PR, normal_PR = np.array(scored_PR, bool), np.array(normal_PR, bool)
  want = length_PR[scored_PR].sum()
  assert (made.scored, made.scored_tokens) == (scored_PR.sum(), want)
  logp = np.asarray(one.score(params(), made.packed, made.used))
  assert np.count_nonzero(logp) == want, "the tokens that the program scores"
  np.testing.assert_allclose(
    made.packed.weight_BT[made.packed.mask_BT],
    term.coef / length_PR[normal_PR].sum(),
    rtol=1e-6,
    err_msg="the normaliser counts all selected samples, scored or not",
  )


def test_the_sampler_is_compared_with_the_policy_before_the_first_update():
  made = jax.tree.map(lambda x: x[0], prepared(GRPO).packed)
  old_BT = np.where(made.mask_BT, -1.0, 0.0).astype(np.float32)

  def compared(packed, logp_BT):
    def score(logp_BT, packed):
      return logp_BT, 0 * logp_BT

    _, (found, _) = objective.loss(score, logp_BT, packed, (GRPO,))
    found = metrics.values(found)
    return [found[f"training/rollout_probs_diff_{how}"] for how in ("mean", "max")]

  want = compared(made, old_BT)
  given = dataclasses.replace(made, old_BT=old_BT)
  assert compared(given, 1.3 * old_BT) == want, "moved weights are no mismatch"
  nothing = dataclasses.replace(made, sampler_BT=np.full_like(old_BT, np.nan))
  assert not np.isfinite(compared(nothing, old_BT)).any(), "not a difference of 0"


def test_what_a_score_says_of_padding_is_in_no_number():
  """A model whose padding attends to nothing gives nan there."""
  made = jax.tree.map(lambda x: x[0], prepared(GRPO).packed)
  one_BT = np.where(made.mask_BT, -1.0, np.nan).astype(np.float32)

  def score(logp_BT, packed):
    return logp_BT, -logp_BT

  value, (found, _) = objective.loss(score, one_BT, made, (GRPO,))
  assert np.isfinite(value) and metrics.values(found)["actor/entropy"] == 1
