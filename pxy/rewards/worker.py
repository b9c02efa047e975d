"""The process that grades: `python -m pxy.rewards.worker SPEC`, started by the pool.

It speaks on the pipes it gets as standard input and output, moved to other descriptors
before anything else runs, so that what a grader prints goes nowhere. A message is four
bytes of length (big endian) and JSON: a list of jobs in, the outcomes of one at a time
out. A job is a grader, what it is told of the run, and its samples.

pxy's own graders only read text: they run here, one sample after another. A user's
function, sympy or reasoning-gym may do anything with the text of a model, so they never
run here. They are imported once; each job is graded in a fork, which has the deadline
of its samples and a memory limit, writes its outcomes to a pipe of its own, and is
ended with all that it started. So no job can reach the grade of another, and a hang or
a crash costs about a millisecond over its deadline. A job has one sample, or for a
function that sees the whole group (user.py) the group's. Left out: state that lasts
from job to job (load it at import).

Imports neither jax nor numpy: the start takes about 60 ms.
"""

import functools
import gc
import json
import math
import os
import select
import signal
import struct
import sys
import time

from pxy import config, fields
from pxy.rewards import answer, tasks, user
from pxy.rewards import jail as jail_lib

HEADER = struct.Struct(">I")
LARGEST = 1 << 20
"""Bytes of one outcome."""
_METRICS, _WHY = 100, 500
_HERE = {**tasks.OWN, "math": tasks.by_text}
"""Graders that run in this process; by_text may leave it to a fork."""
_POLL = 0.05
"""Seconds between two looks at how many processes and how much memory a sample has."""


def main() -> None:
  spec = json.loads(sys.argv[1])
  requests, replies = _pipes()
  jail = jail_lib.enter(spec["parent"], (requests, replies))
  sys.path[:0] = spec["folders"]
  deadline, memory = spec["deadline"], spec["memory_mb"] << 20
  forked = {}
  try:
    for grader in spec["graders"]:
      if grader != "auto" and grader not in tasks.OWN:
        forked[grader] = tasks.resolve(grader, "")
    jail = _settle(jail)
    together = [name for name, found in forked.items() if _sees_groups(found)]
    _write(replies, {"ready": jail.layers, "together": together})
    _silence(2)
    while (jobs := _read(requests)) is not None:
      for grader, state, samples in jobs:
        items = [tasks.Item(**sample) for sample in samples]
        name = tasks.name(grader, items[0].task)
        if name in tasks.FORKED and name not in forked:  # by `auto`
          _write(replies, {"loading": name})
          forked[name] = tasks.resolve(name, "")
          jail = _settle(jail)
        start = time.monotonic()
        outcomes = None
        if name in _HERE:
          outcomes = _guarded(functools.partial(map, _HERE[name], items), len(items))
        if outcomes is None:
          work = _work(forked[name], items, state)
          most = deadline * len(items), memory
          outcomes = _fork(work, len(items), jail, *most, requests, replies)
        seconds = (time.monotonic() - start) / len(items)
        _write(replies, [[*outcome, seconds] for outcome in outcomes])
  except config.Error as e:
    _write(replies, {"error": str(e)})


def _settle(jail: jail_lib.Jail) -> jail_lib.Jail:
  """After an import: what is in memory now is shared by all forks, and not theirs."""
  gc.collect()
  gc.freeze()  # a fork then copies fewer pages
  return jail_lib.baseline(jail)


def _pipes() -> tuple[int, int]:
  """The two protocol pipes, where no print can reach them; 0 and 1 become /dev/null."""
  requests, replies = os.dup(0), os.dup(1)
  _silence(0, 1)
  return requests, replies


def _silence(*fds: int) -> None:
  null = os.open(os.devnull, os.O_RDWR)
  for fd in fds:
    os.dup2(null, fd)
  os.close(null)


def _sees_groups(grade) -> bool:
  return isinstance(grade, user.Function) and grade.together


def _work(grade, items: list[tasks.Item], state: dict):
  """What a fork does: the outcomes of the items."""
  if isinstance(grade, user.Function):
    return functools.partial(grade.grade, items, state)
  return functools.partial(map, grade, items)


def _guarded(work, size: int) -> list[list] | None:
  """[status, score, why, metrics, answer] of each of the samples, whatever the work
  raises; None if it says None of any."""
  try:
    outcomes = list(work())
    return None if None in outcomes else list(map(_told, outcomes))
  except MemoryError:
    why = "MemoryError: more than reward.memory_mb allows"
  except BaseException as e:
    why = f"{type(e).__name__}: {fields.line(e)}"
  return [_failed(why)] * size


