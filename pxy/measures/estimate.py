"""A number, its interval, and what it is held against.

A measure of n problems is data, a `Spec`: which problems, and a statistic of how often
each of them counts. With weight 1 everywhere the statistic is the value. With the
weights of a bootstrap, in which n problems are drawn with replacement, its spread is
the interval: the 2.5 and 97.5 % points of 2,000 draws (percentile), a little further
out for few problems, as Student's t is (Hesterberg, 1411.5279). Where a statistic of
fewer different problems is higher or lower as such (a distance, a count of kinds), the
interval is turned round the value instead (basic: 2 value - quantiles).

Problems alone are drawn, never the responses within them: what a problem gives already
holds the luck of its responses, and to draw these too would count it twice. Two models
are compared on the same draws (`difference`), so that a hard problem is hard for both,
and a model differs from itself by exactly 0. Of S runs that differ by their seed the
mean is taken, and what it may be off by is Student's t with S - 1 degrees, times their
standard error, beside the draws of problems (`Spread`). Drawing runs with replacement
would not do: such an interval of 3 runs covers 71 % where it says 95.

`null` says what the number would be if there were nothing to see: two evaluations of
one model, a calibrated model, shuffled answers. Its mean and its 2.5 and 97.5 % points
over 400 simulations stand beside the value.

All draws are functions of n alone: the same input gives the same bits. The order of
problems is that of their ids, which is asked for, so that it cannot matter.
"""

import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pxy import fields, imports
from pxy.measures import names

special = imports.later("scipy.special")  # JAX requires it; of runs that are several

DRAWS, NULLS, SEED = 2000, 400, 20_260
BLOCK = 2**14
"""Numbers that a statistic makes at a time, which stay in the cache."""
LEVELS = (2.5, 97.5)
"""Percent points that bound 95 % of a null."""

Stat = Callable[[np.ndarray], np.ndarray]
"""weight_BP, how often each problem counts, -> value_B; nan where it is undefined."""


@dataclasses.dataclass(frozen=True)
class Measure:
  """A number as it is reported.

  Attributes:
    value: of all problems, each once.
    low, high: its 95 % interval, which holds it.
    null: (value, low, high) where there is nothing to see; None where that is 0.
    n: problems.
    method: how value, interval and null came about.
  """

  value: float
  low: float
  high: float
  null: tuple[float, float, float] | None
  n: int
  method: str

  def to_json(self) -> dict:
    """Plain JSON: value, low, high, null {value, low, high} or null, n, method."""
    keys = ("value", "low", "high")
    found = dict(zip(keys, map(_plain, (self.value, self.low, self.high)), strict=True))
    null = self.null and dict(zip(keys, map(_plain, self.null), strict=True))
    return found | {"null": null, "n": self.n, "method": self.method}


def _plain(x: float) -> float | None:
  return float(x) if math.isfinite(x) else None


class Made(NamedTuple):
  """What a statistic is made of, a row for each problem: with it alone it can be had
  again (by_problem.py).

  Attributes:
    kind: which statistic, one of by_problem.KINDS.
    units: what is drawn, of each row; one that is drawn as a whole comes several times.
    a, b: two numbers of each row, or two rows of numbers.
  """

  kind: str
  units: tuple[str, ...]
  a: np.ndarray
  b: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
  """What is measured: a statistic of problems.

  Attributes:
    name: one of names.NAMES.
    units: ids of the problems (or clusters of them), rising; what has no number there
      is left out.
    stat: see Stat; an axis of units.
    method: in words.
    null: rng -> one value where there is nothing to see.
    biased: whether the interval is basic.
    least, most: of any possible value.
    size: numbers that the statistic makes of a draw, if more than the problems.
    made: what the statistic is made of; None: of more than that can say.
  """

  name: str
  units: tuple[str, ...]
  stat: Stat
  method: str
  null: Callable[[np.random.Generator], float] | None = None
  biased: bool = False
  least: float = -math.inf
  most: float = math.inf
  size: int = 0
  made: Made | None = None

  def __post_init__(self):
    names.sentence(self.name)
    for a, b in itertools.pairwise(self.units):
      if not a < b:
        raise fields.Error(
          f"{self.name}: problem {b!r} comes after {a!r}; ids must rise and differ:"
          " arrays.arrange brings rows into that order"
        )


# Specs of the usual kinds.


def mean(name: str, ids: Sequence[str], value_P, method: str, **more) -> Spec:
  """The mean of a number of each problem; problems with nan are left out."""
  value_P = np.asarray(value_P, np.float64)
  return ratio(name, ids, value_P, np.ones(value_P.shape), method, **more)


