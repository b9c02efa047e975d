"""Is it P(y) that helps in DSRL, or only the negatives? Its control, on log P(y|x).

  pxy train experiments/nsr_rl_warmup.py --out runs/nsr_rl_warmup

As long a warm-up on wrong answers at the same learning rate, in the conditional space,
then GRPO. Besides, its advantages are GRPO's and not r - mean(group), and moments are
kept at the switch, where DSRL on this base resets them; for that alone to be the same,
`--phases.1.on_start reset_optimizer`.

Cost: 2 minutes on 2 CPU cores. Expected (seed 0): avg@16 from 42.8 ± 1.2 % to
84.7 ± 1.3 %, pass@16 100 % before and after. DSRL ended at 80.6 ± 1.6 % on the same
machine, and at 86.8 ± 1.2 % on another: one seed decides nothing.
"""

import add3


def config():
  return add3.config("nsr_rl_warmup")
