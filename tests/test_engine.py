"""The sampler: what it draws, what it says about it, and what must not matter."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import attention, cudnn, decoder
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.rl import logprob
from pxy.run import clock, numbers
from pxy.safety import interrupt
from pxy.sampling import engine as engine_lib
from pxy.sampling import programs as programs_lib
from pxy.sampling import schedule, step

ARCH = arch_lib.Arch(
  vocab_size=40,
  layers=2,
  d_model=16,
  heads=4,
  kv_heads=2,
  head_dim=8,
  d_ff=32,
  context=128,
  tied=True,
)
SAMPLING = config.Sampling(max_new_tokens=24, slots=8)
STOPS = (25, 37)
PROMPTS = [np.array(ids, np.int32) for ids in ([5], [9, 1, 4], [3, 3, 8, 30], [12] * 9)]


@pytest.fixture(scope="module")
def params():
  """Sharpened to logits of spread 1.6, so that truncation and temperature matter."""
  params = jax.jit(decoder.init, static_argnums=0)(ARCH, jax.random.key(1))
  return params | {"embed": 20 * params["embed"]}


def sample(params, prompts=PROMPTS, n=4, *, seed=0, greedy=False, run=None, **changes):
  fields = {
    "stop_ids": STOPS,
    "max_prompt_tokens": 16,
    "mesh": None,
    "dtype": "float32",
    "page": 4,
  }
  fields |= {k: changes.pop(k) for k in list(changes) if k in fields}
  sampling = dataclasses.replace(SAMPLING, **changes)
  with engine_lib.Engine(ARCH, sampling=sampling, **fields) as engine:
    key = jax.random.key(seed)
    with jax.transfer_guard("disallow"):  # What it moves, it moves on purpose.
      out = engine.run(params, prompts, n, key=key, greedy=greedy, **(run or {}))
  return out, engine.stats


def same(a, b, what, tolerance=1e-5):
  for p, (xs, ys) in enumerate(zip(a, b, strict=True)):
    for r, (x, y) in enumerate(zip(xs, ys, strict=True)):
      message = f"{what}: prompt {p}, response {r}"
      np.testing.assert_array_equal(x.ids, y.ids, message)
      np.testing.assert_allclose(x.logp, y.logp, atol=tolerance, err_msg=message)
      assert x.stop == y.stop, message


@pytest.fixture(scope="module")
def usual(params):
  return sample(params)[0]


@pytest.fixture
def short_stretch(monkeypatch):
  monkeypatch.setattr(schedule, "STRETCH", 5)


@pytest.mark.parametrize("slots", [1, 16])
def test_slot_count_does_not_matter(params, usual, slots):
  same(usual, sample(params, slots=slots)[0], f"{slots} slots against 8")


def test_order_and_neighbours_do_not_matter(params, usual, short_stretch):
  order = [2, 0, 3]
  prompts = [PROMPTS[i] for i in order]
  moved, _ = sample(params, prompts, slots=4, run={"uids": order})
  same([usual[i] for i in order], moved, "another order, without prompt 1")


def test_many_responses_grow_and_shrink_the_slots(params, short_stretch):
  prompts = [PROMPTS[i % 4] for i in range(12)]
  few, _ = sample(params, prompts, n=8, slots=4)
  many, stats = sample(params, prompts, n=8, slots=64)
  same(few, many, "64 slots against 4")
  assert stats.tokens == sum(len(s.ids) for group in many for s in group)
  assert stats.prompt_tokens == sum(map(len, prompts)), "a prompt was read twice"
  assert stats.busy_steps == stats.tokens - 96, "the prefill draws one token each"
  assert 0 <= stats.idle < 0.6, f"idle share {stats.idle}"


@pytest.mark.parametrize(
  ("how", "cache_tokens"),
  [("holds", 0), ("holds", 300), pytest.param("_ragged", 0, marks=pytest.mark.slow)],
)
def test_a_cache_that_is_read_by_rows_draws_the_same_with_one_program(
  params, usual, monkeypatch, how, cache_tokens
):
  """What one GPU does, with XLA in the place of cuDNN, and TPUs, interpreted. A pool
  is read as on any machine there."""
  place = cudnn if how == "holds" else attention
  monkeypatch.setattr(place, how, lambda *_, **__: True)
  mesh = None
  if how == "_ragged":
    mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2))
    axes = decoder.axes(ARCH)
    params = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  lives, decode = set(), step.decode
  monkeypatch.setattr(
    step, "decode", lambda *a, **k: lives.add(k["live"]) or decode(*a, **k)
  )
  jax.clear_caches()  # of programs that were traced for this CPU
  try:
    found, stats = sample(params, mesh=mesh, cache_tokens=cache_tokens)
    same(usual, found, "by rows against usual")
    assert stats.redone == 0, "a pool that holds all that slots have"
  finally:
    jax.clear_caches()
  assert len(lives) == 1, f"a program for each of {lives}"


@pytest.mark.parametrize("split", [False, True])
def test_a_pool_that_is_too_small_for_all_draws_the_same(
  params, usual, short_stretch, capsys, split
):
  """What runs out of pages is put back, drawn again to the same bits, and told once."""
  mesh, tokens = None, 48
  if split:
    mesh, tokens = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2)), 160
    axes = decoder.axes(ARCH)
    params = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  process.say_once.cache_clear()
  told, ended = {}, []

  def draw(p, r, ids):
    assert len(ids)
    told.setdefault((p, r), []).extend(ids.tolist())

  run = {"on_draw": draw, "on_finish": lambda p, r, _: ended.append((p, r))}
  found, stats = sample(params, mesh=mesh, cache_tokens=tokens, run=run)
  same(usual, found, "a small pool against usual")
  assert stats.redone > 0 and 0 < stats.again < 0.5
  assert len(ended) == len(set(ended)) == 16
  assert told == {
    (p, r): one.ids.tolist()
    for p, group in enumerate(found)
    for r, one in enumerate(group)
  }
  sample(params, n=1, mesh=mesh, cache_tokens=tokens, max_new_tokens=2)
  said = capsys.readouterr().err
  assert said.count("has no kernel for pages") == 1, said


@pytest.mark.parametrize("split", [False, True])
def test_the_last_of_many_responses_keep_their_pages(
  params, short_stretch, monkeypatch, split
):
  """Slots shrink without a page being moved, but for what goes to a part that holds
  less; groups begin in the same pages."""
  mesh = None
  prompts = [np.full(16, i + 1, np.int32) for i in range(12)]
  want, _ = sample(params, prompts, n=6, slots=64)
  if split:
    mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2))
    axes = decoder.axes(ARCH)
    params = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  rows, decode = [], step.decode

  def noted(arch, weights, slots, *args, **more):
    rows.append(len(slots.token_B))
    return decode(arch, weights, slots, *args, **more)

  carried, carry = [], step.carry
  monkeypatch.setattr(step, "decode", noted)
  monkeypatch.setattr(
    step, "carry", lambda *a, **k: carried.append(a) or carry(*a, **k)
  )
  found, _ = sample(params, prompts, n=6, slots=64, cache_tokens=1400, mesh=mesh)
  same(want, found, "pages against usual")
  assert rows == sorted(rows, reverse=True) and rows[0] == 64 and rows[-1] == 8
  assert bool(carried) == split, f"{len(carried)} times were pages carried"


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_prompts_that_fill_their_pages_beside_shorter_ones(params, limit):
  """A page is 4 tokens: the first response's own page begins empty, or with a rest."""
  prompts = [np.arange(1, 1 + n, dtype=np.int32) for n in (4, 8, 3, 16, 1, 5)]
  want, _ = sample(params, prompts, max_new_tokens=limit)
  found, _ = sample(params, prompts, max_new_tokens=limit, cache_tokens=60)
  same(want, found, "pages against usual")


