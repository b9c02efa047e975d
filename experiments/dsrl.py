"""Does DSRL (NSR-PreRL for a while, then GRPO) lift the embedded model?

  pxy train experiments/dsrl.py --out runs/dsrl

The project's main job, and what `make demo` runs. Phase 1 pushes down wrong answers in
the marginal space, log P(y); phase 2 is GRPO on log P(y|x).
"""

from common import GRPO, LR, MARGINAL, negatives, rl, scaled

from pxy.config import Phase


def config():
  return rl(
    Phase("nsr-prerl", (scaled(negatives(MARGINAL), 0.01),), steps=20, lr=1e-5),
    Phase("grpo", (GRPO,), lr=LR, on_start="reset_optimizer"),
  )
