"""A gate: a bound on a measure, and what the measure's 95 % interval says of it.

    passes      the whole interval lies within the bound
    fails       the whole interval lies beyond it
    undecided   the bound lies inside the interval: the numbers show neither

An interval without width shows no luck, and yet there is some: what all of n problems
gave alike, up to 1 - .025^(1/n) of all problems may not (3.7 in n, for n of 30 and
more). That is how wide it then counts, within what a rate or a difference of two can
be, but where a model is held against itself.

A model is let through where it passes every gate. That needs no correction for their
number: one that is beyond a bound gets through all of them no more often than through
that one, 2.5 times of 100 (the intersection-union test, Berger 1982). It is this model
that is decided on and no method, so that problems are drawn and runs are not.

    def gates():
      return (Gate("robust/worst", at_least=-0.01), Gate("bias/tv", at_most=0.05))
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

from pxy import fields
from pxy.measures import names

PASSES, FAILS, UNDECIDED, NONE = "passes", "fails", "undecided", "no number"

OF_BOTH = re.compile(
  r"bound/(crossing|crosses|srr|ndr|nscr|guessable|ppl_(base|new)_(base|new|gold)_\w+)"
  r"|kept/(sequence_)?kl_.*"
)
"""Measures of a model and its base together, or of the base: no difference is theirs.
"""


@dataclasses.dataclass(frozen=True)
class Gate:
  """What is asked of a measure: a bound, or both.

  Raises fields.Error, one line, for what cannot be meant.
  """

  measure: str
  """A name of docs/measures.md."""
  of: Literal["difference", "value"] = "difference"
  """Of the model minus its base, paired by problem; or of the model alone."""
  at_least: float | None = None
  at_most: float | None = None
  undecided: Literal["fails", "passes"] = "fails"
  """What counts where the interval holds the bound: `passes` lets through what is not
  shown to be beyond it, so that few problems pass anything."""

  def __post_init__(self):
    try:
      fields.check_fields(self)
    except fields.Error as error:
      raise fields.Error(f"gate {self.measure}: {error}") from None
    what = f"gate {self.measure}"
    names.sentence(self.measure)
    fields.need(
      not names.of_run(self.measure),
      f"{what}: it is of a run's own files, and has no interval: see pxy study",
    )
    fields.need(
      self.measure != "bound/crossing",
      f"{what}: a curve that never falls to the base's has none: write bound/crosses,"
      " how sure it is that it does",
    )
    fields.need(
      self.of == "value" or not OF_BOTH.fullmatch(self.measure),
      f'{what}: it is of both models as it stands: write of="value"',
    )
    low, high = self.at_least, self.at_most
    fields.need(
      low is not None or high is not None,
      f"{what}: no bound: give at_least or at_most",
    )
    fields.need(
      low is None or high is None or low <= high,
      f"{what}: at_least {low} is above at_most {high}: nothing is within",
    )

  @property
  def wanted(self) -> str:
    """Its bounds in words: `at least -0.01`."""
    ends = (("at least", self.at_least), ("at most", self.at_most))
    return ", ".join(f"{word} {x:g}" for word, x in ends if x is not None)


@dataclasses.dataclass(frozen=True)
class Judged:
  """A gate and what became of it.

  Attributes:
    task: on which it was asked.
    found: the number as --json has it (estimate.Measure.to_json); None: undefined.
    verdict: one of the four.
  """

  gate: Gate
  task: str
  found: dict | None
  verdict: str

  @property
  def passed(self) -> bool:
    """Whether the model is let through."""
    own = self.gate.undecided if self.verdict == UNDECIDED else self.verdict
    return own == PASSES

  @property
  def cells(self) -> tuple[str, str]:
    """The number and its interval; `-` where it is undefined."""
    if self.found is None:
      return "-", "-"
    value, low, high = (number(self.found[key]) for key in ("value", "low", "high"))
    return value, f"{low} .. {high}"

  @property
  def line(self) -> str:
    """`robust/worst: difference -0.0310 (-0.0500 .. -0.0120), at least -0.01 wanted:
    fails`."""
    text = "{} ({})".format(*self.cells) if self.found else "undefined"
    of = f"{self.gate.measure}: {self.gate.of} {text}"
    return f"{of}, {self.gate.wanted} wanted: {self.verdict}"

  def to_json(self) -> dict:
    """The gate's fields, the number's, the verdict, and all of it in words: flat."""
    keys = ("value", "low", "high", "null", "n", "method")
    found = {key: (self.found or {}).get(key) for key in keys}
    verdict = {"verdict": self.verdict, "passed": self.passed}
    said = {"wanted": self.gate.wanted, "line": self.line}
    held = dataclasses.asdict(self.gate)
    return {"task": self.task, **held, **found, **verdict, **said}


def check(gates: Sequence[Gate]) -> tuple[Gate, ...]:
  """The gates of one decision. Raises fields.Error for what is none, or comes twice."""
  fields.need(gates, "there is no gate: everything would pass")
  seen = set()
  for one in gates:
    fields.need(
      isinstance(one, Gate),
      f"{fields.line(ValueError(repr(one)))} is no pxy.measures.gate.Gate",
    )
    key = one.measure, one.of
    fields.need(
      key not in seen,
      f"gate {one.measure}: it comes twice; give both bounds at once",
    )
    seen.add(key)
  return tuple(gates)


def judge(gate: Gate, task: str, found: dict | None, *, itself: bool = False) -> Judged:
  """What a number says of a gate; found: as --json has it; itself: the model is held
  against itself, and a difference of exactly 0 is no luck.

  Raises fields.Error where a value lies outside its own interval: no number of pxy's.
  """
  ends = [None if found is None else found.get(x) for x in ("value", "low", "high")]
  if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in ends):
    return Judged(gate, task, None, NONE)
  value, low, high = ends
  fields.need(
    low <= value <= high,
    f"{gate.measure}: {value} does not lie in its interval, {low} .. {high}",
  )
  of_both = gate.of == "difference" or OF_BOTH.fullmatch(gate.measure)
  if low == high and not (itself and of_both):
    found = _widened(gate, found)
    low, high = found["low"], found["high"]
  least = -math.inf if gate.at_least is None else gate.at_least
  most = math.inf if gate.at_most is None else gate.at_most
  if least <= low and high <= most:
    verdict = PASSES
  elif high < least or most < low:
    verdict = FAILS
  else:
    verdict = UNDECIDED
  return Judged(gate, task, found, verdict)


def _widened(gate: Gate, found: dict) -> dict:
  """A number whose interval has no width, with the one that its n problems allow."""
  value, n = found["value"], found.get("n")
  if gate.measure == "bound/crosses":  # a share of resamples, which needs none
    return found
  reach = 1 - 0.025 ** (1 / n) if isinstance(n, int) and n > 0 else 1.0
  low, high = value - reach, value + reach
  if 0 <= value <= 1 and gate.of == "value":
    low, high = max(low, 0.0), min(high, 1.0)
  method = f"{found.get('method')}; all {n} alike: 1 - .025^(1/{n}) to either side"
  return found | {"low": low, "high": high, "method": method}


def number(x: float) -> str:
  """Four digits behind the point, as margins are fine."""
  return f"{x:.4f}" if abs(x) < 1000 else f"{x:.4g}"
