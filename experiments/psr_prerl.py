"""PSR-PreRL: right answers pulled up in log P(y). The paper reports that it degrades.

pxy train experiments/psr_prerl.py --out runs/psr_prerl
"""

import add3


def config():
  return add3.config("psr_prerl")
