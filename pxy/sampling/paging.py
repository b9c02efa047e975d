"""A schedule over a pool of pages: tokens bound the slots, not the longest text.

    keep     before each stretch every response gets the pages it may fill, the oldest
             first; where its part has none left the youngest there goes on in another,
             or is put back, and begins again later
    admit    the next response goes where the fewest run, if there are pages for its
             prompt and a stretch, and one for each that runs there
    retire   its pages are free, and the prompt's when nobody shares them any more
    level    once nothing waits, some go on in a part that holds less (level.py)

Responses to a prompt share its pages within a part of the pool. But they are often
alike in length, and a turn waits for the part whose rows hold most: so they are dealt
out over the parts while half of the pool is free, and put together from then on.

What was put back is drawn again from its own key: the same tokens. One response that is
as long as can be has place in each part (engine.Engine refuses less), so the oldest
always ends.
"""

import itertools

import numpy as np

from pxy.model import paged
from pxy.sampling import level, pages, schedule


class Paged(schedule.Schedule):
  """A Schedule whose cache is in pages; arguments are those of a Schedule."""

  def __init__(self, *args):
    super().__init__(*args)
    pool = self.limits.pool
    self.page, self.parts = pool.tokens, pool.parts
    self._pages_each = pool.pages // pool.parts
    self.table = pages.Table(self._pages_each, self.parts)
    self._busy_R = [0] * self.parts
    self._filled_R = [[] for _ in range(self.parts)]  # (page, row, block), by part
    self._closed = set()  # Parts that have put something back for the coming stretch.
    self._age, self._begun = {}, itertools.count()  # (p, r): how many began before.
    self._told = {}  # (p, r): tokens that were handed on before it was put back.

  def _holds(self, turns):
    new = [0] * self.parts
    for slot, draft in self.busy.items():
      there = len(self.table.of(_who(draft)))
      new[self._part(slot)] += max(0, self._need(self._reach(draft, turns)) - there)
    return all(self.table.free(part) >= pages for part, pages in enumerate(new))

  def _keep(self):
    self._closed = set()
    for draft in sorted(self.busy.values(), key=lambda draft: self._age[_who(draft)]):
      who, pages = _who(draft), self._need(self._reach(draft))
      while who in self.table and not self.table.extend(who, pages):
        slot = next(slot for slot, other in self.busy.items() if other is draft)
        self._make_room(self._part(slot))

  def _make_room(self, part: int):
    """The youngest of a part goes on in another, or begins again."""
    there = [slot for slot in self.busy if self._part(slot) == part]
    slot = max(there, key=lambda slot: self._age[_who(self.busy[slot])])
    places, free = self._left()
    pages = self._need(self._reach(self.busy[slot]))
    others = [
      to for to in range(self.parts) if to != part and places[to] and free[to] >= pages
    ]
    if others:
      self._carry(slot, max(others, key=free.__getitem__))
    else:
      self._put_back(slot)

  def _put_back(self, slot: int):
    """A response begins again, before all that wait."""
    draft = self.busy[slot]
    self._end(slot)
    self._closed.add(self._part(slot))
    self._told[_who(draft)] = max(draft.told, draft.drawn)
    self.waiting.appendleft(_who(draft))
    self.stats.redone += draft.drawn

  def _place(self, p):
    full, own = self._asked(p)
    each = self.rows // self.parts
    found = []
    for part, busy in enumerate(self._busy_R):
      there, free = self.table.shares(part, p), self.table.free(part)
      new = 0 if there else full
      if busy < each and free >= new + own + busy and part not in self._closed:
        found.append((new > 0 and 2 * free < self._pages_each, busy, new, -free, part))
    return self._idle(min(found)[-1]) if found else None

  def _begin(self, slot, p, r):
    draft = super()._begin(slot, p, r)
    draft.told = self._told.pop((p, r), 0)
    self._age[p, r] = next(self._begun)
    full, own = self._asked(p)
    part, row = self._part(slot), p - self.block.start
    new = self.table.begin((p, r), part, p, full, own)
    self._busy_R[part] += 1
    filled = self._filled_R[part]
    filled += [(page, row, block) for block, page in enumerate(new)]
    if draft.start % self.page:
      filled.append((self.table.of((p, r))[full], row, full))
    return draft

  def _end(self, slot):
    self.table.end(_who(self.busy[slot]))
    self._busy_R[self._part(slot)] -= 1
    super()._end(slot)

  def _fills(self):
    most = schedule.filled(*self._shape(), self.limits.pool)
    lanes_3RA = np.zeros((3, self.parts, most), np.int32)
    lanes_3RA[0] = self.limits.pool.pages  # Out of range: an unused lane.
    for part, filled in enumerate(self._filled_R):
      lanes_3RA[:, part, : len(filled)] = np.reshape(filled, (-1, 3)).T
      filled.clear()
    return {"pages": tuple(lanes_3RA)}

  def _pages(self):
    page_BP = np.zeros((self.rows, self.room // self.page), np.int32)
    for slot, draft in self.busy.items():
      there = self.table.of(_who(draft))
      page_BP[slot, : len(there)] = there
    busy_B = np.array([slot in self.busy for slot in range(self.rows)])
    return {"pages": (page_BP, busy_B)}

  def _level(self):
    held = {
      slot: (self._part(slot), len(self.table.of(_who(draft))))
      for slot, draft in self.busy.items()
    }
    for slot, part in level.moves(held, *self._left()):
      self._carry(slot, part)

  def _left(self) -> tuple[list[int], list[int]]:
    """(slots, pages) of each part that can be taken: a page is left for each that runs
    there."""
    each = self.rows // self.parts
    return [each - busy for busy in self._busy_R], [
      self.table.free(part) - busy for part, busy in enumerate(self._busy_R)
    ]

  def _carry(self, slot: int, part: int):
    """A response goes on in another part, where there is room."""
    new, giver, draft = self._idle(part), self._part(slot), self.busy.pop(slot)
    copied = self.table.carry(_who(draft), part)
    for i in range(0, len(copied), paged.CARRIED):
      some = copied[i : i + paged.CARRIED]
      lanes_2A = np.full((2, paged.CARRIED), self.limits.pool.pages, np.int32)
      lanes_2A[:, : len(some)] = np.transpose(some)
      self.slots = self.device.carry(self.slots, giver, part, *lanes_2A)
    self.busy[new] = draft
    self._busy_R[giver] -= 1
    self._busy_R[part] += 1
    row_B = list(range(self.rows))
    row_B[new], row_B[slot] = slot, new
    self._move(row_B)

  def _needed(self):
    return max(self._busy_R) * self.parts

  def _together(self, rows):
    moved = {}
    for part in range(self.parts):
      there = [slot for slot in range(self.rows) if self._part(slot) == part]
      there.sort(key=lambda slot: slot not in self.busy)
      each = rows // self.parts
      moved |= dict(zip(range(part * each, (part + 1) * each), there, strict=False))
    return moved

  def _part(self, slot: int) -> int:
    return slot * self.parts // self.rows

  def _idle(self, part: int) -> int:
    """A slot of a part that has no response; there is one."""
    each = self.rows // self.parts
    there = range(part * each, (part + 1) * each)
    return next(slot for slot in there if slot not in self.busy)

  def _need(self, tokens: int) -> int:
    """Pages of so many tokens."""
    return -(-tokens // self.page)

  def _asked(self, p: int) -> tuple[int, int]:
    """(full pages of a prompt, pages that a response to it begins with beside them)."""
    start = len(self.prompts[p])
    full = start // self.page
    return full, self._need(start + min(self.stretch, self.limits.limit)) - full


def _who(draft) -> tuple[int, int]:
  return draft.p, draft.r
