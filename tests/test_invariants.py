"""The invariants of the method: what must not change a number, and what must."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.model import decoder
from pxy.rl import context, objective, pack, rollout, view
from pxy.run import batch
from pxy.train import step

import worlds

TERM = config.Term()
KEY = jax.random.key(3)
SHAPE = batch.Shape(micro_max=12, micro_rows=2, row_tokens=40)
CONTEXTS = {
  name: [1 + i]
  for i, (name, record) in enumerate(context.CONTEXTS.items())
  if record.ids is not None
}
REWARDS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], np.float64)
VALID = np.ones((3, 4), bool)


@functools.partial(jax.jit, static_argnames="terms")
def _loss_and_grad(params, packed, terms):
  def loss(params):
    return objective.loss(worlds.score(), params, packed, terms)[0]

  return jax.value_and_grad(loss)(params)


def loss_and_grad(packed, terms=(TERM,)):
  """Loss and gradient of packed rows [B, T] in one go."""
  kernels = tuple(map(objective.kernel, terms))  # so that tests share programs
  return _loss_and_grad(worlds.params(), packed, kernels)


def prepared(rollouts, *terms, shape=SHAPE, rewards=REWARDS, valid=VALID):
  phase = config.Phase(terms=terms)
  return batch.prepare(
    phase, rollouts, rewards, valid, contexts=CONTEXTS, key=KEY, shape=shape
  )


def flat(packed):
  """[M, B, T] as one batch of rows."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), packed)


def close(a, b, rtol=2e-5, atol=1e-6):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


SPACES = {"conditional": TERM} | {
  name: config.Term(space="marginal", context=name, copies=3, advantage="mean")
  for name in context.CONTEXTS
}


def test_conditional_equals_marginal_bit_for_bit_when_the_context_is_the_prompt():
  x = np.array([5, 6, 7], np.int32)
  rng = np.random.default_rng(0)
  ys = [[rng.integers(0, 31, 5).astype(np.int32) for _ in range(4)]]
  rollouts = rollout.stack([x], ys, [[np.zeros(5, np.float32)] * 4])
  adv_B, weight_B = np.array([1.0, -1, 0.5, -0.5]), np.full(4, 0.05)

  def of(view_):
    return loss_and_grad(pack.rows(view_, rollouts, adv_B, weight_B))

  equal(of(view.conditional(rollouts)), of(view.marginal(rollouts, x)))


@pytest.mark.parametrize("name", SPACES)
def test_packed_equals_one_per_row(name):
  rollouts = worlds.rollouts()
  dense = prepared(rollouts, SPACES[name]).packed
  sparse = prepared(
    rollouts, SPACES[name], shape=batch.Shape(micro_max=12, micro_rows=1, row_tokens=36)
  ).packed
  close(loss_and_grad(flat(dense), (SPACES[name],)),
        loss_and_grad(flat(sparse), (SPACES[name],)))  # fmt: skip


JOINT = (
  config.Term(coef=0.5),
  config.Term(space="marginal", context="start", advantage="mean", clip="gspo"),
)


@pytest.mark.parametrize("name", ["conditional", "shuffled", "joint"])
@pytest.mark.parametrize("row_tokens", [16, 40])
def test_a_prompt_that_is_read_once_gives_what_it_gives_each_time(name, row_tokens):
  """Loss and gradient, of rows that hold a whole group and of rows that do not."""
  rollouts = worlds.rollouts()
  terms = JOINT if name == "joint" else (SPACES[name],)
  shape = batch.Shape(micro_max=12, micro_rows=2, row_tokens=row_tokens, shared=True)
  shared = prepared(rollouts, *terms, shape=shape).packed
  assert shared.prefix_BT.any()
  close(loss_and_grad(flat(prepared(rollouts, *terms).packed), terms),
        loss_and_grad(flat(shared), terms))  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_one_micro_batch_equals_many(name):
  batch_ = prepared(worlds.rollouts(), SPACES[name])
  whole = loss_and_grad(flat(batch_.packed), (SPACES[name],))
  grads, found, _ = jax.jit(step.accumulate, static_argnums=(0, 1))(
    worlds.score(), (SPACES[name],), worlds.params(), batch_.packed, batch_.used
  )
  close(whole, (found["actor/pg_loss"].value(), grads))


def test_padding_rows_and_wider_rows_change_nothing():
  rollouts = worlds.rollouts()
  narrow = prepared(rollouts, TERM).packed
  wide = prepared(rollouts, TERM, shape=batch.Shape(16, 3, 57)).packed
  close(loss_and_grad(flat(narrow)), loss_and_grad(flat(wide)))


def test_tokens_after_the_end_change_nothing_and_the_stop_token_does():
  rollouts = worlds.rollouts(empty=False)
  want = loss_and_grad(flat(prepared(rollouts, TERM).packed))
  columns = np.arange(rollouts.response_BT.shape[1])[None]
  beyond = columns >= rollouts.response_len_B[:, None]
  junk = dataclasses.replace(
    rollouts, response_BT=np.where(beyond, 9, rollouts.response_BT)
  )
  equal(want, loss_and_grad(flat(prepared(junk, TERM).packed)))
  last = columns == rollouts.response_len_B[:, None] - 1
  other = dataclasses.replace(
    rollouts,
    response_BT=np.where(last, (rollouts.response_BT + 1) % 31, rollouts.response_BT),
  )
  changed = loss_and_grad(flat(prepared(other, TERM).packed))
  assert not np.allclose(want[1]["embed"], changed[1]["embed"]), (
    "the last token of a response, its stop token, must be part of the loss"
  )


