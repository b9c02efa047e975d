"""Log-probs and entropy in chunks against the full softmax in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy.rl import draw, logprob

import reference

B, T, D, V = 2, 3, 5, 12
HOWS = {
  "plain": {},
  "tempered": {"temperature": 0.6},
  "capped": {"softcap": 3.0, "temperature": 1.4},
}


def _world(seed, scale=1.0, vocab=V):
  rng = np.random.default_rng(seed)
  hidden_BTD = rng.normal(size=(B, T, D)).astype(np.float32)
  head_DV = (scale * rng.normal(size=(D, vocab))).astype(np.float32)
  targets_BT = rng.integers(0, vocab, (B, T)).astype(np.int32)
  cotangents = rng.normal(size=(2, B, T))
  return hidden_BTD, head_DV, targets_BT, cotangents


STATIC = ("temperature", "softcap", "chunk", "shards", "row_shards", "tied")


_draw = jax.jit(draw.draw, static_argnames=("temperature", "top_k", "top_p"))
_floor = jax.jit(
  logprob.floor, static_argnames=(*STATIC[:2], "top_k", "top_p", "block")
)


@functools.partial(jax.jit, static_argnames=STATIC)
def _run(
  hidden_BTD, head_DV, targets_BT, cotangents, floor_BT=None, mask_BT=None, **how
):
  """Values, and gradients of <cotangents, values>."""
  how |= {"floor_BT": floor_BT, "mask_BT": mask_BT}

  def loss(hidden_BTD, head_DV):
    values = logprob.logprob(hidden_BTD, head_DV, targets_BT, **how)
    return jnp.sum(jnp.stack(values) * cotangents), values

  grads, values = jax.grad(loss, (0, 1), has_aux=True)(hidden_BTD, head_DV)
  return *values, *grads


@pytest.mark.parametrize("ulps", [-8, -1, 1, 8])
@pytest.mark.parametrize("top", [{"top_k": 5}, {"top_p": 0.7}], ids=str)
def test_the_floor_keeps_its_ids_whatever_the_last_digits(top, ulps):
  """A product of other shape is summed in another order, on some processors."""
  hidden_BTD, head_DV, targets_BT, cotangents = _world(0)
  want, *_ = _run(hidden_BTD, head_DV, targets_BT, cotangents,
                  _floor(hidden_BTD, head_DV, **top))  # fmt: skip
  hidden_BTD = (hidden_BTD * np.float32(1 + ulps * 2**-23)).astype(np.float32)
  got, *_ = _run(hidden_BTD, head_DV, targets_BT, cotangents,
                 _floor(_world(0)[0], head_DV, **top))  # fmt: skip
  np.testing.assert_allclose(
    got, want, atol=1e-4, err_msg="an id at the floor has come or gone with a digit"
  )


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("floored", [False, True])
def test_values_and_gradients_are_those_of_the_oracle(how, floored):
  hidden_BTD, head_DV, targets_BT, cotangents = _world(0)
  floor_BT = None
  if floored:  # the median logit: half of the ids are out, some targets among them
    z_BTV = reference.logits(hidden_BTD, head_DV, **how)
    floor_BT = np.median(z_BTV, axis=-1)
    z_BT = np.take_along_axis(z_BTV, targets_BT[..., None], -1)[..., 0]
    assert (z_BT < floor_BT).any() and (z_BT > floor_BT).any()

  def oracle(hidden_BTD, head_DV):
    values = reference.logprob(
      hidden_BTD, head_DV, targets_BT, floor_BT=floor_BT, **how
    )
    return np.sum(np.stack(values) * cotangents)

  want = reference.logprob(hidden_BTD, head_DV, targets_BT, floor_BT=floor_BT, **how)
  hidden, head = hidden_BTD.astype(np.float64), head_DV.astype(np.float64)
  want_hidden = reference.difference(lambda x: oracle(x, head), hidden)
  want_head = reference.difference(lambda x: oracle(hidden, x), head)
  if floored:
    floor_BT = floor_BT.astype(np.float32)
  for chunk in (5, 64):
    world = hidden_BTD, head_DV, targets_BT, cotangents, floor_BT
    got = _run(*world, chunk=chunk, **how)
    for name, g, w in zip(
      ("logp", "entropy", "d hidden", "d head"),
      got,
      (*want, want_hidden, want_head),
      strict=True,
    ):
      np.testing.assert_allclose(
        g, w, rtol=1e-5, atol=1e-5, err_msg=f"{name}, chunk {chunk}"
      )


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 7, 11, 13])
def test_chunks_and_shards_change_nothing(chunk, shards):
  """Sizes that divide the vocabulary, that leave a rest, and that exceed it."""
  world = _world(1)
  z_BTV = reference.logits(*world[:2])
  floor_BT = np.quantile(z_BTV, 0.3, axis=-1).astype(np.float32)
  want = _run(*world, floor_BT, softcap=4.0)
  got = _run(*world, floor_BT, softcap=4.0, chunk=chunk, shards=shards)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=2e-6)


def test_lane_aligned_chunks():
  """Chunks of 128 or more are whole lanes: 300 ids are 3 chunks of 128, overlapping."""
  world = _world(2, vocab=300)
  want, got = _run(*world), _run(*world, chunk=140)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("row_shards", [None, 1, 2])
@pytest.mark.parametrize(
  "how", [{}, {"tied": True}, {"tied": True, "chunk": 140, "shards": 2}], ids=str
)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.45, 0.8, 1.0])
def test_places_that_do_not_count_are_left_out(share, how, row_shards):
  """Values and gradients are those of all places, with zeros at the others."""
  rng = np.random.default_rng(4)
  rows, places, vocab = 4, 150, 300
  hidden_BTD = rng.normal(size=(rows, places, D)).astype(np.float32)
  head_DV = rng.normal(size=(D, vocab)).astype(np.float32)
  targets_BT = rng.integers(0, vocab, (rows, places)).astype(np.int32)
  mask_BT = rng.random((rows, places)) < share * np.arange(1, 5)[:, None] / 4
  mask_BT[0] &= share < 1  # a row that has none
  floor_BT = rng.normal(size=(rows, places)).astype(np.float32)
  cotangents = rng.normal(size=(2, rows, places))
  world = hidden_BTD, head_DV, targets_BT
  want = _run(*world, np.where(mask_BT, cotangents, 0), floor_BT)
  got = _run(*world, cotangents, floor_BT, mask_BT, row_shards=row_shards, **how)
  for name, w, g in zip(("logp", "entropy"), want[:2], got[:2], strict=True):
    np.testing.assert_allclose(
      g, np.where(mask_BT, w, 0), rtol=1e-5, atol=5e-6, err_msg=name
    )
  for name, w, g in zip(("d hidden", "d head"), want[2:], got[2:], strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
  "count, most",
  [(0, 128), (100, 128), (128, 128), (129, 256), (300, 384), (400, 500), (500, 500)],
)
def test_no_more_places_are_looked_at_than_a_quarter_beyond(count, most, monkeypatch):
  """Of 500 places 128, 256, 384 or 500 are, forward and backward."""
  seen, forward, backward = [], logprob._forward, logprob._backward

  def spy(run):
    def spied(spec, first, *rest):
      hidden_ND = first[0] if isinstance(first, tuple) else first
      jax.debug.callback(lambda: seen.append(hidden_ND.shape[0]))
      return run(spec, first, *rest)

    return spied

  monkeypatch.setattr(logprob, "_forward", spy(forward))
  monkeypatch.setattr(logprob, "_backward", spy(backward))
  mask_BT = np.arange(500).reshape(2, 250) < count
  hidden_BTD, head_DV = np.ones((2, 250, D), np.float32), np.ones((D, V), np.float32)

  def loss(head_DV):
    given = hidden_BTD, head_DV, np.zeros((2, 250), np.int32)
    return logprob.logprob(*given, mask_BT=mask_BT, row_shards=1)[0].sum()

  jax.block_until_ready(jax.jit(jax.grad(loss))(head_DV))
  jax.effects_barrier()
  assert seen == [most, most], f"{count} of 500 places count"


def test_under_vmap_as_many_places_are_looked_at_as_the_fullest_needs(monkeypatch):
  seen, forward = [], logprob._forward

  def spied(spec, hidden_ND, *rest):
    jax.debug.callback(lambda: seen.append(hidden_ND.shape[0]))
    return forward(spec, hidden_ND, *rest)

  monkeypatch.setattr(logprob, "_forward", spied)
  rng = np.random.default_rng(5)
  hidden_ABTD = rng.normal(size=(2, 1, 500, D)).astype(np.float32)
  head_DV = rng.normal(size=(D, V)).astype(np.float32)
  mask_ABT = np.arange(500)[None, None] < np.array([100, 200])[:, None, None]

  def loss(hidden_BTD, mask_BT):
    given = hidden_BTD, head_DV, np.zeros((1, 500), np.int32)
    return logprob.logprob(*given, mask_BT=mask_BT)[0].sum()

  got = jax.jit(jax.vmap(jax.grad(loss)))(hidden_ABTD, mask_ABT)
  jax.block_until_ready(got)
  jax.effects_barrier()
  assert set(seen) == {256}, "100 and 200 of 500 places count"
  for x, hidden_BTD, mask_BT in zip(got, hidden_ABTD, mask_ABT, strict=True):
    want = jax.grad(loss)(hidden_BTD, mask_BT)
    np.testing.assert_allclose(x, want, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
  shift=st.sampled_from([0.0, 50.0]),
)
def test_flat_sharp_and_shifted_distributions(seed, scale, shift):
  hidden_BTD, head_DV, targets_BT, cotangents = _world(seed, scale)
  hidden_BTD[..., 0] = 1.0
  head_DV[0] += shift  # adds the same to every logit
  logp_BT, entropy_BT, *grads = _run(
    hidden_BTD, head_DV, targets_BT, cotangents, chunk=5
  )
  want = reference.logprob(hidden_BTD, head_DV, targets_BT)
  # Rounding is relative to the logits, which reach 300.
  np.testing.assert_allclose(logp_BT, want[0], rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(entropy_BT, want[1], rtol=1e-4, atol=1e-4)
  assert (np.asarray(entropy_BT) >= -1e-5).all()
  assert all(np.isfinite(g).all() for g in grads)


def test_golden():
  """Logits (0, ln 3) give p = (1/4, 3/4); by hand:

  log p = -ln 4, ln 3 - ln 4.  H = ln 4 - 3/4 ln 3.
  d logp_0 / dz = (1, 0) - p = (3/4, -3/4).
  d H / dz_1 = -p_1 (ln p_1 + H) = -3/4 (1/4 ln 3) = -3/16 ln 3, and minus that for z_0.
  """
  ln = np.log
  hidden = jnp.ones((1, 2, 1))
  head = jnp.array([[0.0, ln(3.0)]])
  targets = jnp.array([[0, 1]])
  logp, entropy = logprob.logprob(hidden, head, targets)
  np.testing.assert_allclose(logp, [[-ln(4), ln(3) - ln(4)]], rtol=1e-6)
  np.testing.assert_allclose(entropy, [[ln(4) - 0.75 * ln(3)] * 2], rtol=1e-6)
  first = jax.grad(lambda w: logprob.logprob(hidden, w, targets)[0][0, 0])(head)
  np.testing.assert_allclose(first, [[0.75, -0.75]], rtol=1e-6)
  second = jax.grad(lambda w: logprob.logprob(hidden, w, targets)[1][0, 0])(head)
  np.testing.assert_allclose(second, [[3 / 16 * ln(3), -3 / 16 * ln(3)]], rtol=1e-5)


def test_bfloat16_accumulates_in_float32():
  hidden_BTD, head_DV, targets_BT, cotangents = _world(3)
  half = [jnp.asarray(x, jnp.bfloat16) for x in (hidden_BTD, head_DV)]
  got = _run(*half, targets_BT, cotangents, chunk=5)
  want = _run(*(x.astype(jnp.float32) for x in half), targets_BT, cotangents)
  assert [x.dtype for x in got] == ["float32", "float32", "bfloat16", "bfloat16"]
  # Values see no rounding but that of the inputs; gradients, two roundings of 2^-9.
  np.testing.assert_allclose(got[0], want[0], atol=1e-5)
  np.testing.assert_allclose(got[1], want[1], atol=1e-5)
  for g, w in zip(got[2:], want[2:], strict=True):
    np.testing.assert_allclose(g.astype(jnp.float32), w, atol=0.02 * np.abs(w).max())


def test_agrees_with_the_sampler_under_truncation():
  """draw's log-probs are reproduced from the threshold, within 1e-5."""
  hidden_BTD, head_DV, _, cotangents = _world(4, scale=1.5, vocab=50)
  for how in ({"top_k": 7}, {"top_k": 30, "top_p": 0.7}):
    floor_BT = _floor(hidden_BTD, head_DV, temperature=0.8, block=2, **how)
    keys_B = jax.random.split(jax.random.key(0), B * T)
    logits_BV = (hidden_BTD @ head_DV).reshape(B * T, -1)
    ids_B, logp_B = _draw(keys_B, logits_BV, temperature=0.8, **how)
    targets_BT = ids_B.reshape(B, T)
    logp_BT, *_ = _run(
      hidden_BTD, head_DV, targets_BT, cotangents, floor_BT, temperature=0.8, chunk=16
    )
    want_BT = logp_B.reshape(B, T)
    np.testing.assert_allclose(logp_BT, want_BT, atol=1e-5, err_msg=str(how))


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_floor_does_not_depend_on_blocks(block):
  hidden_BTD, head_DV, _, _ = _world(5)
  how = {"softcap": 2.0, "temperature": 1.3, "top_k": 6, "top_p": 0.9}
  z_BTV = reference.logits(hidden_BTD, head_DV, 1.3, 2.0).astype(np.float32)
  z_NV = jnp.asarray(z_BTV.reshape(B * T, V))
  want_N = draw.between(z_NV, draw.floor(z_NV, 6, 0.9))
  floor_BT = _floor(hidden_BTD, head_DV, block=block, **how)
  np.testing.assert_allclose(floor_BT, want_N.reshape(B, T), rtol=1e-5)