def test_fewer_slots_than_a_pool_was_asked_for(params, usual):
  """6 slots are one part, 4 are four, and no part would hold a response."""
  mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2))
  axes = decoder.axes(ARCH)
  params = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  found, _ = sample(params, PROMPTS[:1], mesh=mesh, slots=6, cache_tokens=44)
  same(found, usual[:1], "one part of eleven pages")


def test_what_was_drawn_twice_is_told_where_there_is_a_pool(params):
  stats = engine_lib.Stats(tokens=90, redone=10, slot_steps=8, busy_steps=6)
  for pool, want in ((False, {}), (True, {"rollout/redone": 0.1})):
    engine = types.SimpleNamespace(stats=stats, paged=pool)
    assert numbers.of_slots(engine) == {"rollout/idle": 0.25} | want


@pytest.mark.parametrize(
  ("split", "tokens", "said"),
  [
    (False, 39, "39 do not hold one response of 40 tokens .* set it to 40 or more"),
    (True, 159, "for each of 4 parts of the devices: set it to 160 or more"),
  ],
)
def test_a_pool_that_cannot_hold_one_response_is_refused(params, split, tokens, said):
  mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2)) if split else None
  with (
    clock.Compiles() as compiled,
    pytest.raises(config.Error, match=f"sampling.cache_tokens: .*{said}"),
  ):
    sample(params, mesh=mesh, cache_tokens=tokens)
  assert compiled.count == 0, "it is refused before anything compiles"


