"""Surrogates, KL, importance weights and reductions: oracle, gradients, properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.rl import objective, reduction, surrogate

import reference
import worlds

CLIPS = tuple(surrogate.SURROGATES)
REDUCTIONS = tuple(reduction.REDUCTIONS)
B, T = 4, 6


def _world(seed, spread=0.5):
  """Log-probs on and off policy, one advantage and length per row; row 2 is empty."""
  rng = np.random.default_rng(seed)
  old_BT = rng.normal(size=(B, T)) - 2
  logp_BT = old_BT + spread * rng.normal(size=(B, T))
  adv_BT = np.repeat(np.array([1.3, -0.7, 1.0, -2.0])[:, None], T, axis=1)
  lengths_B = np.array([6, 2, 0, 5])
  mask_BT = np.arange(T)[None] < lengths_B[:, None]
  return logp_BT, old_BT, adv_BT, mask_BT, lengths_B


@functools.partial(jax.jit, static_argnames="term")
def _run(term, logp_BT, old_BT, adv_BT, weight_BT, segments_BT=None):
  """((sum, weight), metrics) and the gradient of the sum."""

  def loss(logp_BT):
    out = surrogate.loss(term, logp_BT, old_BT, adv_BT, weight_BT, segments_BT)
    return out[0][0], out

  gradient_BT, out = jax.grad(loss, has_aux=True)(logp_BT)
  return out, gradient_BT


def _float32(*arrays):
  return [np.asarray(x, np.float32) for x in arrays]


def _term(clip, dual=None, **more):
  return config.Term(clip=clip, clip_low=0.15, clip_high=0.3, dual_clip=dual, **more)


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize("clip, dual", [(c, None) for c in CLIPS] + [("ppo", 1.5)])
def test_every_clip_with_every_reduction(clip, dual, how):
  logp_BT, old_BT, adv_BT, mask_BT, lengths_B = _world(0)
  of_means = config.Term(reduction=how, constant=7.0)
  weight_B, total = reduction.weights(of_means, lengths_B)
  weight_BT = mask_BT * weight_B[:, None]
  (pair, _), gradient_BT = _run(
    _term(clip, dual), *_float32(logp_BT, old_BT, adv_BT, weight_BT)
  )

  def oracle(logp_BT):
    loss_BT = reference.surrogate(
      clip, logp_BT, old_BT, adv_BT, mask_BT, 0.15, 0.3, dual
    )
    return reference.reduce(how, loss_BT, mask_BT, 7.0)

  np.testing.assert_allclose(pair[0] / total, oracle(logp_BT), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(pair[1], weight_BT.sum(), rtol=1e-6)
  if clip == "cispo":  # its ratio is a constant: by hand
    rho_BT = np.clip(np.exp(logp_BT - old_BT), 0.85, 1.3)
    want_BT = -rho_BT * adv_BT * weight_BT / total
  else:
    want_BT = reference.difference(oracle, logp_BT)
  np.testing.assert_allclose(gradient_BT / total, want_BT, rtol=1e-4, atol=1e-6)


def test_golden_ppo():
  """Ratio 2 and 1/2, clip 0.2, by hand; tokens in the order of the columns.

  rho A      loss -min(rho A, clip(rho) A)
  2, +1      -min(2, 1.2) = -1.2, clipped: no gradient
  2, -1      -min(-2, -1.2) = 2, gradient -rho A = 2
  1/2, +1    -min(1/2, 0.8) = -1/2, gradient -1/2
  1/2, -1    -min(-1/2, -0.8) = 0.8, clipped
  8, -1      8; with a dual clip of 3: 3, no gradient
  8, +1      -1.2, clipped; the dual clip is for negative advantages only
  """
  rho, adv = [2, 2, 0.5, 0.5, 8, 8], [1, -1, 1, -1, -1, 1]
  logp_BT = np.log(np.array([rho], np.float32))
  old_BT, ones_BT = np.zeros_like(logp_BT), np.ones_like(logp_BT)
  adv_BT = np.array([adv], np.float32)

  def each(dual):
    term = config.Term(clip="ppo", dual_clip=dual)
    losses = [
      _run(term, logp_BT, old_BT, adv_BT, ones_BT * (np.arange(6) == t)[None])[0][0][0]
      for t in range(6)
    ]
    out, gradient_BT = _run(term, logp_BT, old_BT, adv_BT, ones_BT)
    return np.array(losses), np.asarray(gradient_BT)[0], out[1]

  losses, gradient, found = each(None)
  np.testing.assert_allclose(losses, [-1.2, 2, -0.5, 0.8, 8, -1.2], rtol=1e-6)
  np.testing.assert_allclose(gradient, [0, 2, -0.5, 0, 8, 0], rtol=1e-6)
  assert found["pg_clipfrac"] == (3, 6) and found["pg_clipfrac_lower"] == (0, 6)
  # mean of -(logp - old) = -(ln 2 + ln 2 - ln 2 - ln 2 + ln 8 + ln 8)
  np.testing.assert_allclose(found["ppo_kl"][0], -2 * np.log(8), rtol=1e-6)
  losses, gradient, found = each(3.0)
  np.testing.assert_allclose(losses, [-1.2, 2, -0.5, 0.8, 3, -1.2], rtol=1e-6)
  np.testing.assert_allclose(gradient, [0, 2, -0.5, 0, 0, 0], rtol=1e-6)
  assert found["pg_clipfrac_lower"] == (1, 6)


def test_golden_gspo():
  """Log-ratios 0.2 and 0.6 have the mean 0.4: s = e^0.4 = 1.4918.

  A = -1: loss s per token; the sum's gradient is s for each, 2 s * 1/2.
  A = +1: s is clipped to 1.2.
  """
  logp_BT = np.array([[0.2, 0.6, 9.9]], np.float32)
  weight_BT = np.array([[1.0, 1.0, 0.0]], np.float32)
  old_BT, ones_BT = np.zeros_like(logp_BT), np.ones_like(logp_BT)
  term, s = config.Term(clip="gspo"), np.exp(0.4)
  (pair, found), gradient_BT = _run(term, logp_BT, old_BT, -ones_BT, weight_BT)
  np.testing.assert_allclose(pair, (2 * s, 2), rtol=1e-6)
  np.testing.assert_allclose(gradient_BT, [[s, s, 0]], rtol=1e-6)
  assert found["pg_clipfrac"] == (0, 2)
  (pair, found), gradient_BT = _run(term, logp_BT, old_BT, ones_BT, weight_BT)
  np.testing.assert_allclose(pair, (-2.4, 2), rtol=1e-6)
  assert (gradient_BT == 0).all() and found["pg_clipfrac"] == (2, 2)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("low, high", [(0.2, 0.2), (0.0, 0.0), (1.0, 3.0)])
def test_on_policy_gradient_is_reinforce(clip, low, high):
  logp_BT, _, adv_BT, mask_BT, _ = _float32(*_world(1))
  term = config.Term(clip=clip, clip_low=low, clip_high=high)
  (_, found), gradient_BT = _run(term, logp_BT, logp_BT, adv_BT, mask_BT)
  np.testing.assert_allclose(gradient_BT, -adv_BT * mask_BT, rtol=1e-6)
  assert found["ppo_kl"][0] == 0 and found["pg_clipfrac"][0] == 0


@pytest.mark.parametrize("clip", CLIPS)
def test_packing_changes_nothing(clip):
  """Rows 0, 1 and 3 one after the other in one row, behind a context of weight 0."""
  logp_BT, old_BT, adv_BT, mask_BT, lengths_B = _world(2)
  term = _term(clip, 2.0)
  (want, metrics), want_BT = _run(term, *_float32(logp_BT, old_BT, adv_BT, mask_BT))
  pad = np.zeros(2)

  def packed(x_BT):
    rows = [np.concatenate([pad, x_BT[b, : lengths_B[b]]]) for b in (0, 1, 3)]
    return np.concatenate([*rows, pad])[None]

  segments_BT = packed(np.repeat(np.arange(1, B + 1)[:, None], T, axis=1))
  # The context belongs to its segment, the end to none.
  edges = np.cumsum([0, *(lengths_B[[0, 1, 3]] + 2)])
  for i, s in enumerate((1, 2, 4)):
    segments_BT[0, edges[i] : edges[i + 1]] = s
  (got, found), got_BT = _run(
    term,
    *_float32(packed(logp_BT), packed(old_BT), packed(adv_BT), packed(mask_BT)),
    segments_BT.astype(np.int32),
  )
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(got_BT, packed(np.asarray(want_BT)), rtol=1e-5, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, metrics)


@pytest.mark.parametrize("clip", CLIPS)
def test_masked_tokens_have_no_influence_even_if_not_finite(clip):
  logp_BT, old_BT, adv_BT, mask_BT, _ = _float32(*_world(3))
  term = _term(clip, 2.0)
  want, want_BT = _run(term, logp_BT, old_BT, adv_BT, mask_BT)
  off_BT = mask_BT == 0
  for bad in (np.nan, np.inf, -np.inf, 1e30):
    logp_BT[off_BT], old_BT[off_BT] = bad, -bad
    got, got_BT = _run(term, logp_BT, old_BT, adv_BT, mask_BT)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    np.testing.assert_array_equal(got_BT, want_BT, err_msg=f"{bad} outside the mask")


@pytest.mark.parametrize("clip", CLIPS)
def test_microbatches_add_up(clip):
  logp_BT, old_BT, adv_BT, mask_BT, _ = _float32(*_world(4))
  world, term = (logp_BT, old_BT, adv_BT, mask_BT), _term(clip, 2.0)
  (whole, _), whole_BT = _run(term, *world)
  parts = [_run(term, *(x[rows] for x in world)) for rows in (slice(0, 1), slice(1, 4))]
  np.testing.assert_allclose(sum(np.array(p[0][0]) for p in parts), whole, rtol=1e-5)
  np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), whole_BT, rtol=1e-5)


def test_far_ratios_stay_finite():
  """exp(100) overflows float32; clamped at 20 the loss is e^20 and the gradient 0."""
  logp_BT, adv_BT = np.array([[0.0]], np.float32), np.array([[-1.0]], np.float32)
  one_BT = np.ones_like(adv_BT)
  term = config.Term(clip="ppo", dual_clip=None)
  (pair, _), gradient_BT = _run(term, logp_BT, logp_BT - 100, adv_BT, one_BT)
  np.testing.assert_allclose(pair[0], np.exp(20), rtol=1e-5)
  assert gradient_BT == 0


@pytest.mark.parametrize("kind", ["k1", *surrogate.KLS])
def test_kl(kind):
  deltas = np.array([-30.0, -2.0, -1e-3, 0.0, 1e-3, 0.7, 5.0, 30.0], np.float32)
  ref = np.full_like(deltas, -1.0)
  logp = (ref + deltas)[None]
  want = [reference.kl(kind, float(x), -1.0) for x in logp[0]]
  got = surrogate.kl(kind, jnp.asarray(logp), ref[None])
  # k3 near 0 is a difference of terms of 1e-3, to float32: 1e-10.
  np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-9)
  if kind != "k1":
    assert (got >= 0).all()
  # d/d logp at a difference of 0.7: k1 1, k2 0.7, k3 1 - e^-0.7
  slope = jax.grad(lambda x: jnp.sum(surrogate.kl(kind, x, ref[None])))(logp)[0, 5]
  want = {"k1": 1, "k2": 0.7, "k3": 1 - np.exp(-0.7)}[kind]
  np.testing.assert_allclose(slope, want, rtol=1e-5)


def test_kl_estimates_have_the_divergence_as_mean():
  """Over p = softmax(z), the mean of k1 and of k3 is KL(p || q) itself."""
  rng = np.random.default_rng(0)
  logp, logq = (jax.nn.log_softmax(x) for x in rng.normal(size=(2, 1, 9)))
  p = np.exp(logp)
  want = np.sum(p * (logp - logq))
  for kind in ("k1", "k3"):
    got = np.sum(p * surrogate.kl(kind, logp, logq))
    np.testing.assert_allclose(got, want, rtol=1e-5)
  # k2's expected gradient in z is the divergence's: p (log p/q - KL).
  pull = jax.grad(
    lambda z: jnp.sum(p * surrogate.kl("k2", jax.nn.log_softmax(z), logq))
  )(logp)
  np.testing.assert_allclose(pull, p * (logp - logq - want), atol=1e-6)


def test_a_kl_term_pulls_the_harder_the_farther():
  """Its gradient in d: d for k2, 1 - exp(-d) for k3, whose exponent stops at 20."""
  gap = jnp.array([-60.0, -25.0, -19.0, 0.0, 25.0, 60.0])
  zero = jnp.zeros_like(gap)
  pulls = {
    kind: jax.grad(lambda d, kind=kind: jnp.sum(surrogate.kl(kind, d, zero)))(gap)
    for kind in ("k1", *surrogate.KLS)
  }
  np.testing.assert_allclose(pulls["k1"], 1.0)
  np.testing.assert_allclose(pulls["k2"], gap)
  np.testing.assert_allclose(
    pulls["k3"], 1 - np.exp(np.minimum(-gap, 20.0)), rtol=1e-5, atol=1e-6
  )
  for kind in ("k1", *surrogate.KLS):
    for d in np.asarray(gap, np.float64):
      want = reference.kl(kind, d, 0.0)
      np.testing.assert_allclose(surrogate.kl(kind, d, 0.0), want, rtol=1e-5)


def test_confidence():
  """Probabilities 1/2 and 1/8 have the geometric mean 1/4; the third does not count."""
  old_BT = jnp.log(jnp.array([[0.5, 0.125, 0.9]] * 2))
  adv_BT = jnp.array([[-2.0] * 3, [2.0] * 3])
  on_BT = jnp.array([[True, True, False]] * 2)
  got_BT = surrogate.confident(old_BT, adv_BT, on_BT)
  np.testing.assert_allclose(got_BT[:, :2], [[-0.5, -0.5], [2, 2]], rtol=1e-6)


@pytest.mark.parametrize("kind", surrogate.TIS)
def test_importance(kind):
  logp_BT, sampler_BT, _, mask_BT, lengths_B = _world(5)
  logp_BT[0], logp_BT[1] = sampler_BT[0] - 0.02, sampler_BT[1] + 0.7  # within, above
  want_BT = reference.importance(kind, logp_BT, sampler_BT, mask_BT, 1.2, 0.8)
  logp_BT, sampler_BT = _float32(logp_BT, sampler_BT)
  sampler_BT[~mask_BT] = np.nan
  how = {"kind": kind, "cap": 1.2, "floor": 0.8}
  got_BT, found = surrogate.importance(logp_BT - sampler_BT, mask_BT, **how)
  np.testing.assert_allclose(got_BT, want_BT, rtol=1e-5)
  out = ((want_BT == 1.2) | (want_BT == 0)).sum()
  assert found["tis_capfrac"] == (out, lengths_B.sum()) and 0 < out < lengths_B.sum()
  np.testing.assert_allclose(found["tis"][0], want_BT[mask_BT].sum(), rtol=1e-5)
  pull = jax.grad(
    lambda x: jnp.sum(surrogate.importance(x - sampler_BT, mask_BT, **how)[0])
  )(logp_BT)
  assert (pull == 0).all(), "importance weights are constants"


@pytest.mark.parametrize("how", REDUCTIONS)
def test_reductions(how):
  """Weights of lengths 4, 0, 2 by hand; an empty sequence is none."""
  want = {
    "token-mean": ([1, 0, 1], 6),
    "seq-mean-token-mean": ([1 / 4, 0, 1 / 2], 2),
    "seq-mean-token-sum": ([1, 0, 1], 2),
    "constant": ([1, 0, 1], 2 * 5.0),
  }[how]
  term = config.Term(reduction=how, constant=5.0)
  for as_array in (np.array, jnp.array):
    weights_n, total = reduction.weights(term, as_array([4, 0, 2]))
    np.testing.assert_allclose(weights_n, want[0], rtol=1e-6)
    assert total == want[1]
  weights_n, total = reduction.weights(term, np.zeros(0))
  assert weights_n.shape == (0,) and total == 0


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"context": "document"}, "context 'document'"),
    ({"space": "marginal", "kl": "k3", "kl_coef": 0.1}, "kl 'k3'"),
    ({"tis": "row"}, "tis 'row': must be one of none, token, sequence, token-mask"),
    ({"tis_floor": 3.0}, "tis_floor 3.0: must be at most tis_cap 2.0"),
    ({"control": "all-down", "select": "positive"}, "leaves no positive sample"),
    ({"k": 0}, "k 0"),
    ({"kl": "k2"}, "kl_coef 0.0"),
    ({"kl_coef": 0.5}, "kl 'none'"),
    ({"negative": "reward"}, "negative 'reward'"),
    ({"space": "marginal", "context": "mixture", "copies": 1}, "copies 1"),
    ({"clip": "tanh"}, "clip 'tanh': must be one of none, ppo, gspo, cispo"),
    ({"clip": "my.py:"}, "clip 'my.py:': must be .* or a function of your own"),
    ({"clip": 3}, "clip: expected str, found 3"),
    ({"reduction": "sum"}, "reduction 'sum': must be one of token-mean"),
    ({"kl": "k4", "kl_coef": 0.1}, "kl 'k4': must be one of none, k2, k3"),
    ({"kl": "k1", "kl_coef": 0.1}, "kl 'k1': the expected gradient .* zero.* k2 or k3"),
    ({"coef": float("nan")}, "coef nan"),
    ({"copies": 2.5}, "copies: expected int, found 2.5"),
    ({"clip_low": 1.5}, "clip_low 1.5"),
    ({"clip_high": -0.1}, "clip_high -0.1"),
    ({"dual_clip": 1.0}, "dual_clip 1.0"),
    ({"tis_cap": 0.0}, "tis_cap 0.0"),
    ({"constant": 0.0}, "constant 0.0"),
    ({"lam": -1.0}, "lam -1.0"),
  ],
)
def test_terms_that_make_no_sense_are_refused_when_built(changes, words):
  with pytest.raises(config.Error, match=words) as refusal:
    config.Term(**changes)
  assert "\n" not in str(refusal.value)


def test_unknown_names():
  x = jnp.zeros((1, 1))
  with pytest.raises(config.Error, match="kl: 'k4'"):
    surrogate.kl("k4", x, x)
  with pytest.raises(config.Error, match="tis: 'row'"):
    surrogate.importance(x, x == 0, kind="row", cap=1.0)


OWN = """
import jax.numpy as jnp

