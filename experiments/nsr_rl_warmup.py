"""The control of DSRL: the same warm-up on negatives, in the conditional space.

pxy train experiments/nsr_rl_warmup.py --out runs/nsr_rl_warmup
"""

import add3


def config():
  return add3.config("nsr_rl_warmup")
