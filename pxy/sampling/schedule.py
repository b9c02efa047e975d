"""Who stands in which slot, and when: the host's half of the engine.

    waiting --admit--> busy --retire--> ended    a stretch of tokens between looks

A schedule decides shapes and places alone, from lengths: how many prompts are read at a
time, which slot a response gets, how long the cache is, when the last responses move
together. What it decides, a device does: the engine's, or one that only keeps count
(replay.py). So it knows no model, no weights, and no array of JAX's.

Shapes are few: each is a program. Where one costs little to compile they are bucketed:
the cache is as long as the longest running response needs, and less than twice that
once longer ones have ended, and the last responses move to fewer slots, and again.
Where it costs much there are two of decoding, one of reading prompts, and one of
admission, but for what begins again among fewer slots. Where the cache is a pool of
pages, paging.py says more.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from pxy.model import paged

STRETCH = 32
"""Tokens per dispatch: about 1 ms of host work against 30 to 100 ms of decoding."""

LONGER = 4
"""Times as many where nothing waits, and idle rows and room for them cost nothing."""

PAGE = 128
"""Where the cache has one length and is no pool, rows have room for as many tokens or a
multiple: the pages of cudnn.held."""


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
  """Tokens that a dispatch draws for each slot, at most."""
  pool: paged.Size | None = None
  """Of the cache, where it is in pages."""
  pages: int = 0
  """Pages that one admission can fill in each part of the pool."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What holds whichever responses come: of the model, its cache and the devices."""

  longest: int
  """Tokens of a prompt, at most."""
  limit: int
  """Tokens of a response, at most."""
  most: int
  """Prompt tokens that are read at a time, at most."""
  one: bool
  """Shapes are one in all programs, the full ones; but once there are fewer slots."""
  large: bool
  """It is made at its full length at once, as there is no room for two of them."""
  group: int = 1
  """Responses to a prompt for which prompts are read where shapes are one: of larger
  groups some prompts wait, of smaller ones the next are read sooner."""
  pool: paged.Size | None = None
  """Of the cache, where it is in pages."""

  @property
  def room(self) -> int:
    """Tokens that a slot has room for, at most."""
    return self.fitting(self.longest + self.limit)

  def fitting(self, length: int) -> int:
    """Tokens that slots have room for where `length` are needed."""
    end, page = self.longest + self.limit, self.pool.tokens if self.pool else PAGE
    return -(-end // page) * page if self.one else _bucket(length, end)

  def few(self, rows: int) -> int:
    """How few rows are worth a move, and a program of their own; 0: rows are cheap.

    Where shapes are bucketed a quarter, of a large cache half, and then again; else an
    eighth, of a large cache that is no pool, whose pages stay where they are, three
    sixteenths. Of a large cache old and new are there at the same time.
    """
    move = self.large and not self.pool
    part = (3 / 16 if move else 1 / 8) if self.one else (1 / 2 if move else 1 / 4)
    few = int(rows * part)
    few += -few % (self.pool.parts if self.pool else 1)
    return few if rows >= 32 and few < rows else 0

  @property
  def stretch(self) -> int:
    """Tokens per dispatch while some wait."""
    return max(1, min(STRETCH, self.limit - 1))

  @property
  def longer(self) -> int:
    """And when nothing does."""
    return max(1, min(STRETCH * LONGER, self.limit - 1)) if self.one else self.stretch


def rows(prompts: int, n: int, slots: int) -> int:
  """Slots of a run of `n` responses to each of `prompts`, at most `slots`."""
  return min(slots, _power(prompts * n))


def largest(prompts: int, n: int, slots: int, limits: Limits) -> Sizes:
  """The largest shapes of a run of `n` responses to each of `prompts`, in `slots` at
  most."""
  count = rows(prompts, n, slots)
  group = limits.group if limits.one else n
  block, width = _block([limits.longest], count, group, limits.longest, limits.most)
  lanes = _lanes(count, width, limits.most)
  return Sizes(
    rows=count,
    room=limits.room,
    lanes=lanes,
    prompts=block,
    width=width,
    stretch=limits.longer,
    pool=limits.pool,
    pages=filled(lanes, block, width, limits.pool) if limits.pool else 0,
  )


def filled(lanes: int, prompts: int, width: int, pool: paged.Size) -> int:
  """Pages that an admission can fill in each part: all of the prompts that were read,
  and one of each response for what is left of its prompt."""
  return lanes + prompts * -(-width // pool.tokens)


@dataclasses.dataclass
class _Draft:
  """A response that has a slot."""

  p: int
  r: int
  start: int
  """Length of its prompt."""
  told: int = 0
  """Tokens that were drawn before it was put back, and handed on."""
  drawn: int = 0
  ids: list = dataclasses.field(default_factory=list)
  logp: list = dataclasses.field(default_factory=list)

  def add(self, ids, logp):
    self.drawn += len(ids)
    self.ids.append(ids)
    self.logp.append(logp)


class Schedule:
  """The responses of one run: which wait, which have a slot, what was drawn so far.

  Args:
    sizes: the largest shapes of the run.
    limits: of the engine.
    device: what does it: engine.Device, or replay.Shadow.
    stats: engine.Stats, which it adds to.
    prompts: int32 ids of each.
    n: responses to each prompt.
    uids: of each prompt.
    first: number of the first of the responses.
  """

  def __init__(
    self, sizes: Sizes, limits: Limits, device, stats, prompts, n, uids, first
  ):
    self.limits, self.device, self.stats = limits, device, stats
    self.prompts, self.n = prompts, n
    self.tokens_P = np.array([len(prompt) for prompt in prompts], np.int64)
    self.uids, self.first = np.asarray(uids).astype(np.uint32), first
    self.waiting = collections.deque(
      (p, r) for p in range(len(prompts)) for r in range(n)
    )
    self.sizes, self.rows = sizes, sizes.rows  # the slots now
    self.stretch = limits.stretch
    self.busy = {}  # slot: _Draft
    self.fresh = []  # Lists of drafts, one per admission of the stretch.
    self.block, self.ready = range(0), None  # The prompts that have been read last.
    self.room, self.live, self.slots = 0, 0, None
    self.shape = 0, 0

  def dispatch(self):
    """Fill the free slots and start a stretch; returns what `retire` must be given."""
    first = []
    self.stretch = self._turns()
    self._keep()
    while self.waiting and len(self.busy) < self.rows:
      if (made := self._admit()) is None:
        break
      first.append(made)
    if not self.waiting:
      self.block, self.ready = range(0), None  # a move needs the room
      self._level()
      self._shrink()
    reach = max(map(self._reach, self.busy.values()))
    self._cut(reach)
    self._grow(reach)
    # Idle slots cost as much as busy ones: come back as soon as they can be put to use.
    idle = self.rows - len(self.busy)
    if self.waiting:
      enough = idle + max(1, len(self.busy) // 8)
    else:
      enough = max(idle + 1, self.rows - self._few(self.rows))
    self.slots, drawn = self.device.decode(
      self.slots, enough, self.stretch, tokens=self.sizes.stretch, live=self.live,
      **self._pages(),
    )  # fmt: skip
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
        ids = np.concatenate(draft.ids[-1 - fresh :])
        again = max(0, draft.told - (draft.drawn - len(ids)))
        if again < len(ids):
          on_draw(draft.p, draft.r, ids[again:])
      self.stats.busy_steps += int(new)
      if not going_B[slot]:
        self._end(slot)
        self.stats.tokens += draft.drawn
        yield draft.p, draft.r, np.concatenate(draft.ids), np.concatenate(draft.logp)

  def _admit(self):
    """Start waiting responses in free slots; their first ids and log-probs. None where
    there is no place for the next one."""
    if (slot := self._place(self.waiting[0][0])) is None:
      return None
    if self.waiting[0][0] not in self.block:
      self._read(self.waiting[0][0])
    lanes, _, width = self._shape()
    prompt_A, uid_A, reply_A = np.zeros((3, lanes), np.uint32)
    slot_A = np.full(lanes, self.rows, np.int32)  # Out of range: an unused lane.
    drafts = []
    for lane in range(lanes):
      p, r = self.waiting.popleft()
      prompt_A[lane], slot_A[lane] = p - self.block.start, slot
      uid_A[lane], reply_A[lane] = self.uids[p], self.first + r
      drafts.append(self._begin(slot, p, r))
      if not self.waiting or self.waiting[0][0] not in self.block:
        break
      if (slot := self._place(self.waiting[0][0])) is None:
        break
    longest = max(draft.start for draft in drafts)
    self._grow(max(width, longest + min(self.stretch, self.limits.limit)))
    self.slots, first = self.device.admit(
      self.slots, self.ready, prompt_A, slot_A, uid_A, reply_A, **self._fills()
    )
    self.fresh.append(drafts)
    return first

  def _shape(self) -> tuple[int, int, int]:
    """(lanes of an admission, prompts that have been read, their width)."""
    rows, width = self.shape
    return _lanes(self.sizes.rows, width, self.limits.most), rows, width

  def _place(self, p: int) -> int | None:
    """The slot for the next response, which is to prompt p; None: there is none."""
    return next((x for x in range(self.rows) if x not in self.busy), None)

  def _begin(self, slot: int, p: int, r: int) -> _Draft:
    """A response has a slot from now on."""
    self.busy[slot] = _Draft(p, r, start=len(self.prompts[p]))
    return self.busy[slot]

  def _end(self, slot: int) -> None:
    """It is free again."""
    del self.busy[slot]

  def _turns(self) -> int:
    """Tokens until the next look: as long as can be when nothing waits, for then there
    is nothing to do but to move what is left."""
    turns = self.limits.stretch
    if not self.waiting:
      while turns < (more := min(2 * turns, self.limits.longer)) and self._holds(more):
        turns = more
    return turns

  def _holds(self, turns: int) -> bool:
    """Whether what runs has room for so many more tokens."""
    return True

  def _reach(self, draft: _Draft, turns: int = 0) -> int:
    """Tokens that a response has at the end of the next stretch, at most."""
    drawn = draft.drawn + (turns or self.stretch)
    return draft.start + min(drawn, self.limits.limit)

  def _keep(self) -> None:
    """See to it that what runs can go on for a stretch."""

  def _level(self) -> None:
    """See to it that devices hold alike."""

  def _fills(self) -> dict:
    """What an admission is told of pages."""
    return {}

  def _pages(self) -> dict:
    """And a stretch."""
    return {}

  def _read(self, p):
    """Prefill the block of prompts that begins with prompt p."""
    rows, width = self.sizes.prompts, self.sizes.width
    if not self.limits.one:
      longest, most = self.limits.longest, self.limits.most
      rows, width = _block(self.tokens_P[p:], self.sizes.rows, self.n, longest, most)
    block = self.prompts[p : p + rows]
    self.shape = rows, width
    tokens_PT, length_P = np.zeros(self.shape, np.int32), np.ones(rows, np.int32)
    for i, prompt in enumerate(block):
      tokens_PT[i, : len(prompt)], length_P[i] = prompt, len(prompt)
      self.stats.prompt_tokens += len(prompt)
    self.ready = self.device.read(tokens_PT, length_P)
    self.block = range(p, p + len(block))

  def _grow(self, length):
    """See to it that every slot has room for `length` tokens."""
    self.live = max(self.live, self.limits.fitting(length))
    if self.live <= self.room:
      return
    self.room = self.limits.room if self.limits.large else self.live
    if self.slots is None:
      self.slots = self.device.empty(self.rows, self.room, self.limits.pool)
    else:
      self._move(range(self.rows))

  def _cut(self, length):
    """Where half as long a cache would do, have it so: what has ended is not read.
    (Where shapes are one, none is shorter.)"""
    width = self.shape[1] if self.waiting else 0  # the next prompts need as much
    live = self.limits.fitting(max(length, width))
    if 2 * live > self.live:
      return
    self.live = live
    # So that each length is one program, as on the way up, the room for it is as long;
    # but of a large cache, which has had its full room for all of them.
    if not self.limits.large:
      self.room = live
      self._move(range(self.rows))

  def _shrink(self):
    """Move the busy slots together once a part of the rows would do."""
    rows = self.rows
    while self._needed() <= self._few(rows):
      rows = self._few(rows)
    if rows == self.rows:
      return
    moved = self._together(rows)
    self.busy = {new: self.busy[old] for new, old in moved.items() if old in self.busy}
    self.rows = rows
    self._move([moved[slot] for slot in range(rows)])

  def _few(self, rows: int) -> int:
    """Slots that the last responses of so many move to next; 0: they stay."""
    if self.limits.one and rows < self.sizes.rows:
      return 0
    return self.limits.few(rows)

  def _needed(self) -> int:
    """Slots that do for what runs."""
    return len(self.busy)

  def _together(self, rows: int) -> dict[int, int]:
    """Slots of which the first `rows` are taken, by those that they were."""
    idle = [slot for slot in range(self.rows) if slot not in self.busy]
    return dict(zip(range(rows), [*self.busy, *idle], strict=False))

  def _move(self, row_B):
    self.slots = self.device.move(self.slots, row_B, self.room)


def _lanes(rows: int, width: int, most: int) -> int:
  """Responses that one admission can start, of prompts of so many tokens."""
  return max(1, min(rows // 4, most // width))


def _block(
  tokens_P: Sequence[int], rows: int, n: int, longest: int, most: int
) -> tuple[int, int]:
  """Prompts that are read at a time, and tokens of each: enough for all slots, if they
  are not too many tokens. `tokens_P`: of the prompts that come, the next first."""
  block = _power(-(-rows // n))
  while True:
    width = _bucket(max(tokens_P[:block]), longest)
    if block == 1 or block * width <= most:
      return block, width
    block //= 2


def _power(n: int) -> int:
  return 1 << max(0, n - 1).bit_length()


def _bucket(n: int, most: int) -> int:
  """n rounded up to 32, 64, 96, 128, 192, 256, 384 ..., or to `most` if less."""
  size = 32
  while size < n:
    size += max(32, _power(size + 1) // 4)
  return min(size, -(-most // 16) * 16)
