"""What do negatives alone do in the conditional space? NSR-RL with GRPO's advantages.

  pxy train experiments/nsr_rl.py --out runs/nsr_rl

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to 70.5 ± 1.3 %, with
a tenth of GRPO's learning rate.
"""

import add3


def config():
  return add3.config("nsr_rl")
