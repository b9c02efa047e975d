"""PreRL: all samples in the marginal space, A = r - mean(group).

  pxy train experiments/prerl.py --out runs/prerl

The paper reports that it tracks RL for a while and then collapses.
"""

import add3


def config():
  return add3.config("prerl")
