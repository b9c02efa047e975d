"""The reward pool: grades samples in worker processes, while others are being sampled.

A verifier is code that meets hostile text, so it runs elsewhere (worker.py, jail.py),
and whatever it does costs its own sample and nothing else. Two lines of defence:

  in the worker   a user's function has its deadline and its memory for each sample
  here            a worker that is silent for longer than that, dies, or breaks the
                  protocol is killed and replaced; the sample it was at has failed, and
                  the others of its round are graded again elsewhere

One thread runs a selector over all the pipes; futures carry the outcomes to whoever
waits. Samples travel in rounds, to spare context switches: many for pxy's own graders,
one for a user's function. Left out: graders on other machines.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from pxy import config
from pxy.rewards import tasks

Item, Outcome = tasks.Item, tasks.Outcome

_HEADER = struct.Struct(">I")
_LARGEST_SAMPLE = 64 << 20
_LARGEST_REPLY = 1 << 20
_ROUND = 16
_START = 120.0
"""Seconds a worker may take to import a user's function."""
_GRACE = 2.0
"""Seconds over the deadline before a worker that should have answered is killed."""
_STARTS = 3
"""Workers that may die in a row while starting, before the pool gives up."""
_KEEP = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


class Pool:
  """Workers with a lifetime: `with Pool(cfg.reward, grader) as pool: pool.submit(item)`.

  Args:
    reward: number of workers, deadline (seconds), memory (MB).
    grader: `auto`, a name of tasks.OWN, or a user's function; see tasks.resolve.
    folders: where a user's function is looked for, before the current folder.

  Entering raises config.Error if the grader cannot be loaded. Leaving ends the workers;
  samples that wait at that moment have failed.
  """

  def __init__(self, reward: config.Reward, grader: str, folders: Sequence[str] = ()):
    self._reward = reward
    self._own = tasks.is_own(grader)
    self._spec = {
      "grader": grader,
      "deadline": reward.deadline,
      "memory_mb": reward.memory_mb,
      "folders": [*map(str, folders), os.getcwd()],
      "parent": os.getpid(),
    }
    self._lock = threading.Lock()
    self._queue: collections.deque[_Job] = collections.deque()
    self._thread: threading.Thread | None = None
    self._started: concurrent.futures.Future = concurrent.futures.Future()
    self._closing = False
    self._broken = ""
    self.layers: tuple[str, ...] = ()
    """What the workers are kept from, as far as this machine allows; see jail.py."""
    self.replaced = 0
    """Workers that had to be replaced."""

  def __enter__(self) -> "Pool":
    self._wake_out, self._wake_in = os.pipe()
    os.set_blocking(self._wake_in, False)
    os.set_blocking(self._wake_out, False)
    self._thread = threading.Thread(target=self._run, name="pxy-rewards", daemon=True)
    self._thread.start()
    try:
      self._started.result()
    except BaseException:
      self._close()
      raise
    return self

  def __exit__(self, *exc) -> None:
    self._close()

  def submit(self, item: Item) -> "concurrent.futures.Future[Outcome]":
    """A future for the item's outcome. It never raises for what a grader does."""
    body = json.dumps(dataclasses.asdict(item), default=str).encode()
    job = _Job(body)
    if len(body) > _LARGEST_SAMPLE:
      job.resolve(tasks.failed(f"the sample has more than {_LARGEST_SAMPLE >> 20} MB"))
      return job.future
    with self._lock:
      if self._thread is None or self._closing:
        raise RuntimeError("the reward pool is not open")
      self._queue.append(job)
      if len(self._queue) == 1:
        self._wake()
    return job.future

  def _wake(self) -> None:
    with contextlib.suppress(BlockingIOError):
      os.write(self._wake_in, b"w")

  def _close(self) -> None:
    with self._lock:
      if self._thread is None or self._closing:
        return
      self._closing = True
      self._wake()
    self._thread.join()
    os.close(self._wake_in)
    os.close(self._wake_out)

  def _run(self) -> None:
    """The thread: starts workers, feeds them, and reads what they say, until closed."""
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._wake_out, selectors.EVENT_READ)
    self._workers: list[_Worker] = []
    self._failed_starts = 0
    why = "the reward pool was closed"
    try:
      for _ in range(self._reward.workers):
        self._start()
      while not self._closing:
        self._feed()
        self._turn()
    except Exception as e:
      why = f"the reward pool failed: {type(e).__name__}: {e}"
      self._set_started(e)
    finally:
      self._end(why)

  def _start(self) -> None:
    worker = _Worker(self._spec)
    self._workers.append(worker)
    self._selector.register(worker.outlet, selectors.EVENT_READ, worker)

  def _end(self, why: str) -> None:
    for worker in self._workers:
      worker.kill()
    with self._lock:
      self._closing = True
      jobs = [*self._queue, *(job for w in self._workers for job in w.round)]
      self._queue.clear()
    for worker in self._workers:
      worker.reap()
    self._selector.close()
    for job in jobs:
      job.resolve(tasks.failed(why))
    self._set_started(RuntimeError(why))

  def _set_started(self, error: BaseException | None = None) -> None:
    if self._started.done():
      return
    if error is None:
      self._started.set_result(None)
    else:
      self._started.set_exception(error)

  def _feed(self) -> None:
    """Gives every idle worker its share of what waits."""
    for worker in self._workers:
      if not worker.ready or worker.round:
        continue
      with self._lock:
        share = math.ceil(len(self._queue) / len(self._workers))
        size = min(share, _ROUND if self._own else 1)
        jobs = [self._queue.popleft() for _ in range(size)]
      if jobs:
        worker.send(jobs, self._reward.deadline)
        self._write(worker)

  def _turn(self) -> None:
    """Waits for pipes or the next deadline, and deals with what has happened."""
    soonest = min((w.limit for w in self._workers), default=math.inf)
    left = soonest - time.monotonic()
    for key, events in self._selector.select(
      None if left == math.inf else max(0, left)
    ):
      if key.fd == self._wake_out:
        os.read(self._wake_out, 4096)
      elif events & selectors.EVENT_WRITE:
        self._write(key.data)
      elif key.data in self._workers:
        self._read(key.data)
    now = time.monotonic()
    for worker in [w for w in self._workers if w.limit <= now]:
      over = "did not start" if not worker.ready else "was silent"
      self._replace(worker, f"the worker {over} in time and was killed")

  def _write(self, worker: "_Worker") -> None:
    try:
      done = worker.flush()
    except OSError as e:
      return self._replace(worker, f"the worker died ({e.strerror})")
    registered = worker.inlet in self._selector.get_map()
    if done and registered:
      self._selector.unregister(worker.inlet)
    elif not done and not registered:
      self._selector.register(worker.inlet, selectors.EVENT_WRITE, worker)

  def _read(self, worker: "_Worker") -> None:
    data = os.read(worker.outlet, 1 << 16)
    if not data:
      return self._replace(worker, "the worker died")
    try:
      for message in worker.messages(data):
        if isinstance(message, dict):
          self._greet(worker, message)
        else:
          worker.round.popleft().resolve(_outcome(message))
          worker.expect(self._reward.deadline + _GRACE)
    except (ValueError, TypeError, LookupError, RecursionError):
      self._replace(worker, "the worker broke the protocol and was killed")

  def _greet(self, worker: "_Worker", message: dict) -> None:
    if "error" in message:
      self._break(config.Error(message["error"]))
    else:
      worker.ready, worker.limit = True, math.inf
      self.layers = tuple(message["ready"])
      self._failed_starts = 0
      self._set_started()

  def _replace(self, worker: "_Worker", why: str) -> None:
    """Ends a worker. The sample it was at has failed; the others go to the front."""
    worker.kill()
    for fd in (worker.outlet, worker.inlet):
      if fd in self._selector.get_map():
        self._selector.unregister(fd)
    worker.reap()
    self._workers.remove(worker)
    self.replaced += 1
    if worker.round:
      worker.round.popleft().resolve(tasks.failed(why))
      with self._lock:
        self._queue.extendleft(reversed(worker.round))
    if not worker.ready:
      self._failed_starts += 1
      if self._failed_starts >= _STARTS:
        return self._break(config.Error(f"reward workers do not start: {why}"))
    self._start()

  def _break(self, error: config.Error) -> None:
    raise error


