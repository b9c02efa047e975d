"""Every wait of a run has a name and a deadline; a run that hangs says where, and ends.

Past the deadline the stacks of all threads go to RUN/stacks.txt and stderr, and the
process ends with code 1: what waits for a dead device or file system would otherwise
hold its machines for ever, and say nothing. The innermost wait counts. Sampling has its
deadline for each dispatch, grading for each grade, a compilation apart from what it
belongs to; what has no name of its own (start-up, work of the host) is `host`.

Left out: a hang inside C code that holds Python's global lock stops this thread too.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator

import jax

from pxy import config
from pxy.parallel import process

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


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

  def __enter__(self):
    self._file = process.own("stacks.txt")  # asks the backend, which may hang later
    self._push("host")
    jax.monitoring.register_event_duration_secs_listener(self._heard)
    self._thread = threading.Thread(
      target=self._watch, name="pxy-watchdog", daemon=True
    )
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._closed.set()
    self._thread.join()
    jax.monitoring.unregister_event_duration_listener(self._heard)

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

  def beat(self, name: str) -> None:
    """The wait `name` goes on: its deadline counts from here."""
    if self._waits and self._waits[-1][0] == name:
      self._renew()

  def _push(self, name: str) -> None:
    self._waits.append((name, time.monotonic() + getattr(self._limits, name)))

  def _renew(self) -> None:
    if self._waits:
      self._push(self._waits.pop()[0])

  def _heard(self, event: str, *_, **__) -> None:
    if event == _LOWERED and self._waits[-1][0] != "compile":
      self._push("compile")
    elif event == _COMPILED and self._waits[-1][0] == "compile":
      self._waits.pop()
      self._renew()

  def _watch(self) -> None:
    while not self._closed.wait(0.5):
      waits = self._waits[-1:]  # the main thread may be between two of them
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
    with contextlib.suppress(OSError, ValueError):
      print(
        f"pxy: {name} took more than waits.{name} {getattr(self._limits, name):g} s;"
        f" where each thread was is above and in {path}; continue with --resume auto",
        file=sys.__stderr__,
        flush=True,
      )
    os._exit(1)
