"""The optimizer against AdamW written out in float64, and what it must not touch."""

import functools

import jax
import numpy as np
import pytest

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.train import optim

ARCH = arch_lib.Arch(
  vocab_size=16, layers=2, d_model=8, heads=2, kv_heads=1, head_dim=4, d_ff=12,
  context=16, tied=False, qkv_bias=True, qk_norm=True, post_norm=True,
)  # fmt: skip


def draw(seed, scale=1.0):
  """A random tree like the parameters; biases, too, are not zero."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.float32(scale * rng.standard_normal(x.shape)), decoder.abstract(ARCH)
  )


def jitted(cfg):
  return jax.jit(functools.partial(optim.update, cfg), donate_argnums=1)


def named(tree):
  """Leaves by name."""
  name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
  return {name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def adamw(cfg, params, grads, lrs):
  """The module's equations, leaf by leaf; `grads` and `lrs` one per step."""

  def flat(tree):
    return {k: np.asarray(x, np.float64) for k, x in named(tree).items()}

  w, norms = flat(params), []
  m, v = ({k: np.zeros_like(x) for k, x in w.items()} for _ in range(2))
  for t, (tree, lr) in enumerate(zip(grads, lrs, strict=True), 1):
    g = flat(tree)
    norms.append(np.sqrt(sum((x**2).sum() for x in g.values())))
    for k in w:
      clipped = g[k] * min(1.0, cfg.clip_norm / norms[-1])
      m[k] = cfg.b1 * m[k] + (1 - cfg.b1) * clipped
      v[k] = cfg.b2 * v[k] + (1 - cfg.b2) * clipped**2
      step = m[k] / (1 - cfg.b1**t) / (np.sqrt(v[k] / (1 - cfg.b2**t)) + cfg.eps)
      decay = 0 if k.endswith(("scale", "bias")) else cfg.weight_decay
      w[k] = w[k] - lr * (step + decay * w[k])
  return w, norms


