"""A process that saves and saves, for tests that kill it or take its disk away.

  python checkpoint_child.py FOLDER                kill it when you like
  python checkpoint_child.py FOLDER EVENT N        it kills itself at the Nth EVENT
  python checkpoint_child.py FOLDER limit BYTES    no file may grow beyond BYTES

It goes on from the newest checkpoint, and prints each step whose save has begun: the
one before is then complete. The state is a function of the step, so that a reader can
tell a mixture from a whole.
"""

import os
import pathlib
import resource
import signal
import sys

import jax
import numpy as np

from pxy import config
from pxy.train import checkpoint

SIZE = 60_000


def state(step: int) -> dict:
  """Incompressible, different in every element at every step."""
  words = np.random.default_rng(step).standard_normal(SIZE, np.float32)
  return {"params": {"w": words}, "step": np.int32(step)}


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0))


def kill_at(event: str, count: int) -> None:
  left = [count]

  def hook(name, args):
    if name == event:
      left[0] -= 1
      if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)


def main(folder, event="", number="0"):
  with checkpoint.Checkpointer(pathlib.Path(folder), 1, "avg") as checkpoints:
    step = 0
    if checkpoints.latest() is not None:
      found, meta = checkpoints.restore(None, ABSTRACT)
      step = meta["step"] + 1
      assert found["step"] == meta["step"]
    if event == "limit":
      resource.setrlimit(resource.RLIMIT_FSIZE, (int(number),) * 2)
    elif event:
      kill_at(event, int(number))
    while True:
      checkpoints.save(step, jax.device_put(state(step)), {"step": step})
      print(step, flush=True)
      step += 1


if __name__ == "__main__":
  try:
    main(*sys.argv[1:])
  except config.Error as error:
    print(f"pxy: {error}", file=sys.stderr)
    raise SystemExit(2) from None
