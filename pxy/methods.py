"""The method's table: each row is a function from a base's rates to phases.

  phases("dsrl", RATES)      a run's `phases`; RATES is what one model on one task needs

A method says which likelihood of which samples moves, in which order. How fast and for
how long belongs to the base, the experiment file that has model, data and sizes: the
embedded 0.3 M model and Qwen3-4B need rates that lie a factor of 500 apart. So a row
stands here once, and runs on any base (`pxy train qwen3_4b_math:grpo`).

A new method is a function here and its name in METHODS.
"""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Literal

from pxy import config
from pxy.config import Phase, Term

GRPO = Term(advantage="grpo")
MARGINAL = Term(space="marginal", advantage="mean")


@dataclasses.dataclass(frozen=True)
class Rates:
  """What a base tells its method. There are no defaults: a rate that is not thought
  about is wrong."""

  conditional: float
  """Learning rate of log P(y|x)."""
  negatives: float
  """Learning rate of log P(y|x) where little but wrong answers moves it."""
  marginal: float
  """Learning rate of log P(y): every response pushes on the same context."""
  warmup: int
  """Steps of the first of two phases."""
  on_start: Literal["keep", "reset_optimizer"]
  """What GRPO does with the moments of a first phase: with a coefficient of 0.01 they
  slow it down at first (docs/objectives.md, "Adam's moments at the switch")."""


def negatives(term: Term) -> Term:
  """NSR: only wrong samples, pushed down."""
  return dataclasses.replace(term, select="negative")


def positives(term: Term) -> Term:
  """PSR: only right samples, pushed up."""
  return dataclasses.replace(term, select="positive")


def scaled(term: Term, coef: float) -> Term:
  """The term with a coefficient. In a phase of its own Adam divides it out: the updates
  are those of coefficient 1, but where the clip of the norm or eps acts. It counts in a
  joint update, and in the moments that the next phase starts with."""
  return dataclasses.replace(term, coef=coef)


def grpo(rates: Rates) -> tuple[Phase, ...]:
  """The baseline: log P(y|x) alone."""
  return (Phase("grpo", (GRPO,), lr=rates.conditional),)


def nsr_rl(rates: Rates) -> tuple[Phase, ...]:
  """Wrong answers down in log P(y|x), with GRPO's advantages."""
  return (Phase("nsr-rl", (negatives(GRPO),), lr=rates.negatives),)


def psr_rl(rates: Rates) -> tuple[Phase, ...]:
  """Right answers up in log P(y|x), with GRPO's advantages."""
  return (Phase("psr-rl", (positives(GRPO),), lr=rates.conditional),)


def prerl(rates: Rates) -> tuple[Phase, ...]:
  """All samples in log P(y), A = r - mean(group)."""
  return (Phase("prerl", (MARGINAL,), lr=rates.marginal),)


def nsr_prerl(rates: Rates) -> tuple[Phase, ...]:
  """Wrong answers down in log P(y), with the prompt out of sight."""
  return (Phase("nsr-prerl", (negatives(MARGINAL),), lr=rates.marginal),)


def psr_prerl(rates: Rates) -> tuple[Phase, ...]:
  """Right answers up in log P(y)."""
  return (Phase("psr-prerl", (positives(MARGINAL),), lr=rates.marginal),)


def nsr_rl_warmup(rates: Rates) -> tuple[Phase, ...]:
  """DSRL's control: as long a warm-up on negatives, in the conditional space.

  More than the space differs: advantages are GRPO's, over the standard deviation, and
  moments are kept at the switch, whatever the base has GRPO do with those of DSRL.
  """
  return (
    Phase("nsr-rl", (negatives(GRPO),), steps=rates.warmup, lr=rates.marginal),
    Phase("grpo", (GRPO,), lr=rates.conditional),
  )


def dsrl(rates: Rates) -> tuple[Phase, ...]:
  """NSR-PreRL for a while, with coefficient 0.01; then GRPO."""
  wrong = scaled(negatives(MARGINAL), 0.01)
  return (
    Phase("nsr-prerl", (wrong,), steps=rates.warmup, lr=rates.marginal),
    Phase("grpo", (GRPO,), lr=rates.conditional, on_start=rates.on_start),
  )


def joint(rates: Rates) -> tuple[Phase, ...]:
  """Both spaces in one update: GRPO's loss + 0.01 x NSR-PreRL's."""
  wrong = scaled(negatives(MARGINAL), 0.01)
  return (Phase("joint", (GRPO, wrong), lr=rates.conditional),)


def w_reinforce(rates: Rates) -> tuple[Phase, ...]:
  """A = 0.1 r for right answers and r - 1 for wrong ones (arXiv 2506.01347)."""
  term = Term(advantage="w-reinforce", lam=0.1)
  return (Phase("w-reinforce", (term,), lr=rates.negatives),)


def random_label(rates: Rates) -> tuple[Phase, ...]:
  """DSRL's control: its first phase gets the batch's rewards in random order."""
  return _first(dsrl(rates), control="random-label")


def all_down(rates: Rates) -> tuple[Phase, ...]:
  """DSRL's control: its first phase pushes every sample down, right or wrong."""
  return _first(dsrl(rates), control="all-down")


def teacher_psr(rates: Rates) -> tuple[Phase, ...]:
  """DSRL's control: what is right is learnt as text, log P(y) of it and no question.

  Meant for stored samples (`--rollouts`), of another model as well: it needs no
  log-prob of theirs. Of its own samples, it is PSR without a baseline.
  """
  right = Term(space="marginal", select="positive", negative="reward", clip="none")
  return (
    Phase("teacher-psr", (right,), steps=rates.warmup, lr=rates.marginal),
    Phase("grpo", (GRPO,), lr=rates.conditional, on_start=rates.on_start),
  )


def _first(phases: tuple[Phase, ...], **fields) -> tuple[Phase, ...]:
  """The phases, with these fields of the first one's terms."""
  terms = tuple(dataclasses.replace(term, **fields) for term in phases[0].terms)
  return (dataclasses.replace(phases[0], terms=terms), *phases[1:])


METHODS: dict[str, Callable[[Rates], tuple[Phase, ...]]] = {
  row.__name__: row
  for row in (
    grpo,
    nsr_rl,
    psr_rl,
    prerl,
    nsr_prerl,
    psr_prerl,
    nsr_rl_warmup,
    dsrl,
    joint,
    w_reinforce,
    random_label,
    all_down,
    teacher_psr,
  )
}


def phases(method: str, rates: Rates) -> tuple[Phase, ...]:
  """A method's phases on a base; config.Error names what is near an unknown one."""
  if method not in METHODS:
    near = difflib.get_close_matches(method, METHODS, 1)
    hint = f"is it {near[0]!r}? " if near else ""
    raise config.Error(
      f"unknown method {method!r}; {hint}there are {', '.join(METHODS)}"
    )
  return METHODS[method](rates)
