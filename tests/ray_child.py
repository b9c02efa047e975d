"""The study of test_study_ray, and a process that works on what is left of it.

python tests/ray_child.py ADDRESS OUT JOBS; the exit code is the signal that ended it.
"""

import pathlib
import signal
import sys

from pxy.study import cell, on_ray
from pxy.study.plan import Arm, Study, World

WORLD = World("sums", "add3", probes=("--quick",))
STUDY = Study((WORLD,), (Arm("dsrl"), Arm("grpo")), (0, 1))


def main(address, out, jobs):
  out = pathlib.Path(out)
  left = [c for c in STUDY.cells() if cell.state(c, out)["state"] != cell.DONE]
  before = list(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
  ended = on_ray.Runner(address, out, int(jobs)).run(left)
  after = list(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
  assert before == after, "a signal has another handler than before"
  return ended


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
