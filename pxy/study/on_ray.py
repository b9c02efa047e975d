"""Cells as tasks of a Ray: on this machine, or on the nodes of a cluster.

A task works on one cell as `local` does, on whatever node Ray has room. The study's
folder is one that all nodes share, or in a bucket, and all that a cell keeps is there:
where a worker or its node is lost, Ray starts the task again elsewhere, and the run
goes on from its last checkpoint. A cell that fails is a row, and not tried again before
the study is.

A worker's processes die with it (Linux). A node that is cut off and lives may work on:
its run holds the run's lock, and the cell that was started again elsewhere fails by it.
"""

import contextlib
import importlib
import logging
import math
import os
import pathlib
import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator, Sequence

from pxy import fields
from pxy.bucket import mirror, objects
from pxy.study import cell as cell_lib
from pxy.study import local, plan, signals, tally, work

HERE = "local"
"""The address of a Ray that is started for this study, on this machine."""
AGAIN = 5
"""Times that a cell is started again because its worker or node was lost."""
LOOK = 1.0
"""Seconds between two looks at signals."""


def load():
  """The package; fields.Error with the cure where it is missing."""
  os.environ.setdefault(
    "RAY_USAGE_STATS_ENABLED", "0"
  )  # it reads that when it is loaded
  try:
    return importlib.import_module("ray")
  except ImportError as error:
    raise fields.Error(f"--ray needs ray ({error}): pip install 'ray'") from None


class Runner:
  """Runs cells until all have ended.

  Args:
    address: `local`, or what ray.init takes: `auto`, `host:6379`, `ray://host:10001`.
    out: the study's folder, which all nodes share.
    jobs: cells at a time on one machine.

  Raises fields.Error where there is no Ray.
  """

  def __init__(self, address: str, out: pathlib.Path, jobs: int):
    self._ray = load()
    self._address, self._out, self._jobs = address, out, jobs

  def run(self, cells: Sequence[plan.Cell]) -> int:
    """Returns the number of the signal that ended it early, or 0."""
    if not cells:
      return 0
    with self._connected(), signals.Signals() as asked:
      nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
      cpus = [node["CPU"] for node in nodes if node.get("CPU")]
      fields.need(cpus, f"--ray {self._address}: no node has a CPU for a cell")
      share = _share(min(cpus), self._jobs)
      for cell in cells:
        _fits(cell.world, share, nodes)
      places = sum(int(node / share) for node in cpus)
      counts = tally.Tally(self._out, len(cells), places)
      task = self._ray.remote(max_retries=AGAIN, retry_exceptions=False)(_task)
      where = mirror.name(self._out), os.getcwd()
      tasks = {
        task.options(**_takes(cell.world, share)).remote(cell, *where): cell
        for cell in cells
      }
      while tasks:
        if asked.new():
          for one in reversed(tasks):  # those that wait first: none takes a free place
            self._ray.cancel(one)
        ended, _ = self._ray.wait(list(tasks), timeout=LOOK)
        for one in ended:
          cell = tasks.pop(one)
          counts.ended(cell.name, self._found(one, cell))
    return asked.number

  def _found(self, task, cell: plan.Cell) -> dict:
    """How a task's cell has ended."""
    errors = self._ray.exceptions
    try:
      found = self._ray.get(task)
    except errors.TaskCancelledError:
      return {"state": cell_lib.OPEN}
    except errors.RayTaskError as error:  # pxy is not there, or of another version
      raise fields.Error(
        f"--ray {self._address}: cell {cell.name}: {_line(error)}"
      ) from None
    except errors.RayError as error:
      why = f"its worker was lost {AGAIN + 1} times: {_line(error)}"
      known = cell_lib.state(cell, self._out)
      more = {name: known[name] for name in ("seconds", "code") if name in known}
      return cell_lib.write(cell, self._out, cell_lib.FAILED, why=why, **more)
    name = mirror.name(self._out)
    fields.need("refused" not in found, f"--out {name}: {found.get('refused')}")
    return found

  @contextlib.contextmanager
  def _connected(self) -> Iterator[None]:
    """With a Ray; its messages are left out, and so is its handler of SIGTERM."""
    given = {"address": self._address, "log_to_driver": False}
    if self._address == HERE:
      cores = local.cores(0, 1)
      given |= {
        "num_cpus": cores and len(cores), "include_dashboard": False,
        "object_store_memory": 100 << 20,  # cells send each other nothing
      }  # fmt: skip
    old = signal.getsignal(signal.SIGTERM)
    _reach(self._address)
    try:
      self._ray.init(**given, logging_level=logging.ERROR)
    except ConnectionError as error:  # it answers, and yet not to us
      raise fields.Error(
        f"--ray {self._address}: {_line(error)}: where it was started with a token"
        " (`ray get-auth-token` shows it), set RAY_AUTH_MODE=token"
      ) from None
    except (OSError, RuntimeError, ValueError, ImportError) as error:
      raise fields.Error(f"--ray {self._address}: {_line(error)}") from None
    try:
      yield
    finally:
      self._ray.shutdown()
      signal.signal(signal.SIGTERM, old)


