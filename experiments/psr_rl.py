"""What do positives alone do in the conditional space? PSR-RL with GRPO's advantages.

  pxy train experiments/psr_rl.py --out runs/psr_rl

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to 74.3 ± 2.0 %, and
pass@16 from 100 to 96.9 ± 1.5 %.
"""

import add3


def config():
  return add3.config("psr_rl")
