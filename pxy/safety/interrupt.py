"""SIGTERM and SIGINT ask for an end, which comes within a grace time; two end at once.

    0              `stop()` is true: the main thread saves at its next polling point
    grace / 2      it has not come to one: a thread saves what it kept last, and ends
    grace          the process is over in any case

Python runs signal handlers between two steps of the main thread, which may sit in a
compilation for minutes. So the signal's number goes to a pipe (signal.set_wakeup_fd),
and a thread reads it. Before there is a run, nothing is worth a wait: the process ends
at once; after one, what it still writes (a report, an upload) has the grace time. The
exit code is 0 when nothing is lost that could be saved.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

GRACE = 20.0
"""Seconds; `save.grace` of a run's config."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """A polling point found that an end was asked for; what is unfinished is dropped."""


class Interrupt:
  """Calling it tells whether an end was asked for; made by `listen`.

  Attributes:
    grace: seconds from the first signal to the end.
    whole: held while a run is being saved; who holds it when the end comes, ends it.
    agreed: what a poll makes of this process's answer; of several processes, all have
      to end at the same one.
  """

  def __init__(self, grace: float):
    self.grace = grace
    self.agreed = bool
    self.whole = threading.Lock()
    self._asked = self._over = False
    self._rescue: Callable[[float], str] | None = None

  def __call__(self) -> bool:
    with self.whole:  # for ever, once the thread has taken over
      asked = self._asked
    return self.agreed(asked)

  @contextlib.contextmanager
  def rescued(self, rescue: Callable[[float], str]) -> Iterator[None]:
    """While open, `rescue` can save the run from another thread.

    It gets the time (time.monotonic) until which it may wait, and returns a line that
    says how the run ends.
    """
    self._rescue, self._over = rescue, False
    try:
      yield
    finally:
      with self.whole:
        self._rescue, self._over = None, True

  def open(self) -> Callable[[], None]:
    """Takes the signals over; gives the function that hands them back."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    wakeup = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    before = {n: signal.signal(n, lambda *_: None) for n in SIGNALS}
    thread = threading.Thread(
      target=self._listen, args=(out,), name="pxy-signals", daemon=True
    )
    thread.start()

    def close():
      for number, handler in before.items():
        signal.signal(number, handler)
      signal.set_wakeup_fd(wakeup)
      os.close(into)
      thread.join()
      os.close(out)

    return close

  def _listen(self, signals: int) -> None:
    """The thread: waits for signals until the pipe is closed at its other end."""
    number = _read(signals, None)
    if not number:
      return
    until = time.monotonic() + self.grace
    self._asked = True
    name = signal.Signals(number).name
    if self._rescue is None and not self._over:
      _leave(0, f"{name}: nothing to save")
    doing = "finishing" if self._over else "saving"
    _say(f"{name}: {doing}, then exit (again: at once)")
    number = _read(signals, self.grace / 2)
    if number is None:
      threading.Thread(target=self._end, args=(until,), daemon=True).start()
      number = _read(signals, until - time.monotonic())
    if number is None:
      what = "its checkpoints are whole, but its last files are not written"
      _leave(
        1,
        f"{what} within {self.grace:g} s; start it again, with --resume auto"
        if self._over
        else f"not saved within {self.grace:g} s; the last checkpoint stands",
      )
    if number:
      os._exit(128 + number)

  def _end(self, until: float) -> None:
    """Saves in the main thread's place, unless that is saving."""
    self.whole.acquire()
    if self._rescue is None:  # it has ended meanwhile
      self.whole.release()
      return
    try:
      text = self._rescue(until - 1.0)
    except Exception as error:
      _leave(1, f"not saved: {' '.join(str(error).split())}")
    _leave(0, text)


_open: Interrupt | None = None


def at_once() -> None:
  """Ctrl-C ends the process with code 130, for commands that have nothing to save.

  Raised as KeyboardInterrupt inside an import, it would come out as an ImportError.
  """
  signal.signal(signal.SIGINT, lambda *_: _leave(130, "interrupted"))


def start(grace: float = GRACE) -> Interrupt:
  """Listens until the process is over; for the command line, before its imports."""
  global _open
  _open = Interrupt(grace)
  _open.open()
  return _open


@contextlib.contextmanager
def listen(grace: float = GRACE) -> Iterator[Interrupt]:
  """The Interrupt of a run: that of the command line, or one of its own.

  Outside the main thread, where Python allows no handlers, it never asks for an end.
  """
  if _open is not None:
    _open.grace = grace
    yield _open
    return
  stop = Interrupt(grace)
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  close = stop.open()
  try:
    yield stop
  finally:
    close()


def _read(signals: int, seconds: float | None) -> int | None:
  """The next signal's number; 0: the pipe was closed, None: none came in time."""
  until = None if seconds is None else time.monotonic() + seconds
  while True:
    left = None if until is None else max(0.0, until - time.monotonic())
    if not select.select([signals], [], [], left)[0]:
      return None
    byte = os.read(signals, 1)
    if not byte or byte[0] in SIGNALS:
      return byte[0] if byte else 0


def _say(text: str, file=None) -> None:
  with contextlib.suppress(OSError, ValueError):
    print(f"pxy: {text}", file=file or sys.stderr, flush=True)


def _leave(code: int, text: str) -> None:
  """Ends the process from a thread; what the main thread does is given up."""
  _say(text, sys.__stderr__)  # sys.stderr may be caught by whoever parses options
  with contextlib.suppress(OSError, ValueError):
    if sys.stderr.isatty():
      sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code)
