"""Is it enough to weigh right answers less? W-REINFORCE (arXiv 2506.01347).

  pxy train experiments/w_reinforce.py --out runs/w_reinforce

A = 0.1 r for right answers, r - 1 for wrong ones.

Cost: 2 minutes on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 to 70.2 ± 1.2 % (one
seed), below GRPO's.
"""

import add3


def config():
  return add3.config("w_reinforce")
