"""The reward pool: grades samples in worker processes, while others are being sampled.

A verifier is code that meets hostile text, so it runs elsewhere (worker.py, jail.py),
and whatever it does costs its own sample and nothing else. Two lines of defence:

  in the worker   what may hang has its deadline and its memory for each sample
  here            a worker that is silent for longer than that, dies, or breaks the
                  protocol is killed and replaced; the sample it was at has failed, and
                  the others of its round are graded again elsewhere

One thread runs a selector over all the pipes; futures carry the outcomes to whoever
waits. Samples travel in rounds, to spare context switches: many for graders that search
strings, one for those that may take their time. A grader that compares the responses to
a prompt gets them once they are all there. Left out: graders on other machines.
"""

import collections
import concurrent.futures
import contextlib
import functools
import math
import os
import selectors
import threading
import time
from collections.abc import Sequence

from pxy import config
from pxy.rewards import remote, sample, tasks, weighted

Item, Outcome = sample.Item, sample.Outcome

_LARGEST_SAMPLE = 64 << 20
_ROUND = 16
_GRACE = 2.0
"""Seconds over the deadline before a worker that should have answered is killed."""
_STARTS = 3
"""Workers that may die in a row while starting, before the pool gives up."""


class Group:
  """The responses to one prompt, which some graders see together.

  Args:
    size: how many there will be.
    state: what a grader is told of the run; see user.py.
  """

  def __init__(self, size: int, state: dict | None = None):
    self.size, self.state = size, state
    self.jobs: dict[str, remote.Job] = {}
    """By grader, of those that see groups."""