def test_vmap_over_seeds():
  worlds = [_world(seed) for seed in (6, 7)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *worlds)
  got = jax.vmap(functools.partial(_run, chunk=5))(*stacked)
  for i, world in enumerate(worlds):
    want = _run(*world, chunk=5)
    for g, w in zip(got, want, strict=True):
      np.testing.assert_allclose(g[i], w, rtol=1e-5, atol=1e-6)


def test_values_do_not_recompile():
  run = jax.jit(lambda *world: _run(*world))
  run(*_world(8))
  run(*_world(9))
  assert run._cache_size() == 1


def test_full_logits_never_exist():
  """Compiled memory at V = 20,000: far below one [B, T, V] array, with gradients."""
  rows, tokens, width, vocab, chunk = 4, 256, 8, 20_000, 1024
  shapes = [
    jax.ShapeDtypeStruct((rows, tokens, width), jnp.float32),
    jax.ShapeDtypeStruct((width, vocab), jnp.float32),
    jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
    jax.ShapeDtypeStruct((2, rows, tokens), jnp.float32),
  ]
  full = 4 * rows * tokens * vocab
  for shards in (1, 2):
    compiled = _run.lower(*shapes, chunk=chunk, shards=shards).compile()
    peak = compiled.memory_analysis().temp_size_in_bytes
    share = 4 * rows * tokens * chunk
    assert peak < 4 * share < full / 4, f"{peak / share:.1f} chunks are alive at once"