def test_at_theta_old_the_gradient_is_reinforce():
  rollouts = worlds.rollouts(empty=False)
  packed = flat(prepared(rollouts, TERM).packed)
  _, got = loss_and_grad(packed)
  score = worlds.score()

  def reinforce(params):
    logp_BT, _ = score(params, packed)
    return -jnp.sum(packed.weight_BT * packed.adv_BT * logp_BT)

  close(got, jax.jit(jax.grad(reinforce))(worlds.params()))


def test_old_log_probs_given_equal_old_log_probs_left_out():
  packed = flat(prepared(worlds.rollouts(), TERM).packed)
  old_BT, _ = jax.jit(worlds.score())(worlds.params(), packed)
  given = dataclasses.replace(packed, old_BT=old_BT)
  close(loss_and_grad(packed), loss_and_grad(given))


@pytest.mark.parametrize("sign", ["negative", "positive"])
def test_masked_equals_subset(sign):
  # The loss of the selected samples, alone in their batch, is the loss of the filter.
  term = dataclasses.replace(SPACES["start"], select=sign)
  rollouts = worlds.rollouts(empty=False)
  got = prepared(rollouts, term)
  adv_B = (REWARDS - REWARDS.mean(1, keepdims=True)).reshape(-1)
  chosen_B = adv_B < 0 if sign == "negative" else adv_B > 0
  weight_B = chosen_B / rollouts.response_len_B[chosen_B].sum()
  want = pack.rows(view.marginal(rollouts, [1]), rollouts, adv_B, weight_B)
  assert got.scored == chosen_B.sum()
  assert got.scored_tokens == rollouts.response_len_B[chosen_B].sum(), (
    "only tokens of samples that can have a gradient are scored"
  )
  close(loss_and_grad(flat(got.packed), (term,)), loss_and_grad(want, (term,)))


def test_groups_without_contrast_are_not_scored_and_keep_their_denominator():
  rollouts = worlds.rollouts(empty=False)
  got = prepared(rollouts, TERM)
  lengths_PR = rollouts.response_len_B.reshape(3, 4)
  assert got.scored_tokens == lengths_PR[[0, 2]].sum()
  np.testing.assert_allclose(
    got.packed.weight_BT.max(), 1 / lengths_PR.sum(), rtol=1e-6
  )


def test_joint_terms_add_up():
  pair = (TERM, dataclasses.replace(SPACES["start"], select="negative", coef=0.01))
  rollouts = worlds.rollouts()
  both = loss_and_grad(flat(prepared(rollouts, *pair).packed), pair)
  alone = [loss_and_grad(flat(prepared(rollouts, t).packed), (t,)) for t in pair]
  close(both, jax.tree.map(jnp.add, *alone))


def test_mixture_gradient_is_that_of_the_log_mean():
  rollouts = worlds.rollouts(prompts=3, responses=2, empty=False)
  shifts, adv_B = [2, 1], np.array([1.0, -1, 0.5, -0.5, 2, -2])
  views = [view.conditional(rollouts)] + [view.shuffled(rollouts, s) for s in shifts]
  ones = np.ones(6)

  def log_mean(params):
    def total(v):
      packed = pack.rows(v, rollouts, ones, ones)
      return jnp.sum(worlds.score()(params, packed)[0] * packed.mask_BT, axis=1)

    logs_CB = jnp.stack([total(v) for v in views])
    return -jnp.sum(adv_B * (jax.nn.logsumexp(logs_CB, axis=0) - np.log(3.0)))

  want = jax.jit(jax.value_and_grad(log_mean))(worlds.params())
  term = dataclasses.replace(SPACES["mixture"], clip="none")
  packed = pack.rows(view.mixture(rollouts, shifts), rollouts, adv_B, ones)
  got = loss_and_grad(packed, (term,))
  # clip none is -A * logp as well: value and gradient agree.
  close(got[1], want[1], rtol=1e-4, atol=1e-5)


def test_causality_by_gradient_also_across_segments():
  packed = flat(prepared(worlds.rollouts(empty=False), TERM).packed)
  row = int((packed.segments_BT.max(1) > 1).argmax())
  one = jax.tree.map(lambda x: x[row : row + 1], packed)

  def hidden(embeds_TD):
    params = dict(worlds.params()) | {"embed": embeds_TD}
    tokens = np.arange(one.tokens_BT.shape[1], dtype=np.int32)[None]
    return decoder.forward(
      worlds.ARCH, params, tokens, one.positions_BT, one.segments_BT
    )[0].sum(-1)

  table = worlds.params()["embed"][one.tokens_BT[0]]
  reach_TT = np.abs(np.asarray(jax.jit(jax.jacobian(hidden))(table))).sum(-1) > 0
  segments_T, t = one.segments_BT[0], np.arange(one.tokens_BT.shape[1])
  allowed = (t[:, None] >= t[None]) & (segments_T[:, None] == segments_T[None])
  real = segments_T > 0
  assert not (reach_TT & ~allowed)[real].any(), "a token saw what it must not see"
  assert (reach_TT | ~allowed)[real].all(), "a token does not see its own past"


@pytest.mark.parametrize("name", SPACES)
def test_permuting_responses_within_groups_changes_nothing(name, seed=1):
  rollouts = worlds.rollouts()
  order = np.random.default_rng(seed).permuted(np.arange(12).reshape(3, 4), axis=1)
  moved = jax.tree.map(lambda x: x[order.reshape(-1)], rollouts)
  rewards = REWARDS.reshape(-1)[order]
  a = loss_and_grad(flat(prepared(rollouts, SPACES[name]).packed))
  b = loss_and_grad(flat(prepared(moved, SPACES[name], rewards=rewards).packed))
  close(a, b)
