"""The sampling engine: admit, step, retire. Continuous batching over fixed slots.

    while responses wait or run:
      free slots <- the next waiting responses     (their prompt is read once for all)
      decode a stretch of tokens, one dispatch     (the host meanwhile hands on what
      retire what has ended                         the stretch before has ended)

One routine serves every objective and every evaluation. The result is a function of
(params, prompt, uid, response number, key) and the sampling rule alone: slot count,
order and neighbours do not enter it, but for rounding. Ids include the sampled stop
token, and log-probs are under the distribution that was sampled from.

Which response has which slot, and in what shapes, is decided on the host (schedule.py).
Prompts whose responses were long in an earlier run begin first, which changes nothing
but the time and, as shapes do, last bits.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pxy import config
from pxy.model import attention, cudnn, paged
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.safety import compiles, interrupt
from pxy.sampling import paging, step
from pxy.sampling import schedule as schedule_lib

PREFILL = 8192
"""Prompt tokens per prefill and part of the rows: a bound on its activations."""


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
  """Read: each prompt once, and again where a response to it was put back."""
  tokens: int = 0
  """Drawn."""
  slot_steps: int = 0
  """Decode steps times slots, and how many of these drew a token."""
  busy_steps: int = 0
  redone: int = 0
  """Tokens of responses that were put back when the pool was full, and drawn again."""
  dispatches: int = 0
  compiles: int = 0
  """Programs compiled meanwhile, counted while the engine is entered."""
  seconds: float = 0.0

  @property
  def idle(self) -> float:
    """Share of the slot steps that drew nothing."""
    return 1.0 - self.busy_steps / max(1, self.slot_steps)

  @property
  def again(self) -> float:
    """Share of the drawn tokens that had been drawn before."""
    return self.redone / max(1, self.tokens + self.redone)


class Engine:
  """Samples responses, at most `sampling.slots` at the same time.

  Attributes:
    arch: model.arch.Arch.
    sampling: temperature, truncation, length limit, slots.
    stop_ids: ids that end a response.
    max_prompt_tokens: longer prompts are refused.
    mesh: None, or axes (data, fsdp, tensor); slots shard over the first two.
    dtype: of the activations and the cache.
    paged: the cache is a pool of pages.
    page: tokens of one.
    group: responses to a prompt for which prompts are read where each program costs
      long to compile, so that runs of more and of fewer take the same; 0: each run's.
    stats: of the last run.
    lengths: uid: tokens of a response in its last run, on average; what was long begins
      first. So a run that goes on must have it again for the same bits.

  Raises:
    config.Error: the model's context does not hold the longest prompt with the longest
      response, nor does the pool, or the mesh does not divide the weights.
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
    page: int = paged.PAGE,
    group: int = 0,
  ):
    if min(sampling.max_new_tokens, sampling.slots, max_prompt_tokens) < 1:
      raise config.Error(
        "sampling: max_new_tokens, slots and max_prompt_tokens must be at least 1"
      )
    if max_prompt_tokens + sampling.max_new_tokens > arch.context:
      raise config.Error(
        f"sampling: {max_prompt_tokens} prompt and {sampling.max_new_tokens} new tokens"
        f" exceed the model's context of {arch.context}: "
        + (
          f"lower max_new_tokens to {arch.context - max_prompt_tokens}"
          if max_prompt_tokens < arch.context
          else f"lower max_prompt_tokens below {arch.context}"
        )
      )
    self.arch, self.sampling, self.dtype = arch, sampling, dtype
    self.mesh = mesh_lib.needed(mesh)
    if self.mesh is not None:  # refuses what does not divide, before anything compiles
      step.transfer(arch, dtype, self.mesh)
    self.stop_ids = tuple(sorted(map(int, stop_ids)))
    self.max_prompt_tokens, self.page, self.group = max_prompt_tokens, page, group
    self.paged = attention.pages(arch, dtype, self.mesh) or sampling.cache_tokens > 0
    if sampling.cache_tokens:
      self._check_pool()
    self.most = PREFILL * (mesh_lib.row_shards(self.mesh) if self.mesh else 1)
    self.stats = Stats()
    self.lengths: dict[int, float] = {}

  def _check_pool(self):
    """Refuses a pool that does not hold one response."""
    parts = self._parts(self.sampling.slots)
    least = parts * self._pages_of_one() * self.page
    if self.sampling.cache_tokens < least:
      where = f", for each of {parts} parts of the devices" if parts > 1 else ""
      raise config.Error(
        f"sampling.cache_tokens: {self.sampling.cache_tokens} do not hold one response"
        f" of {self.max_prompt_tokens + self.sampling.max_new_tokens} tokens with its"
        f" prompt{where}: set it to {least} or more"
      )

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

  def largest(self, prompts: int, n: int) -> schedule_lib.Sizes:
    """The largest shapes of a run of `n` responses to each of `prompts`."""
    limits = self._limits(prompts, n)
    return schedule_lib.largest(prompts, n, self.sampling.slots, limits)

  def few(self, prompts: int, n: int) -> int:
    """Slots that the last responses of such a run move to first; 0: they do not."""
    return self._limits(prompts, n).few(self.largest(prompts, n).rows)

  def _limits(self, prompts: int, n: int) -> schedule_lib.Limits:
    """What holds for all shapes of such a run."""
    static = {"dtype": self.dtype, "mesh": self.mesh}
    longest, limit = self.max_prompt_tokens, self.sampling.max_new_tokens
    rows = schedule_lib.rows(prompts, n, self.sampling.slots)
    held = step.cache_bytes(self.arch, rows, longest + limit, **static)
    # One length for all programs: if rows are read as far as they are filled, or where
    # each costs a GPU seconds to compile and reading rows whole takes no time.
    gpu = mesh_lib.platform(self.mesh) == "gpu"
    fills = attention.fills(self.arch, **static, pool=self.paged)
    pool = self._pool(rows) if self.paged else None
    return schedule_lib.Limits(
      longest=longest,
      limit=limit,
      most=self.most,
      one=self.paged or fills or (gpu and held <= step.WHOLE),
      large=held > step.WHOLE,
      group=self.group or n,
      pool=pool,
    )

  def _pages_of_one(self) -> int:
    """Of a response that is as long as can be."""
    return -(-(self.max_prompt_tokens + self.sampling.max_new_tokens) // self.page)

  def _parts(self, rows: int) -> int:
    """Of a pool for so many slots."""
    parts = 1 if self.mesh is None else mesh_lib.row_shards(self.mesh)
    return 1 if rows % parts else parts

  def _pool(self, rows: int) -> paged.Size:
    """The pool of a run with so many slots: as large as all of them could fill, or as
    sampling.cache_tokens says."""
    parts, one = self._parts(rows), self._pages_of_one()
    tokens = self.sampling.cache_tokens or rows * one * self.page
    if tokens // parts < one * self.page:
      parts = 1  # fewer slots than the pool was asked for, which divide otherwise
    pages = min(rows // parts * one, tokens // parts // self.page)
    return paged.Size(pages * parts, self.page, parts)

  def schedule(
    self, device, prompts: Sequence[np.ndarray], n: int, uids: Sequence[int], first: int
  ) -> schedule_lib.Schedule:
    """The schedule of a run, as `run` has it; `device`: a Device, or replay.Shadow."""
    limits = self._limits(len(prompts), n)
    sizes = schedule_lib.largest(len(prompts), n, self.sampling.slots, limits)
    kind = paging.Paged if limits.pool else schedule_lib.Schedule
    return kind(sizes, limits, device, self.stats, prompts, n, uids, first)

  def full(self, rows: int, live: int, pool: paged.Size | None) -> int:
    """Tokens of each of so many slots where they are full, or the pool is."""
    return min(live, pool.pages * pool.tokens // rows) if pool else live

  def read(self, length_B: np.ndarray, live: int) -> float:
    """step.cache_read of this engine's cache."""
    static = {"dtype": self.dtype, "mesh": self.mesh}
    page = self.page if self.paged else None
    return step.cache_read(self.arch, length_B, live, page=page, **static)

  def token_bytes(self, rows: int) -> float:
    """Bytes of a token in one of so many slots' caches on each device, a mean over
    these."""
    static = {"dtype": self.dtype, "mesh": self.mesh}
    return step.cache_bytes(self.arch, rows, self.page, **static) / (rows * self.page)

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
    self._say_what_is_slow()
    self.stats = Stats()
    uids = range(len(prompts)) if uids is None else uids
    rule = self.rule(greedy)
    device, order = Device(self, params, key, rule), self._order(uids)
    batch = self.schedule(
      device, [prompts[p] for p in order], n, [uids[p] for p in order], first
    )
    samples = [[None] * n for _ in prompts]
    told = on_draw and (lambda place, r, ids: on_draw(order[place], r, ids))
    ended = []
    while batch.waiting or batch.busy:
      if stop is not None and stop():
        raise interrupt.Stopped(
          f"sampling: stopped with {len(batch.waiting)} responses to begin"
        )
      fetch = batch.dispatch()
      _hand_on(ended, on_finish)
      ended = []
      for place, r, ids, logp in batch.retire(jax.device_get(fetch), told):
        p = order[place]
        reason = "stop" if ids[-1] in self.stop_ids else "length"
        samples[p][r] = Sample(ids, logp, reason, version)
        ended.append((p, r, samples[p][r]))
    _hand_on(ended, on_finish)
    for uid, group in zip(uids, samples, strict=True):
      self.lengths[int(uid)] = sum(len(one.ids) for one in group) / n
    self.stats.seconds = time.perf_counter() - start
    return samples

  def _say_what_is_slow(self):
    """Where the cache is read without a kernel, though the platform has one."""
    platform = mesh_lib.platform(self.mesh)
    if self.paged and not attention.pages(self.arch, self.dtype, self.mesh):
      process.say_once(
        f"sampling.cache_tokens: a {platform} has no kernel for pages: each token puts"
        " together what all slots hold, layer by layer; 0 is faster where memory allows"
        " it"
      )
    elif platform == "gpu" and (why := cudnn.lacks(self.arch, self.dtype, self.mesh)):
      process.say_once(
        f"sampling: with {why} cuDNN does not read the cache: each token copies it"
        " layer by layer, three times the bytes"
      )

  def _order(self, uids: Sequence[int]) -> list[int]:
    """Places of the prompts, those with long responses in an earlier run first: what
    begins last and is long keeps few slots busy and all of them waiting. What is not
    known is taken for the mean."""
    known = [self.lengths[uid] for uid in map(int, uids) if uid in self.lengths]
    mean = sum(known) / max(1, len(known))
    return sorted(range(len(uids)), key=lambda p: -self.lengths.get(int(uids[p]), mean))

  def _check(self, prompts, n):
    if n < 1:
      raise config.Error("sampling: responses per prompt must be at least 1")
    for p, prompt in enumerate(prompts):
      if not 0 < len(prompt) <= self.max_prompt_tokens:
        raise config.Error(
          f"sampling: prompt {p} has {len(prompt)} tokens, expected 1 to"
          f" {self.max_prompt_tokens}; drop it or raise max_prompt_tokens"
        )


class Device:
  """What a schedule has done: the programs of step.py, on the devices of a mesh."""

  def __init__(self, engine: Engine, params, key, rule: step.Rule):
    self.arch, self.mesh, self.rule = engine.arch, engine.mesh, rule
    self.static = {"dtype": engine.dtype, "mesh": engine.mesh}
    self.paged = engine.paged
    self.params = step.weights(self.arch, params, **self.static)
    self.key = self._put(key)

  def empty(self, rows: int, length: int, pool: paged.Size | None):
    """Slots without responses."""
    return step.empty(self.arch, rows=rows, length=length, pool=pool, **self.static)

  def read(self, tokens_PT, length_P) -> step.Prompts:
    """A block of prompts."""
    given = self._put((tokens_PT, length_P))
    return step.prefill(self.arch, self.params, *given, pool=self.paged, **self.static)

  def admit(self, slots, ready, *lanes_A, pages=None):
    """(slots, first ids and log-probs) with prompts in slots: prompt, slot, uid and
    response of each lane. pages: that a pool fills from them."""
    given = (*self._put(lanes_A), self.key, self._put(pages))
    return step.admit(slots, ready, *given, rule=self.rule, mesh=self.mesh)

  def decode(
    self, slots, enough: int, turns: int, *, tokens: int, live: int, pages=None
  ):
    """(slots, what step.decode has drawn) after a stretch; pages: a pool's, as
    there."""
    given = self._put((np.int32(enough), np.int32(turns), pages))
    return step.decode(
      self.arch, self.params, slots, *given, rule=self.rule, tokens=tokens, live=live,
      **self.static,
    )  # fmt: skip

  def move(self, slots, row_B, length: int):
    """Slots `row_B`, each with room for `length` tokens."""
    row_B = self._put(np.array(row_B, np.int32))
    if isinstance(slots.cache, paged.Pool):
      return step.reorder(slots, row_B, mesh=self.mesh)
    return step.resize(slots, row_B, length=length, mesh=self.mesh)

  def carry(self, slots, giver: int, taker: int, from_A, to_A):
    """Pages of a pool copied from one part to another, as paged.carry has it."""
    given = self._put((np.int32(giver), np.int32(taker), from_A, to_A))
    pool = slots.cache
    k, v = step.carry(pool.k_LNKHS, pool.v_LNKSH, *given, mesh=self.mesh)
    pool = dataclasses.replace(pool, k_LNKHS=k, v_LNKSH=v)
    return dataclasses.replace(slots, cache=pool)

  def _put(self, tree):
    """From the host to every device."""
    return process.put(tree, step.everywhere(self.mesh))


def _hand_on(ended, on_finish):
  if on_finish is not None:
    for p, r, sample in ended:
      on_finish(p, r, sample)
