"""A worker process as the trainer sees it: its pipes, its round, when it must speak.

The environment it starts with is a list of what it may know, not of what it may not, so
no token or key of the user's gets there by a new name. It starts by executing Python
afresh: a fork would copy the trainer's memory and its locks, and multiprocessing would
import the main script again, hence jax.
"""

import collections
import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from pxy.rewards import tasks, worker

START = 120.0
"""Seconds a worker may take to import a user's function, or a library."""
_KEEP = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


Future = concurrent.futures.Future[tasks.Outcome]


class Job:
  """Samples that a grader gets in one call, mostly one, and their outcomes' futures.

  slow: whether the grader may take long, so that it travels last in a round.
  size: how many there will be.
  state: what the grader is told of the run; see user.py.
  """

  def __init__(self, grader: str, slow: bool, size: int = 1, state: dict | None = None):
    self.slow, self.size = slow, size
    self.futures: dict[int, Future] = {}
    self._about = grader, state or {}
    self._items: dict[int, str] = {}

  def add(self, item: tasks.Item, place: int = 0) -> Future:
    """The future of a sample's outcome; place: the sample's, among the others."""
    self._items[place] = json.dumps(vars(item), default=_plain)
    self.futures[place] = concurrent.futures.Future()
    return self.futures[place]

  @property
  def full(self) -> bool:
    """Whether all samples are there."""
    return len(self._items) == self.size

  @property
  def bytes(self) -> int:
    """Of the message, about."""
    return sum(map(len, self._items.values()))

  def body(self) -> bytes:
    """The message: grader, state and the samples in their order."""
    grader, state = map(json.dumps, self._about)
    items = ",".join(item for _, item in sorted(self._items.items()))
    return f"[{grader},{state},[{items}]]".encode()

  def resolve(self, outcomes: Sequence[tasks.Outcome]) -> None:
    """Sets the outcomes, which are in the order of the samples."""
    for (_, future), one in zip(sorted(self.futures.items()), outcomes, strict=True):
      if not future.done() and future.set_running_or_notify_cancel():
        future.set_result(one)

  def fail(self, why: str) -> None:
    """All its samples have failed."""
    self.resolve([tasks.failed(why)] * len(self.futures))


class Worker:
  """A worker process seen from here: its pipes, its round, and when it must speak."""

  def __init__(self, spec: dict):
    environment = {k: os.environ[k] for k in _KEEP if k in os.environ}
    path = [_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment |= {
      "PYTHONPATH": os.pathsep.join(path),
      "PYTHONHASHSEED": "0",
      "JAX_PLATFORMS": "cpu",  # should a user's function import it
      "CUDA_VISIBLE_DEVICES": "",
      "OMP_NUM_THREADS": "1",
      "OPENBLAS_NUM_THREADS": "1",
      "MKL_NUM_THREADS": "1",
    }
    self.process = subprocess.Popen(
      [
        *(sys.executable, "-P", "-W", "ignore", "-m", "pxy.rewards.worker"),
        json.dumps({**spec, "parent": os.getpid()}),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      env=environment,
      start_new_session=True,
    )
    self.inlet = self.process.stdin.fileno()
    self.outlet = self.process.stdout.fileno()
    os.set_blocking(self.inlet, False)
    self.ready = False
    self.round: collections.deque[Job] = collections.deque()
    self.limit = time.monotonic() + START
    self._unsent = memoryview(b"")
    self._unread = bytearray()

  def expect(self, deadline: float, grace: float = 0.0) -> None:
    """A word from it is due in the deadline of each sample of its job, and the grace;
    none is while it has nothing to do."""
    seconds = deadline * self.round[0].size + grace if self.round else math.inf
    self.limit = time.monotonic() + seconds

  def send(self, jobs: list[Job]) -> None:
    """Makes the jobs its round; `flush` then writes them, as the pipe allows."""
    self.round.extend(jobs)
    body = b"[" + b",".join(job.body() for job in jobs) + b"]"
    self._unsent = memoryview(worker.HEADER.pack(len(body)) + body)

  def flush(self) -> bool:
    """Writes what the pipe takes; whether all is written."""
    while self._unsent:
      try:
        self._unsent = self._unsent[os.write(self.inlet, self._unsent) :]
      except BlockingIOError:
        return False
    return True

  def messages(self, data: bytes):
    """The complete messages, with `data` behind what came before."""
    self._unread += data
    while len(self._unread) >= worker.HEADER.size:
      end = worker.HEADER.size + worker.HEADER.unpack_from(self._unread)[0]
      size = self.round[0].size if self.round else 1
      if end > worker.LARGEST * size + worker.HEADER.size:
        raise ValueError("oversized message")
      if len(self._unread) < end:
        return
      body = bytes(self._unread[worker.HEADER.size : end])
      del self._unread[:end]
      yield json.loads(body)

  def kill(self) -> None:
    """Ends the process and, through the kernel, whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)

  def reap(self) -> None:
    self.process.wait()
    self.process.stdin.close()
    self.process.stdout.close()


def _plain(value):
  """What JSON lacks: numpy's scalars and arrays as Python's, anything else as text."""
  return value.tolist() if hasattr(value, "tolist") else str(value)