@pytest.mark.parametrize("clip_norm", [1.0, 1e3, float("inf")])
def test_equals_adamw_in_float64(clip_norm):
  cfg = config.Optim(weight_decay=0.3, clip_norm=clip_norm, b2=0.98)
  params = draw(0)
  grads = [draw(i, scale) for i, scale in enumerate((1, 1e-3, 30, 1), 1)]
  lrs = (1e-2, 1e-2, 2e-3, 1e-4)
  want, norms = adamw(cfg, params, grads, lrs)
  state, update = optim.init(cfg, params), jitted(cfg)
  for g, lr, norm in zip(grads, lrs, norms, strict=True):
    state, found = update(g, state, np.float32(lr))
    np.testing.assert_allclose(found["grad_norm"], norm, rtol=1e-6)
  assert int(state.step) == len(lrs)
  for name, x in named(state.params).items():
    np.testing.assert_allclose(x, want[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_learning_rate_or_a_reset_compiles_nothing():
  cfg = config.Optim()
  state, grads = jax.device_put((optim.init(cfg, draw(0)), draw(1)))
  update = jitted(cfg)
  for lr in (1e-5, 2e-4, 0.0):
    state, _ = update(grads, state, np.float32(lr))
    state = type(state)(state.params, optim.reset(state.opt_state), state.step)
  assert update._cache_size() == 1


SWITCH = {  # docs/objectives.md has these numbers
  0.999: (0.552, 0.721, 0.838, 0.926, 0.994),
  0.98: (0.503, 0.658, 0.765, 0.845, 0.907),
}
"""By b2: updates after 20 with a hundredth of the gradient, over those of a reset."""


@pytest.mark.parametrize("b2", SWITCH)
def test_moments_of_a_small_coefficient_slow_the_next_phase_down(b2):
  """The correction of the bias takes the 20 updates for ones of this size: the mean is
  at 12 % of the gradient, and the root of the mean square, with b2 0.999, at 22 %."""
  cfg = config.Optim(b2=b2, weight_decay=0.0, clip_norm=float("inf"))
  update, ones = jitted(cfg), jax.tree.map(np.ones_like, draw(0))
  lr = np.float32(1e-2)

  def moved(state, coef):
    before = np.float64(jax.tree.leaves(state.params)[0].reshape(-1)[0])
    state, _ = update(jax.tree.map(lambda g: np.float32(coef) * g, ones), state, lr)
    return state, before - np.float64(jax.tree.leaves(state.params)[0].reshape(-1)[0])

  def state_of(state, opt_state):
    # Copies: an update gives its state away.
    return type(state)(*jax.tree.map(np.copy, (state.params, opt_state, state.step)))

  firsts = []
  for coef in (1.0, 0.01):  # alone in a phase, a coefficient does nothing
    state = optim.init(cfg, jax.tree.map(np.zeros_like, ones))
    for _ in range(20):
      state, size = moved(state, coef)
      firsts.append(size)
  np.testing.assert_allclose(firsts, 1e-2, rtol=1e-4)
  kept = state_of(state, state.opt_state)
  fresh = state_of(state, optim.reset(state.opt_state))
  ratios = []
  for _ in range(5):
    kept, slow = moved(kept, 1.0)
    fresh, full = moved(fresh, 1.0)
    ratios.append(slow / full)
  np.testing.assert_allclose(ratios, SWITCH[b2], atol=1e-3)


def test_decay_spares_scales_and_biases():
  params = draw(0)
  cfg = config.Optim(weight_decay=0.5)
  zero = jax.tree.map(np.zeros_like, params)
  state, found = jitted(cfg)(zero, optim.init(cfg, params), np.float32(0.1))
  assert found["grad_norm"] == 0
  spared = set()
  for (path, new), old in zip(
    jax.tree.leaves_with_path(state.params), jax.tree.leaves(params), strict=True
  ):
    name = path[-1].key
    if np.array_equal(new, old):
      spared.add(name)
    else:
      np.testing.assert_allclose(new, old * 0.95, rtol=1e-6, err_msg=name)
  assert spared == {"scale", "q_bias", "k_bias", "v_bias"}


def test_reset_is_a_fresh_start_where_the_moments_lie():
  cfg, mesh = config.Optim(), mesh_lib.make(config.Mesh(4, 2, 1))
  params = draw(0)
  axes = decoder.axes(ARCH)
  state = optim.init(cfg, params)
  where = mesh_lib.shardings(mesh, axes, params)
  where = optim.shardings(state, where, mesh_lib.whole(mesh))
  state = jax.device_put(state, where)
  state, _ = jitted(cfg)(draw(1), state, np.float32(1e-3))
  fresh, blank = optim.reset(state.opt_state), optim.init(cfg, params).opt_state
  assert jax.tree.structure(fresh) == jax.tree.structure(blank)
  for new, zero, placed in zip(
    *map(jax.tree.leaves, (fresh, blank, where.opt_state)), strict=True
  ):
    assert np.array_equal(new, zero) and new.dtype == zero.dtype
    assert new.sharding == placed


def test_moments_lie_where_their_parameters_do():
  mesh = mesh_lib.make(config.Mesh(1, 2, 1))
  shapes = decoder.abstract(ARCH)
  params = mesh_lib.shardings(mesh, decoder.axes(ARCH), shapes)
  state = jax.eval_shape(functools.partial(optim.init, config.Optim()), shapes)
  where = optim.shardings(state, params, mesh_lib.whole(mesh))
  assert jax.tree.structure(where) == jax.tree.structure(state)
  placed = [x.spec for x in jax.tree.leaves(params)]
  moments = [x.spec for x in jax.tree.leaves(where.opt_state)]
  whole = mesh_lib.whole(mesh).spec
  assert moments == [whole, *placed, *placed] and where.step.spec == whole


def test_same_input_same_bits():
  cfg = config.Optim()
  update = jitted(cfg)
  twice = []
  for _ in range(2):
    state = optim.init(cfg, draw(0))
    for seed in (1, 2, 3):
      state, _ = update(draw(seed), state, np.float32(1e-3))
    twice.append(jax.device_get(state))
  jax.tree.map(np.testing.assert_array_equal, *twice)
