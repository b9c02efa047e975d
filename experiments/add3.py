"""Any method on the embedded world: what does it do to a model that errs on its sums?

  pxy train experiments/add3.py:nsr_rl --out runs/nsr_rl

The base of every experiment here that names no other: the embedded 0.3 M-parameter
model, which adds three-digit numbers step by step, and 32 prompts x 8 responses a step.
Each row of the method's table has a file of its own beside this one (grpo.py, dsrl.py,
...), with its question and what was found. Without a method this is DSRL.

Cost: 2 to 6 minutes on 2 CPU cores. Expected: avg@16 is 42.8 ± 1.2 % before; what it is
after stands in each method's file.

The learning rates are this model's. The marginal space needs a far smaller one than the
conditional, since every response pushes on the same context. NSR-PreRL alone took
avg@16 from 42.8 to 44.6 (± 1.2 %) in 30 steps with 1e-5, and from 42.5 to 35.9
(± 2.5 %, 64 problems) in 20 steps with 4e-5 (`pxy train experiments/nsr_prerl.py
--steps 20 --phases.0.lr 4e-5`).
"""

from pxy import methods
from pxy.config import Compute, Data, Eval, Sampling, Train

RATES = methods.Rates(
  conditional=5e-4,
  negatives=5e-5,
  marginal=1e-5,
  warmup=20,
  on_start="reset_optimizer",
)
STEPS = {"nsr_prerl": 30, "psr_prerl": 30}
"""Methods that are a warm-up, or do harm: short."""


def config(method: str = "dsrl") -> Train:
  return Train(
    model="builtin:tiny",
    phases=methods.phases(method, RATES),
    steps=STEPS.get(method, 120),
    data=Data(task="arithmetic/add3", prompts=32, responses=8, max_prompt_tokens=32),
    sampling=Sampling(max_new_tokens=96, slots=256),
    compute=Compute(row_tokens=256),
    eval=Eval(problems=128, samples=16),
  )
