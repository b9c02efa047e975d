"""Is P(y) more than a language model of right traces? DSRL's control: just that.

  pxy train experiments/teacher_psr.py --out runs/teacher_psr

The first phase raises log P(y) of right answers, with the question out of sight and no
baseline: next-token training on traces. It needs no log-prob of whoever wrote them, so
stored samples of another model will do; of its own, it is PSR without a baseline.

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 to 84.5 ± 1.4 % (one
seed), where GRPO and DSRL end: the control leaves nothing to explain here.
"""

import add3


def config():
  return add3.config("teacher_psr")
