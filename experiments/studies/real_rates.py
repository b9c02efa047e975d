"""Which learning rate does each method need on SmolLM2-135M? The sweep before real.py.

  pxy study real_rates --out runs/real_rates

As rates.py: every method gets the same three rates for its first phase, on a seed that
no claim uses, for half as many steps. They are three for all alike, for the base's own
for P(y), the paper's, moves nothing here. It needs what the experiment needs
(smollm2_chain_sum.py).
Cost: `--dry-run` says.
"""

from pxy.study.plan import Arm, Study, World

SEED = 100
BASE = "smollm2_chain_sum"
SIZE = (
  "--data.prompts", "4", "--data.responses", "4", "--sampling.slots", "32",
  "--sampling.max-new-tokens", "32", "--compute.micro-rows", "1",
  "--eval.problems", "16", "--eval.samples", "16",
)  # fmt: skip
"""As large as two cores can: 16 responses a step, and the 15 questions of the test."""
METHODS = ("grpo", "dsrl", "nsr_rl_warmup")
RATES = (3e-6, 1e-5, 3e-5)


def study() -> Study:
  world = World("smollm2", BASE, ("--steps", "30", "--eval-every", "30", *SIZE))
  arms = tuple(
    Arm(f"{method}-{rate:g}", method, ("--phases.0.lr", f"{rate:g}"))
    for method in METHODS
    for rate in RATES
  )
  return Study((world,), arms, (SEED,))
