"""Is it enough to push everything down? DSRL's control without right and wrong.

  pxy train experiments/all_down.py --out runs/all_down

DSRL, but in its first phase every sample of a group with both right and wrong answers
goes down in log P(y), all alike and with the same norm of advantages.

Cost: 2 minutes on 2 CPU cores. Expected: 85.8 ± 1.4 % from 42.8 ± 1.2 %, where DSRL
ended at 80.6 ± 1.6 % on the same machine: one seed each, so labels are not shown to
matter.
"""

import add3


def config():
  return add3.config("all_down")
