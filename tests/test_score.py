"""Other people's models: scores made of them, trained with both objectives."""

import dataclasses
import functools

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from pxy import fields
from pxy.rl import gradient as gradient_lib
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


def bigram(head_VV, packed):
  """A model without an op that a mesh with Explicit axes would want to be told of."""
  tokens_BTV, targets_BTV = (
    jax.nn.one_hot(x_BT, V) for x_BT in (packed.tokens_BT, packed.targets_BT)
  )
  logp_BTV = jax.nn.log_softmax(jnp.einsum("btv,vu->btu", tokens_BTV, head_VV))
  entropy_BT = -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, -1)
  return jnp.sum(logp_BTV * targets_BTV, -1), entropy_BT


HEAD = np.random.default_rng(1).normal(size=(V, V)).astype(np.float32)
VIEWS = {
  "conditional": None,
  "marginal": START,
  "mixture": view.mixture(rollouts(), [1]),  # made before the rows are split
}


def of_view(name, params, given, adv_B, context, **more):
  if name == "conditional":
    return objective.conditional_loss(bigram, params, given, adv_B, **more)[0]
  if name == "mixture":  # an argument, to be placed as the rows are
    context = view.View(*(x.swapaxes(0, 1) for x in context))
  return objective.marginal_loss(bigram, params, given, adv_B, context=context, **more)[
    0
  ]


@pytest.mark.parametrize("clip", ["ppo", "gspo"])
def test_a_wrong_view_has_the_same_loss_and_other_probabilities(clip):
  """What docs/objectives.md says a loss cannot tell, and what can."""
  given, term = rollouts(), objective.Term(clip=clip)
  logp_BT = objective.logps(bigram, HEAD, given)
  given = dataclasses.replace(given, logp_BT=np.asarray(logp_BT))
  wrong = dataclasses.replace(given, prompt_BS=np.full_like(given.prompt_BS, 7))

  def found(given):
    value, told = objective.conditional_loss(bigram, HEAD, given, ADV_B, term=term)
    return float(value), {name: float(x.value()) for name, x in told.items()}

  (value, told), (same, other) = found(given), found(wrong)
  np.testing.assert_allclose(value, same, rtol=1e-6)
  name = "training/rollout_probs_diff_mean"
  assert told[name] < 1e-6 and other[name] > 0.01
  assert abs(told["actor/entropy"] - other["actor/entropy"]) > 0.01


def test_logps_are_those_of_the_losses():
  """With them as old log-probs and as the sampler's, every ratio is 1."""
  given, logps = rollouts(), jax.jit(objective.logps, static_argnums=0)
  for name, context in VIEWS.items():
    old_BT = logps(bigram, HEAD, given, context)
    on_BT = np.arange(old_BT.shape[1])[None] < given.response_len_B[:, None]
    assert (np.asarray(old_BT)[~on_BT] == 0).all() and (old_BT[on_BT] < 0).all()
    drawn_BT = logps(bigram, HEAD, given)
    given = dataclasses.replace(given, logp_BT=drawn_BT)
    more, call, space = {}, objective.conditional_loss, "conditional"
    if name != "conditional":
      more = {"context": context, "gap_BT": drawn_BT - given.logp_BT}
      call, space = objective.marginal_loss, "marginal"
    term = objective.Term(space=space, tis="token-mask")
    _, told = call(bigram, HEAD, given, ADV_B, term=term, old_BT=old_BT, **more)
    np.testing.assert_allclose(told["actor/ppo_kl"].value(), 0, atol=1e-6)
    np.testing.assert_allclose(told["actor/tis"].value(), 1, rtol=1e-6)
  with pytest.raises(fields.Error, match="tis 'token-mask': gap_BT goes with import"):
    objective.marginal_loss(bigram, HEAD, given, ADV_B, context=START, term=term)


def test_logps_of_what_was_drawn_are_truncated_as_it_was():
  given = rollouts()
  full, cut = (
    score_lib.from_logits(lambda head_VV, tokens_BT: head_VV[tokens_BT], **how)
    for how in ({}, {"top_p": 0.5})
  )
  wide_BT, cut_BT = (objective.logps(s, HEAD, given) for s in (full, cut))
  assert (np.asarray(cut_BT) >= np.asarray(wide_BT) - 1e-6).all()
  assert (np.asarray(cut_BT) > np.asarray(wide_BT) + 0.01).any()
  same = [objective.logps(s, HEAD, given, START) for s in (full, cut)]
  np.testing.assert_allclose(*same, rtol=1e-6, err_msg="another view is not truncated")