def test_logp_is_the_scorers(params):
  """Teacher forcing with the sampler's temperature and truncation gives its logp."""
  forward = jax.jit(functools.partial(decoder.forward, ARCH))
  for rule in (
    {},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.7, "top_k": 12},
  ):
    out, _ = sample(params, **rule)
    flat = [(PROMPTS[p], s) for p, group in enumerate(out) for s in group]
    tokens_BT, segments_BT = np.zeros((2, len(flat), 40), np.int32)
    for b, (prompt, s) in enumerate(flat):
      row = np.concatenate([prompt, s.ids])
      tokens_BT[b, : len(row)], segments_BT[b, : len(row)] = row, 1
    positions_BT = np.broadcast_to(np.arange(40, dtype=np.int32), tokens_BT.shape)
    hidden_BTD = forward(params, tokens_BT, positions_BT, segments_BT)
    head_DV = decoder.head(ARCH, params)
    temperature, top_p = rule.get("temperature", 1.0), rule.get("top_p", 1.0)
    floor_BT = logprob.floor(
      hidden_BTD[:, :-1],
      head_DV,
      temperature=temperature,
      softcap=None,
      top_k=rule.get("top_k", 0),
      top_p=top_p,
      block=16,
    )
    logp_BT, _ = logprob.logprob(
      hidden_BTD[:, :-1],
      head_DV,
      tokens_BT[:, 1:],
      temperature=temperature,
      floor_BT=floor_BT,
      chunk=16,
    )
    for b, (prompt, s) in enumerate(flat):
      scored = logp_BT[b, len(prompt) - 1 :][: len(s.ids)]
      np.testing.assert_allclose(s.logp, scored, atol=1e-5, err_msg=f"{rule}, row {b}")


def test_ends(usual):
  """The stop token is kept, with its log-prob; nothing follows it; limits hold."""
  samples = [s for group in usual for s in group]
  for s in samples:
    assert s.ids.dtype == np.int32 and s.logp.dtype == np.float32
    assert len(s.ids) == len(s.logp)
    assert not set(s.ids[:-1]) & set(STOPS), f"went on after a stop token: {s.ids}"
    assert s.stop == ("stop" if s.ids[-1] in STOPS else "length")
    assert (s.logp < 0).all() and np.isfinite(s.logp).all()
    assert len(s.ids) == 24 or s.stop == "stop"
  assert {s.stop for s in samples} == {"stop", "length"}, "choose another seed"


