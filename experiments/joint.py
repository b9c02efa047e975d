"""Both spaces in one update: GRPO's loss + 0.01 x NSR-PreRL's.

pxy train experiments/joint.py --out runs/joint
"""

import add3


def config():
  return add3.config("joint")
