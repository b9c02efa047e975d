"""The sampling engine: admit, step, retire. Continuous batching over fixed slots.

    while responses wait or run:
      free slots <- the next waiting responses     (each prompt is read once)
      decode a stretch of tokens, one dispatch     (the host meanwhile hands on what
      retire what has ended                         the stretch before has ended)

One routine serves every objective and every evaluation. The result is a function of
(params, prompt, uid, response number, key) and the sampling rule alone: slot count,
order and neighbours do not enter it. Ids include the sampled stop token, and log-probs
are under the distribution that was sampled from.

Shapes are bucketed, and few: the cache is as long as the longest running response
needs, and the last responses move to a quarter of the slots once they fit there.
"""

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from pxy import config
from pxy.model import attention, flops
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.parallel import program as program_lib
from pxy.safety import compiles, interrupt
from pxy.sampling import step

STRETCH = 32
"""Tokens per dispatch: about 1 ms of host work against 30 to 100 ms of decoding."""
PREFILL = 8192
"""Prompt tokens per prefill and part of the rows: a bound on its activations."""

WHOLE = 2**30
"""Bytes of a device's cache above which it is made at its full length at once: a move
to a longer one needs the old and the new at the same time."""

PAGE = 128
"""A GPU's rows are of as many tokens, or a multiple: the pages of attention.held."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """One response, as it was drawn."""

  ids: np.ndarray
  """int32, including the stop token."""
  logp: np.ndarray
  """float32, of each id under the distribution it was drawn from."""
  stop: str
  """`stop`, or `length` when max_new_tokens ended it."""
  version: int
  """Of the policy that drew it."""
  mask: np.ndarray | None = None
  """bool, ids that are trained on; None: all, as they were all drawn."""
  adv: np.ndarray | None = None
  """float32, advantage of each id; None: all have that of the response."""
  total: float = math.nan
  """log p of the whole at temperature 1, where that is all that was kept."""


@dataclasses.dataclass
class Stats:
  """What a run did."""

  prompt_tokens: int = 0
  """Read, each prompt once."""
  tokens: int = 0
  """Drawn."""
  slot_steps: int = 0
  """Decode steps times slots, and how many of these drew a token."""
  busy_steps: int = 0
  dispatches: int = 0
  compiles: int = 0
  """Programs compiled meanwhile, counted while the engine is entered."""
  seconds: float = 0.0

  @property
  def idle(self) -> float:
    """Share of the slot steps that drew nothing."""
    return 1.0 - self.busy_steps / max(1, self.slot_steps)


class Engine:
  """Samples responses, at most `sampling.slots` at the same time.

  Attributes:
    arch: model.arch.Arch.
    sampling: temperature, truncation, length limit, slots.
    stop_ids: ids that end a response.
    max_prompt_tokens: longer prompts are refused.
    mesh: None, or axes (data, fsdp, tensor); slots shard over the first two.
    dtype: of the activations and the cache.
    stats: of the last run.

  Raises:
    config.Error: the model's context does not hold the longest prompt with the longest
      response, or the mesh does not divide the weights.
  """

  def __init__(
    self,
    arch,
    *,
    sampling: config.Sampling,
    stop_ids: Sequence[int],
    max_prompt_tokens: int,
    mesh=None,
    dtype: str = "float32",
  ):
    if min(sampling.max_new_tokens, sampling.slots, max_prompt_tokens) < 1:
      raise config.Error(
        "sampling: max_new_tokens, slots and max_prompt_tokens must be at least 1"
      )
    if max_prompt_tokens + sampling.max_new_tokens > arch.context:
      raise config.Error(
        f"sampling: {max_prompt_tokens} prompt and {sampling.max_new_tokens} new tokens"
        f" exceed the model's context of {arch.context}; lower max_new_tokens"
      )
    self.arch, self.sampling, self.dtype = arch, sampling, dtype
    self.mesh = mesh_lib.needed(mesh)
    if self.mesh is not None:  # refuses what does not divide, before anything compiles
      step.transfer(arch, dtype, self.mesh)
    self.stop_ids = tuple(sorted(map(int, stop_ids)))
    self.max_prompt_tokens = max_prompt_tokens
    self.most = PREFILL * (mesh_lib.row_shards(self.mesh) if self.mesh else 1)
    self.stats = Stats()

  def __enter__(self):
    compiles.start(self._heard)
    return self

  def __exit__(self, *_):
    compiles.stop(self._heard)

  def _heard(self, event, _):
    self.stats.compiles += event == compiles.COMPILED

  def rule(self, greedy: bool = False) -> step.Rule:
    """How tokens are drawn; greedy: the likeliest, as at temperature 0."""
    sampling = self.sampling
    return step.Rule(
      temperature=0.0 if greedy else sampling.temperature,
      top_k=0 if greedy else sampling.top_k,
      top_p=1.0 if greedy else sampling.top_p,
      stop_ids=self.stop_ids,
      limit=sampling.max_new_tokens,
    )

  def largest(self, prompts: int, n: int) -> "Sizes":
    """The largest shapes of a run of `n` responses to each of `prompts`."""
    longest, limit = self.max_prompt_tokens, self.sampling.max_new_tokens
    rows = min(self.sampling.slots, _power(prompts * n))
    width, end = _bucket(longest, longest), longest + limit
    return Sizes(
      rows=rows,
      room=_bucket(end, end),
      lanes=_lanes(rows, width, self.most),
      prompts=_block(rows, n, width, self.most),
      width=width,
      stretch=max(1, min(STRETCH, limit - 1)),
    )

  def programs(self, params, prompts: int, n: int) -> Iterator[program_lib.Program]:
    """The programs of a run at its `largest`, in the order in which they come.

    reshard (where the weights are cast or moved), prefill, admit and decode, of which
    one turn is described.

    Args:
      params: what `run` would be given, as shapes with shardings.
    """
    arch, mesh, rule = self.arch, self.mesh, self.rule()
    static, sizes = {"dtype": self.dtype, "mesh": mesh}, self.largest(prompts, n)

    def whole(shape, dtype):
      return jax.ShapeDtypeStruct(shape, dtype, sharding=step.everywhere(mesh))

    def left(function, *args, **more):
      """What a program returns, and where that lives."""
      call = functools.partial(function, arch, *args, **more, **static)
      shapes = jax.eval_shape(call)
      return shapes if mesh is None else mesh_lib.at(shapes, step.lives(shapes, mesh))

    weights, beside = params, 0
    if (transfer := step.transfer(arch, self.dtype, mesh)) is not None:
      weights, beside = jax.eval_shape(transfer, params), mesh_lib.device_bytes(params)
      if mesh is not None:
        weights = mesh_lib.at(weights, step.placed(arch, mesh))
      yield program_lib.Program("reshard", functools.partial(transfer.lower, params))
    tokens_PT = whole((sizes.prompts, sizes.width), np.int32)
    length_P = whole((sizes.prompts,), np.int32)
    slots = left(step.empty, rows=sizes.rows, length=sizes.room)
    ready = left(step.prefill, weights, tokens_PT, length_P)
    seen = flops.causal(arch, [sizes.width] * sizes.prompts)
    yield program_lib.Program(
      "prefill",
      functools.partial(
        step.prefill.lower, arch, weights, tokens_PT, length_P, **static
      ),
      flops.forward(arch, sizes.prompts * sizes.width, seen, sizes.prompts),
      beside + mesh_lib.device_bytes(slots),
    )
    number_A, slot_A = (whole((sizes.lanes,), t) for t in (np.uint32, np.int32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    lanes = number_A, slot_A, number_A, number_A, whole(key.shape, key.dtype)
    yield program_lib.Program(
      "admit",
      functools.partial(step.admit.lower, slots, ready, *lanes, rule=rule, mesh=mesh),
      resident=beside + mesh_lib.device_bytes(weights),
    )
    yield program_lib.Program(
      "decode",
      functools.partial(
        step.decode.lower, arch, weights, slots, whole((), np.int32),
        rule=rule, tokens=sizes.stretch, live=sizes.room, **static,
      ),
      flops.forward(
        arch,
        sizes.rows,
        [sizes.rows * min(w or sizes.room, sizes.room) for w in arch.windows()],
      ),
      beside,
    )  # fmt: skip

  def run(
    self,
    params,
    prompts: Sequence[np.ndarray],
    n: int,
    *,
    key,
    uids: Sequence[int] | None = None,
    first: int = 0,
    version: int = 0,
    on_finish: Callable[[int, int, Sample], None] | None = None,
    on_draw: Callable[[int, int, np.ndarray], None] | None = None,
    greedy: bool = False,
    stop: Callable[[], bool] | None = None,
  ) -> list[list[Sample]]:
    """`n` responses to each prompt (int32 ids), indexed [prompt][response].

    Response r to prompt p draws with fold_in(fold_in(key, uids[p]), first + r); uids
    default to the prompts' numbers. So those from `first` on are what a run of more
    responses would have there. `on_finish(p, r, sample)` is called soon after a
    response has ended, while others are still being decoded, and `on_draw(p, r, ids)`
    with the ids that each dispatch has added to a response. `stop` is polled between
    dispatches.

    Raises:
      config.Error: an empty or over-long prompt.
      interrupt.Stopped: `stop()` was true.
    """
    start = time.perf_counter()
    self._check(prompts, n)
    self.stats = Stats()
    uids = range(len(prompts)) if uids is None else uids
    batch = _Batch(self, params, prompts, n, key, uids, first, greedy)
    samples = [[None] * n for _ in prompts]
    ended = []
    while batch.waiting or batch.busy:
      if stop is not None and stop():
        raise interrupt.Stopped(
          f"sampling: stopped with {len(batch.waiting)} responses to begin"
        )
      fetch = batch.dispatch()
      _hand_on(ended, on_finish)
      ended = []
      for p, r, ids, logp in batch.retire(jax.device_get(fetch), on_draw):
        reason = "stop" if ids[-1] in self.stop_ids else "length"
        samples[p][r] = Sample(ids, logp, reason, version)
        ended.append((p, r, samples[p][r]))
    _hand_on(ended, on_finish)
    self.stats.seconds = time.perf_counter() - start
    return samples

  def _check(self, prompts, n):
    if n < 1:
      raise config.Error("sampling: responses per prompt must be at least 1")
    for p, prompt in enumerate(prompts):
      if not 0 < len(prompt) <= self.max_prompt_tokens:
        raise config.Error(
          f"sampling: prompt {p} has {len(prompt)} tokens, expected 1 to"
          f" {self.max_prompt_tokens}; drop it or raise max_prompt_tokens"
        )


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Shapes of a run's programs."""

  rows: int
  """Slots."""
  room: int
  """Tokens a slot has room for."""
  lanes: int
  """Responses that one admission can start."""
  prompts: int
  """Prompts that are read at a time."""
  width: int
  """Tokens of each."""
  stretch: int
  """Tokens that a dispatch draws for each slot."""


