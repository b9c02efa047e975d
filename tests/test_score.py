"""Other people's models: scores made of them, trained with both objectives."""

import functools

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from pxy.rl import metrics, objective, rollout, view
from pxy.rl import score as score_lib

V, D, LONGEST = 11, 16, 24
START = [0, 3]
RIGHT_B = np.array([1, 1, 0, 0] * 2, bool)
ADV_B = np.where(RIGHT_B, 1.0, -1.0).astype(np.float32)


def rollouts(seed=0):
  """Two prompts with four responses each, of 3 to 6 tokens."""
  rng = np.random.default_rng(seed)
  prompts = [rng.integers(1, V, n).astype(np.int32) for n in (3, 5)]
  ids = [[rng.integers(1, V, n).astype(np.int32) for n in (3, 4, 5, 6)] for _ in "ab"]
  return rollout.stack(prompts, ids, [[np.zeros(len(y)) for y in g] for g in ids])


def causal(x_TD, wq_DD, wk_DD):
  """Attention of one sequence over its past; its values are the inputs."""
  scores_TT = (x_TD @ wq_DD) @ (x_TD @ wk_DD).T / D**0.5
  past_TT = jnp.tril(jnp.ones(scores_TT.shape, bool))
  return x_TD + jax.nn.softmax(jnp.where(past_TT, scores_TT, -1e9)) @ x_TD


class Linen(linen.Module):
  def setup(self):
    self.embed = linen.Embed(V, D)
    self.place = linen.Embed(LONGEST, D)
    self.up = linen.Dense(2 * D)
    self.down = linen.Dense(D)
    self.out = linen.Dense(V, use_bias=False)

  def hidden(self, tokens_BT):
    x_BTD = self.embed(tokens_BT) + self.place(jnp.arange(tokens_BT.shape[1])[None])
    eye = jnp.eye(D)
    x_BTD = jax.vmap(lambda x: causal(x, eye, eye))(x_BTD)
    return x_BTD + self.down(jax.nn.gelu(self.up(x_BTD)))

  def __call__(self, tokens_BT):
    return self.out(self.hidden(tokens_BT))


class Nnx(nnx.Module):
  """Takes positions and segments as well, so rows may hold several sequences."""

  def __init__(self, rngs):
    self.embed = nnx.Embed(V, D, rngs=rngs)
    self.place = nnx.Embed(LONGEST, D, rngs=rngs)
    self.attend = nnx.MultiHeadAttention(2, D, decode=False, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.out = nnx.Linear(D, V, use_bias=False, rngs=rngs)

  def hidden(self, tokens_BT, positions_BT, segments_BT):
    x_BTD = self.embed(tokens_BT) + self.place(positions_BT)
    t = jnp.arange(tokens_BT.shape[1])
    past_TT = t[:, None] >= t[None]
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    mask = (same_BTT & past_TT[None])[:, None]
    return x_BTD + self.drop(self.attend(x_BTD, mask=mask))

  def __call__(self, *inputs):
    return self.out(self.hidden(*inputs))


class Equinox(eqx.Module):
  embed: eqx.nn.Embedding
  place: eqx.nn.Embedding
  query: eqx.nn.Linear
  key: eqx.nn.Linear
  out: eqx.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key, 5)
    self.embed = eqx.nn.Embedding(V, D, key=keys[0])
    self.place = eqx.nn.Embedding(LONGEST, D, key=keys[1])
    self.query = eqx.nn.Linear(D, D, use_bias=False, key=keys[2])
    self.key = eqx.nn.Linear(D, D, use_bias=False, key=keys[3])
    self.out = eqx.nn.Linear(D, V, use_bias=False, key=keys[4])

  def hidden(self, tokens_T):
    x_TD = jax.vmap(self.embed)(tokens_T)
    x_TD = x_TD + jax.vmap(self.place)(jnp.arange(len(tokens_T)))
    return causal(x_TD, self.query.weight, self.key.weight)

  def __call__(self, tokens_T):
    return jax.vmap(self.out)(self.hidden(tokens_T))


