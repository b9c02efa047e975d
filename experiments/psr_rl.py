"""What do positives alone do in the conditional space? PSR-RL with GRPO's advantages.

pxy train experiments/psr_rl.py --out runs/psr_rl
"""

from common import GRPO, LR, positives, rl

from pxy.config import Phase


def config():
  return rl(Phase("psr-rl", (positives(GRPO),), lr=LR))
