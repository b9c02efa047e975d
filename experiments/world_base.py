"""Where does the second embedded base model, `builtin:world`, come from?

  pxy pretrain experiments/world_base.py --out runs/world

From one epoch of 120,000 documents about invented entities (data/world.py), in which a
hop in seven goes wrong. So the model knows what is often said, half knows what is said
now and then, and knows nothing of who is never spoken of: what can be asked of RL.

Cost: 1,320 steps, 527 s on 2 CPU cores beside five other jobs; not yet timed alone.
Expected: all 7 gates of tests/test_world_model.py hold. A rehearsal with this recipe,
whose corpus had the chains of another split, knew codes to .17, .22, .59 and 15.8 nats
(head, mid, tail, ghosts) and bosses to .17, .34, 1.7 and 10.9, answered 83, 73 and 47 %
of single codes right, and called 84 % of the seen invented names unknown, 16 % of the
unseen ones and 0.1 % of the head.

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