def ratio(name: str, ids: Sequence[str], above_P, below_P, method: str, **more) -> Spec:
  """sum(above) / sum(below) over problems; those with nan in one are left out."""
  above_P, below_P = np.asarray(above_P, np.float64), np.asarray(below_P, np.float64)
  known = ~(np.isnan(above_P) | np.isnan(below_P))
  units = tuple(x for x, on in zip(ids, known, strict=True) if on)
  made = Made("sums", units, above_P[known], below_P[known])
  return Spec(name, units, of_sums(made.a, made.b), method, made=made, **more)


def of_sums(above_P: np.ndarray, below_P: np.ndarray) -> Stat:
  """The statistic sum(above) / sum(below)."""
  return lambda weight_BP: divide(weight_BP @ above_P, weight_BP @ below_P)


def divide(above, below) -> np.ndarray:
  """above / below; nan, without a warning, where below is 0."""
  above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
  out = np.full(above.shape, np.nan)
  return np.divide(above, below, out=out, where=below != 0)


def again(stat: Stat, n: int) -> Callable[[np.random.Generator], float]:
  """A null that is a statistic of n problems itself: rng -> that of n drawn anew."""
  return lambda rng: float(stat(_weights(rng, 1, n).astype(np.float64))[0])


def grouped(spec: Spec, group_of: dict[str, str], null=None) -> Spec:
  """The same of groups of problems, such as forms of one question: a group is drawn as
  a whole, and counts as often as it has problems.

  null: of as many problems as there are groups; one of all problems would be too
    narrow.
  """
  units, stat = as_wholes([group_of[x] for x in spec.units], spec.stat)
  made = spec.made and spec.made._replace(
    units=tuple(group_of[x] for x in spec.made.units)
  )
  return dataclasses.replace(
    spec,
    units=units,
    stat=stat,
    method=f"{spec.method}; {len(spec.units)} problems in groups",
    null=null,
    size=max(spec.size, len(spec.units)),
    made=made,
  )


def as_wholes(unit_of: Sequence[str], stat: Stat) -> tuple[tuple[str, ...], Stat]:
  """The units that rows are of, and the statistic of these."""
  units, of_P = np.unique(unit_of, return_inverse=True)
  return tuple(units.tolist()), lambda weight_BG: stat(weight_BG[:, of_P])


# What is asked of specs.


def measure(spec: Spec) -> Measure | None:
  """The value with interval and null; None where it is undefined."""
  n = len(spec.units)
  value = _value(spec.stat, n)
  if math.isnan(value):
    return None
  low, high = interval(value, draws(spec), spec)
  kind = "basic" if spec.biased else "percentile"
  method = f"{spec.method}; {kind} bootstrap of {n} problems"
  null = spec.null and simulated(spec.null, n)
  return Measure(value, low, high, null, n, method)


def measures(specs: Sequence[Spec]) -> dict[str, Measure]:
  """All that are defined, by name."""
  found = {spec.name: measure(spec) for spec in specs}
  return {name: one for name, one in found.items() if one is not None}


def draws(spec: Spec, times: int = DRAWS) -> np.ndarray:
  """The statistic of the first bootstrap draws [times]."""
  return _values(spec.stat, _drawn(len(spec.units))[:times], spec.size)


def interval(value: float, value_B: np.ndarray, spec: Spec) -> tuple[float, float]:
  """The 95 % interval of a value from the statistic's draws; it holds the value."""
  known = value_B[~np.isnan(value_B)]
  if not len(known):
    return value, value
  low, high = np.percentile(known, levels(len(spec.units)), method="inverted_cdf")
  if spec.biased:
    low, high = 2 * value - high, 2 * value - low
  low, high = max(low, spec.least), min(high, spec.most)
  return float(min(low, value)), float(max(high, value))