def rows_first(name):
  """What the view needs besides, with rows as the first axis."""
  context = VIEWS[name]
  if name == "mixture":
    return tuple(x.swapaxes(0, 1) for x in (context.context_CBS, context.length_CB))
  return context


@pytest.mark.parametrize(
  "name, axes", [("conditional", "Auto"), *((name, "Explicit") for name in VIEWS)]
)
def test_the_total_of_split_rows_is_that_of_all(name, axes):
  """Under jit it is, whatever the axes of the mesh; under shard_map a device's own, so
  the sum over devices is not the loss until each is given the sum of the weights."""
  kind = getattr(jax.sharding.AxisType, axes)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
  rows, whole = (jax.NamedSharding(mesh, p) for p in (jax.P("data"), jax.P()))
  split = name == "mixture"
  loss = functools.partial(of_view, name)
  grad = jax.value_and_grad(loss)
  want = jax.jit(grad)(HEAD, rollouts(), ADV_B, rows_first(name))
  placed = (
    jax.device_put(HEAD, whole),
    *jax.device_put((rollouts(), ADV_B), rows),
    jax.device_put(rows_first(name), rows) if split else rows_first(name),
  )
  close(jax.jit(grad)(*placed), want)

  def local(own, *args):
    term = objective.CONDITIONAL if name == "conditional" else objective.MARGINAL
    total = None if own else jax.lax.psum(objective.weight(term, args[1]), "data")
    return jax.lax.psum(loss(*args, total=total), "data")

  more = jax.P("data") if split else None
  specs = (jax.P(), jax.P("data"), jax.P("data"), more)
  whole, own = (
    jax.jit(
      jax.shard_map(
        functools.partial(local, own), mesh=mesh, in_specs=specs, out_specs=jax.P()
      )
    )(*placed)
    for own in (False, True)
  )
  close(whole, want[0])
  parts = [
    loss(
      HEAD,
      dataclasses.replace(  # no group is whole
        jax.tree.map(lambda x, b=b: x[b : b + 1], rollouts()), group_size=1
      ),
      ADV_B[b : b + 1],
      jax.tree.map(lambda x, b=b: x[b : b + 1], rows_first(name))
      if split
      else rows_first(name),
    )
    for b in range(8)
  ]
  close(own, sum(parts))
  assert abs(own - want[0]) > 0.01, "it would be another loss"


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
  size = objective._of_rollouts._cache_size()
  for seed in range(1, 5):
    run(seed, 1.0 + 0.1 * seed)
  assert objective._of_rollouts._cache_size() == size, "new values compiled anew"
  assert lines[0] == lines[2] and lines[1] == lines[3], "the same call, another result"


def ragged(longest, **how):
  """Rollouts whose longest prompt and response have that many tokens."""
  prompts = [np.arange(1, 1 + n, dtype=np.int32) for n in (2, longest)]
  ids = [[np.arange(1, 1 + n, dtype=np.int32) for n in (3, longest)] for _ in "ab"]
  logps = [[np.zeros(len(y)) for y in group] for group in ids]
  return rollout.stack(prompts, ids, logps, **how)


def table(params, tokens_BT):
  """The smallest model: logits of the next token from the last one."""
  return params["embed"][tokens_BT] @ params["embed"].T


SAME = [{"select": x} for x in ("negative", "positive")] + [{"lam": 0.5}]
SAME += [{"advantage": x} for x in ("rloo", "w-reinforce")]


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_neither_a_sign_filter_nor_a_longest_length_compiles_anew(space):
  """What the loss does not depend on is not in the program: programs are counted."""
  score = score_lib.from_logits(table)
  params = {"embed": np.random.default_rng(0).normal(size=(V, 4)).astype(np.float32)}
  adv_B, half_B = (
    np.array([1.5, -1, 0.5, -0.2], np.float32),
    np.array([1, 0, 1, 1], bool),
  )
  compiled = objective._of_rollouts._cache_size

  def loss(given, **fields):
    term, call = objective.Term(space=space, **fields), objective.conditional_loss
    more = {"term": term, "selected_B": half_B}
    if space == "marginal":
      call, more = objective.marginal_loss, more | {"context": START}
    return float(call(score, params, given, adv_B, **more)[0])

  plain = loss(ragged(4, width=(8, 9)))
  size = compiled()
  assert {loss(ragged(4, width=(8, 9)), **fields) for fields in SAME} == {plain}
  wide = [loss(ragged(longest, width=(8, 9))) for longest in (3, 5, 8)]
  assert compiled() == size, "a filter, an advantage or a length compiled anew"
  want = [loss(ragged(longest)) for longest in (3, 5, 8)]
  np.testing.assert_allclose(wide, want, rtol=1e-5)
  assert compiled() == size + 3, "without a width every length is a shape"
  # What the loss does depend on is another program, with another number.
  np.testing.assert_allclose(loss(ragged(8), coef=3.0), 3 * want[-1], rtol=1e-5)
  assert compiled() == size + 4


