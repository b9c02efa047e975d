"""Several processes as one program: start, agree, and move arrays in and out.

A pod runs one process per host; each sees only its own devices' shards. The rest of pxy
is written as if there were one process: it makes the same host values everywhere (they
are functions of seed and step), `put`s them, and `get`s whole results. No other file
asks for the index of the process.
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils


def start() -> None:
  """Joins the other processes, if the environment names them; before any array is made.

  PXY_PROCESSES, PXY_PROCESS and JAX_COORDINATOR_ADDRESS (host:port) name them where no
  cluster does that JAX can ask (Cloud TPU, GKE, Slurm, Open MPI).
  """
  if "PXY_PROCESSES" in os.environ:
    jax.distributed.initialize(
      num_processes=int(os.environ["PXY_PROCESSES"]),
      process_id=int(os.environ["PXY_PROCESS"]),
    )


def count() -> int:
  """Number of processes."""
  return jax.process_count()


def main() -> bool:
  """Whether this process writes logs and files that are written once."""
  return jax.process_index() == 0


def put(tree, sharding):
  """Global arrays of host values that every process holds whole.

  sharding: one for all leaves, or a tree of them.
  """
  if count() == 1:
    return jax.device_put(tree, sharding)

  def one(x, sharding):
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
  if count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def every(true: bool) -> bool:
  """Whether it is true on every process; waits for them."""
  if count() == 1:
    return true
  return bool(multihost_utils.process_allgather(np.bool_(true)).all())


def barrier(name: str) -> None:
  """Waits until every process is here; the names must match."""
  if count() > 1:
    multihost_utils.sync_global_devices(name)
