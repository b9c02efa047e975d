"""Seconds of each part of a step, and the programs that were made ready meanwhile."""

import contextlib
import time
from collections.abc import Iterator

from pxy.safety import compiles


class Compiles:
  """Counts programs made ready to run, and the seconds that it took, while it is open.

  Compiled or read from the cache: JAX tells of both alike.
  """

  def __init__(self):
    self.count, self.seconds = 0, 0.0

  def __enter__(self):
    compiles.start(self._heard)
    return self

  def __exit__(self, *_):
    compiles.stop(self._heard)

  def _heard(self, event: str, seconds: float) -> None:
    if event == compiles.COMPILED:
      self.count += 1
      self.seconds += seconds


class Clock:
  """`with clock("gen"): ...` counts seconds; `take` gives them, and starts anew.

  A context manager: while it is open, it counts programs too.
  """

  def __init__(self):
    self._seconds: dict[str, float] = {}
    self._compiles, self._counted = Compiles(), 0
    self._start = time.perf_counter()

  def __enter__(self):
    self._compiles.__enter__()
    return self

  def __exit__(self, *_):
    self._compiles.__exit__()

  def start(self) -> None:
    """A step begins; what `add` was told since the last `take` belongs to it too."""
    self._start, self._counted = time.perf_counter(), self._compiles.count

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    self.add(name, time.perf_counter() - start)

  def add(self, name: str, seconds: float) -> None:
    """Counts seconds that were measured elsewhere."""
    self._seconds[name] = self._seconds.get(name, 0.0) + seconds

  def take(self) -> dict[str, float]:
    """timing_s/NAME of each part and of the whole step, and `compiles` in it."""
    seconds, self._seconds = self._seconds, {}
    seconds["step"] = time.perf_counter() - self._start
    taken = {f"timing_s/{name}": value for name, value in seconds.items()}
    return taken | {"compiles": self._compiles.count - self._counted}
