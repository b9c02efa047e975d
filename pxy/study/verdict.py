"""What a difference says about a claim, once and for all claims alike.

  supported      it is beyond 0 on the side that was expected
  contradicted   it is beyond 0 on the other side
  no difference larger than d   it lies within the margin
  undecided      neither: said with what the design could have seen, and how many seeds
                 would decide

Beyond 0: p < .05 after Holm's correction over all comparisons that the study asks, also
those that have no data yet: what a study that is half done finds may become plainer,
and is not taken back for their number. Within the margin: the 90 % interval is, which
is two one-sided tests at 5 % each. A claim of no difference is supported by the latter
and contradicted by the former beyond the margin.

The smallest difference that can be seen is that which is seen in 80 of 100 studies, by
Holm's strictest step: 2.80 standard errors for one comparison of many runs, 3.86 for
one of twenty, and 7.7 for one of twenty with 5 runs, where their luck is all there is.
"""

import dataclasses
import math
from collections.abc import Sequence

from scipy import stats  # JAX requires it

from pxy.measures import estimate
from pxy.study import plan

LEVEL, POWER = 0.05, 0.8
MANY = 10_000
"""Runs that nobody makes."""


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What became of a claim.

  Attributes:
    verdict: one of the four, in words.
    visible: the smallest difference that the design could have seen.
    seeds: runs of each arm that would see the margin; None where no number would, for
      the problems are too few.
  """

  verdict: str
  visible: float
  seeds: int | None


def of(
  claim: plan.Claim, found: estimate.Spread, p: float, seeds: int, comparisons: int
) -> Verdict:
  """The verdict on a difference; p after Holm's correction for so many comparisons, of
  `seeds` runs an arm."""
  low, high = found.point(100 * LEVEL), found.point(100 - 100 * LEVEL)
  within = -claim.margin <= low and high <= claim.margin
  beyond = p < LEVEL
  large = beyond and (low > claim.margin or high < -claim.margin)
  if claim.expects == "same":
    word = "supported" if within else "contradicted" if large else "undecided"
  elif beyond:
    wanted = found.value > 0 if claim.expects == "more" else found.value < 0
    word = "supported" if wanted else "contradicted"
  elif within:
    word = f"no difference larger than {claim.margin:g}"
  else:
    word = "undecided"
  if unknown(found, seeds):
    word = "undecided"
  problems, luck = float(found.problems_B.var()), found.luck**2
  visible = errors(comparisons, problems, luck, seeds) * math.sqrt(problems + luck)
  return Verdict(word, visible, needed(found, claim.margin, seeds, comparisons))


def counted(word: str, claim: plan.Claim, seeds: int, reached=None) -> str:
  """A verdict, in view of how many runs of each arm get to a score at all: what does
  not counts as all steps, and is alike for no other reason."""
  if reached is None or not rare(reached, seeds):
    return word
  same = claim.expects == "same" and word == "supported"
  alike = same or word.startswith("no difference")
  return "undecided" if alike or not any(reached) else word


def rare(reached: Sequence[int], seeds: int) -> bool:
  """Whether half of an arm's runs, or more, do not get there."""
  return 2 * min(reached) <= seeds


def unknown(found: estimate.Spread, seeds: int) -> bool:
  """Whether nothing is known of the luck: of one run, or of equal differences."""
  return seeds < 2 or bool(found.value and not found.luck)


def errors(comparisons: int, problems: float, luck: float, seeds: int) -> float:
  """Standard errors of a difference that is seen with POWER, as one of so many.

  What p asks for is by the luck's own Student's t, whose tails two or three runs have
  even where problems vary more; POWER by as many degrees as the luck of `seeds` runs
  leaves (Satterthwaite).
  """
  level = 1 - LEVEL / 2 / comparisons
  if luck <= 0 or seeds < 2:
    return float(stats.norm.ppf(level) + stats.norm.ppf(POWER))
  share = luck / (problems + luck)
  seen = math.hypot(
    math.sqrt(1 - share) * stats.norm.ppf(level),
    math.sqrt(share) * stats.t.ppf(level, seeds - 1),
  )
  return float(seen + stats.t.ppf(POWER, (seeds - 1) / share**2))


def needed(
  found: estimate.Spread, margin: float, seeds: int, comparisons: int
) -> int | None:
  """Runs of each arm with which a difference of the margin is seen; None: no number of
  them, or one run says nothing of it."""
  problems, luck = found.alone, max(found.luck**2, found.both)
  if seeds < 2 or errors(comparisons, problems, 0, 1) ** 2 * problems >= margin**2:
    return None
  runs = 2
  while True:
    of_runs = luck * seeds / runs
    seen = errors(comparisons, problems, of_runs, runs)
    if seen * math.sqrt(problems + of_runs) <= margin:
      return runs
    if runs >= MANY:
      return None
    runs += 1 + runs // 50
