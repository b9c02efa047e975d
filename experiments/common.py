"""What the experiments share: the embedded world, and the terms of the method's table.

Everything here is data. `rl(*phases)` is the base run; an experiment names its phases.
The learning rates are those of the embedded 0.3 M-parameter model. The marginal space
needs a far smaller one than the conditional, since every response pushes on the same
context. NSR-PreRL alone took avg@16 from 42.8 to 44.6 (± 1.2 %) in 30 steps with 1e-5,
and from 42.5 to 35.9 (± 2.5 %, 64 problems) in 20 steps with 4e-5
(`pxy train experiments/nsr_prerl.py --steps 20 --phases.0.lr 4e-5`).
"""

import dataclasses

from pxy.config import Compute, Data, Eval, Phase, Sampling, Term, Train

LR = 5e-4
GRPO = Term(advantage="grpo")
MARGINAL = Term(space="marginal", advantage="mean")


def negatives(term: Term) -> Term:
  """NSR: only wrong samples, pushed down."""
  return dataclasses.replace(term, select="negative")


def positives(term: Term) -> Term:
  """PSR: only right samples, pushed up."""
  return dataclasses.replace(term, select="positive")


def scaled(term: Term, coef: float) -> Term:
  """The term with a coefficient. Adam forgets it, except where terms meet: in a joint
  update, and in its moments when the next phase starts."""
  return dataclasses.replace(term, coef=coef)


def rl(*phases: Phase, steps: int = 120, **fields) -> Train:
  """A run on three-digit addition from the embedded base model."""
  return Train(
    model="builtin:tiny",
    phases=phases,
    steps=steps,
    data=Data(task="arithmetic/add3", prompts=32, responses=8, max_prompt_tokens=32),
    sampling=Sampling(max_new_tokens=96, slots=256),
    compute=Compute(row_tokens=256),
    eval=Eval(problems=128, samples=16),
    **fields,
  )