@pytest.mark.parametrize(
  ("width", "said"),
  [
    ((3, 8), "prompt 2 has 4 tokens, beyond the width of 3: raise it"),
    ((8, 3), "response 1 has 4 tokens, beyond the width of 3: raise it"),
  ],
)
def test_what_is_longer_than_the_width_is_refused(width, said):
  with pytest.raises(ValueError, match=said):
    ragged(4, width=width)


def test_a_surrogate_of_ones_own_keeps_the_fields_that_it_takes(tmp_path):
  file = tmp_path / "my.py"
  file.write_text("def f(logp, old, adv, *, lam):\n  return -lam * logp * adv\n")
  for lam in (0.1, 0.5):
    term = objective.Term(clip=f"{file}:f", lam=lam, coef=2.0, select="negative")
    kept = objective.kernel(term)
    assert (kept.lam, kept.coef, kept.select) == (lam, 1.0, "all")


def test_both_losses_are_the_two_with_their_gradients():
  score, params = world("equinox")
  given, chosen_B = rollouts(), ~RIGHT_B
  nsr = objective.Term(space="marginal", select="negative", coef=0.5)
  how = {"context": START, "marginal_term": nsr, "marginal_selected_B": chosen_B}
  both = objective.both_losses(score, params, given, ADV_B, **how)
  marginal = {"term": nsr, "selected_B": chosen_B}
  want = [
    gradient(loss_of(score, "conditional"))(params),
    gradient(loss_of(score, "marginal", **marginal))(params),
  ]
  for found, (value, grads) in zip(both, want, strict=True):
    close((found.loss, found.grads), (value, grads))
    told = metrics.values(found.metrics)
    np.testing.assert_allclose(told["actor/pg_loss"], value, rtol=1e-5)
  flat = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)]).astype(np.float64)
    for _, grads in want
  ]
  size = np.linalg.norm(flat, axis=1).prod()
  cosine = gradient_lib.cosine(both[0].grads, both[1].grads)
  np.testing.assert_allclose(cosine, flat[0] @ flat[1] / size, rtol=1e-4)
  size = objective._both._cache_size()
  objective.both_losses(score, params, given, -ADV_B, **how)
  other = dataclasses.replace(nsr, select="all")
  objective.both_losses(score, params, given, ADV_B, **how | {"marginal_term": other})
  assert objective._both._cache_size() == size, "new values compiled anew"


def test_both_losses_agree_where_the_context_is_the_prompt():
  score, given = score_lib.from_logits(table), ragged(4)
  params = {"embed": np.random.default_rng(0).normal(size=(V, 4)).astype(np.float32)}
  own = view.conditional(given)
  a, b = objective.both_losses(score, params, given, ADV_B[:4], context=own)
  close(a[::2], b[::2])
  np.testing.assert_allclose(gradient_lib.cosine(a.grads, b.grads), 1, rtol=1e-6)


@pytest.mark.parametrize(
  ("how", "said"),
  [
    ({"term": objective.MARGINAL}, r"conditional_loss was given .* 'marginal'"),
    ({"marginal_term": objective.CONDITIONAL}, r"marginal_loss was given"),
    ({"term": objective.Term(kl="k3", kl_coef=0.1)}, "kl 'k3': both_losses"),
  ],
)
def test_both_losses_refuse_terms_that_are_not_theirs(how, said):
  score, params = world("linen")
  with pytest.raises(ValueError, match=said):
    objective.both_losses(score, params, rollouts(), ADV_B, context=START, **how)


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
