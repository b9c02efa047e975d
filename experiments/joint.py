"""Both spaces in one update: GRPO's loss + 0.01 x NSR-PreRL's.

pxy train experiments/joint.py --out runs/joint
"""

from common import GRPO, LR, MARGINAL, negatives, rl, scaled

from pxy.config import Phase


def config():
  return rl(Phase("joint", (GRPO, scaled(negatives(MARGINAL), 0.01)), lr=LR))
