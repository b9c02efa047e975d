"""Is it P(y) that helps in DSRL, or only the negatives? Its control, on log P(y|x).

  pxy train experiments/nsr_rl_warmup.py --out runs/nsr_rl_warmup

The same warm-up on wrong answers at the same learning rate, in the conditional space,
then GRPO.

Cost: 110 s on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to about the 86.8 ± 1.2 %
of DSRL; not measured yet.
"""

import add3


def config():
  return add3.config("nsr_rl_warmup")
