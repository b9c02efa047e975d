"""Does DSRL (NSR-PreRL for a while, then GRPO) lift the embedded model?

  pxy train experiments/dsrl.py --out runs/dsrl

The project's main job, and what `make demo` runs. Phase 1 pushes down wrong answers in
the marginal space, log P(y); phase 2 is GRPO on log P(y|x).

Cost: 110 s on 2 CPU cores. Expected: avg@16 from 42.8 ± 1.2 % to 86.8 ± 1.2 %. GRPO for
as many steps (grpo.py) ends at 87.5 ± 1.2 % with seed 0 and 84.5 ± 1.7 % with seed 1:
on this small task the first phase neither helps nor hurts beyond the noise.
"""

import add3


def config():
  return add3.config("dsrl")