def _reach(address: str) -> None:
  """Refuses a cluster that does not answer; Ray itself would ask it for minutes."""
  if address in (HERE, "auto"):
    return
  try:
    url = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    if not (url.hostname and url.port):
      raise ValueError("give `local`, `auto`, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((url.hostname, url.port), timeout=10).close()
  except (OSError, ValueError) as error:
    raise fields.Error(f"--ray {address}: {_line(error)}") from None


def _task(cell: plan.Cell, out: str, here: str) -> dict:
  """Works on a cell, in a worker of Ray; ray.cancel is a SIGINT to it."""
  try:
    os.chdir(here)
    if not objects.is_url(out) and not os.path.isdir(out):
      raise FileNotFoundError
  except OSError:
    return {
      "refused": f"the node {socket.gethostname()} sees no {out} in {here}: give a"
      " folder that all nodes share"
    }
  with mirror.own(out, "study") as folder:
    return _worked(cell, folder)


def _worked(cell: plan.Cell, out: pathlib.Path) -> dict:
  """How a cell has ended; a SIGINT asks it to end."""
  asked = []
  old = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
  one = work.Work(cell, out)
  try:
    while (found := one.look()) is None:
      time.sleep(work.LOOK)
      while asked:
        asked.pop()
        one.stop()
    return found
  finally:
    one.kill()
    signal.signal(signal.SIGINT, old)


def _share(cpus: float, jobs: int) -> float:
  """CPUs of a cell when a node of so many has `jobs` of them; Ray counts in 1/10,000,
  and above 1 in whole ones."""
  share = cpus / jobs
  return math.floor(share) if share > 1 else math.floor(share * 1e4) / 1e4


def _needs(world: plan.World, share: float) -> dict[str, float]:
  """A cell's resources."""
  return {"CPU": share} | dict(world.resources)


def _takes(world: plan.World, share: float) -> dict:
  """The same, as Ray wants to be told."""
  given = _needs(world, share)
  names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
  own = {names[name]: given.pop(name) for name in names if name in given}
  return own | {"resources": given}


def _fits(world: plan.World, share: float, nodes: list[dict]) -> None:
  """Refuses a cell for which Ray would wait without an end."""
  needs = _needs(world, share)
  fields.need(
    any(all(node.get(name, 0) >= x for name, x in needs.items()) for node in nodes),
    f"world {world.name}: no node of this Ray has {needs}: ask for less in its"
    " `resources`, or add such a node first",
  )


def _line(error: Exception) -> str:
  """The last line that an error says."""
  said = [line.strip() for line in str(error).splitlines() if line.strip()]
  return (said or [type(error).__name__])[-1][:300]
