"""Drawing: frequencies, truncation, log-probs, and what can never come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy.rl import draw

import reference

DRAWS = 20_000

_draw = jax.jit(draw.draw, static_argnames=("temperature", "top_k", "top_p"))


def _many(z_V, draws=DRAWS, seed=0, **how):
  """Many draws from one row of logits."""
  keys_B = jax.random.split(jax.random.key(seed), draws)
  z_BV = jnp.broadcast_to(jnp.asarray(z_V, jnp.float32), (draws, len(z_V)))
  ids_B, logp_B = _draw(keys_B, z_BV, **how)
  return np.asarray(ids_B), np.asarray(logp_B)


@pytest.mark.parametrize(
  "how",
  [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.8},
    {"temperature": 1.7, "top_k": 9, "top_p": 0.6},
  ],
  ids=str,
)
def test_frequencies_and_logps_are_those_of_the_distribution(how):
  z_V = np.random.default_rng(0).normal(size=37) * 2
  z_V[5] = -np.inf
  tempered_V = z_V / how.get("temperature", 1.0)
  kept_V = reference.truncate(tempered_V, how.get("top_k", 0), how.get("top_p", 1.0))
  p_V = reference.distribution(tempered_V, kept_V)
  ids_B, logp_B = _many(z_V, **how)
  counts_V = np.bincount(ids_B, minlength=37)
  assert not counts_V[p_V == 0].any(), "an id of probability zero was drawn"
  np.testing.assert_allclose(logp_B, np.log(p_V[ids_B]), atol=2e-6)
  # Pearson's statistic over ids expected at least five times: chi-square with k degrees
  # of freedom has mean k and variance 2k; 5 standard deviations never happen by chance.
  often_V = p_V * DRAWS >= 5
  expected_V = p_V[often_V] * DRAWS
  statistic = np.sum((counts_V[often_V] - expected_V) ** 2 / expected_V)
  freedom = often_V.sum()
  assert statistic < freedom + 5 * np.sqrt(2 * freedom), "frequencies are off"


def test_uniform_draws_reach_all_blocks_of_ids():
  ids_B, logp_B = _many(np.zeros(130), draws=5000)
  assert len(set(ids_B.tolist())) == 130
  np.testing.assert_allclose(logp_B, -np.log(130), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
  z_V=st.lists(
    st.sampled_from([-jnp.inf, -1e4, -30.0, -1.5, -0.0, 0.0, 1e-7, 0.1, 2.0, 80.0]),
    min_size=11,
    max_size=11,
  ).filter(lambda z: max(z) > -1e30),
  seed=st.integers(0, 2**31),
)
def test_zero_probability_never_comes_out(z_V, seed):
  ids_B, logp_B = _many(z_V, draws=64, seed=seed)
  z_V = np.asarray(z_V, np.float32)
  p_V = np.exp(z_V - z_V.max())
  assert (p_V[ids_B] > 0).all(), f"drew {ids_B} from {z_V}"
  assert np.isfinite(logp_B).all() and (logp_B <= 1e-6).all()


def test_the_threshold_survives_extreme_uniforms():
  """Both ends of [0, 1), with zero weights at both ends and between."""
  weight_BX = jnp.tile(jnp.array([[0.0, 1e-20, 0.0, 3.0, 1.0, 0.0]]), (4, 1))
  u_B = jnp.array([0.0, 0.5, 0.75, 1 - 2.0**-24])
  index_B = np.asarray(draw._invert(weight_BX, u_B))
  assert index_B[0] in (1, 3) and index_B[1:].tolist() == [3, 4, 4]


def test_greedy_takes_the_first_of_the_likeliest():
  z_BV = jnp.array([[0.0, 3.0, 3.0, 1.0], [5.0, -1.0, 2.0, 5.0]])
  keys_B = jax.random.split(jax.random.key(0), 2)
  ids_B, logp_B = _draw(keys_B, z_BV, temperature=0, top_k=1, top_p=0.1)
  assert ids_B.tolist() == [1, 0]
  # Of the untempered, untruncated distribution: e^3 / (1 + 2 e^3 + e) and
  # e^5 / (2 e^5 + e^-1 + e^2).
  e = np.e
  want = np.log([e**3 / (1 + 2 * e**3 + e), e**5 / (2 * e**5 + 1 / e + e**2)])
  np.testing.assert_allclose(logp_B, want, rtol=1e-6)


def test_top_k_1_draws_the_likeliest_at_probability_1():
  ids_B, logp_B = _many([0.3, 2.0, 1.0], draws=50, top_k=1)
  assert (ids_B == 1).all() and (np.abs(logp_B) < 1e-6).all()


def test_rows_depend_on_their_own_key_alone():
  z_BV = jax.random.normal(jax.random.key(1), (6, 50))
  keys_B = jax.random.split(jax.random.key(2), 6)
  ids_B, _ = _draw(keys_B, z_BV)
  order = np.array([4, 1, 5])
  some_B, _ = _draw(keys_B[order], z_BV[order])
  assert (np.asarray(ids_B)[order] == some_B).all()
  assert len({int(i) for i in _draw(keys_B, jnp.zeros((6, 5000)))[0]}) > 1


def test_half_precision_logits_are_widened():
  z_BV = jax.random.normal(jax.random.key(1), (3, 50)).astype(jnp.bfloat16)
  keys_B = jax.random.split(jax.random.key(2), 3)
  ids_B, logp_B = _draw(keys_B, z_BV)
  want_B, want_logp_B = _draw(keys_B, z_BV.astype(jnp.float32))
  assert logp_B.dtype == jnp.float32
  assert (ids_B == want_B).all() and (logp_B == want_logp_B).all()


_floor = jax.jit(draw.floor, static_argnums=(1, 2))


@settings(max_examples=60, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  scale=st.sampled_from([0.0, 0.1, 3.0, 40.0]),
  rounded=st.booleans(),
  top=st.sampled_from([(0, 1.0), (1, 1.0), (5, 1.0), (19, 1.0), (99, 1.0)])
  | st.sampled_from([(0, 0.001), (0, 0.5), (0, 0.9), (4, 0.7), (12, 0.999)]),
)
def test_floor_keeps_what_sorting_keeps(seed, scale, rounded, top):
  z_BV = np.random.default_rng(seed).normal(size=(3, 19)) * scale
  if rounded:  # ties
    z_BV = np.round(z_BV)
  z_BV = z_BV.astype(np.float32)
  floor_B = np.asarray(_floor(z_BV, *top))
  for z_V, floor in zip(z_BV, floor_B, strict=True):
    kept_V = reference.truncate(z_V, *top)
    p_V = reference.distribution(z_V.astype(np.float64))
    differ_V = kept_V != (z_V >= floor)
    # Where the mass reaches top_p up to rounding, either side is right.
    edge = top[1] < 1 and p_V[differ_V].sum() < 1e-5
    assert not differ_V.any() or edge, (z_V, floor, kept_V)
    assert floor == -np.inf or floor in z_V, "the threshold must be one of the logits"


def test_floor_is_off_by_default():
  assert (draw.floor(jnp.ones((2, 5)), 0, 1.0) == -jnp.inf).all()


def test_floor_ignores_impossible_ids():
  z_BV = jnp.array([[1.0, -jnp.inf, 0.0, -jnp.inf]])
  # p = (0.731, 0, 0.269, 0): 0.7 needs the first, 0.8 both.
  assert draw.floor(z_BV, 0, 0.7).tolist() == [1.0]
  assert draw.floor(z_BV, 0, 0.8).tolist() == [0.0]
