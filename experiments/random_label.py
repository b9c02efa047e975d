"""Does DSRL's first phase need to know right from wrong? Its control: random labels.

  pxy train experiments/random_label.py --out runs/random_label

DSRL, but in its first phase the rewards of the batch change places, by a key of the
step: as many samples go down in log P(y), in as many groups, whichever they are.

Cost: 2 minutes on 2 CPU cores. Expected: where the first phase needs no labels, what
DSRL ends at (86.8 and 80.6 % on two machines, from 42.8 ± 1.2 %). Not measured yet.
"""

import add3


def config():
  return add3.config("random_label")
