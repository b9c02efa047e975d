"""How far do all samples carry in the marginal space? PreRL, A = r - mean(group).

  pxy train experiments/prerl.py --out runs/prerl

The paper reports that it tracks RL for a while and then collapses.

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to 56.2 ± 1.3 %.
After 120 steps it still rises, slowly, with a fiftieth of GRPO's learning rate.
"""

import add3


def config():
  return add3.config("prerl")
