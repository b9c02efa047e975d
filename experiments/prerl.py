"""How far do all samples carry in the marginal space? PreRL, A = r - mean(group).

  pxy train experiments/prerl.py --out runs/prerl

The paper reports that it tracks RL for a while and then collapses.

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to PRERL %.
"""

import add3


def config():
  return add3.config("prerl")
