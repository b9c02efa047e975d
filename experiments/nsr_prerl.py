"""NSR-PreRL: wrong answers pushed down in log P(y), with the prompt out of sight.

pxy train experiments/nsr_prerl.py --out runs/nsr_prerl
"""

import add3


def config():
  return add3.config("nsr_prerl")