@dataclasses.dataclass
class _Draft:
  """A response that has a slot."""

  p: int
  r: int
  start: int
  """Length of its prompt."""
  drawn: int = 0
  ids: list = dataclasses.field(default_factory=list)
  logp: list = dataclasses.field(default_factory=list)

  def add(self, ids, logp):
    self.drawn += len(ids)
    self.ids.append(ids)
    self.logp.append(logp)


class _Batch:
  """The responses of one run: which wait, which have a slot, what was drawn so far."""

  def __init__(self, engine, params, prompts, n, key, uids, first, greedy):
    self.rule = engine.rule(greedy)
    self.arch, self.stats = engine.arch, engine.stats
    self.static = {"dtype": engine.dtype, "mesh": engine.mesh}
    self.mesh = engine.mesh
    self.params = step.weights(self.arch, params, **self.static)
    self.prompts, self.n, self.key = prompts, n, self._put(key)
    self.uids, self.first = np.asarray(uids).astype(np.uint32), first
    self.longest, self.most = engine.max_prompt_tokens, engine.most
    self.waiting = collections.deque(
      (p, r) for p in range(len(prompts)) for r in range(n)
    )
    sizes = engine.largest(len(prompts), n)
    self.rows, self.stretch = sizes.rows, sizes.stretch
    self.busy = {}  # slot: _Draft
    self.fresh = []  # Lists of drafts, one per admission of the stretch.
    self.block, self.ready = range(0), None  # The prompts that have been read last.
    self.room, self.live, self.slots = 0, 0, None
    small = step.cache_bytes(self.arch, sizes.rows, sizes.room, **self.static) <= WHOLE
    # One length for all programs, where each costs a GPU seconds to compile: if rows
    # are read as far as they are filled, or reading them all takes no time.
    gpu = mesh_lib.platform(self.mesh) == "gpu"
    self.one = attention.holds(self.arch, **self.static) or (gpu and small)
    self.whole = self.one or not small

  def dispatch(self):
    """Fill the free slots and start a stretch; returns what `retire` must be given."""
    first = []
    while self.waiting and len(self.busy) < self.rows:
      first.append(self._admit())
    if not self.waiting:
      self._shrink()
    drafts = self.busy.values()
    self._grow(
      max(d.start + min(d.drawn + self.stretch, self.rule.limit) for d in drafts)
    )
    # Idle slots cost as much as busy ones: come back as soon as they can be put to use.
    enough = max(1, self.rows // 8) if self.waiting else self.rows - _few(self.rows)
    self.slots, drawn = step.decode(
      self.arch,
      self.params,
      self.slots,
      self._put(np.int32(enough)),
      rule=self.rule,
      tokens=self.stretch,
      live=self.live,
      **self.static,
    )
    return first, drawn

  def retire(self, fetched, on_draw=None):
    """Take over what was drawn; yields (p, r, ids, logp) of responses that ended."""
    first, (ids_TB, logp_TB, new_B, going_B, steps) = fetched
    for drafts, (id_A, logp_A) in zip(self.fresh, first, strict=True):
      for lane, draft in enumerate(drafts):
        draft.add(id_A[lane : lane + 1], logp_A[lane : lane + 1])
    self.fresh = []
    self.stats.dispatches += 1
    self.stats.slot_steps += int(steps) * self.rows
    ids_BT, logp_BT = np.ascontiguousarray(ids_TB.T), np.ascontiguousarray(logp_TB.T)
    for slot, draft in list(self.busy.items()):
      new = new_B[slot]
      fresh = len(draft.ids) == 1  # its first token came with its admission
      draft.add(ids_BT[slot, :new], logp_BT[slot, :new])
      if on_draw is not None:
        on_draw(draft.p, draft.r, np.concatenate(draft.ids[-1 - fresh :]))
      self.stats.busy_steps += int(new)
      if not going_B[slot]:
        del self.busy[slot]
        self.stats.tokens += draft.drawn
        yield draft.p, draft.r, np.concatenate(draft.ids), np.concatenate(draft.logp)

  def _admit(self):
    """Start waiting responses in free slots; their first ids and log-probs."""
    if self.waiting[0][0] not in self.block:
      self._read(self.waiting[0][0])
    lanes = _lanes(self.rows, self.ready.cache.room, self.most)
    prompt_A, uid_A, reply_A = np.zeros((3, lanes), np.uint32)
    slot_A = np.full(lanes, self.rows, np.int32)  # Out of range: an unused lane.
    drafts = []
    free = (slot for slot in range(self.rows) if slot not in self.busy)
    for lane, slot in zip(range(lanes), list(free), strict=False):
      if not self.waiting or self.waiting[0][0] not in self.block:
        break
      p, r = self.waiting.popleft()
      prompt_A[lane], slot_A[lane] = p - self.block.start, slot
      uid_A[lane], reply_A[lane] = self.uids[p], self.first + r
      self.busy[slot] = _Draft(p, r, start=len(self.prompts[p]))
      drafts.append(self.busy[slot])
    width = self.ready.cache.room
    longest = max(draft.start for draft in drafts)
    self._grow(max(width, longest + min(self.stretch, self.rule.limit)))
    self.slots, first = step.admit(
      self.slots,
      self.ready,
      *self._put((prompt_A, slot_A, uid_A, reply_A)),
      self.key,
      rule=self.rule,
      mesh=self.mesh,
    )
    self.fresh.append(drafts)
    return first

  def _read(self, p):
    """Prefill the block of prompts that begins with prompt p."""
    rows = _power(-(-self.rows // self.n))  # Enough for all slots.
    while True:
      block = self.prompts[p : p + rows]
      width = _bucket(max(map(len, block)), self.longest)
      if rows == 1 or rows * width <= self.most:
        break
      rows //= 2
    tokens_PT, length_P = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
    for i, prompt in enumerate(block):
      tokens_PT[i, : len(prompt)], length_P[i] = prompt, len(prompt)
      self.stats.prompt_tokens += len(prompt)
    self.ready = step.prefill(
      self.arch, self.params, *self._put((tokens_PT, length_P)), **self.static
    )
    self.block = range(p, p + len(block))

  def _grow(self, length):
    """See to it that every slot has room for `length` tokens."""
    most = self.longest + self.rule.limit
    if self.one:
      length = most = -(-most // PAGE) * PAGE
    self.live = max(self.live, _bucket(length, most))
    if self.live <= self.room:
      return
    self.room = _bucket(most, most) if self.whole else self.live
    if self.slots is None:
      shape = {"rows": self.rows, "length": self.room}
      self.slots = step.empty(self.arch, **shape, **self.static)
    else:
      self._move(np.arange(self.rows, dtype=np.int32))

  def _shrink(self):
    """Move the busy slots together once a quarter of the rows would do."""
    rows = self.rows
    while len(self.busy) <= _few(rows):
      rows = _few(rows)
    if rows == self.rows:
      return
    idle = [slot for slot in range(self.rows) if slot not in self.busy]
    order = [*self.busy, *idle][:rows]
    self.rows, self.busy = rows, dict(enumerate(self.busy.values()))
    self._move(np.array(order, np.int32))

  def _move(self, row_B):
    row_B = self._put(row_B)
    self.slots = step.resize(self.slots, row_B, length=self.room, mesh=self.mesh)

  def _put(self, tree):
    """From the host to every device."""
    return process.put(tree, step.everywhere(self.mesh))


def _hand_on(ended, on_finish):
  if on_finish is not None:
    for p, r, sample in ended:
      on_finish(p, r, sample)


def _lanes(rows: int, width: int, most: int) -> int:
  """Responses that one admission can start: each has a copy of its prompt's cache."""
  return max(1, min(rows // 4, most // width))


def _block(rows: int, n: int, width: int, most: int) -> int:
  """Prompts of `width` tokens that are read at a time: enough for all slots, if they
  are not too many tokens."""
  block = _power(-(-rows // n))
  while block > 1 and block * width > most:
    block //= 2
  return block


def _few(rows: int) -> int:
  """How few rows are worth a move; 0: none, where rows are cheap already."""
  return rows // 4 if rows >= 32 else 0


def _power(n: int) -> int:
  return 1 << max(0, n - 1).bit_length()


def _bucket(n: int, most: int) -> int:
  """n rounded up to 32, 64, 96, 128, 192, 256, 384 ..., or to `most` if less."""
  size = 32
  while size < n:
    size += max(32, _power(size + 1) // 4)
  return min(size, -(-most // 16) * 16)
