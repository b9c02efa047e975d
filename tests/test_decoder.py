"""The decoder against a float64 oracle, its cache against itself, and causality."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config, testing
from pxy.model import arch as arch_lib
from pxy.model import attention, decoder
from pxy.model import cache as kv
from pxy.parallel import mesh as mesh_lib
from pxy.weights import names

import reference_decoder

VOCAB = 23
TINY = testing.arch(vocab_size=VOCAB)
FLAGS = {
  "plain": {},
  "untied": {"tied": False},
  "qkv_bias": {"qkv_bias": True},
  "qk_norm": {"qk_norm": True},
  "post_norm": {"post_norm": True},
  "attn_softcap": {"attn_softcap": 0.5},
  "logit_softcap": {"logit_softcap": 0.5},
  "window": {"window": 3},
  "local_pattern": {"window": 2, "local_pattern": (True, False), "layers": 3},
  "embed_scale": {"embed_scale": True},
  "norm_plus_one": {"norm_plus_one": True, "qk_norm": True},
  "gelu": {"activation": "gelu_tanh"},
  "attn_scale": {"attn_scale": 0.9},
  "rope_theta": {"rope_theta": 50.0},
  "rope_linear": {"rope_scaling": arch_lib.Scaling(3.0)},
  "rope_llama3": {
    "rope_scaling": arch_lib.Scaling(4.0, (0.5, 2.0, 10)),
    "rope_theta": 50.0,
  },
  "rope_yarn": {
    "rope_scaling": arch_lib.Scaling(4.0, (0.5, 8.0, 64), "whole_pairs", 1.3),
    "rope_theta": 50.0,
  },
  "rope_yarn_exact": {
    "rope_scaling": arch_lib.Scaling(4.0, (0.5, 8.0, 64), "pairs", 0.8),
    "rope_theta": 50.0,
  },
  "rope_pattern": {"rope_pattern": (True, False), "layers": 3},
  "rope_local": {
    "window": 5,
    "local_pattern": (True, False),
    "layers": 3,
    "rope_scaling": arch_lib.Scaling(3.0),
    "rope_local_theta": 7.0,
  },
  "rope_all_local": {"window": 5, "rope_local_theta": 7.0},
  "one_kv_head": {"kv_heads": 1},
  "all_kv_heads": {"kv_heads": 4},
  "deep": {"layers": 6},
  "wide_heads": {"head_dim": 20, "norm_eps": 0.1},
}
EVERYTHING = {}
for flags in FLAGS.values():
  EVERYTHING |= flags
FLAGS["everything"] = EVERYTHING


def model(**flags):
  arch = dataclasses.replace(TINY, **flags)
  return arch, testing.params(arch)


def tokens(*shape, seed=2):
  return np.random.default_rng(seed).integers(VOCAB, size=shape, dtype=np.int32)


def plain(shape):
  """Positions and segments of rows with one sequence each."""
  return np.tile(np.arange(shape[1]), (shape[0], 1)), np.ones(shape, np.int32)


forward = jax.jit(decoder.forward, static_argnames=("arch", "remat", "dtype"))
prefill = jax.jit(decoder.prefill, static_argnames=("arch", "dtype", "turned"))
decode = jax.jit(decoder.decode, static_argnames=("arch", "dtype"))


def oracle(arch, params, ids):
  tensors = {}
  for tensor in names.tensors(arch):
    value = functools.reduce(lambda tree, key: tree[key], tensor.path, params)
    value = value if tensor.layer is None else value[tensor.layer]
    tensors[tensor.name] = np.asarray(tensor.export(value))
  return reference_decoder.forward(arch, tensors, np.asarray(ids))


@pytest.mark.parametrize("name", FLAGS)
def test_forward_agrees_with_the_oracle(name):
  arch, params = model(**FLAGS[name])
  ids_BT = tokens(2, 9)
  hidden_BTD = forward(arch, params, ids_BT, *plain((2, 9)))
  logits_BTV = decoder.logits(arch, params, hidden_BTD)
  for b in range(2):
    hidden_TD, logits_TV = oracle(arch, params, ids_BT[b])
    np.testing.assert_allclose(hidden_BTD[b], hidden_TD, atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(logits_BTV[b], logits_TV, atol=2e-3, rtol=2e-4)


# What the cached path does by itself; the rest of a layer is the same code.
@pytest.mark.parametrize(
  "name",
  ["plain", "attn_softcap", "rope_local", "rope_pattern", "one_kv_head", "everything"],
)
def test_decoding_is_teacher_forcing(name):
  arch, params = model(**FLAGS[name])
  ids_BT = tokens(2, 9)
  hidden_BTD = forward(arch, params, ids_BT, *plain((2, 9)))
  for t, hidden_BD in decoded(arch, params, ids_BT, jnp.array([4, 2])):
    want_BD = hidden_BTD[jnp.arange(2), t]
    np.testing.assert_allclose(hidden_BD, want_BD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "qk_norm", "one_kv_head", "all_kv_heads"])
def test_a_gpu_decodes_the_same_from_its_cache_and_its_weights(name):
  """With XLA in the place of cuDNN: the layout, the writes and the lengths."""
  arch, params = model(**FLAGS[name])
  ids_BT, lengths = tokens(3, 9), jnp.array([4, 2, 1])
  usual = decoded(arch, params, ids_BT, lengths)
  turned = decoded(arch, decoder.apart(params), ids_BT, lengths, turned=True)
  for (t, want_BD), (_, hidden_BD) in zip(usual, turned, strict=True):
    message = f"after positions {t}"
    np.testing.assert_allclose(hidden_BD, want_BD, atol=1e-5, err_msg=message)


def decoded(arch, params, ids_BT, length_B, room=12, turned=False):
  """Prefill of the first `length_B` tokens, decoding of 5 more: (position, hidden)."""
  width, rows = int(length_B.max()), len(ids_BT)
  hidden_BD, cache = prefill(arch, params, ids_BT[:, :width], length_B, turned=turned)
  yield length_B - 1, hidden_BD
  # Rubbish behind the valid part must not be read.
  full = kv.empty(arch, rows, room, turned=turned)
  full = jax.tree.map(lambda x: jnp.full_like(x, 7), full)
  cache = kv.copy(full, jnp.arange(len(ids_BT)), cache, jnp.arange(len(ids_BT)))
  row_B = jnp.arange(len(ids_BT))
  for _ in range(5):
    position_B = cache.length_B
    hidden_BD, cache = decode(arch, params, ids_BT[row_B, position_B], cache)
    yield position_B, hidden_BD


@pytest.mark.parametrize("name", ["plain", "window", "local_pattern", "everything"])
def test_long_rows_take_several_blocks(name):
  arch, params = model(**FLAGS[name])
  size = 2 * attention._BLOCK + 6
  ids_BT = tokens(1, size)
  hidden_BTD = forward(arch, params, ids_BT, *plain((1, size)))
  hidden_TD, _ = oracle(arch, params, ids_BT[0])
  np.testing.assert_allclose(hidden_BTD[0], hidden_TD, atol=3e-4, rtol=3e-4)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_packed_rows_equal_one_per_row(name):
  arch, params = model(**FLAGS[name])
  lengths = [7, 30, 1, 20]
  alone = [tokens(1, n, seed=n) for n in lengths]
  pad = 5
  row_T = np.concatenate([x[0] for x in alone] + [np.zeros(pad, np.int32)])
  positions_T = np.concatenate([np.arange(n) for n in [*lengths, pad]])
  segments_T = np.repeat([1, 2, 3, 4, 0], [*lengths, pad])
  hidden_TD = forward(arch, params, row_T[None], positions_T[None], segments_T[None])[0]
  assert np.isfinite(hidden_TD).all(), "padding became nan"
  start = 0
  for ids_BT, n in zip(alone, lengths, strict=True):
    want_BTD = forward(arch, params, ids_BT, *plain((1, n)))
    got_TD = hidden_TD[start : start + n]
    np.testing.assert_allclose(got_TD, want_BTD[0], atol=1e-5, rtol=1e-5)
    start += n


def test_gradient_sees_the_past_of_its_own_segment_only():
  arch, params = model()
  segments_T = jnp.array([1, 1, 1, 2, 2, 2, 2, 0])
  positions_T = jnp.array([0, 1, 2, 0, 1, 2, 3, 0])
  embed_TD = jax.random.normal(jax.random.key(3), (8, arch.d_model))
  # Token t is number t of a vocabulary of 8: its embedding's gradient is its influence.
  arch = dataclasses.replace(arch, vocab_size=8)

  def out(embed_VD, t):
    hidden_BTD = decoder.forward(
      arch, params | {"embed": embed_VD}, jnp.arange(8)[None], positions_T[None],
      segments_T[None],
    )  # fmt: skip
    return (hidden_BTD[0, t] * jnp.arange(arch.d_model)).sum()

  grads = jax.jit(jax.vmap(jax.grad(out), in_axes=(None, 0)))(embed_TD, jnp.arange(8))
  influence_TS = np.abs(grads).max(-1) > 0
  same = segments_T[:, None] == segments_T[None, :]
  want_TS = np.asarray(same & jnp.tril(jnp.ones((8, 8), bool)))
  np.testing.assert_array_equal(influence_TS, want_TS)


# Once with the scan over layers unrolled, once rolled.
@pytest.mark.parametrize(("remat", "layers"), [("dots", 2), ("full", 5)])
def test_remat_changes_no_gradient(remat, layers):
  arch, params = model(layers=layers)
  ids_BT = tokens(2, 6)

  def loss(params, remat):
    hidden_BTD = decoder.forward(arch, params, ids_BT, *plain((2, 6)), remat=remat)
    return jnp.square(hidden_BTD).sum() + hidden_BTD[:, 3:].sum()

  grad = jax.jit(jax.grad(loss), static_argnums=1)
  want, got = grad(params, "none"), grad(params, remat)
  for path, leaf in jax.tree_util.tree_leaves_with_path(want):
    other = functools.reduce(lambda tree, key: tree[key.key], path, got)
    np.testing.assert_allclose(other, leaf, atol=1e-3, rtol=1e-4, err_msg=str(path))


def test_gradient_agrees_with_differences():
  arch, params = model(**EVERYTHING)
  ids_BT = tokens(1, 6)

  def loss(params):
    hidden_BTD = decoder.forward(arch, params, ids_BT, *plain((1, 6)))
    return jnp.tanh(hidden_BTD).mean()

  way = testing.params(arch, seed=1)
  grad = jax.jit(jax.grad(loss))(params)
  slope = sum(jax.tree.leaves(jax.tree.map(lambda g, w: (g * w).sum(), grad, way)))

  def moved(step):
    end = jax.tree.map(lambda p, w: np.float64(p) + step * np.float64(w), params, way)
    return np.tanh(oracle(arch, end, ids_BT[0])[0]).mean()

  np.testing.assert_allclose(slope, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-3)


def test_bfloat16_stays_close_and_logits_are_float32():
  arch, params = model()
  ids_BT = tokens(2, 9)
  hidden_BTD = forward(arch, params, ids_BT, *plain((2, 9)), dtype="bfloat16")
  want_BTD = forward(arch, params, ids_BT, *plain((2, 9)))
  assert hidden_BTD.dtype == jnp.bfloat16
  assert decoder.logits(arch, params, hidden_BTD).dtype == jnp.float32
  error = np.abs(np.float32(hidden_BTD) - want_BTD).mean() / np.abs(want_BTD).mean()
  assert error < 0.03, f"mean relative error {error:.3f}"
  _, cache = decoder.prefill(arch, params, ids_BT, jnp.array([9, 3]), dtype="bfloat16")
  assert cache.k_LBKHS.dtype == jnp.bfloat16


@pytest.mark.parametrize("turned", [False, True])
def test_a_full_cache_row_is_left_alone(turned):
  arch, params = model()
  cache = kv.empty(arch, 2, 3, turned=turned)
  cache = dataclasses.replace(cache, length_B=jnp.array([3, 1]))
  _, after = decode(arch, params, jnp.array([1, 2]), cache)
  np.testing.assert_array_equal(after.length_B, [4, 2])
  axes = [(0, 2, 3)] * 2 if turned else [(0, 1, 2), (0, 1, 3)]
  for x, others in zip((after.k_LBKHS, after.v_LBKSH), axes, strict=True):
    assert not np.asarray(x[:, 0]).any(), "a full row was written to"
    written = np.asarray(x[:, 1]).any(others)
    np.testing.assert_array_equal(written, [False, True, False])


@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_a_cache_move_with_what_they_hold(turned):
  arch, params = model()
  ids_BT, length_B = tokens(2, 6), jnp.array([6, 3])
  _, cache = prefill(arch, params, ids_BT, length_B, turned=turned)
  moved = kv.resize(cache, jnp.array([1, 0, 1]), 10)
  assert (moved.room, moved.turned) == (10, turned)
  np.testing.assert_array_equal(moved.length_B, [3, 6, 3])
  token_B = jnp.array([1, 2, 1])
  hidden_BD, _ = decode(arch, params, token_B, moved)
  want_BD, _ = decode(
    arch, params, token_B[:2][::-1], kv.resize(cache, jnp.arange(2), 10)
  )
  np.testing.assert_allclose(hidden_BD[:2], want_BD[::-1], atol=1e-6)
  np.testing.assert_array_equal(hidden_BD[0], hidden_BD[2])


def test_parameters_are_described_before_they_exist():
  arch = dataclasses.replace(TINY, **EVERYTHING)
  abstract, axes = decoder.abstract(arch), decoder.axes(arch)
  params = decoder.init(arch, jax.random.key(0))
  same = jax.tree.map(
    lambda a, p: a.shape == p.shape and a.dtype == p.dtype, abstract, params
  )
  assert jax.tree.all(same), "abstract and real parameters differ"
  named = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  for name, leaf in zip(named, jax.tree.leaves(abstract), strict=True):
    assert len(name) == len(leaf.shape), f"axes {name} for shape {leaf.shape}"
  sizes = {}
  for name, leaf in zip(named, jax.tree.leaves(abstract), strict=True):
    for axis, size in zip(name, leaf.shape, strict=True):
      assert sizes.setdefault(axis, size) == size, f"axis {axis} has two sizes"
  assert decoder.size(arch) == sum(x.size for x in jax.tree.leaves(params))


def test_initial_parameters_depend_on_the_key_alone():
  first, again, other = (decoder.init(TINY, jax.random.key(k)) for k in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert not np.array_equal(first["embed"], other["embed"])
  q_LDNH = first["layers"]["attn"]["q"]
  assert not np.array_equal(q_LDNH[0], q_LDNH[1]), "layers start equal"


def test_one_program_for_all_parameters():
  arch, params = model()
  calls = []

  @jax.jit
  def run(params):
    calls.append(1)
    return decoder.forward(arch, params, tokens(1, 5), *plain((1, 5)))

  run(params)
  run(jax.tree.map(lambda x: x + 1, params))
  assert len(calls) == 1


@pytest.mark.parametrize(
  ("flags", "word"),
  [
    ({"heads": 5}, "kv_heads"),
    ({"head_dim": 7}, "head_dim"),
    ({"layers": 0}, "layers"),
  ],
)
def test_impossible_sizes_are_refused(flags, word):
  with pytest.raises(config.Error, match=word):
    dataclasses.replace(TINY, **flags)


@pytest.mark.parametrize("pinned", [False, True])
def test_numbers_do_not_depend_on_the_mesh(pinned):
  arch, params = model(**EVERYTHING | {"kv_heads": 2, "vocab_size": 24})
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  ids_BT = tokens(4, 40)

  @functools.partial(jax.jit, static_argnames="rows")
  def grad(params, ids_BT, rows=None):
    def loss(params):
      hidden_BTD = decoder.forward(arch, params, ids_BT, *plain((4, 40)), rows=rows)
      return jnp.tanh(hidden_BTD).mean()

    return jax.value_and_grad(loss)(params)

  where = mesh_lib.shardings(mesh, decoder.axes(arch), decoder.abstract(arch))
  split = jax.device_put(ids_BT, mesh_lib.rows(mesh))
  rows = mesh_lib.rows(mesh) if pinned else None
  got, want = grad(jax.device_put(params, where), split, rows), grad(params, ids_BT)
  for path, leaf in jax.tree_util.tree_leaves_with_path(want[1]):
    other = functools.reduce(lambda tree, key: tree[key.key], path, got[1])
    np.testing.assert_allclose(other, leaf, atol=1e-5, rtol=1e-4, err_msg=str(path))
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
