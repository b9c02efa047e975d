"""Do both spaces go together in one update? GRPO's loss + 0.01 x NSR-PreRL's.

  pxy train experiments/joint.py --out runs/joint

Cost: 2 minutes on 2 CPU cores. Expected (seed 0): avg@16 from 42.8 ± 1.2 % to
86.6 ± 1.4 %, pass@16 100 % before and after.
"""

import add3


def config():
  return add3.config("joint")