def ratio(logp_BT, old_BT, adv_BT):
  return -jnp.exp(logp_BT - old_BT) * adv_BT

def limited(logp_BT, old_BT, adv_BT, *, clip_high, on_BT):
  rho_BT = jnp.minimum(jnp.exp(logp_BT - old_BT), 1 + clip_high)
  return -rho_BT * adv_BT, {"rho": rho_BT, "seen": on_BT}

def of_rows(logp_BT, old_BT, adv_BT):
  return -(logp_BT * adv_BT).sum(1)

def flags(logp_BT, old_BT, adv_BT):
  return logp_BT > old_BT

def other(logp_BT, old_BT, adv_BT, *, height):
  return logp_BT

def none(logp_BT, old_BT, adv_BT):
  pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A term whose surrogate is a function of OWN."""
  (tmp_path / "my.py").write_text(OWN)
  monkeypatch.chdir(tmp_path)
  return lambda name, **fields: config.Term(clip=f"my.py:{name}", **fields)


def test_a_surrogate_of_the_users_own_by_its_import_path(own):
  logp_BT, old_BT, adv_BT, mask_BT, lengths_B = _float32(*_world(6))
  logp_BT[mask_BT == 0] = np.nan  # it is spared what does not count
  wide = config.Term(clip_low=1.0, clip_high=99.0, dual_clip=None)
  want, want_BT = _run(wide, logp_BT, old_BT, adv_BT, mask_BT)
  got, got_BT = _run(own("ratio"), logp_BT, old_BT, adv_BT, mask_BT)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
  np.testing.assert_allclose(got_BT, want_BT, rtol=1e-6)
  assert got[1].keys() == {"ppo_kl"}
  term = own("limited", clip_high=0.1)
  (_, found), got_BT = _run(term, logp_BT, old_BT, adv_BT, mask_BT)
  assert found.keys() == {"ppo_kl", "rho", "seen"}, "what it tells becomes metrics"
  assert found["seen"] == (lengths_B.sum(), lengths_B.sum())
  above_BT = np.exp(logp_BT - old_BT) > 1.1
  assert above_BT.any() and (np.asarray(got_BT)[above_BT] == 0).all()


def test_a_surrogate_of_the_users_own_in_the_losses(own):
  rollouts = worlds.rollouts(empty=False)
  adv_B = np.linspace(-1, 1, len(rollouts.response_len_B)).astype(np.float32)
  grads = [
    jax.grad(
      lambda params, term=term: objective.conditional_loss(
        worlds.score(), params, rollouts, adv_B, term=term
      )[0]
    )(worlds.params())
    for term in (config.Term(), own("ratio"))
  ]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *grads)


@pytest.mark.parametrize(
  "name, says",
  [
    ("of_rows", r"clip 'my.py:of_rows' gave an array \(\d,\), where \(\d, \d\) is"),
    ("flags", "gave numbers of type bool, where float is wanted"),
    ("none", "gave NoneType, not an array"),
    ("other", "takes .*'height'"),
    ("missing", "clip: cannot load 'my.py:missing': AttributeError"),
  ],
)
def test_what_is_wrong_with_a_surrogate_is_said_before_a_run_begins(own, name, says):
  arrays = _float32(*_world(7)[:4])
  with pytest.raises(config.Error, match=says):
    surrogate.loss(own(name), *arrays)
  cfg = config.Train(phases=(config.Phase(terms=(own(name),)),))
  with pytest.raises(config.Error, match=rf"^phases\.0\.terms\.0\.clip.*{says[5:]}"):
    config.check(cfg)


@pytest.mark.parametrize("kind", surrogate.KLS)
def test_k1_is_told_beside_a_kl_term(kind):
  rollouts = worlds.rollouts()
  size, width = rollouts.response_BT.shape
  ref_BT = np.random.default_rng(8).normal(size=(size, width)).astype(np.float32) - 2
  selected_B = np.arange(size) % 2 == 0
  _, found = objective.conditional_loss(
    lambda scale, packed: (scale * packed.targets_BT, 0.0 * packed.targets_BT),
    -0.1,
    rollouts,
    np.ones(size, np.float32),
    term=config.Term(kl=kind, kl_coef=0.1),
    selected_B=selected_B,
    ref_BT=ref_BT,
  )
  on_BT = np.arange(width)[None] < rollouts.response_len_B[:, None]
  on_BT &= selected_B[:, None]
  pairs = zip((-0.1 * rollouts.response_BT)[on_BT], ref_BT[on_BT], strict=True)
  want = np.mean([(reference.kl("k1", *p), reference.kl(kind, *p)) for p in pairs], 0)
  got = [float(found[f"actor/{name}"].value()) for name in ("kl_k1", "kl_loss")]
  np.testing.assert_allclose(got, want, rtol=1e-5)
