"""Several processes as one program: join, agree, and move arrays in and out.

A pod runs one process per host; each sees only its own devices' shards. The rest of pxy
is written as if there were one process: it makes the same host values everywhere (they
are functions of seed and step), `put`s them, and `get`s whole results. Whatever time,
chance or a disk decides (a signal, a grade, a full disk, a checkpoint that is there) is
agreed on here before the program branches on it, since processes that go different ways
wait for each other for ever. No other file asks for the index of the process.

These are meeting points: all processes have to come to them, in the same order.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from pxy import config
from pxy.parallel import heartbeat


def start() -> None:
  """Joins the other processes, if the environment names them; before any array is made.

  PXY_PROCESSES, PXY_PROCESS and JAX_COORDINATOR_ADDRESS (host:port of process 0) name
  them. PXY_PROCESSES=auto asks the cluster that runs this (Cloud TPU, GKE, Slurm, Open
  MPI).

  Raises:
    config.Error: the variables do not fit together, or the others cannot be reached.
  """
  if "PXY_PROCESSES" not in os.environ:
    return
  given = os.environ["PXY_PROCESSES"]
  named = {}
  if given != "auto":
    named = {"num_processes": _number("PXY_PROCESSES", 1)}
    named["process_id"] = _number("PXY_PROCESS", 0)
    if named["process_id"] >= named["num_processes"]:
      raise config.Error(
        f"PXY_PROCESS {named['process_id']} of PXY_PROCESSES {given}: they count from 0"
      )
    if ":" not in os.environ.get("JAX_COORDINATOR_ADDRESS", ""):
      raise config.Error(
        "JAX_COORDINATOR_ADDRESS: set it to host:port, the same on all processes, where"
        " process 0 can listen"
      )
  # A signal asks for an end at a step that all agree on (safety/interrupt.py):
  # JAX's own service would take SIGTERM away.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(**named, heartbeat_timeout_seconds=heartbeat.COORDINATOR)
  except (RuntimeError, ValueError) as error:
    raise config.Error(
      f"PXY_PROCESSES {given}: {' '.join(str(error).split())[:200]}; see that all"
      " processes start, and reach JAX_COORDINATOR_ADDRESS"
    ) from error


def alone(command: str) -> None:
  """Refuses a command that one process does, where the environment names several."""
  if "PXY_PROCESSES" in os.environ:
    raise config.Error(
      f"{command} is for one process: unset PXY_PROCESSES, and start it once"
    )


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """`start`; while open, the death of a process ends all; they leave together."""
  start()
  if count() == 1:
    yield
    return
  if not jax.distributed.is_initialized():
    raise config.Error(
      f"this is one of {count()} hosts, and they were not told to work together: set"
      " PXY_PROCESSES=auto on each"
    )
  with heartbeat.Heartbeat(jax.process_index(), count()):
    yield


def leave(error: Exception) -> None:
  """Ends all processes with an error of this one alone, which the others would wait
  behind; from any thread. Of one process it does nothing: raise."""
  heartbeat.leave(error)


def count() -> int:
  """Number of processes."""
  return jax.process_count()


def main() -> bool:
  """Whether this process writes logs and files that are written once."""
  return jax.process_index() == 0


@functools.cache
def say_once(text: str) -> None:
  """Says a line on stderr, however often it is asked to; of several processes the main
  one does."""
  if main():
    print(f"pxy: {text}", file=sys.stderr)


def own(name: str) -> str:
  """A file's name for this process alone: `stacks.txt`, or `stacks-3.txt`."""
  stem, _, suffix = name.rpartition(".")
  return name if main() else f"{stem}-{jax.process_index()}.{suffix}"


def share(items: Sequence) -> Sequence:
  """This process's part of work that any of them can do."""
  return items[jax.process_index() :: count()]


def put(tree, sharding):
  """Global arrays of host values that every process holds whole.

  tree: of numpy arrays and numbers, and of keys on this process's devices; arrays that
  are global already are moved. sharding: one for all leaves, or a tree of them.
  """
  if count() == 1:
    return jax.device_put(tree, sharding)

  def one(x, sharding):
    if isinstance(x, jax.Array):
      if not x.is_fully_addressable:
        return jax.device_put(x, sharding)
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = one(np.asarray(jax.random.key_data(x)), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  if isinstance(sharding, jax.sharding.Sharding):
    return jax.tree.map(lambda x: one(x, sharding), tree)
  return jax.tree.map(one, tree, sharding)


def get(tree):
  """Whole numpy values of global arrays, on every process (all of them must ask)."""
  leaves, structure = jax.tree.flatten(tree)
  here = [x.is_fully_addressable or x.is_fully_replicated for x in leaves]
  if all(here):
    return jax.device_get(tree)
  gathered = [
    jax.device_get(x) if local else multihost_utils.process_allgather(x, tiled=True)
    for x, local in zip(leaves, here, strict=True)
  ]
  return structure.unflatten(gathered)


def agree(value: int) -> int:
  """The main process's value, on all; for what only it may decide."""
  return int(_all(value)[0])


def every(true: bool) -> bool:
  """Whether it is true on every process; waits for them."""
  return bool(_all(true).all())


def some(true: bool) -> bool:
  """Whether it is true on any process; waits for them."""
  return bool(_all(true).any())


def on_main(act: Callable):
  """Calls `act` on the main process. What it raises there is raised everywhere, so that
  all go on, or end, in the same place. Returns its value there, None elsewhere."""
  value, failure = None, None
  if main():
    try:
      value = act()
    except Exception as error:
      failure = error
  together(failure)
  return value


def together(failure: Exception | None) -> None:
  """A meeting point that raises, everywhere, what went wrong on one: there the error
  itself, elsewhere a config.Error with its words. Of several it is the first one's."""
  if every(failure is None):
    return
  said = exchange(None if failure is None else heartbeat.words(failure))
  text = next(filter(None, said))
  if failure is not None and heartbeat.words(failure) == text:
    raise failure
  raise config.Error(text)


def exchange(value) -> list:
  """The JSON values of all processes, in their order."""
  if count() == 1:
    return [value]
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = _all(data.size)
  padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)  # few shapes
  padded[: data.size] = data
  found = multihost_utils.process_allgather(padded)
  return [json.loads(x[:n].tobytes()) for x, n in zip(found, sizes, strict=True)]


def barrier(name: str) -> None:
  """Waits until every process is here; the names must match."""
  if count() > 1:
    multihost_utils.sync_global_devices(name)


def _all(value: int) -> np.ndarray:
  """A whole number of each process."""
  if count() == 1:
    return np.array([value])
  return multihost_utils.process_allgather(np.int32(value))


def _number(name: str, least: int) -> int:
  text = os.environ.get(name, "")
  if not text.isdecimal() or int(text) < least:
    raise config.Error(f"{name} {text!r}: give a whole number, {least} or more")
  return int(text)
