"""A process that dies ends the others, with a line that names it.

    pxy: process 1 of 2 (host-b:4711) is gone: not heard of for 30 s; ...

Left alone, the others wait in a collective for ever (TPU), or fail in one with an error
that names a socket (gloo), and JAX's own check aborts without a name. So a thread in
each process writes a counter to the key-value store of JAX's coordinator once a second,
and reads those of the others. Who has not counted for SILENT seconds is gone; once an
exception has come up here, which a dead neighbour may have caused, BROKEN seconds are
enough. A store that is silent so long is process 0, which has it: a second thread
looks, for the first may wait in there. Who ends with an error of its own leaves it
there as last words. Whoever finds a process gone says so through the store, and process
0, which runs the coordinator, leaves last, so that all can read it.

When process 0 dies, the store dies with it, and JAX's client aborts this process from a
thread of C++ at once (jaxlib 0.10; its callback for that case cannot be used from
Python). A handler of SIGABRT then says the line in its place; the death of another can
abort process 0 as well, now and then, and the handler waits until that one is known.

The store is reached through jax._src, as Orbax does: there is no public way to it.
Left out: going on without the dead process; the scheduler starts the run again, and
--resume auto goes on.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time

import jax
from jax._src import distributed

from pxy import config

BEAT = 1.0
"""Seconds between counts."""
SILENT = 30.0
"""Seconds without a count, after which a process is gone. Compiling takes longer, but
leaves Python's threads running."""
BROKEN = 6.0
"""The same, once an exception has come up in this process."""
COORDINATOR = 120
"""Seconds after which JAX itself gives a silent process up, with a stack of its own on
stderr: later than this file does."""
_CURE = "the run ends; start all processes again, with --resume auto"
_current: "Heartbeat | None" = None


def leave(error: Exception) -> None:
  """Ends this process, and the others with it, for an error that they wait behind.

  From any thread. Does nothing where no Heartbeat is open, as in a run of one process.
  """
  if _current is not None:
    _current.leave(error)


