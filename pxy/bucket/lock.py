"""One writer to a folder of a bucket: an object that its holder keeps renewing.

A file's lock goes with its process; an object stays. So lock.json says who holds it, is
written anew every BEAT seconds, and each write asks that the object still be of the
generation that was seen last: of two that want it one gets it, and who has lost it is
told by the next write. Who finds it held

- by a process of this machine: waits for nothing; that is alive (refused) or is not
  (taken over at once, so that a killed run goes on);
- by another machine: sees whether its generation changes. It does within BEAT seconds
  while the holder lives (refused); it is taken over when it has not for EXPIRY seconds.

No clock of another machine is trusted. A holder that was silent for long (it was
stopped, the network was gone) learns from its next write whether it still is the
holder, and writes nothing else before (`confirm`).
"""

import contextlib
import json
import os
import pathlib
import platform
import sys
import threading
import time
import uuid

from pxy import fields, imports
from pxy.bucket import objects

psutil = imports.later("psutil")  # of runs in buckets

NAME = "lock.json"
BEAT = 10.0
EXPIRY = 60.0


class Lock:
  """A context manager; held while it is open.

  Args:
    what: is locked, in a message.
    wait: for who holds it and lives.

  Raises:
    fields.Error: another process holds it, or the bucket refuses.
  """

  def __init__(
    self, bucket: objects.Bucket, what: str = "this run", *, wait: bool = False
  ):
    self._bucket, self._what, self._wait = bucket, what, wait
    self._mine = json.dumps(_here() | {"token": uuid.uuid4().hex}).encode()
    self._generation = None
    self._until = 0.0
    self._gone = False
    self._over, self._renewing = threading.Event(), threading.Lock()

  def __enter__(self) -> "Lock":
    taken = self._taken()  # may wait for another's expiry
    self._renewed(_now(), taken)
    self._thread = threading.Thread(target=self._beat, name="pxy-lock", daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._over.set()
    self._thread.join(BEAT)  # a write that comes later is of another generation
    if self.fresh:
      with contextlib.suppress(fields.Error):  # it expires
        self._bucket.remove(NAME, self._generation)

  @property
  def fresh(self) -> bool:
    """Whether the store took the last sign of life, and not long ago."""
    return not self._gone and _now() <= self._until - EXPIRY / 2

  def check(self) -> None:
    """Refuses to go on when it is known that another process has the lock."""
    if self._gone:
      raise fields.Error(
        f"{self._bucket.url}: another process has taken {self._what} over, which was"
        f" silent for {EXPIRY:g} s; let one of the two end"
      )

  def confirm(self) -> None:
    """The same, and asks where that is not certain; before anything is written."""
    if not self.fresh:
      self._renew()
    self.check()

  def _taken(self) -> str:
    """Gets the lock; its generation."""
    since, seen, told = _now(), None, False
    while True:
      got = self._write(seen if seen and self._free(since) else "0")
      if got is not None:
        return got
      found = self._bucket.read(NAME)
      if found is None:  # given back meanwhile
        seen = None
        continue
      data, generation = found
      holder = _holder(data)
      if seen is None:
        seen, since = generation, _now()
        if _same_machine(holder):
          if not _alive(holder):
            since -= EXPIRY
            continue
          self._refuse(holder)
      elif generation != seen:
        self._refuse(holder)
        seen, since = generation, _now()
      elif self._free(since):  # what was to be written is not, and nobody else did
        continue
      if not told:
        told = True
        end = "waiting for its end; " if self._wait else ""
        print(
          f"pxy: {self._bucket.url} is locked by {_named(holder)}; {end}it is taken"
          f" over unless that gives a sign within {EXPIRY:g} s",
          file=sys.stderr,
          flush=True,
        )
      time.sleep(min(BEAT / 2, max(0.0, since + EXPIRY - _now())))

  def _free(self, since: float) -> bool:
    return _now() >= since + EXPIRY

  def _write(self, generation: str) -> str | None:
    """Writes it where it is of a generation; None where it is of another.

    An answer may be lost on the way, and the request be sent again: then it is there,
    and ours.
    """
    got = self._bucket.write(NAME, self._mine, generation)
    if got is None and (found := self._bucket.read(NAME)) and found[0] == self._mine:
      return found[1]
    return got

  def _refuse(self, holder: dict) -> None:
    """Of a holder that lives; nothing where it is to be waited for."""
    if self._wait:
      return
    raise fields.Error(
      f"--out {self._bucket.url}: another process works on {self._what}"
      f" ({_named(holder)}); wait for its end, or give another folder"
    )

  def _renewed(self, at: float, generation: str) -> None:
    self._generation, self._until = generation, at + EXPIRY

  def _renew(self) -> None:
    with self._renewing:
      at = _now()
      got = None if self._gone else self._write(self._generation)
      if got is None:
        self._gone = True
      else:
        self._renewed(at, got)

  def _beat(self) -> None:
    """The thread: renews until the end, or until another has it."""
    while not self._over.wait(BEAT) and not self._gone:
      with contextlib.suppress(fields.Error):  # the next time
        self._renew()


def _now() -> float:
  """Seconds of a clock that goes on while the machine is suspended, where there is one:
  another's does meanwhile."""
  if hasattr(time, "CLOCK_BOOTTIME"):
    return time.clock_gettime(time.CLOCK_BOOTTIME)
  return time.monotonic()


def _here() -> dict:
  """Who this process is: machine, number, start."""
  return {
    "host": platform.node(),
    "machine": _machine(),
    "process": os.getpid(),
    "started": psutil.Process().create_time(),
  }


def _machine() -> str:
  """Where a process's number means something: this boot, this space of numbers (a
  container has its own)."""
  with contextlib.suppress(OSError):
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  return f"{platform.node()} {psutil.boot_time():.0f}"


def _holder(data: bytes) -> dict:
  """What a lock says, with what it does not say left empty."""
  try:
    held = json.loads(data)
  except ValueError:
    held = None
  return {name: None for name in _here()} | (held if isinstance(held, dict) else {})


def _same_machine(holder: dict) -> bool:
  return holder["machine"] == _machine()


def _alive(holder: dict) -> bool:
  try:
    return abs(psutil.Process(holder["process"]).create_time() - holder["started"]) < 2
  except psutil.AccessDenied:
    return True
  except (psutil.NoSuchProcess, TypeError, ValueError):
    return False


def _named(holder: dict) -> str:
  return f"host {str(holder['host'])[:80]}, process {str(holder['process'])[:12]}"
