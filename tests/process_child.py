"""One of several processes: moves arrays in and out, and saves a checkpoint with them.

python process_child.py FOLDER      (the environment holds PXY_PROCESSES, ...)

FOLDER may be in a bucket.
"""

import sys

import jax
import numpy as np

from pxy import config
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.run import place
from pxy.train import checkpoint


def state(mesh):
  """The state that every process makes of the same host values."""
  w_LD = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
  values = {"params": {"w": w_LD}, "step": np.int32(3)}
  axes = {"params": {"w": ("layers", "vocab", "d_model")}, "step": ()}
  where = mesh_lib.shardings(mesh, axes, values)
  return values, process.put(values, where)


def main(folder):
  process.start()
  mesh = mesh_lib.make(config.Mesh(data=1))
  assert process.count() == 2 and mesh.shape["fsdp"] == 4
  values, arrays = state(mesh)
  assert not arrays["params"]["w"].is_fully_addressable
  jax.tree.map(np.testing.assert_array_equal, process.get(arrays), values)

  rows_BT = np.arange(24, dtype=np.float32).reshape(8, 3)
  found = jax.jit(lambda x_BT: (x_BT * 2, x_BT.sum()))(
    process.put(rows_BT, mesh_lib.rows(mesh))
  )
  doubled_BT, total = process.get(found)
  np.testing.assert_array_equal(doubled_BT, 2 * rows_BT)
  assert total == rows_BT.sum()
  assert process.every(True) and not process.every(process.main())
  assert process.agree(7 if process.main() else 8) == 7

  with (
    place.opened(folder) as held,
    checkpoint.Checkpointer(held.path / "checkpoints", 1, "avg") as checkpoints,
  ):
    assert checkpoints.latest() is None
    for step in (2, 3):
      checkpoints.save(step, arrays, {"step": step})
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arrays
    )
    back, meta = checkpoints.restore(None, abstract)
    jax.tree.map(np.testing.assert_array_equal, process.get(back), values)
    assert meta == {"step": 3} and checkpoints.latest() == 3
  process.barrier("end")
  print("main" if process.main() else "other")


if __name__ == "__main__":
  main(*sys.argv[1:])
