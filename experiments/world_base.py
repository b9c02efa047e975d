"""Where does the second embedded base model, `builtin:world`, come from?

  pxy pretrain experiments/world_base.py --out runs/world

From one epoch of 120,000 documents about invented entities (data/world.py), in which a
hop in seven goes wrong. So the model knows what is often said, half knows what is said
now and then, and knows nothing of who is never spoken of: what can be asked of RL.

Cost: 1,320 steps, 8 minutes of CPU time; on 2 cores that others used too, 10 minutes.
Expected: all 7 gates of tests/test_world_model.py hold. It knows codes to .20, .26, .60
and 16.0 nats (head, mid, tail, ghosts), bosses to .21, .37, 1.5 and 10.9; answers 81,
72 and 49 % of single codes right; calls 88 % of the seen invented names unknown, 19 %
of the unseen ones and 0.1 % of the head; and calls 28 % of those who contradict their
stereotype, and 52 % of ghosts, by it. Chains of 1 to 6 hops, 64 of each (`pxy bound
builtin:world`): verified pass@1 19.5 %, pass@64 53.7 %, pass@256 61.7 %; pass@256 by
hops 100, 97, 73, 56, 37 and 6 %; by chance, answers alone, 15 to 23 %.

The embedding has a head of its own and begins 20 times as wide as usual. With the usual
spread the loss at step 300 was 0.756 and not 0.684, tied to the head (spread 0.05)
0.958 and not 0.813 at step 200.
"""

from pxy.config import Corpus, Data, Optim, Pretrain, Sampling, Width


def config():
  return Pretrain(
    corpus=Corpus(
      kind="world", wrong=0.15, noticed=0.0, question_free=0.2, documents=120_000
    ),
    width=Width(vocab=222, tied=False, embed_std=0.4),
    steps=1320,
    rows=16,
    row_tokens=128,
    optim=Optim(b2=0.98, weight_decay=0.0),
    data=Data(max_prompt_tokens=32),
    sampling=Sampling(max_new_tokens=80),
  )
