"""Is it enough to push everything down? DSRL's control without right and wrong.

  pxy train experiments/all_down.py --out runs/all_down

DSRL, but in its first phase every sample of a group with both right and wrong answers
goes down in log P(y), all alike and with the same norm of advantages.

Cost: 2 minutes on 2 CPU cores. Expected: where the first phase needs no labels, what
DSRL ends at (86.8 and 80.6 % on two machines, from 42.8 ± 1.2 %). Not measured yet.
"""

import add3


def config():
  return add3.config("all_down")
