"""What a runner says while cells go on: a line for each that has ended, and how long
the others take."""

import pathlib
import sys
from collections.abc import Collection

from rich import console as rich_console

from pxy.bucket import mirror
from pxy.show import progress
from pxy.study import cell as cell_lib


class Tally:
  """Counts the cells that have ended.

  Args:
    out: the study's folder.
    total: cells that are to be run.
    places: cells at a time.
  """

  def __init__(self, out: pathlib.Path, total: int, places: int):
    self._out, self._total, self._places = out, total, places
    self._ended, self._took = 0, []

  @property
  def known(self) -> bool:
    """Whether a cell has told how long one takes."""
    return bool(self._took)

  def ended(self, name: str, found: dict, going: Collection[float] = ()) -> None:
    """After a cell: `found` as in its cell.json, `going` as of `left`."""
    if found["state"] == cell_lib.OPEN:
      if "why" in found:
        _say(f"{name}: left for the next time: {found['why']}")
      return
    self._ended += 1
    if found["state"] == cell_lib.FAILED:
      log = mirror.name(self._out / name / "log.txt")
      what = f"failed: {found['why']} (all of it: {log})"
    else:
      self._took.append(found["seconds"])
      what = f"done in {progress.clock(found['seconds'])}"
    more = self.known and self._ended < self._total
    _say(
      f"{name}: {what}; {self._ended} of {self._total}"
      + (f", {progress.clock(self.left(going))} left" if more else "")
    )

  def left(self, going: Collection[float] = ()) -> float:
    """Seconds until all have ended, if the others take as long as those that have.

    Args:
      going: seconds that each of those that are known to run has taken so far.
    """
    mean = sum(self._took) / max(1, len(self._took))
    waiting = self._total - self._ended - len(going)
    rest = sum(max(0.0, mean - seconds) for seconds in going)
    return (rest + mean * waiting) / self._places


def _say(text: str) -> None:
  rich_console.Console(file=sys.stderr, highlight=False, soft_wrap=True).print(
    text, markup=False
  )
