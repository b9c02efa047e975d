"""What do positives alone do in the conditional space? PSR-RL with GRPO's advantages.

pxy train experiments/psr_rl.py --out runs/psr_rl
"""

import add3


def config():
  return add3.config("psr_rl")
