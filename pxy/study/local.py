"""Cells as processes of this machine, some at a time, its cores shared among them.

One thread starts them, looks after them and draws the table. SIGINT or SIGTERM goes on
to the cells, which save and end; the same command goes on from there. If this process
is killed, its cells are killed with it (Linux) and go on from their last checkpoint.
"""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Sequence

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table

from pxy.show import progress
from pxy.study import cell as cell_lib
from pxy.study import plan, signals, tally, work

DRAW = 2.0
"""Seconds between two tables."""


class Runner:
  """Runs cells until all have ended.

  Args:
    out: the study's folder.
    jobs: cells at a time.
    steps: of each cell's run, for the table.
  """

  def __init__(self, out: pathlib.Path, jobs: int, steps: dict[str, int]):
    self._out, self._jobs, self._steps = out, jobs, steps
    self._going: dict[int, work.Work] = {}

  def run(self, cells: Sequence[plan.Cell]) -> int:
    """Returns the number of the signal that ended it early, or 0."""
    waiting, drawn = list(cells), 0.0
    self._tally = tally.Tally(self._out, len(waiting), self._jobs)
    with signals.Signals() as asked, self._screen() as draw:
      try:
        while (waiting and not asked.number) or self._going:
          while waiting and not asked.number and len(self._going) < self._jobs:
            place = min(set(range(self._jobs)) - set(self._going))
            self._going[place] = work.Work(
              waiting.pop(0), self._out, cores(place, self._jobs)
            )
          if asked.new():
            for one in self._going.values():
              one.stop()
          for place, one in list(self._going.items()):
            if (found := one.look()) is not None:
              del self._going[place]
              self._tally.ended(one.cell.name, found, self._took())
          if time.monotonic() - drawn > DRAW:
            draw(self._table(len(waiting)))
            drawn = time.monotonic()
          time.sleep(work.LOOK)
      finally:
        for one in self._going.values():
          one.kill()
    return asked.number

  def _took(self) -> list[float]:
    """Seconds of each cell that goes on."""
    return [time.monotonic() - one.start for one in self._going.values()]

  def _table(self, waiting: int) -> rich_table.Table:
    left = self._tally.left(self._took())
    left = f", {progress.clock(left)} left" if self._tally.known else ""
    table = rich_table.Table(title=f"{waiting} cells wait{left}")
    for name in ("cell", "does", "step", "since"):
      table.add_column(name, justify="left" if name in ("cell", "does") else "right")
    for one in self._going.values():
      name = one.cell.name
      at = f"{cell_lib.step(self._out / name)}/{self._steps.get(name, '?')}"
      does = one.words[:1] and one.words[0]
      table.add_row(name, does, at, progress.clock(time.monotonic() - one.since))
    return table

  @contextlib.contextmanager
  def _screen(self):
    console = rich_console.Console(file=sys.stderr)
    if not console.is_terminal:
      yield lambda table: None
      return
    with rich_live.Live(console=console, transient=True) as live:
      yield live.update


def cores(place: int, jobs: int) -> set[int] | None:
  """The cores of one of `jobs` places: as many each as there are, or one in turn; None
  where a process cannot be held on some, as on macOS."""
  if not hasattr(os, "sched_getaffinity"):
    return None
  all_ = sorted(os.sched_getaffinity(0))
  if jobs >= len(all_):
    return {all_[place % len(all_)]}
  return set(all_[place::jobs])
