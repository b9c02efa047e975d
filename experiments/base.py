"""Where does the embedded base model, `builtin:tiny`, come from? From its corpus alone.

  pxy pretrain experiments/base.py --out runs/base

A step of the corpus goes wrong in a fifth of the cases, and the trace notices a quarter
of those. So the model has learned to err, and to correct itself now and then: what RL
needs to start from.

Cost: 7 minutes of CPU time, so 4 to 7 minutes on 2 CPU cores: 650 steps of 0.6 s (of
which 12 were measured), the corpus, and an evaluation. Expected: a sampled answer is
right about half of the time; the weights that pxy ships are at avg@16 = 42.8 ± 1.2 %.
"""

from pxy.config import Corpus, Pretrain


def config():
  return Pretrain(
    corpus=Corpus(level="add3", wrong=0.2, noticed=0.25, question_free=0.2),
    steps=650,
    rows=48,
    row_tokens=160,
  )