def of_linen(method=None):
  module = Linen()
  params = module.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
  return score_lib.linen(module, method=method), params


def of_nnx(method="__call__"):
  model = Nnx(nnx.Rngs(0))
  model.eval()
  return score_lib.nnx(model, method=method)


def of_equinox(method="__call__"):
  return score_lib.equinox(Equinox(jax.random.key(0)), method=method)


KINDS = {
  "linen": (of_linen, score_lib.tokens, lambda p: p["out"]["kernel"]),
  "nnx": (of_nnx, score_lib.segmented, lambda p: p["out"]["kernel"][...]),
  "equinox": (of_equinox, score_lib.tokens, lambda p: p.out.weight.T),
}


@functools.cache
def world(kind):
  """(score, params) of a model of that library."""
  make, inputs, _ = KINDS[kind]
  apply, params = make()
  return score_lib.from_logits(apply, inputs=inputs), params


def loss_of(score, space, **more):
  """A function of params: the loss of the rollouts in that space."""
  if space == "conditional":
    return lambda params: objective.conditional_loss(
      score, params, rollouts(), ADV_B, **more
    )[0]
  return lambda params: objective.marginal_loss(
    score, params, rollouts(), ADV_B, context=START, **more
  )[0]


def gradient(loss):
  """Value and gradient, as one program: op by op they would be hundreds."""
  return jax.jit(jax.value_and_grad(loss))


def likelihoods(score, params, space):
  """Mean log-prob of each response's tokens in that space [B]."""
  given = rollouts()
  flat = objective.Term(space=space, clip="none")

  def mean(one_B):
    call = objective.conditional_loss
    call = call if space == "conditional" else objective.marginal_loss
    more = {} if space == "conditional" else {"context": START}
    one_B = jnp.asarray(one_B)
    kept = {"selected_B": one_B, "term": flat, **more}
    return -call(score, params, given, jnp.ones(8), **kept)[0]

  return np.array([mean(np.arange(8) == b) for b in range(8)])


