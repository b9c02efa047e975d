"""Does any of it hold on a real model? SmolLM2-135M and short sums, with two controls.

  pxy study real --out runs/real

3 seeds of DSRL and GRPO, of DSRL with a first phase on P(y|x) (nsr_rl_warmup), and of
one whose first phase changes nothing (zero_phase), for 60 steps. As small as two cores
demand: 16 responses of at most 32 tokens a step, and 15 questions to be tested on, 16
times each. So it sees large differences alone. Learning rates are those of the sweep
(real_rates.py), so many for every method, on a seed that is none of these. All arms see
the same prompts in the same order for as many updates. It needs what the experiment
needs (smollm2_chain_sum.py). Cost: `--dry-run` says.
"""

import real_rates

from pxy import config
from pxy.commands import experiment
from pxy.study.plan import BEFORE, ZERO, Arm, Claim, Study, World

PASS1, PASS16 = "bound/pass@1", "bound/pass@16"
TASK = experiment.load(real_rates.BASE, config.Train).data.task
CHOSEN = {"grpo": 3e-5, "dsrl": 3e-5, "nsr_rl_warmup": 3e-6}
"""Learning rate of a method's first phase, the best of the sweep's three; the second is
GRPO at its own."""
ROWS = ("--compute.row-tokens", "176")
"""A prompt of 46 tokens and its four responses in a row: no number but rounding."""


def arm(name: str, like: str = "", *options) -> Arm:
  """A method of the sweep, or (`like`) one that differs from it by options alone."""
  first = "--phases.0.lr", f"{CHOSEN[like or name]:g}"
  then = "--phases.1.lr", f"{CHOSEN['grpo']:g}"
  return Arm(name, like, (*first, *(() if name == "grpo" else then), *options))


def study() -> Study:
  return Study(
    worlds=(
      World(
        "smollm2", real_rates.BASE,
        ("--steps", "60", "--eval-every", "60", *real_rates.SIZE, *ROWS),
        before="builtin:smollm2-135m",
        align=("--task", TASK, "--grader", "number", "--max-prompt-tokens", "96",
               "--max-new-tokens", "32", "--n", "24", "--responses", "4"),
      ),
    ),
    arms=(
      arm("grpo"),
      arm("dsrl"),
      arm("nsr_rl_warmup"),
      arm("zero_phase", "dsrl", "--phases.0.lr", "1e-30"),
    ),
    seeds=(0, 1, 2),
    claims=(
      Claim("align", "gradients of log P(y) and log P(y|x) align", "align/cosine",
            BEFORE, ZERO, paper="cosine 0.44 (Qwen3-4B, AMC23)"),
      Claim("grpo-learns", "GRPO learns the task", PASS1, "grpo", BEFORE),
      Claim("dsrl-end", "DSRL ends above GRPO", PASS1, "dsrl", "grpo",
            paper="avg@32 57.5 against 55.8 (Qwen3-4B, six benchmarks)"),
      Claim("dsrl-wide", "DSRL has more in 16 tries than GRPO", PASS16, "dsrl", "grpo",
            paper="pass@k above GRPO's up to k = 256"),
      Claim("dsrl-steps", "DSRL needs fewer steps", "train/steps@0.5", "dsrl", "grpo",
            expects="less", margin=5, paper="2.5x fewer to 45 %"),
      Claim("dsrl-nsr_rl_warmup", "DSRL ends above nsr_rl_warmup", PASS1, "dsrl",
            "nsr_rl_warmup", paper="57.5 against 54.4 (Qwen3-4B)"),
      Claim("dsrl-zero_phase", "DSRL ends above zero_phase", PASS1, "dsrl",
            "zero_phase"),
    ),
  )  # fmt: skip
