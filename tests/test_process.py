"""Two processes on loopback act as one; a single one needs no ceremony."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import process_child
import pytest

from pxy import config
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.train import checkpoint


def test_alone(monkeypatch):
  monkeypatch.delenv("PXY_PROCESSES", raising=False)
  process.start()
  process.barrier("anything")
  assert process.main() and process.count() == 1 and process.agree(5) == 5
  assert process.every(True) and not process.every(False)
  mesh = mesh_lib.make(config.Mesh())
  x_BT = np.arange(16.0, dtype=np.float32).reshape(8, 2)
  put = process.put({"x": x_BT}, mesh_lib.rows(mesh))
  assert put["x"].sharding == mesh_lib.rows(mesh)
  np.testing.assert_array_equal(process.get(put)["x"], x_BT)


def save_by_two(folder):
  """Two processes of process_child.py, which save to `folder`/checkpoints."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  tests = pathlib.Path(__file__).parent
  children = [
    subprocess.Popen(
      [sys.executable, tests / "process_child.py", folder],
      env=os.environ
      | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "PXY_PROCESSES": "2",
        "PXY_PROCESS": str(i),
        "PYTHONPATH": f"{tests.parent}:{os.environ.get('PYTHONPATH', '')}",
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  try:
    said = [child.communicate(timeout=180) for child in children]
  finally:
    for child in children:
      child.kill()
  assert [out.split()[-1:] for out, _ in said] == [["main"], ["other"]], said


def restore_by_one(folder):
  """Written by two processes on four devices, read by one on eight."""
  assert checkpoint.steps(folder) == [3]
  values, arrays = process_child.state(mesh_lib.make(config.Mesh()))
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arrays
  )
  with checkpoint.Checkpointer(folder, 1, "avg") as checkpoints:
    found, meta = checkpoints.restore(None, abstract)
  assert meta == {"step": 3}
  jax.tree.map(np.testing.assert_array_equal, found, values)


@pytest.mark.slow
def test_two_processes_move_arrays_and_save_one_checkpoint(tmp_path):
  save_by_two(tmp_path)
  restore_by_one(tmp_path / "checkpoints")
