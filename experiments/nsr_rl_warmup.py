"""The control of DSRL: the same warm-up on negatives, in the conditional space.

pxy train experiments/nsr_rl_warmup.py --out runs/nsr_rl_warmup
"""

from common import GRPO, LR, negatives, rl

from pxy.config import Phase


def config():
  return rl(
    Phase("nsr-rl", (negatives(GRPO),), steps=20, lr=1e-5),
    Phase("grpo", (GRPO,), lr=LR),
  )
