"""PreRL: all samples in the marginal space, A = r - mean(group).

  pxy train experiments/prerl.py --out runs/prerl

The paper reports that it tracks RL for a while and then collapses.
"""

from common import MARGINAL, rl

from pxy.config import Phase


def config():
  return rl(Phase("prerl", (MARGINAL,), lr=1e-5))