def test_each_stop_id_ends_a_response(params, usual):
  """What is drawn without stop ids, cut behind the first of them."""
  whole, _ = sample(params, stop_ids=())
  cut = []
  for group in whole:
    ends = [next((i for i, x in enumerate(s.ids) if x in STOPS), 23) for s in group]
    assert {s.stop for s in group} == {"length"}
    cut.append(
      [
        dataclasses.replace(s, ids=s.ids[: e + 1], logp=s.logp[: e + 1], stop=u.stop)
        for s, e, u in zip(group, ends, usual[len(cut)], strict=True)
      ]
    )
  same(cut, usual, "cut behind the first stop token")
  assert set(STOPS) <= {s.ids[-1] for group in usual for s in group}, "another seed"


def test_stop_at_the_first_token(params):
  """All vocabulary stops: every response is one token, and the slots are refilled."""
  out, stats = sample(params, stop_ids=range(40))
  assert {len(s.ids) for group in out for s in group} == {1}
  assert {s.stop for group in out for s in group} == {"stop"}
  assert stats.tokens == 16


def test_one_new_token(params, usual):
  out, _ = sample(params, max_new_tokens=1)
  for group, whole in zip(out, usual, strict=True):
    for s, w in zip(group, whole, strict=True):
      np.testing.assert_array_equal(s.ids, w.ids[:1])


def test_seeds_and_responses(params, usual):
  same(usual, sample(params)[0], "the same seed twice", tolerance=0)
  other = sample(params, seed=1)[0]
  texts = {tuple(s.ids) for out in (usual, other) for group in out for s in group}
  assert len(texts) > 28, "responses or seeds repeat each other"


def test_greedy_only_when_asked(params, usual):
  greedy, _ = sample(params, greedy=True)
  for group in greedy:
    assert len({tuple(s.ids) for s in group}) == 1, "greedy responses differ"
  same(greedy, sample(params, temperature=0.0)[0], "temperature 0 against greedy")
  same(greedy, sample(params, top_k=1)[0], "top_k=1 against greedy", tolerance=100)
  for group, plain in zip(usual, greedy, strict=True):
    assert any(tuple(s.ids) != tuple(plain[0].ids) for s in group), "silently greedy"


def test_on_finish_sees_each_response_once_and_early(params, short_stretch):
  seen, left = {}, []

  def on_finish(p, r, s):
    assert (p, r) not in seen
    seen[p, r] = s
    left.append(engine.stats.prompt_tokens)

  fields = {"sampling": dataclasses.replace(SAMPLING, slots=4), "stop_ids": STOPS}
  with engine_lib.Engine(ARCH, max_prompt_tokens=16, **fields) as engine:
    key = jax.random.key(0)
    out = engine.run(params, PROMPTS, 4, key=key, on_finish=on_finish, version=7)
  assert {(p, r): out[p][r] for p in range(4) for r in range(4)} == seen
  assert left[0] < sum(map(len, PROMPTS)), "nothing handed on before all were read"
  assert {s.version for s in seen.values()} == {7}


def test_stop_is_polled(params, short_stretch):
  calls = iter([False, False, True])
  with pytest.raises(interrupt.Stopped):
    sample(params, slots=4, run={"stop": lambda: next(calls)})


def test_an_engine_that_was_stopped_in_the_middle_knows_nothing_of_it(params, usual):
  with engine_lib.Engine(
    ARCH, sampling=SAMPLING, stop_ids=STOPS, max_prompt_tokens=16
  ) as engine:
    calls, key = iter([False, False, True]), jax.random.key(0)
    with pytest.raises(interrupt.Stopped):
      engine.run(params, PROMPTS, 4, key=key, stop=lambda: next(calls))
    assert not engine.lengths, "of a run that is not whole nothing may be taken"
    same(usual, engine.run(params, PROMPTS, 4, key=key), "after a run that was stopped")


