"""Which learning rate does each method need? The sweep before the study of claims.

  pxy study rates --out runs/rates --jobs 2

Every method gets the same three rates, a third of its base's, the base's own and three
times that, on a seed that no claim uses, for half as many steps. Of a method with two
phases the first one's rate is swept, and the second is GRPO at the base's own.
claims.py takes for each method and world the rate with the highest `bound/pass@1`
after training.
Cost: `--dry-run` says.
"""

import functools

from pxy import config
from pxy.commands import experiment
from pxy.study.plan import Arm, Study, World

SEED = 100
SIZE = ("--steps", "60", "--eval.problems", "256", "--eval.samples", "4")
TERM = "--phases.0.terms.0."
METHODS = {
  "grpo": ("grpo", ()),
  "dsrl": ("dsrl", ()),
  "nsr_rl_warmup": ("nsr_rl_warmup", ()),
  "teacher_psr": ("teacher_psr", ()),
  "nsr_prerl": ("nsr_prerl", ()),
  "psr_prerl": ("psr_prerl", ()),
  "prerl": ("prerl", ()),
  "nsr_rl": ("nsr_rl", ()),
  "psr_rl": ("psr_rl", ()),
  "w_reinforce": ("w_reinforce", ()),
  "joint": ("joint", ()),
  "dr_grpo": (
    "grpo",
    (f"{TERM}advantage", "mean", f"{TERM}reduction", "constant",
     f"{TERM}constant", "96"),
  ),
  "rloo": (
    "grpo",
    (f"{TERM}advantage", "rloo", f"{TERM}clip", "none", f"{TERM}reduction",
     "seq-mean-token-sum"),
  ),
  "gspo": (
    "grpo",
    (f"{TERM}clip", "gspo", f"{TERM}clip-low", "3e-4", f"{TERM}clip-high", "4e-4",
     f"{TERM}reduction", "seq-mean-token-mean"),
  ),
  "dapo": (
    "grpo",
    (f"{TERM}clip-high", "0.28", f"{TERM}dual-clip", "None", "--reward.overlong",
     "penalty", "--reward.refill", "2"),
  ),
}  # fmt: skip
"""Name: the method of pxy/methods.py, and how it differs from it."""
WORLDS = ("world", "add3")
ONE = ("teacher_psr", "dr_grpo", "rloo", "gspo", "dapo")
"""Methods of the first world alone."""


@functools.cache
def phases(base: str, method: str) -> tuple[config.Phase, ...]:
  """Of a method of this table on a base."""
  return experiment.load(f"{base}:{METHODS[method][0]}", config.Train).phases


def rates(base: str, method: str) -> tuple[float, ...]:
  """The three of a method's first phase, by its base's own."""
  own = phases(base, method)[0].lr
  return tuple(float(f"{own * factor:.2g}") for factor in (1 / 3, 1, 3))


def arms() -> tuple[Arm, ...]:
  """Method x rate, for each world."""
  return tuple(
    Arm(
      f"{base}-{name}-{lr:g}", method, (*options, "--phases.0.lr", f"{lr:g}"), (base,)
    )
    for base in WORLDS
    for name, (method, options) in METHODS.items()
    if base == WORLDS[0] or name not in ONE
    for lr in rates(base, name)
  )


def study() -> Study:
  return Study(tuple(World(base, base, SIZE) for base in WORLDS), arms(), (SEED,))
