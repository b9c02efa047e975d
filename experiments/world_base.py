"""Where does the second embedded base model, `builtin:world`, come from?

  pxy pretrain experiments/world_base.py --out runs/world

Cost: 2. Expected: 1.
"""

from pxy.config import Corpus, Optim, Pretrain, Width


def config():
  return Pretrain(
    corpus=Corpus(
      kind="world", wrong=0.15, noticed=0, question_free=0.2, documents=120_000
    ),
    width=Width(vocab=222, context=128, tied=False),
    steps=1320,
    rows=16,
    row_tokens=128,
    optim=Optim(b2=0.98, weight_decay=0.0),
  )
