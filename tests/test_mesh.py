"""Meshes: sizes, rules, refusals, and the same numbers wherever the shards lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.train import optim

ARCH = arch_lib.Arch(
  vocab_size=32, layers=2, d_model=16, heads=4, kv_heads=2, head_dim=4, d_ff=24,
  context=64,
)  # fmt: skip


def placed(mesh, arch=ARCH, rules=mesh_lib.TRAIN):
  return mesh_lib.shardings(mesh, decoder.axes(arch), decoder.abstract(arch), rules)


@pytest.mark.parametrize(
  "sizes, shape",
  [
    ((1, -1, 1), (1, 8, 1)),
    ((-1, 2, 2), (2, 2, 2)),
    ((2, 1, -1), (2, 1, 4)),
    ((1, 2, 1), (1, 2, 1)),
    ((1, 1, 1), (1, 1, 1)),
  ],
)
def test_sizes(sizes, shape):
  mesh = mesh_lib.make(config.Mesh(*sizes))
  assert tuple(mesh.shape.values()) == shape
  assert mesh.axis_names == ("data", "fsdp", "tensor")
  assert mesh_lib.row_shards(mesh) == shape[0] * shape[1]


def test_devices_can_be_named():
  mesh = mesh_lib.make(config.Mesh(), jax.devices()[3:5])
  assert set(mesh.devices.flat) == set(jax.devices()[3:5])


@pytest.mark.parametrize("sizes", [(3, -1, 1), (16, 1, 1), (-1, 16, 1), (2, 2, 4)])
def test_sizes_that_do_not_fit_are_refused(sizes):
  with pytest.raises(config.Error, match=r"mesh data .* 8"):
    mesh_lib.make(config.Mesh(*sizes))


def test_train_rules_split_matrices_and_keep_vectors_whole():
  spec = jax.tree.map(lambda s: s.spec, placed(mesh_lib.make(config.Mesh(1, 2, 2))))
  layers = spec["layers"]
  assert spec["embed"] == P("tensor", "fsdp")
  assert layers["attn"]["q"] == P(None, "fsdp", "tensor")
  assert layers["attn"]["o"] == P(None, "tensor", None, "fsdp")
  assert layers["mlp"]["down"] == P(None, "tensor", "fsdp")
  assert layers["attn_norm"]["scale"] == P() == spec["norm"]["scale"]


def test_sample_rules_leave_weights_whole_in_a_tensor_group():
  mesh = mesh_lib.make(config.Mesh(2, 2, 2))
  spec = jax.tree.map(lambda s: s.spec, placed(mesh, rules=mesh_lib.SAMPLE))
  assert not [s for s in jax.tree.leaves(spec) if "fsdp" in s or "data" in s]
  assert spec["layers"]["attn"]["k"] == P(None, None, "tensor")


def test_axes_of_size_one_are_not_named():
  # jit takes P("fsdp") over one device and P() for different shardings: a recompile.
  for sharding in jax.tree.leaves(placed(mesh_lib.make(config.Mesh(8, 1, 1)))):
    assert sharding.spec == P()


def test_a_dimension_that_does_not_divide_is_refused_by_name():
  mesh = mesh_lib.make(config.Mesh(1, 2, 4))
  with pytest.raises(config.Error) as caught:
    placed(mesh)
  said = str(caught.value)
  assert "mesh.tensor 4" in said and "\n" not in said
  assert "kv_heads 2 (layers.attn.k)" in said and "set mesh.tensor to 2" in said, said
  with pytest.raises(
    config.Error, match=r"^sampling.tensor 4 does not divide kv_heads"
  ):
    placed(mesh, rules=mesh_lib.SAMPLE)


def test_every_flag_of_the_decoder_has_rules():
  arch = arch_lib.Arch(
    vocab_size=32, layers=2, d_model=16, heads=4, kv_heads=2, head_dim=4, d_ff=24,
    context=64, tied=False, qkv_bias=True, qk_norm=True, post_norm=True,
  )  # fmt: skip
  mesh = mesh_lib.make(config.Mesh(2, 2, 2))
  spec = jax.tree.map(lambda s: s.spec, placed(mesh, arch))
  assert spec["head"] == P("fsdp", "tensor")
  assert spec["layers"]["attn"]["q_bias"] == P(None, "tensor")
  assert placed(mesh, arch)["head"].shard_shape((16, 32)) == (8, 16)


def test_an_axis_without_rule_or_name_is_a_bug():
  mesh = mesh_lib.make(config.Mesh())
  with pytest.raises(ValueError, match="no sharding rule for the axis 'experts'"):
    mesh_lib.shardings(mesh, {"w": ("experts", "d_model")}, {"w": np.zeros((8, 8))})
  with pytest.raises(ValueError, match="do not name"):
    mesh_lib.shardings(mesh, {"w": ("d_model",)}, {"w": np.zeros((8, 8))})


def one_update(mesh, cfg):
  """Two updates by next-token loss on fixed rows: (loss, state, compiles)."""
  shapes = decoder.abstract(ARCH)
  state = jax.eval_shape(functools.partial(optim.init, cfg), shapes)
  where = optim.shardings(state, placed(mesh), mesh_lib.whole(mesh))

  def loss(params, tokens_BT):
    ones_BT = jnp.ones_like(tokens_BT)
    positions_BT = jnp.cumsum(ones_BT, 1) - 1
    hidden_BTD = decoder.forward(ARCH, params, tokens_BT, positions_BT, ones_BT)
    logp_BTV = jax.nn.log_softmax(decoder.logits(ARCH, params, hidden_BTD))
    picked_BT1 = jnp.take_along_axis(logp_BTV[:, :-1], tokens_BT[:, 1:, None], -1)
    return -picked_BT1.mean()

  @functools.partial(
    jax.jit,
    in_shardings=(where, mesh_lib.rows(mesh), mesh_lib.whole(mesh)),
    out_shardings=(where, mesh_lib.whole(mesh)),
    donate_argnums=0,
  )
  def step(state, tokens_BT, lr):
    found, grads = jax.value_and_grad(loss)(state.params, tokens_BT)
    state, more = optim.update(cfg, grads, state, lr)
    return state, more | {"loss": found}

  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: np.float32(0.2 * rng.standard_normal(x.shape)), shapes
  )
  state = jax.device_put(optim.init(cfg, params), where)
  tokens_BT = rng.integers(0, ARCH.vocab_size, (8, 6), np.int32)
  tokens_BT = jax.device_put(tokens_BT, mesh_lib.rows(mesh))
  for lr in (3e-3, 1e-3):
    state, found = step(state, tokens_BT, np.float32(lr))
  assert step._cache_size() == 1, "the step compiled twice"
  follows = jax.tree.map(lambda x, s: x.sharding == s, state, where)
  assert all(jax.tree.leaves(follows)), "a state left its shards"
  return jax.device_get((found, state))


def test_same_numbers_on_one_device_and_on_all_three_axes():
  # eps: at 1e-8 Adam makes whole steps of the rounding of gradients near zero.
  cfg = config.Optim(clip_norm=0.5, eps=1e-3)
  alone, many = (
    one_update(mesh_lib.make(config.Mesh(*sizes)), cfg)
    for sizes in [(1, 1, 1), (2, 2, 2)]
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), alone, many
  )
