"""What do negatives alone do in the conditional space? NSR-RL with GRPO's advantages.

pxy train experiments/nsr_rl.py --out runs/nsr_rl
"""

from common import GRPO, negatives, rl

from pxy.config import Phase


def config():
  return rl(Phase("nsr-rl", (negatives(GRPO),), lr=5e-5))