def levels(n: int) -> tuple[float, float]:
  """Percent points that bound the interval of n problems: 1.89 and 98.11 of 30, LEVELS
  of many. The spread of draws is sqrt((n-1) / n) too small, and its own error is what
  Student's t is for."""
  normal = statistics.NormalDist()
  z = normal.inv_cdf(LEVELS[0] / 100)
  if n > 1:
    z = (z + (z**3 + z) / (4 * (n - 1))) * math.sqrt(n / (n - 1))
  low = 100 * normal.cdf(z)
  return low, 100 - low


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
  """A difference, and what it may be off by: the draw of problems and of runs.

  Attributes:
    value: new minus old.
    problems_B: the difference on the problems of each draw that has one.
    luck: what the mean of so many runs is off by, a standard error; 0 of one.
    freedom: its degrees of freedom, as Student's t has them.
    both: the part of the luck's variance that problems have as well, as estimated.
    alone: variance by the draw of problems alone, which more runs do not take off.
    units: the problems that all have.
    biased: whether the statistic is: then what it may be off by is turned round the
      value.
  """

  value: float
  problems_B: np.ndarray
  luck: float
  freedom: float
  both: float
  alone: float
  units: tuple[str, ...]
  biased: bool = False

  @property
  def turned_B(self) -> np.ndarray:
    """problems_B, turned where it has to be."""
    return 2 * self.value - self.problems_B if self.biased else self.problems_B

  def _below(self, x: float) -> float:
    """Share of both together, as drawn, that is x at most: each draw of problems,
    spread by the luck of runs."""
    if not self.luck:
      return float(np.mean(self.problems_B <= x))
    return float(special.stdtr(self.freedom, (x - self.problems_B) / self.luck).mean())

  def point(self, percent: float) -> float:
    """What so many percent of both together are below."""
    if self.biased:
      return 2 * self.value - self._point(100 - percent)
    return self._point(percent)

  def _point(self, percent: float) -> float:
    """The same as it was drawn."""
    if not self.luck:
      return float(np.percentile(self.problems_B, percent, method="inverted_cdf"))
    t = self.luck * special.stdtrit(self.freedom, percent / 100)
    low, high = self.problems_B.min() + t, self.problems_B.max() + t
    for _ in range(40 if low < high else 0):
      middle = (low + high) / 2
      if self._below(middle) < percent / 100:
        low = middle
      else:
        high = middle
    return float(high)


def spread(new: Sequence[Spec], old: Sequence[Spec]) -> Spread:
  """The difference that `difference` gives the interval of; same arguments, same
  errors.

  Both kinds of draws hold what runs and problems have together (that one seed happens
  to be good at one problem): it is taken out of the problems', as far as the luck of
  runs has it. Of few problems these are then as far apart as `levels` would have them.
  """
  named = {spec.name for spec in (*new, *old)}
  if len(named) != 1:
    raise fields.Error(
      f"a difference is of one measure, not of {', '.join(sorted(named)) or 'none'}"
    )
  units = tuple(sorted(set.intersection(*(set(s.units) for s in (*new, *old)))))
  if not units:
    raise fields.Error(
      f"{new[0].name}: the two models have no problem in common; evaluate both on the"
      " same task"
    )
  new_SB, old_SB = (_of_runs(specs, units) for specs in (new, old))
  parts = [new_SB - old_SB] if len(new) == len(old) else [new_SB, -old_SB]
  mean_B = sum(part.mean(0) for part in parts)
  value, problems_B = float(mean_B[0]), mean_B[1:][~np.isnan(mean_B[1:])]
  lucks = [_luck(part[:, 0]) for part in parts]
  luck = sum(lucks)
  # Of equal draws numpy's variance is not 0, but rounding.
  varies = float(problems_B.var()) if len(problems_B) and np.ptp(problems_B) else 0.0
  if not luck > 0:
    biased = new[0].biased
    return Spread(value, problems_B, 0.0, math.inf, 0.0, varies, units, biased)
  both = sum(_both(part[:, 1:]) for part in parts)
  alone, middle = max(0.0, varies - both), problems_B.mean()
  left = max(0.0, 1 - min(both, luck) / varies) if varies else 0.0
  problems_B = middle + (problems_B - middle) * math.sqrt(left) * _wider(len(units))
  each = zip(lucks, parts, strict=True)
  share = sum((one / luck) ** 2 / (len(part) - 1) for one, part in each if one)
  known = math.sqrt(luck), 1 / share, both, alone
  return Spread(value, problems_B, *known, units, new[0].biased)


def difference(new: Sequence[Spec], old: Sequence[Spec]) -> Measure | None:
  """new minus old, paired by problem: each a list of runs that differ by their seed.

  Problems that one of the runs lacks are left out. Lists of the same length are paired
  by place too. Raises fields.Error for different measures or no common problem.
  """
  return between(new, old, spread(new, old))


def between(new: Sequence[Spec], old: Sequence[Spec], found: Spread) -> Measure | None:
  """The same of their spread, for who has it."""
  value, units = found.value, found.units
  if math.isnan(value):
    return None
  spec = new[0]
  low = high = value
  if len(found.problems_B):
    percents = LEVELS if found.luck else levels(len(units))
    low, high = map(found.point, percents)
    low, high = min(low, value), max(high, value)
  kind = "basic" if spec.biased else "percentile"
  method = f"{spec.method}; paired {kind} bootstrap of {len(units)} problems"
  if len(new) > 1 or len(old) > 1:
    method += f" and Student's t of {len(new)} against {len(old)} runs"
  return Measure(value, low, high, None, len(units), method)


