"""A replayed schedule is that of a real run of the same lengths, call by call."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy import config, testing
from pxy.model import attention, decoder, paged
from pxy.parallel import mesh as mesh_lib
from pxy.sampling import engine as engine_lib
from pxy.sampling import level, paging, replay, schedule, step


class Noted(engine_lib.Device):
  """The real device, and what it was asked for."""

  calls: list = []

  def read(self, tokens_PT, length_P):
    self.calls.append(("prefill", *tokens_PT.shape))
    return super().read(tokens_PT, length_P)

  def admit(self, slots, ready, *lanes_A, **pages):
    self.calls.append(("admit", len(lanes_A[0]), ready.cache.room))
    return super().admit(slots, ready, *lanes_A, **pages)

  def decode(self, slots, enough, turns, *, tokens, live, **pages):
    rows, length_B = slots.token_B.shape[0], np.array(slots.cache.length_B, np.int64)
    made = super().decode(slots, enough, turns, tokens=tokens, live=live, **pages)
    new_B, steps = np.array(made[1][2], np.int64), int(made[1][-1])
    # A slot that is busy holds one token more in each turn.
    held = int((new_B * length_B + new_B * (new_B - 1) // 2).sum())
    self.calls.append(("decode", rows, live, steps, held))
    return made

  def carry(self, slots, giver, taker, from_A, to_A):
    self.calls.append(("carry", len(from_A), 1))
    return super().carry(slots, giver, taker, from_A, to_A)

  def move(self, slots, row_B, length):
    self.calls.append(("move", len(row_B), length))
    return super().move(slots, row_B, length)


@pytest.mark.parametrize(
  ("slots", "n", "most", "cache_tokens", "redone", "split"),
  [
    (64, 8, 40, 0, False, False),
    (4, 3, 20, 0, False, False),
    (16, 1, 70, 0, False, False),
    (64, 8, 40, 200, False, False),
    (16, 4, 70, 104, True, False),
    (32, 8, 40, 2000, False, True),
  ],
)
def test_calls_are_those_of_a_real_run(
  monkeypatch, slots, n, most, cache_tokens, redone, split
):
  arch, mesh = testing.arch(), None
  params = testing.params(arch)
  if split:
    mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2))
    params = jax.device_put(
      params, mesh_lib.shardings(mesh, decoder.axes(arch), params)
    )
  made = []
  monkeypatch.setattr(Noted, "calls", made)
  monkeypatch.setattr(engine_lib, "Device", Noted)
  put_back, put = [], paging.Paged._put_back
  monkeypatch.setattr(
    paging.Paged, "_put_back", lambda *of: put_back.append(of) or put(*of)
  )
  engine = engine_lib.Engine(
    arch,
    sampling=config.Sampling(
      max_new_tokens=most, slots=slots, cache_tokens=cache_tokens
    ),
    stop_ids=range(arch.vocab_size // 12),
    max_prompt_tokens=24,
    mesh=mesh,
    page=8,
  )
  rng = np.random.default_rng(slots)
  prompts = [rng.integers(20, 40, size) for size in rng.integers(1, 24, 11)]
  found = engine.run(params, prompts, n, key=jax.random.key(0))
  busy, tokens = engine.stats.busy_steps, engine.stats.tokens
  again, begun = engine.stats.redone, len(put_back) + n * len(prompts)
  assert (again > 0) == redone, "a case of the other kind is wanted"
  length_PR = np.array([[len(one.ids) for one in group] for group in found])
  assert length_PR.min() < length_PR.max(), "lengths that say nothing"
  calls = replay.calls(engine, [len(x) for x in prompts], length_PR)
  assert made == [
    (one.kind, one.rows, one.width, one.turns, one.held)
    if one.kind == "decode"
    else (one.kind, one.rows, one.width)
    for one in calls
  ]
  carried = any(one.kind == "carry" for one in calls)
  assert carried == split, "parts that come apart, and only these, are level again"
  assert sum(one.busy for one in calls) == busy
  assert busy == tokens + again - begun, "each that begins has a token with its prompt"
  assert (engine.stats.tokens, engine.stats.redone) == (tokens, again)


def test_a_long_response_that_has_ended_costs_the_others_nothing(monkeypatch):
  """The cache is as short again as if it had not been, and what is drawn is the same;
  a token costs as much after many responses as after few."""
  arch = testing.arch()
  params = testing.params(arch)
  made = []
  monkeypatch.setattr(Noted, "calls", made)
  monkeypatch.setattr(engine_lib, "Device", Noted)

  def engine(slots):
    return engine_lib.Engine(
      arch,
      sampling=config.Sampling(max_new_tokens=20, slots=slots),
      stop_ids=range(arch.vocab_size // 12),
      max_prompt_tokens=100,
    )

  rng = np.random.default_rng(0)
  prompts = [rng.integers(20, 40, size) for size in (95, *[5] * 40)]
  few = engine(4)
  found = few.run(params, prompts, 1, key=jax.random.key(0))
  lives = [one[2] for one in made if one[0] == "decode"]
  assert lives[0] > 95 and set(lives[len(lives) // 4 :]) == {32}, lives
  moves = [one[2] for one in made if one[0] == "move"]
  assert moves == [32], f"to the shorter cache, once: {moves}"
  others = engine(64).run(params, prompts, 1, key=jax.random.key(0))
  for (one,), (other,) in zip(found, others, strict=True):
    assert one.ids.tolist() == other.ids.tolist()
    np.testing.assert_allclose(one.logp, other.logp, atol=1e-5)
  length_PR = np.array([[len(one.ids) for one in group] for group in found])
  reads = [
    sum(
      one.read
      for one in replay.calls(few, [len(x) for x in prompts[:n]], length_PR[:n])
      if one.kind == "decode"
    )
    for n in (11, 21, 31, 41)
  ]
  more = np.diff(reads) / [length_PR[n : n + 10].sum() for n in (11, 21, 31)]
  assert more.max() < 1.5 * more.min(), f"tokens read for a token drawn: {more}"


def test_what_runs_out_of_pages_behind_a_shrink_begins_again(monkeypatch):
  """Four long responses in a pool for three; 20 short ones have let the slots shrink.
  Each ends once, and is handed on from its first token to its last."""
  monkeypatch.setattr(schedule, "STRETCH", 5)
  engine = engine_lib.Engine(
    testing.arch(),
    sampling=config.Sampling(max_new_tokens=80, slots=32, cache_tokens=300),
    stop_ids=(0,), max_prompt_tokens=8, page=4,
  )  # fmt: skip
  length_PR = np.array([[2, 80], *[[1, 3]] * 8, [80, 80], [4, 3], [5, 80]])
  prompt_P = np.array([8, *[3, 4] * 4, 7, 8, 1])
  shadow = replay.Shadow(length_PR, prompt_P, engine.read)
  prompts = [np.zeros(n, np.int32) for n in prompt_P]
  made = engine.schedule(shadow, prompts, 2, range(len(prompts)), 0)
  told, ended, free = np.zeros_like(length_PR), [], made.table.free(0)

  def tell(p, r, ids):
    told[p, r] += len(ids)

  while made.waiting or made.busy:
    ended += [(p, r) for p, r, *_ in made.retire(made.dispatch(), tell)]
  kinds = [(one.kind, one.rows) for one in shadow.calls]
  shrunk = next(i for i, one in enumerate(kinds) if one[0] == "decode" and one[1] < 32)
  assert any(kind == "prefill" for kind, _ in kinds[shrunk:]), "nothing begins again"
  assert sorted(ended) == list(np.ndindex(length_PR.shape))
  np.testing.assert_array_equal(told, length_PR)
  assert made.table.free(0) == free, "pages were lost"
  widths = {one.rows for one in shadow.calls if one.kind == "prefill"}
  assert len(widths) == 1, "a prefill of another shape, which nothing has compiled"


@settings(max_examples=40, deadline=None)
@given(
  data=st.data(),
  slots=st.integers(1, 40),
  n=st.integers(1, 5),
  prompts=st.integers(1, 16),
  stretch=st.sampled_from([1, 5, 32]),
  pool=st.booleans(),
  split=st.booleans(),
)
def test_each_response_ends_once_whatever_their_lengths(
  data, slots, n, prompts, stretch, pool, split
):
  """And no page is lost or had by two, over whole runs; no model is needed for that."""
  lengths = st.lists(st.integers(1, 60), min_size=prompts * n, max_size=prompts * n)
  length_PR = np.array(data.draw(lengths)).reshape(prompts, n)
  prompt_P = np.array(
    data.draw(st.lists(st.integers(1, 8), min_size=prompts, max_size=prompts))
  )
  cache_tokens = data.draw(st.integers(4 * 68, 1500)) if pool else 0
  engine = engine_lib.Engine(
    testing.arch(),
    sampling=config.Sampling(max_new_tokens=60, slots=slots, cache_tokens=cache_tokens),
    stop_ids=(0,), max_prompt_tokens=8, page=4,
    mesh=mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2)) if split else None,
  )  # fmt: skip
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(schedule, "STRETCH", stretch)
    made = engine.schedule(
      replay.Shadow(length_PR, prompt_P, engine.read),
      [np.zeros(size, np.int32) for size in prompt_P], n, range(prompts), 0,
    )  # fmt: skip
    told, ended = np.zeros_like(length_PR), []
    parts = range(made.limits.pool.parts) if pool else ()
    pages = [made.table.free(part) for part in parts]
    while made.waiting or made.busy:
      most = 3 * (length_PR.sum() + made.stats.redone) + 200
      assert made.stats.dispatches < most, "it goes round in circles"
      found = made.retire(
        made.dispatch(), lambda p, r, ids: np.add.at(told, (p, r), len(ids))
      )
      ended += [(p, r, len(ids)) for p, r, ids, _ in found]
      for part in parts:
        own = [
          page
          for draft in made.busy.values()
          for page in made.table._rows[draft.p, draft.r].own
          if made.table._rows[draft.p, draft.r].part == part
        ]
        shared = [
          page
          for (where, _), prompt in made.table._prompts.items()
          for page in prompt.pages
          if where == part
        ]
        assert len({*own, *shared}) == len(own) + len(shared), "a page is had by two"
        assert len(own) + len(shared) + made.table.free(part) == pages[part]
  assert sorted(ended) == [(*at, length_PR[at]) for at in np.ndindex(length_PR.shape)]
  np.testing.assert_array_equal(told, length_PR)
  assert [made.table.free(part) for part in parts] == pages, "pages were lost"


def test_what_runs_out_of_pages_goes_on_where_there_are_some(monkeypatch):
  """Two long responses in a part that holds one; the other parts are empty by then."""
  monkeypatch.setattr(schedule, "STRETCH", 5)
  monkeypatch.setattr(level, "moves", lambda *_: [])
  engine = engine_lib.Engine(
    testing.arch(),
    sampling=config.Sampling(max_new_tokens=60, slots=8, cache_tokens=320),
    stop_ids=(0,), max_prompt_tokens=8, page=4,
    mesh=mesh_lib.make(config.Mesh(data=4, fsdp=1, tensor=2)),
  )  # fmt: skip
  lengths = np.array([60, 2, 2, 2, 60, 2, 2, 2])[:, None]
  calls = replay.calls(engine, np.full(8, 4), lengths)
  assert sum(one.kind == "carry" for one in calls) == 1
  assert engine.stats.redone == 0, "nothing is drawn again while there is room"
  assert engine.stats.tokens == lengths.sum()


def test_what_a_slot_holds_is_its_prompt_and_what_was_drawn_before():
  arch = testing.arch()
  engine = engine_lib.Engine(
    arch, sampling=config.Sampling(max_new_tokens=8, slots=2), stop_ids=(0,),
    max_prompt_tokens=10,
  )  # fmt: skip
  calls = replay.calls(engine, [10], np.array([[4, 2]]))
  (decode,) = (one for one in calls if one.kind == "decode")
  assert (decode.turns, decode.busy) == (3, 4)
  assert decode.held == (10 + 11 + 12) + 10
  with pytest.raises(config.Error, match="responses have 4 to 9 tokens, expected 1 to"):
    replay.calls(engine, [10], np.array([[4, 9]]))


@pytest.mark.parametrize(
  ("ragged", "data", "read"),
  [
    (False, 1, 3 * 2 * 32),  # as far as the cache is long
    (True, 1, 3 * 16 + 16),  # blocks of 16 that hold what a row has
    (True, 2, 3 * 2 * 16),  # of the device that has the longer row
  ],
)
def test_what_attention_reads_is_all_rows_or_what_each_holds(
  monkeypatch, ragged, data, read
):
  monkeypatch.setattr(attention, "_ragged", lambda *_: ragged)
  monkeypatch.setattr(attention.ragged, "_MOST", 16)
  mesh = None if data == 1 else mesh_lib.make(config.Mesh(data=2, fsdp=1))
  engine = engine_lib.Engine(
    testing.arch(), sampling=config.Sampling(max_new_tokens=8, slots=2), stop_ids=(0,),
    max_prompt_tokens=10, mesh=mesh, page=8,
  )  # fmt: skip
  calls = replay.calls(engine, [10], np.array([[4, 2]]))
  (decode,) = (one for one in calls if one.kind == "decode")
  assert (decode.read, decode.held) == (read, 10 + 11 + 12 + 10)


def test_a_group_is_dealt_over_the_devices_where_the_fullest_is_waited_for(monkeypatch):
  monkeypatch.setattr(attention, "_ragged", lambda *_: True)
  monkeypatch.setattr(attention.ragged, "_MOST", 16)
  mesh = mesh_lib.make(config.Mesh(data=4, fsdp=1))
  engine = engine_lib.Engine(
    testing.arch(), sampling=config.Sampling(max_new_tokens=40, slots=8), stop_ids=(0,),
    max_prompt_tokens=8, mesh=mesh, page=16,
  )  # fmt: skip
  length_PR = np.array([[40] * 4, [1] * 4])
  turns = [one for one in replay.calls(engine, [8, 8], length_PR) if one.busy]
  read = sum(one.read for one in turns)
  assert read == sum(4 * 16 * -(-held // 16) for held in range(8, 47)), (
    "each device has one of the long responses, not one device two of them"
  )


def test_what_was_long_begins_first_and_is_the_same_to_the_bit(monkeypatch):
  arch = testing.arch()
  params = testing.params(arch)
  rng = np.random.default_rng(3)
  prompts = [rng.integers(20, 40, size) for size in rng.integers(1, 24, 9)]

  def engine():
    return engine_lib.Engine(
      arch, sampling=config.Sampling(max_new_tokens=40, slots=4),
      stop_ids=range(arch.vocab_size // 12), max_prompt_tokens=24,
    )  # fmt: skip

  def run(of, seed, uids):
    key, drawn = jax.random.key(seed), []
    noted = {"on_draw": lambda p, r, ids: drawn.append((p, r, len(ids)))}
    found = of.run(params, prompts, 2, key=key, uids=uids, **noted)
    return [[tuple(one.ids) for one in group] for group in found], drawn

  uids = [40, 7, 12, 3, 99, 8, 25, 31, 2]
  used = engine()
  before, first = run(used, 0, uids)
  assert {p for p, *_ in first[:4]} == {0, 1}, "nothing is known: in their order"
  tokens = [sum(map(len, group)) for group in before]
  again, drawn = run(used, 1, [*uids[:-1], 55])
  fresh, _ = run(engine(), 1, [*uids[:-1], 55])
  assert again == fresh
  known = tokens[:-1]
  place = {p: -np.mean(known) if p == 8 else -tokens[p] for p in range(9)}
  longest = sorted(range(9), key=place.get)
  assert {p for p, *_ in drawn[:4]} == set(longest[:2])
  lengths = {p: sum(n for q, _, n in drawn if q == p) for p in range(9)}
  assert lengths == {p: sum(map(len, group)) for p, group in enumerate(again)}


def test_large_caches_shrink_by_half_or_by_more_where_idle_rows_are_free(
  monkeypatch,
):
  arch = testing.arch()
  length_PR = np.arange(1, 65).reshape(64, 1)

  def rows():
    engine = engine_lib.Engine(
      arch, sampling=config.Sampling(max_new_tokens=64, slots=64), stop_ids=(0,),
      max_prompt_tokens=8,
    )  # fmt: skip
    calls = replay.calls(engine, [8] * 64, length_PR)
    return list(dict.fromkeys(one.rows for one in calls if one.kind == "decode"))

  assert rows() == [64, 16]
  monkeypatch.setattr(step, "WHOLE", 0)
  assert rows() == [64, 32, 16]
  monkeypatch.setattr(attention, "fills", lambda *_, **__: True)
  assert rows() == [64, 12]


@pytest.mark.parametrize("where", ["gpu", "pages"])
def test_training_and_evaluation_take_the_same_few_programs(monkeypatch, where):
  """Where each costs long to compile: the demo's steps of 32 x 8 and its evaluation of
  128 x 16, in 256 slots."""
  monkeypatch.setattr(mesh_lib, "platform", lambda mesh: "gpu")
  if where == "pages":
    monkeypatch.setattr(attention, "pages", lambda *_: True)
    monkeypatch.setattr(attention, "fills", lambda *_, **__: True)
  engine = engine_lib.Engine(
    testing.arch(), sampling=config.Sampling(max_new_tokens=96, slots=256),
    stop_ids=(), max_prompt_tokens=24, group=8,
  )  # fmt: skip
  rng, made = np.random.default_rng(0), set()
  for prompts, n in ((32, 8), (128, 16)):
    length_PR = rng.integers(1, 97, (prompts, n))
    calls = replay.calls(engine, rng.integers(1, 25, prompts), length_PR)
    read = [one.rows for one in calls if one.kind == "prefill"]
    assert set(read) == {32}, "as many as a step of training has, in one go"
    made |= {(one.kind, one.rows, one.width) for one in calls}
  kinds = [kind for kind, *_ in made]
  assert kinds.count("prefill") == kinds.count("admit") == 1, made
  assert kinds.count("decode") <= 2, made


@pytest.mark.parametrize("where", ["cpu", "cpu, large", "gpu", "gpu, large", "filled"])
def test_the_longest_cache_of_a_run_is_that_of_its_largest_program(monkeypatch, where):
  """24 + 70 tokens: room for 128 where it comes in pages, and else for 96."""
  monkeypatch.setattr(mesh_lib, "platform", lambda mesh: where[:3])
  if where.endswith("large"):
    monkeypatch.setattr(step, "WHOLE", 0)
  if where == "filled":
    monkeypatch.setattr(attention, "fills", lambda *_, **__: True)
  engine = engine_lib.Engine(
    testing.arch(), sampling=config.Sampling(max_new_tokens=70, slots=64), stop_ids=(),
    max_prompt_tokens=24,
  )  # fmt: skip
  made, empty = [], replay.Shadow.empty

  def noted(shadow, rows, length, pool=None):
    made.append(length)
    return empty(shadow, rows, length, pool)

  monkeypatch.setattr(replay.Shadow, "empty", noted)
  calls = replay.calls(engine, [24] * 4, np.full((4, 2), 70))
  made += [one.width for one in calls if one.kind == "move"]
  reads = [one.width for one in calls if one.kind == "decode"]
  room = engine.largest(4, 2).room
  assert (max(made), max(reads)) == (room, room), (
    f"slots got room for {made} tokens and decode read {reads}, but Engine.largest says"
    f" {room}: what `pxy compile` measures is no program of the run"
  )


def test_the_last_slots_divide_among_the_devices_and_are_fewer():
  few = {"longest": 8, "limit": 8, "most": 8, "one": True, "large": True}
  for shards in (1, 2, 4, 8, 16, 64):
    limits = schedule.Limits(**few, pool=paged.Size(2 * shards, 8, shards))
    for rows in range(32, 1025, 32):
      found = limits.few(rows)
      assert found < rows and found % shards == 0, (rows, shards, found)