def _told(outcome: tasks.Outcome) -> list:
  score = outcome.score if outcome.status == "scored" else None
  told = outcome.answer
  told = None if told is None else told[: answer.LONGEST]
  return [outcome.status, score, outcome.why, outcome.metrics, told]


def _failed(why: str) -> list:
  return ["failed", None, why, {}, None]


def _fork(work, size, jail, deadline, memory, requests, replies) -> list[list]:
  """Grades samples in a process of their own, which does not outlive this call."""
  inlet, outlet = os.pipe()
  child = os.fork()
  if child == 0:
    try:
      jail_lib.die_with_parent()
      jail_lib.limit_memory(memory)
      os.setsid()
      for fd in (inlet, requests, replies):
        os.close(fd)
      _write(outlet, _guarded(work, size))
    finally:
      os._exit(0)
  os.close(outlet)
  try:
    largest = LARGEST * size
    reply, why = _wait(inlet, child, jail, deadline, memory, requests, largest)
  finally:
    os.close(inlet)
    status = jail.sweep(child)
  if not why and reply is None:
    why = f"{_death(status)} before it gave a grade"
  if why:
    return [_failed(f"the grader {why}")] * size
  return _checked(reply, size)


def _wait(
  inlet, child, jail, deadline, memory, requests, largest
) -> tuple[bytes | None, str]:
  """The child's reply, or why it has none: (None, "") if it has died."""
  poll = select.poll()
  poll.register(inlet, select.POLLIN)
  poll.register(requests, 0)  # reports only that the trainer has hung up
  end = time.monotonic() + deadline
  data = b""
  while (left := end - time.monotonic()) > 0:
    for fd, event in poll.poll(1000 * min(_POLL, left)):
      if fd == requests and event & (select.POLLHUP | select.POLLERR):
        sys.exit(0)
      if fd == inlet:
        part = os.read(inlet, 1 << 16)
        data += part
        if not part:
          poll.unregister(inlet)
          if _has_ended(child, end):
            return None, ""
        if len(data) >= HEADER.size:
          size = HEADER.unpack_from(data)[0]
          if size > largest:
            return None, "gave a malformed grade"
          if len(data) >= HEADER.size + size:
            return data[HEADER.size : HEADER.size + size], ""
    if why := jail.overrun(memory):
      return None, why
  return None, f"took longer than {deadline:g} s (reward.deadline)"


def _has_ended(child: int, end: float) -> bool:
  """Whether the child, whose pipe has closed, ends by itself; it is not reaped."""
  while time.monotonic() < end:
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
      return True
    time.sleep(0.001)
  return False


def _death(status: int) -> str:
  code = os.waitstatus_to_exitcode(status)
  if code >= 0:
    return f"exited with status {code}"
  return f"was killed by {signal.Signals(-code).name}"


def _checked(reply: bytes, size: int) -> list[list]:
  """A fork's reply, once it is known to be what a fork may say."""
  try:
    outcomes = json.loads(reply)
    if isinstance(outcomes, list) and len(outcomes) == size:
      return list(map(_sound, outcomes))
  except (ValueError, RecursionError):
    pass
  return [_failed(_MALFORMED)] * size


_MALFORMED = "the grader gave a malformed grade"


def _sound(outcome) -> list:
  malformed = _failed(_MALFORMED)
  try:
    status, score, why, metrics, told = outcome
    found = {str(k)[:100]: float(v) for k, v in list(metrics.items())[:_METRICS]}
    if status == "scored":
      if not (isinstance(score, float) and math.isfinite(score)):
        return malformed
      found = {k: v for k, v in found.items() if math.isfinite(v)}
      if not (told is None or (isinstance(told, str) and len(told) <= answer.LONGEST)):
        return malformed
      return [status, score, "", found, told]
    if status in ("ungradable", "failed"):
      return [status, None, str(why)[:_WHY], {}, None]
  except (ValueError, TypeError, AttributeError, OverflowError):
    pass
  return malformed


def _read(fd: int):
  """The next message; None when the other side has hung up."""
  header = _exactly(fd, HEADER.size)
  body = header and _exactly(fd, HEADER.unpack(header)[0])
  return json.loads(body) if body else None


def _exactly(fd: int, size: int) -> bytes | None:
  data = bytearray()
  while len(data) < size:
    part = os.read(fd, min(1 << 20, size - len(data)))
    if not part:
      return None
    data += part
  return bytes(data)


def _write(fd: int, value) -> None:
  body = json.dumps(value).encode()
  data = memoryview(HEADER.pack(len(body)) + body)
  while data:
    data = data[os.write(fd, data) :]


if __name__ == "__main__":
  main()
