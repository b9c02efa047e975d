"""The baseline: GRPO on log P(y|x) alone.

pxy train experiments/grpo.py --out runs/grpo
"""

from common import GRPO, LR, rl

from pxy.config import Phase


def config():
  return rl(Phase("grpo", (GRPO,), lr=LR))
