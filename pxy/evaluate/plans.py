"""What an embedded world is asked, so that `pxy probe` and `pxy bound` need no options.

A plan is data: which task, how many problems and samples, and which parts of probe.py
its responses serve. A task of the user's own has a plan of one row, with every part.
"""

import dataclasses

from pxy.data import arithmetic, world, world_problems
from pxy.evaluate import samples
from pxy.weights import load

CONTEXTS = ("start", "document", "other")


@dataclasses.dataclass(frozen=True)
class Ask:
  """One store.

  Attributes:
    task: a word of data.task.
    problems, samples: of the test split.
    parts: of probe.PARTS, that are computed from it.
    contexts: that log p is taken in, besides the prompt.
  """

  task: str
  problems: int
  samples: int
  parts: tuple[str, ...]
  contexts: tuple[str, ...] = ()

  def smaller(self) -> "Ask":
    """About a fortieth of the work: what a training run can stop for."""
    samples = max(4, min(self.samples // 8, 16))
    return dataclasses.replace(self, problems=self.problems // 5, samples=samples)


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that a world is asked.

  Attributes:
    asks: the stores.
    world: the module that has its documents; None: there are none.
    corpus: kind of the corpus.
    grader: of the answers that are given to no prompt.
    max_prompt_tokens, max_new_tokens: that its problems take.
  """

  asks: tuple[Ask, ...]
  world: object = None
  corpus: str = ""
  grader: str = "auto"
  max_prompt_tokens: int = 64
  max_new_tokens: int = 96

  def smaller(self) -> "Plan":
    """Its asks, each made smaller."""
    return dataclasses.replace(self, asks=tuple(ask.smaller() for ask in self.asks))


HOPS = 6
PLANS = {
  "world": Plan(
    (
      Ask("world/chains", 64 * HOPS, 256, ("bound", "calibration", "diversity")),
      Ask("world/explain", 16 * HOPS, 16, ("contexts",), CONTEXTS),
      Ask("world/robust", 60 * len(world_problems.VARIANTS), 16, ("robust",)),
      Ask("world/facts", 192, 16, ("hallucination",)),
      Ask("world/ghosts", 96, 16, ("hallucination",)),
      Ask("world/unknown", 192, 16, ("hallucination",)),
      Ask("world/colours", 480, 16, ("bias",)),
    ),
    world,
    "world",
    "answer",
    32,
    80,
  ),
  "arithmetic": Plan(
    (
      Ask(
        "arithmetic/add3",
        128,
        64,
        ("bound", "calibration", "contexts", "diversity"),
        CONTEXTS,
      ),
    ),
    arithmetic,
    "arithmetic",
    "arithmetic",
  ),
}
BASES = {"world": "builtin:world", "arithmetic": "builtin:tiny"}
"""Whose tokenizer says which world a model is of."""


def of_tokenizer(tokenizer) -> tuple[str, Plan] | None:
  """(name, plan) of the world that a tokenizer is of; None where it is of none."""
  digest = samples.tokenizer_digest(tokenizer)
  for name, base in BASES.items():
    if digest == samples.tokenizer_digest(load.about(base).tokenizer):
      return name, PLANS[name]
  return None


def of_task(task: str, problems: int, samples: int) -> Plan:
  """A task of the user's own: everything that its columns allow."""
  parts = (
    "bound", "robust", "calibration", "contexts", "hallucination", "bias", "diversity",
  )  # fmt: skip
  return Plan((Ask(task, problems, samples, parts, CONTEXTS),))
