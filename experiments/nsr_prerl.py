"""What do wrong answers teach, pushed down in log P(y) with the prompt out of sight?

  pxy train experiments/nsr_prerl.py --out runs/nsr_prerl

NSR-PreRL, DSRL's first phase by itself: 30 steps.

Cost: a minute on 2 CPU cores. Expected: avg@16 from 42.8 to 44.6 (± 1.2 %). At four
times the rate it did harm; see add3.py.
"""

import add3


def config():
  return add3.config("nsr_prerl")
