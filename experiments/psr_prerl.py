"""PSR-PreRL: right answers pulled up in log P(y). The paper reports that it degrades.

pxy train experiments/psr_prerl.py --out runs/psr_prerl
"""

from common import MARGINAL, positives, rl

from pxy.config import Phase


def config():
  return rl(Phase("psr-prerl", (positives(MARGINAL),), lr=1e-5), steps=30)
