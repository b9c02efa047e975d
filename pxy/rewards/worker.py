"""The process that grades: `python -m pxy.rewards.worker SPEC`, started by the pool.

It speaks on the pipes it gets as standard input and output, moved to other descriptors
before anything else runs, so that what a grader prints goes nowhere. A message is four
bytes of length (big endian) and JSON: a list of samples in, one outcome at a time out.

pxy's own graders only read text: they run here, one sample after another. A user's
function, sympy or reasoning-gym may do anything with the text of a model, so they never
run here. They are imported once; each sample is graded in a fork, which has its
deadline and memory, writes its outcome to a pipe of its own, and is ended with all that
it started. So no sample can reach the grade of another, and a hang or a crash costs
about a millisecond over its deadline. Left out: state that lasts from sample to sample
(load it at import).

Imports neither jax nor numpy: the start takes about 60 ms.
"""

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
from pxy.rewards import answer, tasks
from pxy.rewards import jail as jail_lib

HEADER = struct.Struct(">I")
LARGEST = 1 << 20
"""Bytes of one outcome."""
_METRICS, _WHY = 100, 500
_POLL = 0.05
"""Seconds between two looks at how many processes and how much memory a sample has."""


def main() -> None:
  spec = json.loads(sys.argv[1])
  requests, replies = _pipes()
  jail = jail_lib.enter(spec["parent"], (requests, replies))
  sys.path[:0] = spec["folders"]
  grader, deadline, memory = spec["grader"], spec["deadline"], spec["memory_mb"] << 20
  forked = {}
  try:
    if grader != "auto" and grader not in tasks.OWN:
      forked[grader] = tasks.resolve(grader, "")
    jail = _settle(jail)
    _write(replies, {"ready": jail.layers})
    _silence(2)
    while (samples := _read(requests)) is not None:
      for sample in samples:
        item = tasks.Item(**sample)
        name = tasks.name(grader, item.task)
        if name in tasks.FORKED and name not in forked:  # by `auto`
          _write(replies, {"loading": name})
          forked[name] = tasks.resolve(name, "")
          jail = _settle(jail)
        start = time.monotonic()
        if name in tasks.OWN:
          outcome = _guarded(tasks.OWN[name], item)
        elif name != "math" or (outcome := _guarded(tasks.by_text, item)) is None:
          grade = forked[name]
          outcome = _fork(grade, item, jail, deadline, memory, requests, replies)
        _write(replies, [*outcome, time.monotonic() - start])
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


def _guarded(grade, item: tasks.Item) -> list | None:
  """[status, score, why, metrics, answer], whatever it raises; None if it says None."""
  try:
    outcome = grade(item)
  except MemoryError:
    outcome = tasks.failed("MemoryError: more than reward.memory_mb allows")
  except BaseException as e:
    outcome = tasks.failed(f"{type(e).__name__}: {fields.line(e)}")
  if outcome is None:
    return None
  score = outcome.score if outcome.status == "scored" else None
  told = outcome.answer
  told = None if told is None else told[: answer.LONGEST]
  return [outcome.status, score, outcome.why, outcome.metrics, told]


def _failed(why: str) -> list:
  return ["failed", None, why, {}, None]


def _fork(grade, item, jail, deadline, memory, requests, replies) -> list:
  """Grades one sample in a process of its own, which does not outlive this call."""
  inlet, outlet = os.pipe()
  child = os.fork()
  if child == 0:
    try:
      jail_lib.die_with_parent()
      jail_lib.limit_memory(memory)
      os.setsid()
      for fd in (inlet, requests, replies):
        os.close(fd)
      _write(outlet, _guarded(grade, item))
    finally:
      os._exit(0)
  os.close(outlet)
  try:
    reply, why = _wait(inlet, child, jail, deadline, memory, requests)
  finally:
    os.close(inlet)
    status = jail.sweep(child)
  if why:
    return _failed(f"the grader {why}")
  if reply is None:
    return _failed(f"the grader {_death(status)} before it gave a grade")
  return _checked(reply)


def _wait(inlet, child, jail, deadline, memory, requests) -> tuple[bytes | None, str]:
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
          if size > LARGEST:
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


def _checked(reply: bytes) -> list:
  """A fork's reply, once it is known to be what a fork may say."""
  malformed = _failed("the grader gave a malformed grade")
  try:
    status, score, why, metrics, told = json.loads(reply)
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
  except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
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
