"""What do negatives alone do in the conditional space? NSR-RL with GRPO's advantages.

pxy train experiments/nsr_rl.py --out runs/nsr_rl
"""

import add3


def config():
  return add3.config("nsr_rl")
