"""How much of a gain is form? DSRL's control: the reward is that there is an answer.

  pxy train experiments/format_only.py --out runs/format_only

DSRL with the grader `form`: 1 where an answer stands where one is looked for, right or
wrong. Whether it is right is told (reward/arithmetic/mean) and not rewarded; of that
are the evaluations. On any base: `--reward form=1 --eval.grader auto`.

Cost: 2 minutes on 2 CPU cores. Expected (one seed): avg@16 falls from 42.8 ± 1.2 to 0.0
% while the form stays at 99.96 %. The model has the form already, so most batches move
nothing; in 31 of 120 one response or two lack an answer, and of that one group's small
gradient Adam makes a step of full size. Eight such steps at GRPO's rate end the sums. A
reward that says little is no harmless control at a rate that was chosen for another.
"""

import dataclasses

import add3


def config():
  cfg = add3.config("dsrl")
  data = dataclasses.replace(cfg.data, rewards=("form=1", "arithmetic=0"))
  eval_ = dataclasses.replace(cfg.eval, grader="auto")
  return dataclasses.replace(cfg, data=data, eval=eval_)
