"""One cell to its end, wherever that is: its commands, one after the other, as
processes that end with this one.

    one = Work(cell, out)
    while (found := one.look()) is None:
      time.sleep(LOOK)

Nothing waits in here: who has several cells looks after them in turn.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

from pxy import fields
from pxy.study import cell as cell_lib
from pxy.study import plan

LOOK = 0.1
"""Seconds between two looks at the processes."""
_TIED = """
import os, sys
from pxy.rewards import jail
jail.die_with_parent()
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command, and dies with this process. Not between fork and exec: what JAX
has started in this process, if it was imported, must not be forked."""


class Work:
  """A cell that is worked on, and what of it: `words`, `since`.

  Args:
    cell: which.
    out: the study's folder.
    cores: on which its processes stay; None: anywhere.
  """

  def __init__(self, cell: plan.Cell, out: pathlib.Path, cores: set[int] | None = None):
    self.cell, self._out, self._cores = cell, out, cores
    self.folder = out / cell.name
    self.folder.mkdir(parents=True, exist_ok=True)
    self.words: list[str] = []
    self.since = self.start = time.monotonic()
    self._process: subprocess.Popen | None = None
    self._stopped = False
    self._code: list[str] = []  # digests of the code that it is of

  def look(self) -> dict | None:
    """How it has ended, as in cell.json; None before that. Starts what comes next.

    What its bucket refuses for long is its own end, for this time: the cell stays open,
    and `why` is said.
    """
    try:
      return self._look()
    except fields.Error as error:
      self.kill()
      return {"state": cell_lib.OPEN, "why": str(error)}

  def _look(self) -> dict | None:
    if self._process is None:
      cell_lib.begun(self.folder)
      before = cell_lib.state(self.cell, self._out)
      self.start -= before.get("seconds", 0.0)  # other sittings
      self._code = before["code"].split(" ") if "code" in before else []
    if self._process is not None and self._process.poll() is None:
      return None
    if self._process is not None:
      cell_lib.left(self.folder)
    if self._stopped:
      return self._write(cell_lib.OPEN)
    if self._process is not None and not cell_lib.ended(self.words, self.folder):
      why = cell_lib.tail(self.folder, self._from, self._process.returncode)
      return self._write(cell_lib.FAILED, why=why)
    for words in cell_lib.commands(self.cell, self._out):
      if not cell_lib.ended(words, self.folder):
        self._begin(words)
        return None
    return self._write(cell_lib.DONE)

  def _write(self, word: str, **more) -> dict:
    more |= {"seconds": round(time.monotonic() - self.start, 1)}
    if self._code:
      more |= {"code": " ".join(self._code)}
    return cell_lib.write(self.cell, self._out, word, **more)

  def stop(self) -> None:
    """Its process is asked to save and end, and no other is started."""
    self._stopped = True
    if self._process is not None:
      self._process.send_signal(signal.SIGTERM)

  def kill(self) -> None:
    """Ends its process now."""
    if self._process is not None:
      self._process.kill()
      self._process.wait()

  def _begin(self, words: list[str]) -> None:
    if (code := cell_lib.code()) not in self._code:
      self._code.append(code)
    command = [sys.executable, "-c", _TIED, str(os.getpid()), *cell_lib.argv(words)]
    with open(self.folder / "log.txt", "ab") as log:
      self._from = log.tell()
      self._process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,  # Ctrl-C is for this process, which asks it once
      )  # fmt: skip
    if self._cores is not None:
      with contextlib.suppress(OSError):  # it has ended already
        os.sched_setaffinity(self._process.pid, self._cores)
    self.words, self.since = words, time.monotonic()
