"""`pxy` with these arguments, saying before each step how many arrays are alive."""

import sys

import jax

from pxy import __main__ as program
from pxy.run import step as run

if __name__ == "__main__":
  inner = run.Run.step

  def step(*args):
    print("alive", len(jax.live_arrays()), flush=True)
    return inner(*args)

  run.Run.step = step
  sys.argv[0] = "pxy"
  program.main()