def test_second_run_compiles_nothing(params):
  sample(params, max_new_tokens=16)
  other = jax.tree.map(lambda x: x + 1, params)
  again = {"prompts": PROMPTS[::-1], "seed": 5, "max_new_tokens": 16}
  assert sample(other, **again)[1].compiles == 0


def test_bad_input_is_refused(params):
  with pytest.raises(config.Error, match="prompt 1 has 0 tokens"):
    sample(params, [PROMPTS[0], np.zeros(0, np.int32)])
  with pytest.raises(config.Error, match="prompt 0 has 17 tokens"):
    sample(params, [np.ones(17, np.int32)])
  with pytest.raises(config.Error, match="context"):
    sample(params, max_new_tokens=1000)


def test_mesh_does_not_matter(params, usual):
  """Weights lie as in training, on 8 devices: the same responses, and no recompiles."""
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  axes = decoder.axes(ARCH)
  placed = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  same(usual, sample(placed, mesh=mesh)[0], "8 devices against one")
  assert sample(placed, mesh=mesh)[1].compiles == 0, "placements drift"


def test_casting_once_is_casting_always(params):
  """In bfloat16: the weights the engine casts, and those that the decoder casts."""
  cast = step.weights(ARCH, params, dtype="bfloat16")
  assert {str(x.dtype) for x in jax.tree.leaves(cast)} == {"bfloat16", "float32"}
  forward = jax.jit(functools.partial(decoder.forward, ARCH, dtype="bfloat16"))
  tokens_BT = np.array([[5, 9, 1, 4]], np.int32)
  rows = tokens_BT, np.arange(4, dtype=np.int32)[None], np.ones_like(tokens_BT)
  np.testing.assert_array_equal(forward(cast, *rows), forward(params, *rows))
  out, _ = sample(params, dtype="bfloat16", max_new_tokens=4)
  assert all(np.isfinite(s.logp).all() for group in out for s in group)


def _cuts(weights) -> list[str]:
  """What cuts an array as large as a layer's cache in a turn of decoding."""
  rule = step.Rule(1.0, 0, 1.0, (0,), 8)
  given = {"rows": 8, "length": 32, "dtype": "float32"}
  slots = jax.eval_shape(lambda: step.empty(ARCH, **given))
  least = min(x.size for x in (slots.cache.k_LBKHS, slots.cache.v_LBKSH)) // ARCH.layers

  def run(slots):
    return step.decode(
      ARCH, weights, slots, 1, 4, rule=rule, tokens=4, live=32, dtype="float32"
    )

  def within(jaxpr, turn):
    for equation in jaxpr.eqns:
      inner = [x for v in equation.params.values() for x in jax.tree.leaves(v)]
      for one in inner:
        if hasattr(one := getattr(one, "jaxpr", one), "eqns"):
          yield from within(one, turn or equation.primitive.name == "while")
      cut = equation.primitive.name in ("slice", "dynamic_slice", "gather", "copy")
      if turn and cut and any(x.aval.size >= least for x in equation.outvars):
        yield str(equation)

  return list(within(jax.make_jaxpr(run)(slots).jaxpr, False))


def test_a_cpu_samples_with_layers_apart_where_a_copy_is_small(params, monkeypatch):
  """The same numbers, and no turn copies a layer out of the stack."""
  made = step.weights(ARCH, params, dtype="float32")
  assert isinstance(made["layers"], tuple) and len(made["layers"]) == ARCH.layers
  for i, layer in enumerate(made["layers"]):
    jax.tree.map(
      lambda x, y, i=i: np.testing.assert_array_equal(x, y[i]), layer, params["layers"]
    )
  apart, _ = sample(params)
  assert _cuts(made) == [], "a turn copies a layer's cache out of the stack"
  monkeypatch.setattr(step, "WHOLE", 0)
  jax.clear_caches()
  whole, _ = sample(params)
  assert _cuts(made), "this test would not see it"
  for group, other in zip(apart, whole, strict=True):
    for a, b in zip(group, other, strict=True):
      assert np.array_equal(a.ids, b.ids) and np.array_equal(a.logp, b.logp)
  monkeypatch.undo()
  jax.clear_caches()
  monkeypatch.setattr(step, "COPY", 4 * decoder.size(ARCH) - 1)
  monkeypatch.setattr(step, "transfer", step.transfer.__wrapped__)
  assert step.weights(ARCH, params, dtype="float32") is params
  same(apart, sample(params)[0], "layers apart against layers of one stack")


