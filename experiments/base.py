"""The embedded base model `builtin:tiny`, from nothing: tokenizer, corpus, 650 steps.

  pxy pretrain experiments/base.py --out runs/base

A step of the corpus goes wrong in a fifth of the cases, and the trace notices a quarter
of those. So the model has learned to err, and to correct itself now and then, and a
sampled answer is right about half of the time: what RL needs to start from.
"""

from pxy.config import Corpus, Pretrain


def config():
  return Pretrain(
    corpus=Corpus(level="add3", wrong=0.2, noticed=0.25, question_free=0.2),
    steps=650,
    rows=48,
    row_tokens=160,
  )