class Pool:
  """Workers with a lifetime: `with Pool(reward, grader) as pool: pool.submit(item)`.

  Args:
    reward: number of workers, deadline (seconds), memory (MB).
    grader: `auto`, one of pxy's (tasks.OWN, tasks.FORKED), or a user's function; or
      several, whose scores are summed by weight (weighted.py).
    folders: where a user's function is looked for, before the current folder.

  Entering raises config.Error if the grader cannot be loaded. Leaving ends the workers;
  samples that wait at that moment have failed.
  """

  def __init__(
    self, reward: config.Reward, grader: config.Judge, folders: Sequence[str] = ()
  ):
    if reward.workers < 1 or reward.deadline <= 0 or reward.memory_mb < 1:
      raise config.Error("reward: workers, deadline and memory_mb must be positive")
    self._reward = reward
    self._weights = config.weights(grader)
    for name in self._weights:
      tasks.is_own(name)
    self.grader = grader
    several = set(self._weights.values()) != {1.0} or len(self._weights) > 1
    self.labels = weighted.labels(list(self._weights)) if several else []
    """Names of several rewards, under which each outcome's metrics have its scores."""
    self._spec = {
      "graders": list(self._weights),
      "deadline": reward.deadline,
      "memory_mb": reward.memory_mb,
      "folders": [*map(str, folders), os.getcwd()],
    }
    self._lock = threading.Lock()
    self._queue: collections.deque[remote.Job] = collections.deque()
    self._thread: threading.Thread | None = None
    self._started: concurrent.futures.Future = concurrent.futures.Future()
    self._closing = False
    self._broken = ""  # why the thread has ended, other than by being closed
    self.layers: tuple[str, ...] = ()
    """What the workers are kept from, as far as this machine allows; see jail.py."""
    self.together: frozenset[str] = frozenset()
    """The graders that see the whole group."""
    self._gathering: set[remote.Job] = set()
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

  def submit(
    self, item: Item, group: Group | None = None, place: int = 0
  ) -> concurrent.futures.Future[Outcome]:
    """A future for the item's outcome. It never raises for what a grader does.

    Args:
      group: of the responses to its prompt. A grader that sees them together is called
        when all are submitted; without a group, with this one alone.
      place: of the item in the group.
    """
    found = [self._one(name, item, group, place) for name in self._weights]
    if not self.labels:
      return found[0]
    combine = functools.partial(weighted.combine, self._weights)
    return weighted.gathered(found, combine)

  def _one(self, grader, item, group, place) -> concurrent.futures.Future[Outcome]:
    slow = tasks.name(grader, item.task) not in tasks.OWN
    if group is None or grader not in self.together:
      job, place = remote.Job(grader, slow), 0
    elif (job := group.jobs.get(grader)) is None:
      job = remote.Job(grader, slow, group.size, group.state)
      group.jobs[grader] = job
    future = job.add(item, place)
    if job.bytes > _LARGEST_SAMPLE * job.size:
      job.fail(f"the sample has more than {_LARGEST_SAMPLE >> 20} MB")
      return future
    with self._lock:
      if self._thread is None or (self._closing and not self._broken):
        raise RuntimeError("the reward pool is not open")
      if not self._broken:
        if not job.full:
          self._gathering.add(job)
          return future
        self._gathering.discard(job)
        self._queue.append(job)
        if len(self._queue) == 1:
          self._wake()
        return future
    job.fail(self._broken)
    return future

  def _wake(self) -> None:
    with contextlib.suppress(BlockingIOError):
      os.write(self._wake_in, b"w")

  def _close(self) -> None:
    with self._lock:
      if self._thread is None:
        return
      self._closing = True
      self._wake()
    self._thread.join()
    self._thread = None
    self._broken = ""
    os.close(self._wake_in)
    os.close(self._wake_out)

  def _run(self) -> None:
    """The thread: starts workers, feeds them, and reads what they say, until closed."""
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._wake_out, selectors.EVENT_READ)
    self._workers: list[remote.Worker] = []
    self._failed_starts = 0
    try:
      for _ in range(self._reward.workers):
        self._start()
      while not self._closing:
        self._feed()
        self._turn()
    except Exception as e:
      self._broken = f"the reward pool failed: {type(e).__name__}: {e}"
      self._set_started(e)
    finally:
      self._end(self._broken or "the reward pool was closed")

  def _start(self) -> None:
    worker = remote.Worker(self._spec)
    self._workers.append(worker)
    self._selector.register(worker.outlet, selectors.EVENT_READ, worker)

  def _end(self, why: str) -> None:
    for worker in self._workers:
      worker.kill()
    with self._lock:
      self._closing = True
      jobs = [*self._queue, *self._gathering]
      jobs += [job for w in self._workers for job in w.round]
      self._queue.clear()
      self._gathering.clear()
    for worker in self._workers:
      worker.reap()
    self._selector.close()
    for job in jobs:
      job.fail(why)
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
    for worker in list(self._workers):
      if not worker.ready or worker.round:
        continue
      with self._lock:
        share = math.ceil(len(self._queue) / len(self._workers))
        jobs = [self._queue.popleft() for _ in range(min(share, 1))]
        while jobs and len(jobs) < min(share, _ROUND) and not jobs[-1].slow:
          jobs.append(self._queue.popleft())
      if jobs:
        worker.send(jobs)
        worker.expect(self._reward.deadline, _GRACE)
        self._write(worker)

  def _turn(self) -> None:
    """Waits for pipes or the next deadline, and deals with what has happened."""
    left = min(w.limit for w in self._workers) - time.monotonic()
    timeout = None if left == math.inf else max(0.0, left)
    for key, events in self._selector.select(timeout):
      if key.fd == self._wake_out:
        os.read(self._wake_out, 4096)
      elif key.data not in self._workers:
        continue  # replaced a moment ago
      elif events & selectors.EVENT_WRITE:
        self._write(key.data)
      else:
        self._read(key.data)
    now = time.monotonic()
    for worker in [w for w in self._workers if w.limit <= now]:
      over = "did not start" if not worker.ready else "was silent"
      self._replace(worker, f"the worker {over} in time and was killed")

  def _write(self, worker: remote.Worker) -> None:
    try:
      done = worker.flush()
    except OSError as e:
      return self._replace(worker, f"the worker died ({e.strerror})")
    registered = worker.inlet in self._selector.get_map()
    if done and registered:
      self._selector.unregister(worker.inlet)
    elif not done and not registered:
      self._selector.register(worker.inlet, selectors.EVENT_WRITE, worker)

  def _read(self, worker: remote.Worker) -> None:
    data = os.read(worker.outlet, 1 << 16)
    if not data:
      return self._replace(worker, "the worker died")
    try:
      for message in worker.messages(data):
        if isinstance(message, dict):
          self._greet(worker, message)
        else:
          outcomes = list(map(_outcome, message))
          if len(outcomes) != worker.round[0].size:
            raise ValueError("another number of outcomes")
          worker.round.popleft().resolve(outcomes)
          worker.expect(self._reward.deadline, _GRACE)
    except config.Error:
      raise
    except (ValueError, TypeError, LookupError, RecursionError):
      self._replace(worker, "the worker broke the protocol and was killed")

  def _greet(self, worker: remote.Worker, message: dict) -> None:
    if "error" in message:
      raise config.Error(message["error"])
    if "loading" in message:
      return worker.expect(0.0, remote.START)
    worker.ready, worker.limit = True, math.inf
    self.layers = tuple(message["ready"])
    self.together = frozenset(message["together"])
    self._failed_starts = 0
    self._set_started()

  def _replace(self, worker: remote.Worker, why: str) -> None:
    """Ends a worker. What it was at has failed; the others go to the front."""
    worker.kill()
    for fd in (worker.outlet, worker.inlet):
      if fd in self._selector.get_map():
        self._selector.unregister(fd)
    worker.reap()
    self._workers.remove(worker)
    self.replaced += 1
    if worker.round:
      worker.round.popleft().fail(why)
      with self._lock:
        self._queue.extendleft(reversed(worker.round))
    if not worker.ready:
      self._failed_starts += 1
      if self._failed_starts >= _STARTS:
        graders = ", ".join(map(repr, self._spec["graders"]))
        raise config.Error(f"data.grader: no worker starts with {graders}: {why}")
    self._start()


def _outcome(message: list) -> Outcome:
  status, score, why, metrics, told, seconds = message
  score = math.nan if score is None else float(score)
  return Outcome(status, score, why, seconds, metrics, told)