def beyond_zero(found: Spread) -> float:
  """Two-sided p of a difference: twice the share on the other side of 0.

  Where runs have no luck it is counted in draws, of which it is 2 at least. Where they
  have some, it is also that of problems whose draws are normal, if that is larger: what
  no draw shows is not told by the tails of what little luck the runs have.
  """
  problems_B = found.turned_B
  if math.isnan(found.value) or not len(problems_B):
    return math.nan
  if found.luck:
    places_B = (np.arange(len(problems_B)) + 0.5) / len(problems_B)
    normal_B = problems_B.mean() + problems_B.std() * special.ndtri(places_B)
    return max(_beyond(found, draws_B) for draws_B in (problems_B, normal_B))
  below, above = np.sum(problems_B <= 0), np.sum(problems_B >= 0)
  return float(min(1.0, 2 * (min(below, above) + 1) / (len(problems_B) + 1)))


def _beyond(found: Spread, problems_B: np.ndarray) -> float:
  """Twice the smaller side of 0, each draw of problems spread by the luck of runs."""
  other = special.stdtr(found.freedom, -np.abs(problems_B) / found.luck)
  below = np.where(problems_B > 0, other, 1 - other).mean()
  above = np.where(problems_B > 0, 1 - other, other).mean()
  return float(min(1.0, 2 * min(below, above)))


def holm(p: Sequence[float]) -> list[float]:
  """Adjusted p-values of the comparisons of one study (Holm 1979): the i-th smallest
  of m times m - i + 1, never less than the one before it."""
  order = np.argsort(p, kind="stable")
  scaled = np.asarray(p, np.float64)[order] * np.arange(len(p), 0, -1)
  out = np.empty(len(p))
  out[order] = np.minimum(np.maximum.accumulate(scaled), 1)
  return out.tolist()


def _of_runs(specs, units):
  """The statistic of each run on the common units: the value, then all draws."""
  stats = [(_among(spec, units), spec.size) for spec in specs]
  drawn = np.concatenate([np.ones((1, len(units)), np.uint16), _drawn(len(units))])
  return np.stack([_values(stat, drawn, size) for stat, size in stats])


def _luck(value_S: np.ndarray) -> float:
  """Variance of what the mean of S runs may be off by; 0 of one run."""
  runs = len(value_S)
  if runs == 1 or np.ptp(value_S) <= 1e-12 * max(1.0, np.abs(value_S).max()):
    return 0.0  # of one, or of equal ones but for rounding
  return float(value_S.var(ddof=1) / runs)


def _both(value_SB: np.ndarray) -> float:
  """The part of that which problems and runs have together: by how much the runs go
  apart from draw to draw."""
  runs = len(value_SB)
  if runs == 1:
    return 0.0
  apart_SB = value_SB - value_SB.mean(0)
  return float(np.nanvar(apart_SB, axis=1).sum() / (runs - 1) / runs)


def _wider(n: int) -> float:
  """How much further apart draws of n problems should be for their 95 %."""
  normal = statistics.NormalDist()
  z = [normal.inv_cdf(x / 100) for x in (levels(n)[0], LEVELS[0])]
  return z[0] / z[1]


def _among(spec: Spec, units: tuple[str, ...]) -> Stat:
  """The statistic of some of a spec's problems: the others have weight 0."""
  if units == spec.units:
    return spec.stat
  place = {unit: i for i, unit in enumerate(spec.units)}
  column_P = np.array([place[unit] for unit in units])

  def stat(weight_BP):
    full = np.zeros((len(weight_BP), len(spec.units)))
    full[:, column_P] = weight_BP
    return spec.stat(full)

  return stat


def simulated(
  null: Callable[[np.random.Generator], float], n: int
) -> tuple[float, float, float] | None:
  """Mean, low and high of a null of n problems."""
  rng = np.random.default_rng([SEED, 2, n])
  found = np.array([null(rng) for _ in range(NULLS)])
  found = found[~np.isnan(found)]
  if not len(found):
    return None
  low, high = np.percentile(found, LEVELS, method="inverted_cdf")
  return float(found.mean()), float(low), float(high)


def _value(stat: Stat, n: int) -> float:
  return float(stat(np.ones((1, n)))[0]) if n else math.nan


def _values(stat: Stat, weight_BP: np.ndarray, size: int) -> np.ndarray:
  rows = max(BLOCK // max(weight_BP.shape[1], size, 1), 1)
  blocks = [weight_BP[i : i + rows] for i in range(0, len(weight_BP), rows)]
  return np.concatenate([stat(block.astype(np.float64)) for block in blocks])


@functools.lru_cache(maxsize=4)
def _drawn(n: int) -> np.ndarray:
  """The weights of all draws of n problems."""
  return _weights(np.random.default_rng([SEED, 0, n]), DRAWS, n)


def _weights(rng: np.random.Generator, times: int, n: int) -> np.ndarray:
  out = np.empty((times, n), np.uint16)
  for row in out:
    row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
  return out
