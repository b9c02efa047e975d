"""How much of a gain is form? DSRL's control: the reward is that there is an answer.

  pxy train experiments/format_only.py --out runs/format_only

DSRL with the grader `form`: 1 where an answer stands where one is looked for, right or
wrong. Whether it is right is told (reward/arithmetic/mean) and not rewarded; `avg@k` is
that of the form. On any base: `--reward form=1 --reward GRADER=0`.

Cost: 2 minutes on 2 CPU cores. Expected: nothing is learnt of sums, so
reward/arithmetic/mean stays near 0.43; the embedded model has the form already. Not
measured yet.
"""

import dataclasses

import add3


def config():
  cfg = add3.config("dsrl")
  data = dataclasses.replace(cfg.data, rewards=("form=1", "arithmetic=0"))
  return dataclasses.replace(cfg, data=data)
