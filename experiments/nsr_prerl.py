"""NSR-PreRL: wrong answers pushed down in log P(y), with the prompt out of sight.

pxy train experiments/nsr_prerl.py --out runs/nsr_prerl
"""

from common import MARGINAL, negatives, rl

from pxy.config import Phase


def config():
  return rl(Phase("nsr-prerl", (negatives(MARGINAL),), lr=1e-5), steps=30)