@pytest.mark.parametrize("space", ["conditional", "marginal"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_ones_own_is_trained_with_both_objectives(kind, space):
  score, params = world(kind)
  before_B = likelihoods(score, params, space)
  opt, loss = optax.adam(3e-3), loss_of(score, space)
  state = opt.init(params)

  @jax.jit
  def step(params, state):
    grads = jax.grad(loss)(params)
    changes, state = opt.update(grads, state)
    return optax.apply_updates(params, changes), state

  for _ in range(20):
    params, state = step(params, state)
  change_B = likelihoods(score, params, space) - before_B
  right, wrong = change_B[RIGHT_B], change_B[~RIGHT_B]
  # Nothing holds wrong answers up, so both may fall; the right ones must rise above.
  gain = right.mean() - wrong.mean()
  assert gain > 0.3, f"right and wrong responses changed by {right} and {wrong}"


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_with_a_head_score_as_logits_do(kind):
  make, inputs, head = KINDS[kind]
  score, params = world(kind)
  apply, _ = make(method="hidden")
  chunked = score_lib.from_hidden(apply, head, inputs=inputs, chunk=4)
  for space in ("conditional", "marginal"):
    found = [gradient(loss_of(s, space))(params) for s in (score, chunked)]
    close(*found)


def close(a, b, rtol=2e-5, atol=1e-6):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize("how", [{"top_k": 3}, {"top_p": 0.7}, {"temperature": 0.6}])
def test_the_sampled_distribution_is_that_of_both_scores(how):
  make, inputs, head = KINDS["linen"]
  apply, params = make()
  hidden, _ = make(method="hidden")
  a = score_lib.from_logits(apply, inputs=inputs, **how)
  b = score_lib.from_hidden(hidden, head, inputs=inputs, chunk=4, **how)
  plain, _ = world("linen")
  for space in ("conditional", "marginal"):
    found = [gradient(loss_of(s, space))(params) for s in (a, b)]
    close(*found)
    # Truncation belongs to the view that was sampled in.
    untouched = gradient(loss_of(plain, space))(params)[1]["out"]["kernel"]
    same = np.allclose(found[0][1]["out"]["kernel"], untouched, rtol=1e-3, atol=1e-6)
    assert same == (space == "marginal" and "temperature" not in how)


def test_mixtures_need_segments_and_say_so():
  given = rollouts()
  mixed = view.mixture(given, [1])
  score, params = world("nnx")
  found, grads = gradient(
    lambda p: objective.marginal_loss(score, p, given, ADV_B, context=mixed)[0]
  )(params)
  assert np.isfinite(found) and any(jax.tree.leaves(jax.tree.map(jnp.any, grads)))
  score, params = world("linen")
  with pytest.raises(ValueError, match=r"inputs=score\.segmented"):
    objective.marginal_loss(score, params, given, ADV_B, context=mixed)


def test_terms_of_the_other_space_and_temperature_0_are_refused():
  score, params = world("linen")
  with pytest.raises(ValueError, match=r"conditional_loss was given .* 'marginal'"):
    loss_of(score, "conditional", term=objective.MARGINAL)(params)
  with pytest.raises(ValueError, match=r"marginal_loss was given .* 'conditional'"):
    loss_of(score, "marginal", term=objective.CONDITIONAL)(params)
  k3 = objective.Term(kl="k3", kl_coef=0.1)
  with pytest.raises(ValueError, match="kl 'k3': ref_BT"):
    loss_of(score, "conditional", term=k3)(params)
  with pytest.raises(ValueError, match="temperature 0"):
    score_lib.from_logits(lambda p, t: t, temperature=0)


# What the losses compose with.


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_vmap_over_seeds(space):
  _, inputs, head = KINDS["linen"]
  hidden, _ = of_linen(method="hidden")
  score = score_lib.from_hidden(hidden, head, inputs=inputs, chunk=4)
  tokens = jnp.zeros((1, 2), jnp.int32)
  many = jax.vmap(lambda key: Linen().init(key, tokens)["params"])(
    jax.random.split(jax.random.key(0), 3)
  )
  both = gradient(loss_of(score, space))
  found = jax.jit(jax.vmap(both))(many)
  for i in range(3):
    pick = functools.partial(jax.tree.map, lambda x, i=i: x[i])
    close(pick(found), both(pick(many)))


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_shard_map_over_responses_with_the_global_weight(space):
  score, params = world("linen")
  whole = gradient(loss_of(score, space))(params)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  given, rows = rollouts(), jax.P("data")
  term = getattr(objective, space.upper())

  def local(params, part, adv_B):
    total = jax.lax.psum(objective.weight(term, part), "data")
    call = objective.conditional_loss
    more = {}
    if space == "marginal":
      call, more = objective.marginal_loss, {"context": START}

    def loss(params):
      return call(score, params, part, adv_B, term=term, total=total, **more)[0]

    # The parameters are the same everywhere and their gradients are not, yet.
    if hasattr(jax.lax, "pcast"):
      params = jax.tree.map(lambda x: jax.lax.pcast(x, "data", to="varying"), params)
    else:  # JAX 0.7
      params = jax.tree.map(lambda x: jax.lax.pvary(x, "data"), params)
    return jax.tree.map(
      lambda x: jax.lax.psum(x, "data"), jax.value_and_grad(loss)(params)
    )

  found = jax.jit(
    jax.shard_map(local, mesh=mesh, in_specs=(jax.P(), rows, rows), out_specs=jax.P())
  )(params, given, ADV_B)
  close(found, whole)


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_sharded_jit_and_checkpoint(space):
  score, params = world("linen")
  whole = gradient(loss_of(score, space))(params)
  close(gradient(loss_of(jax.checkpoint(score), space))(params), whole)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  given = jax.device_put(rollouts(), jax.NamedSharding(mesh, jax.P("data")))

  def loss(params, given):
    if space == "conditional":
      return objective.conditional_loss(score, params, given, ADV_B)[0]
    return objective.marginal_loss(score, params, given, ADV_B, context=START)[0]

  placed = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
  close(jax.jit(jax.value_and_grad(loss))(placed, given), whole)


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_micro_batches_add_up_with_the_weight_of_the_whole(space):
  score, params = world("linen")
  given, term = rollouts(), getattr(objective, space.upper())
  whole = gradient(loss_of(score, space, term=term))(params)
  total = objective.weight(term, given)
  more = {} if space == "conditional" else {"context": START}
  call = getattr(objective, f"{space}_loss")

  def part(group):
    groups, adv_B = slice(group, group + 1), ADV_B.reshape(2, 4)[group]
    rest = {"term": term, "total": total, **more}
    return gradient(
      lambda params: call(score, params, given.take(groups), adv_B, **rest)[0]
    )(params)

  close(jax.tree.map(jnp.add, part(0), part(1)), whole)


def test_bfloat16_parameters():
  _, inputs, head = KINDS["linen"]
  hidden, params = of_linen(method="hidden")
  score = score_lib.from_hidden(hidden, head, inputs=inputs)
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  # Against the same weights in float32: what is left is the arithmetic.
  same = jax.tree.map(lambda x: x.astype(jnp.float32), half)
  for space in ("conditional", "marginal"):
    loss = gradient(loss_of(score, space))
    (value, grads), (want, want_grads) = loss(half), loss(same)
    assert value.dtype == jnp.float32
    assert all(g.dtype == jnp.bfloat16 for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(value, want, atol=0.02)
    flat, want_flat = (
      np.concatenate([np.ravel(np.float32(g)) for g in jax.tree.leaves(tree)])
      for tree in (grads, want_grads)
    )
    cosine = flat @ want_flat / np.linalg.norm(flat) / np.linalg.norm(want_flat)
    assert cosine > 0.99, f"{space}: the gradient points elsewhere ({cosine})"


def test_new_values_compile_nothing_and_nothing_leaks():
  score, params = world("nnx")
  given = rollouts()
  lines = []

  def run(seed, scale):
    rng = np.random.default_rng(seed)
    adv_B = rng.normal(size=8).astype(np.float32)
    chosen_B = rng.random(8) < 0.7
    moved = jax.tree.map(lambda x: x * scale, params)
    for call, more in (
      (objective.conditional_loss, {}),
      (objective.marginal_loss, {"context": [seed % V]}),
    ):
      value, found = call(
        score, moved, given, adv_B, selected_B=chosen_B,
        old_BT=rng.normal(size=given.response_BT.shape).astype(np.float32), **more,
      )  # fmt: skip
      lines.append(str((value, metrics.values(found))))

  with jax.checking_leaks():
    run(0, 1.0)
  run(0, 1.0)
  losses = objective.conditional_loss, objective.marginal_loss
  sizes = [loss._cache_size() for loss in losses]
  for seed in range(1, 5):
    run(seed, 1.0 + 0.1 * seed)
  assert [loss._cache_size() for loss in losses] == sizes, "new values compiled anew"
  assert lines[0] == lines[2] and lines[1] == lines[3], "the same call, another result"


def test_forward_mode_has_the_directional_derivative():
  _, inputs, head = KINDS["linen"]
  hidden, params = of_linen(method="hidden")
  for how in ({}, {"softcap": 3.0, "temperature": 0.7}, {"top_k": 4}):
    make = functools.partial(
      score_lib.from_hidden, hidden, head, inputs=inputs, chunk=4, **how
    )
    _, grads = gradient(loss_of(make(), "conditional"))(params)
    forward = loss_of(make(forward_mode=True), "conditional")
    direction = jax.tree.map(jnp.cos, params)
    _, slope = jax.jit(functools.partial(jax.jvp, forward))((params,), (direction,))
    want = sum(
      jnp.vdot(g, d)
      for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True)
    )
    np.testing.assert_allclose(slope, want, rtol=1e-4)
