"""Properties of loss and gradient, of whatever responses, rewards and options.

The ways to lay a batch out are those of test_invariants.py, which has them by name; in
this file hypothesis looks for a batch on which two of them differ.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_advantage import CENTRED

from pxy import config
from pxy.rl import advantage, pack, reduction, rollout, surrogate, view
from pxy.run import batch
from pxy.train import step

import worlds
from test_invariants import (
  CONTEXTS,
  KEY,
  SHAPE,
  SPACES,
  equal,
  flat,
  loss_and_grad,
)

P, R = 3, 4
SPARSE = batch.Shape(micro_max=24, micro_rows=1, row_tokens=36)
WIDE = batch.Shape(micro_max=8, micro_rows=3, row_tokens=57)
MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
_accumulated = jax.jit(step.accumulate, static_argnums=(0, 1))

CLIPS = [name for name in surrogate.SURROGATES if name != "none"]

ids = st.integers(0, worlds.ARCH.vocab_size - 1)
scores = st.sampled_from([0.0, 1.0, 0.0, 1.0, 0.25])


@st.composite
def worlds_of(draw, empty=True):
  """(rollouts, rewards_PR, valid_PR): prompts of 1-6 tokens, responses of 0-7."""
  prompts = [draw(st.lists(ids, min_size=1, max_size=6)) for _ in range(P)]
  least = 0 if empty else 1
  responses = [
    [draw(st.lists(ids, min_size=least, max_size=7)) for _ in range(R)]
    for _ in range(P)
  ]
  rewards_PR = np.array([[draw(scores) for _ in range(R)] for _ in range(P)])
  chance = st.sampled_from([True, True, True, False])
  valid_PR = np.array([[draw(chance) for _ in range(R)] for _ in range(P)])
  return wide(prompts, responses), rewards_PR, valid_PR


def wide(prompts, responses):
  """Rollouts whose arrays have one width whatever the lengths: one program for all."""
  rng = np.random.default_rng(1)
  found = rollout.stack(
    [np.array(p, np.int32) for p in prompts],
    [[np.array(y, np.int32) for y in g] for g in responses],
    [[-rng.random(len(y)) for y in g] for g in responses],
  )

  def to(x_BT, width):
    return np.pad(x_BT, ((0, 0), (0, width - x_BT.shape[1])))

  return dataclasses.replace(
    found,
    prompt_BS=to(found.prompt_BS, 6),
    response_BT=to(found.response_BT, 7),
    logp_BT=to(found.logp_BT, 7),
  )


terms = st.builds(
  dataclasses.replace,
  st.sampled_from(list(SPACES.values())),
  advantage=st.sampled_from([*CENTRED, "sign"]),
  select=st.sampled_from(["all", "negative", "positive"]),
  reduction=st.sampled_from(list(reduction.REDUCTIONS)),
  coef=st.sampled_from([1.0, 0.01]),
)


def near(a, b):
  """Equal but for rounding, which is as large as the largest number makes it."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    size = float(np.abs(y).max())
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6 + 2e-5 * size)


def prepared(term, rollouts, rewards_PR, valid_PR, shape=SHAPE):
  phase = config.Phase(terms=(term,))
  return batch.prepare(
    phase, rollouts, rewards_PR, valid_PR, contexts=CONTEXTS, key=KEY, shape=shape
  )


@settings(max_examples=40, deadline=None)
@given(world=worlds_of(), term=terms)
def test_rows_micro_batches_padding_and_devices_change_nothing(world, term):
  dense = prepared(term, *world)
  want = loss_and_grad(flat(dense.packed), (term,))
  for shape in (SPARSE, WIDE):
    made = prepared(term, *world, shape=shape)
    near(loss_and_grad(flat(made.packed), (term,)), want)
  grads, found, _ = _accumulated(
    worlds.score(), (config.Term(),), worlds.params(), dense.packed, dense.used
  )
  near((found["actor/pg_loss"].value(), grads), want)
  rows = jax.NamedSharding(MESH, jax.P("data"))
  near(loss_and_grad(jax.device_put(flat(dense.packed), rows), (term,)), want)


