"""Which pages of the pool are whose: the host's half of model/paged.py.

A response has the full pages of its prompt, together with the other responses to that
prompt in the same part of the pool, and behind them pages of its own, of which the
first begins with what is left of the prompt. So what is written is written by one.
"""

import dataclasses
from collections.abc import Hashable


@dataclasses.dataclass
class _Prompt:
  """The full pages of a prompt in one part."""

  pages: list[int]
  owners: int = 0


@dataclasses.dataclass
class _Row:
  """What a response has."""

  part: int
  prompt: int
  own: list[int]


class Table:
  """Pages by response, whatever that is called; numbers are within a part.

  Args:
    pages: of each part.
    parts: of the pool.
  """

  def __init__(self, pages: int, parts: int):
    self._free = [list(range(pages))[::-1] for _ in range(parts)]
    self._prompts: dict[tuple[int, int], _Prompt] = {}  # by part and prompt
    self._rows: dict[Hashable, _Row] = {}

  def free(self, part: int) -> int:
    """Pages that nobody has."""
    return len(self._free[part])

  def shares(self, part: int, prompt: int) -> bool:
    """Whether the full pages of a prompt are there."""
    return (part, prompt) in self._prompts

  def begin(
    self, who: Hashable, part: int, prompt: int, full: int, own: int
  ) -> list[int]:
    """A response to a prompt of `full` full pages, with `own` pages for itself; `free`
    says whether there are so many. Returns the full pages if they are new, and are to
    be filled."""
    shared = self._prompts.get((part, prompt))
    new = [] if shared else self._take(part, full)
    if shared is None:
      shared = self._prompts[part, prompt] = _Prompt(new)
    shared.owners += 1
    self._rows[who] = _Row(part, prompt, self._take(part, own))
    return new

  def __contains__(self, who: Hashable) -> bool:
    """Whether a response has pages."""
    return who in self._rows

  def of(self, who: Hashable) -> list[int]:
    """Pages that a response has, in their order, shared ones first."""
    row = self._rows[who]
    return self._prompts[row.part, row.prompt].pages + row.own

  def extend(self, who: Hashable, pages: int) -> bool:
    """Sees to it that a response has `pages` in all; False, and nothing done, where its
    part has not so many."""
    row, more = self._rows[who], max(0, pages - len(self.of(who)))
    if more > self.free(row.part):
      return False
    row.own += self._take(row.part, more)
    return True

  def carry(self, who: Hashable, part: int) -> list[tuple[int, int]]:
    """A response goes on in another part, where `free` says that there is room for all
    that it has. Returns (page that it had, page that it has now) of those that are to
    be copied: where its prompt is there already, that one's are not."""
    row, had = self._rows[who], self.of(who)
    full = len(had) - len(row.own)
    self.end(who)
    new = self.begin(who, part, row.prompt, full, len(row.own))
    copied = had if new else had[full:]
    return list(zip(copied, new + self._rows[who].own, strict=True))

  def end(self, who: Hashable) -> None:
    """A response has ended, or was put back."""
    row = self._rows.pop(who)
    shared = self._prompts[row.part, row.prompt]
    shared.owners -= 1
    given = row.own
    if not shared.owners:
      given = given + self._prompts.pop((row.part, row.prompt)).pages
    self._free[row.part] += given[::-1]

  def _take(self, part: int, count: int) -> list[int]:
    return [self._free[part].pop() for _ in range(count)]
