"""Does DSRL's first phase need to know right from wrong? Its control: random labels.

  pxy train experiments/random_label.py --out runs/random_label

DSRL, but in its first phase the rewards of the batch change places, by a key of the
step: as many samples go down in log P(y), in as many groups, whichever they are.

Cost: 2 minutes on 2 CPU cores. Expected: 85.0 ± 1.3 % from 42.8 ± 1.2 %, where DSRL
ended at 80.6 ± 1.6 % on the same machine: one seed each, so labels are not shown to
matter.
"""

import add3


def config():
  return add3.config("random_label")
