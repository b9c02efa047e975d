"""What a difference says about a claim, once and for all claims alike.

  supported      it is beyond 0 on the side that was expected
  contradicted   it is beyond 0 on the other side
  no difference larger than d   it lies within the margin
  undecided      neither: said with what the design could have seen, and how many seeds
                 would decide

Beyond 0: p < .05 after Holm's correction over all comparisons of the study. Within the
margin: the 90 % interval is, which is two one-sided tests at 5 % each. A claim of no
difference is supported by the latter and contradicted by the former beyond the margin.

The smallest difference that can be seen is 2.80 standard errors: seen in 80 of 100
studies by a two-sided test at 5 %.
"""

import dataclasses
import math

import numpy as np

from pxy.measures import estimate
from pxy.study import plan

LEVEL = 0.05
SEEN = 2.80
"""Standard errors: 1.96 + 0.84."""


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


def of(claim: plan.Claim, found: estimate.Spread, p: float, seeds: int) -> Verdict:
  """The verdict on a difference; p after Holm's correction, of `seeds` runs an arm."""
  value_B = found.value_B[~np.isnan(found.value_B)]
  low, high = np.percentile(value_B, (100 * LEVEL, 100 - 100 * LEVEL))
  within = -claim.margin <= low and high <= claim.margin
  beyond = p < LEVEL
  large = beyond and (low > claim.margin or high < -claim.margin)
  visible = SEEN * float(np.std(value_B))
  if claim.expects == "same":
    word = "supported" if within else "contradicted" if large else "undecided"
  elif beyond:
    wanted = found.value > 0 if claim.expects == "more" else found.value < 0
    word = "supported" if wanted else "contradicted"
  elif within:
    word = f"no difference larger than {claim.margin:g}"
  else:
    word = "undecided"
  if seeds < 2:
    word = "undecided"  # of one run the luck is unknown
  return Verdict(word, visible, needed(found, claim.margin, seeds))


def needed(found: estimate.Spread, margin: float, seeds: int) -> int | None:
  """Runs of each arm with which a difference of the margin is seen; None: no number of
  them, or one run says nothing of it."""
  problems = float(np.nanvar(found.problems_B))
  # Student's t is wider than the luck that it stands for.
  runs = found.runs_B[np.isfinite(found.runs_B)]
  luck = float(np.diff(np.percentile(runs, (25, 75)))[0] / 1.349) ** 2
  left = (margin / SEEN) ** 2 - problems
  if left <= 0 or seeds < 2:
    return None
  return max(2, math.ceil(luck * seeds / left))