class Spy:
  """A jitted function that keeps the text of what it is called with."""

  def __init__(self, function, texts):
    self.function, self.texts, self.lower = function, texts, function.lower

  def __call__(self, *args, **more):
    self.texts.add(self.function.lower(*args, **more).as_text())
    return self.function(*args, **more)


@pytest.mark.parametrize("case", ["plain", "bfloat16", "mesh", "move", "pages"])
def test_what_is_described_is_what_runs(params, monkeypatch, case):
  """The programs of a real run at its largest, text for text, as they are described."""
  mesh = None
  if case in ("mesh", "pages"):
    mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
    axes = decoder.axes(ARCH)
    params = jax.device_put(params, mesh_lib.shardings(mesh, axes, params))
  monkeypatch.setattr(step, "WHOLE", 0)  # as where the cache is large
  last = {"move": "move", "pages": "carry"}.get(case)
  slots, stops, n = (32, STOPS, 6) if last else (8, (), 2)
  if last == "carry":  # The parts come apart in several stretches of longer responses.
    monkeypatch.setattr(schedule, "STRETCH", 3)
    monkeypatch.setattr(schedule, "LONGER", 1)
    n = 12
  engine = engine_lib.Engine(
    ARCH,
    sampling=dataclasses.replace(
      SAMPLING, slots=slots, cache_tokens=900 if case == "pages" else 0
    ),
    stop_ids=stops, max_prompt_tokens=16, mesh=mesh, page=4,
    dtype="bfloat16" if case == "bfloat16" else "float32",
  )  # fmt: skip
  shapes = params if mesh is None else jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
  )  # fmt: skip
  described = list(programs_lib.of(engine, shapes, prompts=6, n=n))
  texts = {one.name: set() for one in described}
  names = ["prefill", "admit", "decode"] + [last] * bool(last)
  assert list(texts) == ["reshard", *names]
  transfer = Spy(step.transfer(ARCH, engine.dtype, engine.mesh), texts["reshard"])
  monkeypatch.setattr(step, "transfer", lambda *_: transfer)
  for name in names:
    function = "resize" if name == "move" else name
    monkeypatch.setattr(step, function, Spy(getattr(step, function), texts[name]))
  engine.run(params, [np.ones(16, np.int32)] * 6, n, key=jax.random.key(0))
  for one in described:
    assert one.lower().as_text() in texts[one.name], (
      f"{one.name}: programs.of describes another program than Engine.run"
      " dispatches at its largest; what `pxy compile` says of it would be wrong"
    )


def test_a_run_from_a_later_response_draws_what_a_longer_one_would(params, usual):
  later, _ = sample(params, n=2, run={"first": 2})
  same(later, [group[2:4] for group in usual], "first")


def test_what_cudnn_lacks_is_said_once(params, monkeypatch, capsys):
  told, say = [], engine_lib.Engine._say_what_is_slow
  monkeypatch.setattr(
    engine_lib.Engine, "_say_what_is_slow", lambda one: told.append(one)
  )
  sample(params, PROMPTS[:1])
  (one,) = told
  monkeypatch.setattr(mesh_lib, "platform", lambda mesh: "gpu")
  for _ in range(2):
    say(one)
  assert capsys.readouterr().err.count("cuDNN does not read the cache") == 1
