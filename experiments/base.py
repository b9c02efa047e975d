"""The embedded base model `builtin:tiny`, from nothing: tokenizer, corpus, 650 steps.

  pxy pretrain experiments/base.py --out runs/base
"""

from pxy.config import Pretrain


def config():
  return Pretrain()