def test_a_head_split_over_devices_is_never_gathered():
  """V over 4 devices: only sums per token cross them, and the numbers are the same."""
  devices = np.array(jax.devices()[:8]).reshape(2, 4)
  mesh = jax.sharding.Mesh(devices, ("data", "tensor"))
  spec = jax.sharding.PartitionSpec
  hidden_BTD, head_DV, targets_BT, cotangents = _world(10, vocab=4096)
  put = [
    jax.device_put(x, jax.sharding.NamedSharding(mesh, s))
    for x, s in (
      (hidden_BTD, spec("data")),
      (head_DV, spec(None, "tensor")),
      (targets_BT, spec("data")),
      (cotangents, spec(None, "data")),
    )
  ]
  want = _run(hidden_BTD, head_DV, targets_BT, cotangents)
  compiled = _run.lower(*put, chunk=1024, shards=4).compile()
  for g, w in zip(compiled(*put), want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
  gathered = re.findall(rf"f32\[{D},\d+\]\S* all-gather", compiled.as_text())
  assert not gathered, f"columns of the head are gathered: {gathered}"


def test_refusals():
  hidden_BTD, head_DV, targets_BT, _ = _world(0)
  with pytest.raises(ValueError, match="temperature"):
    logprob.logprob(hidden_BTD, head_DV, targets_BT, temperature=0)
  with pytest.raises(ValueError, match="divide"):
    logprob.logprob(hidden_BTD, head_DV, targets_BT, shards=5)


def test_the_memory_of_a_large_vocabulary():
  """B 8, T 2,048, V 151,936, D 1,024 in float32, compiled and not run.

  Beside hidden states (64 MiB), head (594 MiB) and their gradients, loss and gradient
  take at most 1.5 GiB; one array of logits would be 9.3 GiB, and plain JAX makes two.
  """
  rows, tokens, vocab, width = 8, 2048, 151_936, 1024
  shapes = [
    jax.ShapeDtypeStruct((rows, tokens, width), jnp.float32),
    jax.ShapeDtypeStruct((width, vocab), jnp.float32),
    jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
  ]

  def whole(hidden_BTD, head_DV, targets_BT):
    logp_BTV = jax.nn.log_softmax(hidden_BTD @ head_DV)
    at_BT1 = targets_BT[..., None]
    return jnp.take_along_axis(logp_BTV, at_BT1, axis=-1)[..., 0]

  def beside(logp):
    """GiB beside inputs and gradients at the peak."""

    def loss(hidden_BTD, head_DV, targets_BT):
      return -jnp.mean(logp(hidden_BTD, head_DV, targets_BT))

    one = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return one.lower(*shapes).compile().memory_analysis().temp_size_in_bytes / 2**30

  chunked = beside(lambda *args: logprob.logprob(*args)[0])
  assert chunked < 1.5, f"{chunked:.2f} GiB"
  full = beside(whole)
  assert full > 15, f"the full logits take {full:.1f} GiB: is the comparison fair?"
