"""Any method on the world of facts: does RL leave what the base could already do?

  pxy train experiments/world.py:grpo --out runs/world_grpo

The base is `builtin:world` (world_base.py), 0.35 M parameters that know some facts
well, some half and some not at all; data/world.py says what there is to know. Prompts
are chains of 1 to 5 hops, explained or brief, 32 x 8 a step; the score is 1 if the
answer is right and so is every hop on the way. Without a method this is DSRL. Evaluated
on 120 chains of 1 to 6 hops that neither corpus nor training has asked, 64 samples
each.

Cost: 75 updates of 32 x 8 and two evaluations, 3 minutes of CPU time on 2 cores.
Expected, seed 0, verified avg and pass@64 of the 120 chains: base 20.4 ± 2.7 and 52.5 ±
4.6 %; GRPO 24.2 ± 3.1 and 50.8 ± 4.6 %; DSRL 24.8 ± 3.1 and 52.5 ± 4.6 %. On 384 chains
with 256 samples (`pxy bound builtin:world RUN`; 95 % intervals of the difference to the
base): GRPO pass@1 +5.5 (4.2 to 6.9), pass@64 0.0 (-2.1 to 2.0), pass@256 -3.4 (-6.2 to
-0.8) points; DSRL +5.4 (4.0 to 6.7), -0.2 (-1.7 to 1.4), -1.0 (-3.6 to 1.6). Gained and
lost problems are as many as between two halves of the base's own samples. So one try is
right more often and 256 tries are not: what was drawn now and then is drawn more often.
One seed says nothing about GRPO against DSRL.

`--data.grader answer` scores the answer alone; `--data.grader abstain` makes `unknown`
worth more than a wrong answer, which matters with questions about invented names:
`--data.task "0.8 * world/chains + 0.2 * world/unknown"`.
"""

from pxy import methods
from pxy.config import Compute, Data, Eval, Sampling, Train

RATES = methods.Rates(
  conditional=5e-4,
  negatives=2e-4,
  marginal=2e-4,
  warmup=15,
  on_start="reset_optimizer",
)
STEPS = {"nsr_prerl": 15, "psr_prerl": 15}
"""Methods that are a warm-up, or do harm: short."""


def config(method: str = "dsrl") -> Train:
  return Train(
    model="builtin:world",
    phases=methods.phases(method, RATES),
    steps=STEPS.get(method, 75),
    data=Data(task="world/chains", prompts=32, responses=8, max_prompt_tokens=32),
    sampling=Sampling(max_new_tokens=80, slots=256),
    compute=Compute(row_tokens=128),
    eval=Eval(problems=120, samples=64),
  )
