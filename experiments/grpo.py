"""What does the baseline reach, GRPO on log P(y|x) alone?

  pxy train experiments/grpo.py --out runs/grpo

Cost: 110 s on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to 87.5 ± 1.2 % with seed
0, and to 84.5 ± 1.7 % with seed 1.
"""

import add3


def config():
  return add3.config("grpo")
