"""W-REINFORCE (arXiv 2506.01347): A = 0.1 r for right answers, r - 1 for wrong ones.

pxy train experiments/w_reinforce.py --out runs/w_reinforce
"""

import add3


def config():
  return add3.config("w_reinforce")
