"""Do right answers, pulled up in log P(y), do harm? PSR-PreRL.

  pxy train experiments/psr_prerl.py --out runs/psr_prerl

The paper reports that it degrades.

Cost: a minute on 2 CPU cores. Expected: avg@16 from 42.8 to 47.9 (± 1.2 %) in 30
steps: not here, or not yet.
"""

import add3


def config():
  return add3.config("psr_prerl")