class Heartbeat:
  """A context manager around the work of one process of several.

  Left without an exception, it waits until all have come so far. An exception is held
  back until it is known whether a dead process caused it; if so, this process ends.

  Args:
    index, count: of the process, and of processes.
  """

  def __init__(self, index: int, count: int):
    self._index, self._count = index, count
    self._store = distributed.global_state.client
    self._names = {}
    self._seen = {}  # process: (its last count, when that was new here)
    self._heard = time.monotonic()  # when the store last answered
    self._limit = SILENT
    self._mine = None  # this process's own error
    self._closed = threading.Event()

  def __enter__(self):
    me = f"{socket.gethostname()}:{os.getpid()}"
    self._store.key_value_set(f"pxy/name/{self._index}", me, allow_overwrite=True)
    for i in range(self._count):  # by now all have joined
      name = self._store.blocking_key_value_get(f"pxy/name/{i}", 60_000)
      self._names[i] = f"process {i} of {self._count} ({name})"
    self._heard = time.monotonic()  # one of them may have been long in coming
    self._seen = {i: (None, self._heard) for i in self._names}
    global _current
    _current = self
    self._abort = _on_abort(self._aborted)
    self._abort.__enter__()
    self._threads = [
      threading.Thread(target=act, name=name, daemon=True)
      for act, name in ((self._watch, "pxy-beat"), (self._listen, "pxy-silence"))
    ]
    for thread in self._threads:
      thread.start()
    return self

  def leave(self, error: Exception) -> None:
    """See the function."""
    self._end(f"{self._names[self._index]} ended: {words(error)}")

  def __exit__(self, kind, error, _):
    global _current
    _current = None
    if kind is None:
      self._together()
    elif isinstance(error, Exception):
      self._mine = words(error)
      self._verdict()
      self._tell(f"{self._names[self._index]} ended: {self._mine}")
    self._close()
    self._abort.__exit__(None, None, None)

  def _close(self) -> None:
    self._closed.set()
    for thread in self._threads:
      thread.join()

  def _together(self) -> None:
    """Waits until all have finished; process 0 may take its time for the reports."""
    self._store.wait_at_barrier("pxy/end", 3_600_000)
    self._close()
    jax.distributed.shutdown()

  def _verdict(self) -> None:
    """Returns when every process is known to be alive, or to have met the same error;
    one that is not ends this."""
    start = time.monotonic()
    self._limit = BROKEN
    fresh = start + 2 * BEAT  # a last count may be read after its process has died
    while time.monotonic() < start + 2 * BROKEN and not self._closed.is_set():
      if all(when > fresh for i, (_, when) in self._seen.items() if i != self._index):
        return
      time.sleep(BEAT / 4)

  def _tell(self, text: str) -> None:
    """Leaves a line in the store; process 0 waits until the others have read it."""
    with contextlib.suppress(Exception):
      self._store.key_value_set("pxy/gone", text)  # the first one stands
    if self._index == 0:
      time.sleep(3 * BEAT)

  def _listen(self) -> None:
    """A thread: the store is silent where process 0 is, and `_watch` waits for it."""
    while self._index and not self._closed.wait(BEAT):
      silent = time.monotonic() - self._heard
      if silent > SILENT:
        self._gone(0, silent, tell=False)

  def _gone(self, i: int, silent: float, tell: bool = True) -> None:
    self._end(f"{self._names[i]} is gone: not heard of for {silent:.0f} s", tell)

  def _watch(self) -> None:
    """A thread: counts, and reads what the others count."""
    n = 0
    while not self._closed.wait(BEAT):
      n += 1
      try:
        mine = f"pxy/beat/{self._index}"
        self._store.key_value_set(mine, str(n), allow_overwrite=True)
        found = dict(self._store.key_value_dir_get("pxy/"))
      except Exception:  # of process 0, which JAX's client deals with
        continue
      now = self._heard = time.monotonic()
      if gone := found.get("pxy/gone"):
        if self._mine and gone.endswith(
          self._mine
        ):  # all say it, and end by themselves
          self._closed.set()
          return
        self._end(gone, tell=self._index == 0)
      for i, (count, when) in self._seen.items():
        if (beat := found.get(f"pxy/beat/{i}")) != count:
          self._seen[i] = beat, now
        elif now - when > self._limit and i != self._index:
          self._gone(i, now - when)

  def _end(self, text: str, tell: bool = True) -> None:
    if self._closed.is_set():
      return
    if tell:
      self._tell(text)
    _say(f"pxy: {text}; {_CURE}")
    os._exit(1)

  def _aborted(self) -> None:
    """In the thread that aborts: says why, if it is for want of process 0."""
    silent = time.monotonic() - self._heard
    if self._index and (silent > BROKEN or not _there()):
      _say(f"pxy: {self._names[0]} is gone: it does not answer; {_CURE}")
      os._exit(1)
    # Or one of JAX's threads gave up because of a neighbour, before the count could
    # tell: the thread that counts goes on meanwhile, and ends this with a name.
    self._limit = BROKEN
    time.sleep(2 * BROKEN)
    try:
      self._store.key_value_dir_get("pxy/")
    except Exception:  # the store gave up as well, so nothing can be counted
      others = [name for i, name in self._names.items() if i != self._index]
      _say(f"pxy: {' or '.join(others)} is gone: JAX lost the others; {_CURE}")
      os._exit(1)


def _there() -> bool:
  """Whether anyone listens where the coordinator did."""
  host, _, port = distributed.global_state.coordinator_address.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
  except OSError:
    return False
  return True


@contextlib.contextmanager
def _on_abort(act):
  """While open, `act` is called in the thread that calls abort().

  Python would call a handler of its own later, in the main thread: too late. When `act`
  returns, abort() goes on.
  """
  kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, kind], ctypes.c_void_p
  handler = kind(lambda _: act())
  libc.signal(signal.SIGABRT, handler)
  try:
    yield
  finally:
    libc.signal(signal.SIGABRT, kind(0))  # the default


def words(error: Exception) -> str:
  """What is said of an error, in a line; of an error with these words, the same."""
  text = " ".join(str(error).split())[:1000]
  named = isinstance(error, config.Error)
  return text if named else f"{type(error).__name__}: {text}"


def _say(text: str) -> None:
  with contextlib.suppress(OSError):
    os.write(sys.__stderr__.fileno(), f"{text}\n".encode())
