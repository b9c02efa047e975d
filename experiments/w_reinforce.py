"""W-REINFORCE (arXiv 2506.01347): A = 0.1 r for right answers, r - 1 for wrong ones.

pxy train experiments/w_reinforce.py --out runs/w_reinforce
"""

from common import rl

from pxy.config import Phase, Term


def config():
  return rl(Phase("w-reinforce", (Term(advantage="w-reinforce", lam=0.1),), lr=5e-5))
