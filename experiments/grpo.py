"""The baseline: GRPO on log P(y|x) alone.

pxy train experiments/grpo.py --out runs/grpo
"""

import add3


def config():
  return add3.config("grpo")