class _Job:
  """A sample on its way: the message for it, and the future of its outcome."""

  def __init__(self, body: bytes):
    self.body = body
    self.future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()

  def resolve(self, outcome: Outcome) -> None:
    if self.future.set_running_or_notify_cancel():
      self.future.set_result(outcome)


class _Worker:
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
        json.dumps(spec),
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
    self.round: collections.deque[_Job] = collections.deque()
    self.limit = time.monotonic() + _START
    self._unsent = memoryview(b"")
    self._unread = bytearray()

  def expect(self, seconds: float) -> None:
    """A word from it is due in that time; none is while it has nothing to do."""
    self.limit = time.monotonic() + seconds if self.round else math.inf

  def send(self, jobs: list[_Job], deadline: float) -> None:
    self.round.extend(jobs)
    body = b"[" + b",".join(job.body for job in jobs) + b"]"
    self._unsent = memoryview(_HEADER.pack(len(body)) + body)
    self.expect(deadline + _GRACE)

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
    while len(self._unread) >= _HEADER.size:
      end = _HEADER.size + _HEADER.unpack_from(self._unread)[0]
      if end > _LARGEST_REPLY:
        raise ValueError("oversized message")
      if len(self._unread) < end:
        return
      body = bytes(self._unread[_HEADER.size : end])
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


def _outcome(message: list) -> Outcome:
  status, score, why, metrics, seconds = message
  score = math.nan if score is None else float(score)
  return Outcome(status, score, why, seconds, metrics)
