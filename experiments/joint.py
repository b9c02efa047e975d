"""Do both spaces go together in one update? GRPO's loss + 0.01 x NSR-PreRL's.

  pxy train experiments/joint.py --out runs/joint

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 above the 42.8 ± 1.2 % that
it starts from; where it ends is not measured yet.
"""

import add3


def config():
  return add3.config("joint")