@settings(max_examples=25, deadline=None)
@given(world=worlds_of(), term=terms, seed=st.integers(0, 99), shift=st.integers(-9, 9))
def test_order_in_a_group_and_shifts_of_all_rewards_change_nothing(
  world, term, seed, shift
):
  rollouts, rewards_PR, valid_PR = world
  want = loss_and_grad(flat(prepared(term, *world).packed), (term,))
  order = np.random.default_rng(seed).permuted(np.arange(P * R).reshape(P, R), axis=1)
  moved = jax.tree.map(lambda x: x[order.reshape(-1)], rollouts)
  rest = rewards_PR.reshape(-1)[order], valid_PR.reshape(-1)[order]
  near(loss_and_grad(flat(prepared(term, moved, *rest).packed), (term,)), want)
  if term.advantage != "sign":
    shifted = prepared(term, rollouts, rewards_PR + shift, valid_PR)
    near(loss_and_grad(flat(shifted.packed), (term,)), want)


@settings(max_examples=25, deadline=None)
@given(world=worlds_of(), term=terms, reward=scores)
def test_constant_rewards_teach_nothing(world, term, reward):
  assume(term.advantage != "sign")
  rollouts, rewards_PR, valid_PR = world
  made = prepared(term, rollouts, np.full_like(rewards_PR, reward), valid_PR)
  assert made.scored == 0
  value, grads = loss_and_grad(flat(made.packed), (term,))
  assert value == 0 and not any(np.asarray(g).any() for g in jax.tree.leaves(grads))


@settings(max_examples=25, deadline=None)
@given(world=worlds_of(empty=False), x=st.lists(ids, min_size=1, max_size=6))
def test_conditional_is_marginal_bit_for_bit_when_the_context_is_the_prompt(world, x):
  rollouts, rewards_PR, valid_PR = world
  rollouts = wide(
    [x] * P,
    [
      [y[:n].tolist() for y, n in zip(ys, ns, strict=True)]
      for ys, ns in zip(
        rollouts.response_BT.reshape(P, R, -1),
        rollouts.response_len_B.reshape(P, R),
        strict=True,
      )
    ],
  )
  adv_B = advantage.grpo(rewards_PR, valid_PR).ravel()
  weight_B = valid_PR.ravel() / 7

  def of(seen):
    seen = view.View(*(np.asarray(a) for a in (seen.context_CBS, seen.length_CB)))
    pad = ((0, 0), (0, 0), (0, 6 - seen.context_CBS.shape[2]))
    seen = view.View(np.pad(seen.context_CBS, pad), seen.length_CB)
    return loss_and_grad(pack.rows(seen, rollouts, adv_B, weight_B))

  equal(of(view.conditional(rollouts)), of(view.marginal(rollouts, x)))


@settings(max_examples=25, deadline=None)
@given(world=worlds_of(empty=False), term=terms)
def test_masked_is_subset(world, term):
  """A filter's loss is that of a batch which holds only what the filter keeps."""
  rollouts, rewards_PR, valid_PR = world
  # The other prompts of the batch matter to the other contexts.
  assume(term.context in CONTEXTS)
  adv_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR)
  got = loss_and_grad(flat(prepared(term, *world).packed), (term,))
  kept_B = selected_PR.ravel()
  alone = jax.tree.map(lambda x: x[kept_B], dataclasses.replace(rollouts, group_size=1))
  if not kept_B.any():
    assert got[0] == 0
    return
  plain = dataclasses.replace(term, select="all", advantage="reinforce")
  rest = adv_PR.ravel()[kept_B][:, None], np.ones((int(kept_B.sum()), 1), bool)
  made = prepared(plain, alone, *rest)
  near(got, loss_and_grad(flat(made.packed), (plain,)))


@settings(max_examples=25, deadline=None)
@given(world=worlds_of(), term=terms, clip=st.sampled_from(CLIPS))
def test_at_theta_old_the_gradient_is_reinforce(world, term, clip):
  packed = flat(prepared(term, *world).packed)
  _, want = loss_and_grad(packed, (dataclasses.replace(term, clip="none"),))
  _, got = loss_and_grad(packed, (dataclasses.replace(term, clip=clip),))
  near(got, want)
  if packed.copies_BTC is None:
    near(want, _reinforce(worlds.params(), packed))


@jax.jit
@jax.grad
def _reinforce(params, packed):
  logp_BT, _ = worlds.score()(params, packed)
  return -jnp.sum(packed.weight_BT * packed.adv_BT * logp_BT)
