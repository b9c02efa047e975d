"""Every wait of a run has a name and a deadline; a run that hangs says where, and ends.

Past the deadline the stacks of all threads go to RUN/stacks.txt and stderr, and the
process ends with code 1: what waits for a dead device or file system would otherwise
hold its machines for ever, and say nothing. The innermost wait counts. Sampling has its
deadline for each dispatch, grading for each grade, a compilation apart from what it
belongs to; what has no name of its own (start-up, work of the host) is `host`.

C code that holds Python's global lock stops this thread too. Behind it stands a timer
of faulthandler's, a thread of C that needs no lock: MARGIN later than the deadline it
writes `Timeout (h:mm:ss)!` and the stacks to stderr, and ends the process with code 1.
So ends also one whose last words wait for the file system that hangs.
"""

import contextlib
import faulthandler
import math
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator

from pxy import config
from pxy.parallel import process
from pxy.safety import compiles

MARGIN = 30.0
"""Seconds beyond a deadline that the thread has to end the process in order."""


class Watchdog:
  """A context manager: `with watch("update"): ...`. Until it is entered, it sleeps.

  Args:
    folder: where stacks.txt goes.
    waits: seconds by name.
  """

  def __init__(
    self, folder: pathlib.Path | None = None, waits: config.Waits | None = None
  ):
    self._folder, self._limits = folder, waits or config.Waits()
    self._waits: list[tuple[str, float]] = []  # innermost last: name, time of the end
    self._closed = threading.Event()
    self._stderr = None  # of the timer; None: it is not to be set

  def __enter__(self):
    self._file = process.own("stacks.txt")  # asks the backend, which may hang later
    self._stderr = _descriptor(sys.__stderr__)
    self._push("host")
    compiles.start(self._heard)
    self._thread = threading.Thread(
      target=self._watch, name="pxy-watchdog", daemon=True
    )
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._closed.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()
    os.close(self._stderr)
    self._stderr = None
    compiles.stop(self._heard)

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """A wait, by its name in config.Waits."""
    depth = len(self._waits)
    self._push(name)
    try:
      yield
    finally:
      del self._waits[depth:]
      self._renew()
      self._arm()

  def beat(self, name: str) -> None:
    """The wait `name` goes on: its deadline counts from here."""
    if self._waits and self._waits[-1][0] == name:
      self._renew()

  def _push(self, name: str) -> None:
    self._waits.append(self._wait(name))
    self._arm()

  def _wait(self, name: str) -> tuple[str, float]:
    return name, time.monotonic() + getattr(self._limits, name)

  def _renew(self) -> None:
    """The innermost wait begins anew; the timer follows within a poll."""
    if self._waits:
      self._waits[-1] = self._wait(self._waits[-1][0])

  def _arm(self) -> None:
    """Sets the timer, of which a process has one; 0.1 ms, so not at every beat."""
    waits = self._waits[-1:]  # the main thread may be between two of them
    if waits and self._stderr is not None:
      left = max(0.0, waits[0][1] - time.monotonic()) + MARGIN
      left = math.ceil(min(left, threading.TIMEOUT_MAX / 2))  # it writes the fraction
      faulthandler.dump_traceback_later(left, exit=True, file=self._stderr)

  def _heard(self, event: str, _: float) -> None:
    if event == compiles.LOWERED and self._waits[-1][0] != "compile":
      self._push("compile")
    elif event == compiles.COMPILED and self._waits[-1][0] == "compile":
      self._waits.pop()
      self._renew()

  def _watch(self) -> None:
    while not self._closed.wait(0.5):
      self._arm()
      waits = self._waits[-1:]
      if waits and time.monotonic() > waits[0][1]:
        self._end(waits[0][0])

  def _end(self, name: str) -> None:
    path = self._folder / self._file
    with contextlib.suppress(OSError):
      self._folder.mkdir(parents=True, exist_ok=True)
      with open(path, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    with contextlib.suppress(OSError, ValueError):
      faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    said = (
      f"{name} took more than waits.{name} {getattr(self._limits, name):g} s;"
      f" where each thread was is above and in {path}"
    )
    process.leave(config.Error(said))
    with contextlib.suppress(OSError, ValueError):
      print(
        f"pxy: {said}; continue with --resume auto", file=sys.__stderr__, flush=True
      )
    os._exit(1)


def _descriptor(stream) -> int:
  """A descriptor of its own of a stream; where there is none, one that takes all."""
  try:
    return os.dup(stream.fileno())
  except (AttributeError, OSError, ValueError):
    return os.open(os.devnull, os.O_WRONLY)
