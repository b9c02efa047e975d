"""Cells as processes of this machine, some at a time, its cores shared among them.

One thread starts them, looks after them and draws the table. SIGINT or SIGTERM goes on
to the cells, which save and end; the same command goes on from there. If this process
is killed, its cells are killed with it (Linux) and go on from their last checkpoint.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table

from pxy.show import progress
from pxy.study import cell as cell_lib
from pxy.study import plan

LOOK = 0.1
"""Seconds between two looks at the processes."""
DRAW = 2.0
"""Seconds between two tables."""
_TIED = """
import os, sys
from pxy.rewards import jail
jail.die_with_parent()
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command, and dies with this process. Not between fork and exec: what JAX
has started in this process, if it was imported, must not be forked."""


@dataclasses.dataclass
class Going:
  """A cell that runs: its process, which of its commands, where, since when."""

  cell: plan.Cell
  process: subprocess.Popen
  words: list[str]
  place: int
  start: float


class Runner:
  """Runs cells until all have ended.

  Args:
    out: the study's folder.
    jobs: cells at a time.
    steps: of each cell's run, for the table.
  """

  def __init__(self, out: pathlib.Path, jobs: int, steps: dict[str, int]):
    self._out, self._jobs, self._steps = out, jobs, steps
    self._going: list[Going] = []
    self._since: dict[str, float] = {}
    self._took: list[float] = []
    self._signal = 0

  def run(self, cells: Sequence[plan.Cell]) -> int:
    """Returns the number of the signal that ended it early, or 0."""
    waiting = list(cells)
    total, drawn = len(waiting), 0.0
    with self._signals(), self._screen() as draw:
      try:
        while (waiting and not self._signal) or self._going:
          while waiting and not self._signal and len(self._going) < self._jobs:
            cell = waiting.pop(0)
            self._since[cell.name] = time.monotonic()
            self._next(cell, self._free())
          for one in list(self._going):
            if one.process.poll() is not None:
              self._going.remove(one)
              self._ended(one, total, len(waiting))
          if time.monotonic() - drawn > DRAW:
            draw(self._table(len(waiting)))
            drawn = time.monotonic()
          time.sleep(LOOK)
      finally:
        for one in self._going:
          one.process.kill()
          one.process.wait()
    return self._signal

  def _free(self) -> int:
    return min(set(range(self._jobs)) - {one.place for one in self._going})

  def _next(self, cell: plan.Cell, place: int) -> bool:
    """Starts the first of a cell's commands that has not done its work yet."""
    folder = self._out / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    for words in cell_lib.commands(cell, self._out):
      if cell_lib.ended(words, folder):
        continue
      with open(folder / "log.txt", "ab") as log:
        command = [sys.executable, "-c", _TIED, str(os.getpid()), *cell_lib.argv(words)]
        process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
          start_new_session=True,  # Ctrl-C is for this process, which asks them once
        )  # fmt: skip
      with contextlib.suppress(OSError, AttributeError):  # as on macOS
        os.sched_setaffinity(process.pid, cores(place, self._jobs))
      self._going.append(Going(cell, process, words, place, time.monotonic()))
      return True
    seconds = time.monotonic() - self._since[cell.name]
    cell_lib.write(cell, self._out, cell_lib.DONE, seconds=round(seconds, 1))
    return False

  def _ended(self, one: Going, total: int, waiting: int) -> None:
    """After a command: the next one, or how the cell has ended."""
    folder, name = self._out / one.cell.name, one.cell.name
    if self._signal:
      return
    if not cell_lib.ended(one.words, folder):
      why = cell_lib.tail(folder)
      cell_lib.write(one.cell, self._out, cell_lib.FAILED, why=why)
      self._say(f"{name}: failed: {why} (all of it: {folder / 'log.txt'})")
    elif not self._next(one.cell, one.place):
      seconds = time.monotonic() - self._since[name]
      self._took.append(seconds)
      left = waiting + len(self._going)
      self._say(
        f"{name}: done in {progress.clock(seconds)}; {total - left} of {total}"
        + (f", {progress.clock(self._left(waiting))} left" if left else "")
      )

  def _left(self, waiting: int) -> float:
    """Seconds until all have ended, if the others take as long as those that have."""
    mean = sum(self._took) / max(1, len(self._took))
    going = sum(
      max(0.0, mean - (time.monotonic() - self._since[one.cell.name]))
      for one in self._going
    )
    return (going + mean * waiting) / self._jobs

  def _say(self, text: str) -> None:
    rich_console.Console(file=sys.stderr, highlight=False, soft_wrap=True).print(
      text, markup=False
    )

  def _table(self, waiting: int) -> rich_table.Table:
    left = f", {progress.clock(self._left(waiting))} left" if self._took else ""
    table = rich_table.Table(title=f"{waiting} cells wait{left}")
    for name in ("cell", "does", "step", "since"):
      table.add_column(name, justify="left" if name in ("cell", "does") else "right")
    for one in self._going:
      name = one.cell.name
      at = f"{cell_lib.step(self._out / name)}/{self._steps.get(name, '?')}"
      table.add_row(
        name, one.words[0], at, progress.clock(time.monotonic() - one.start)
      )
    return table

  @contextlib.contextmanager
  def _screen(self):
    console = rich_console.Console(file=sys.stderr)
    if not console.is_terminal:
      yield lambda table: None
      return
    with rich_live.Live(console=console, transient=True) as live:
      yield live.update

  @contextlib.contextmanager
  def _signals(self):
    def heard(number, _):
      self._signal = number
      for one in self._going:
        one.process.send_signal(signal.SIGTERM)

    old = {
      number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
      yield
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)


def cores(place: int, jobs: int) -> set[int]:
  """The cores of one of `jobs` places: as many each as there are, or one in turn."""
  all_ = sorted(os.sched_getaffinity(0))
  if jobs >= len(all_):
    return {all_[place % len(all_)]}
  return set(all_[place::jobs])
