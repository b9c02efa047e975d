"""What cells have found, and what that says of each claim: plain JSON.

    {"cells": [{"cell", "world", "method", "seed", "state", "curve", NUMBER: ..., ...}],
     "claims": [{"claim", "world", "verdict", "difference", "low", "high", "p", ...}]}

pass@k and thoughts are of the run's own last evaluation, problem by problem; `pxy
align` and most of `pxy probe` are of problems too: differences are paired by seed and
by problem, and their interval holds the luck of both. What is one number a run, such as
steps to a score, is paired by seed, with the luck of seeds alone. Seeds that one of the
two arms lacks are left out, and so are cells of another version than most.
"""

import collections
import dataclasses
import json
import math
import pathlib

import numpy as np

from pxy.measures import bound, estimate, passk
from pxy.study import cell as cell_lib
from pxy.study import names, plan, readings, verdict


class Results:
  """The cells of a study that are done, read once."""

  def __init__(self, study: plan.Study, out: pathlib.Path):
    self._study, self._out = study, out
    readings.fetch(out)
    self._cells = {cell.name: cell for cell in study.cells()}
    self._state = {
      name: cell_lib.state(cell, out) for name, cell in self._cells.items()
    }
    counted = collections.Counter(
      json.dumps(one.get("versions")) for one in self._state.values() if _done(one)
    )
    self._most = counted.most_common(1)[0][0] if counted else None
    self._evaluations: dict[str, dict[str, readings.Evaluation]] = {}
    self._numbers: dict[str, readings.Numbers] = {}
    for name, cell in self._cells.items():
      if self.counts(name):
        if cell.trains:
          thoughts = any(map(names.looks, study.of(cell)))
          found = readings.evaluations(out / name / "run", thoughts)
          self._evaluations[name] = found
        self._numbers[name] = readings.Numbers(out / name)

  def counts(self, name: str) -> bool:
    """Whether a cell takes part: done, by the version that most are of."""
    one = self._state[name]
    return _done(one) and json.dumps(one.get("versions")) == self._most

  def to_json(self) -> dict:
    """Every number."""
    return {"cells": [self._row(name) for name in self._cells], "claims": self.claims()}

  def _row(self, name: str) -> dict:
    cell, state = self._cells[name], self._state[name]
    row = {
      "cell": name, "world": cell.world.name, "method": cell.arm.name,
      "seed": cell.seed, **state,
    }  # fmt: skip
    if _done(state):
      row["counts"] = self.counts(name)
    if self.counts(name):
      row["curve"] = [round(x, 6) for x in self._numbers[name].curve()]
      row |= {
        f"{when}/bound/pass@{k}": passk.pass_at_k(one.correct_PR, k)[0]
        for when, one in self._evaluations.get(name, {}).items()
        for k in bound.ks(one.correct_PR.shape[1])
      } | self._numbers[name].all()  # fmt: skip
    return row

  def claims(self) -> list[dict]:
    """Every claim in every world where it is asked."""
    asked = [(c, w) for c in self._study.claims for w in self._study.asked(c)]
    found = [self._compared(claim, world) for claim, world in asked]
    # What has no data yet is one of them all the same, and may be any. Nor does one
    # run say anything of its luck, though its problems may.
    p = [
      1.0
      if one is None or verdict.unknown(one[0], len(one[1]))
      else estimate.beyond_zero(one[0])
      for one in found
    ]
    tested = list(zip(p, estimate.holm(p), strict=True))
    rows = []
    for i, (claim, world) in enumerate(asked):
      row = {
        "claim": claim.name, "world": world, "text": claim.text, "paper": claim.paper,
        "measure": claim.measure, "arm": claim.arm, "against": claim.against,
        "expects": claim.expects, "margin": claim.margin,
      }  # fmt: skip
      if found[i] is None:
        rows.append(row | {"verdict": "no data"})
        continue
      spread, seeds, measure, values = found[i]
      p, p_holm = tested[i]
      ruled = verdict.of(claim, spread, p_holm, len(seeds), len(asked))
      reached = self._reached(claim, world, seeds)
      rows.append(row | {
        "verdict": verdict.counted(ruled.verdict, claim, len(seeds), **reached),
        "difference": measure.value, "low": measure.low, "high": measure.high,
        "p": p, "p_holm": p_holm,
        "seeds": seeds, "problems": len(spread.units), "visible": ruled.visible,
        "seeds_needed": ruled.seeds, "method": measure.method, "values": values,
        **reached,
      })  # fmt: skip
    return rows

  def _compared(self, claim: plan.Claim, world: str):
    """(spread, seeds, interval, the value of each run on both sides) of a claim, or
    None where nothing is there yet."""
    sides = self._sides(claim, world, self._of_problems)
    numbers = self._sides(claim, world, self._number)
    if any(a.keys() < b.keys() for a, b in zip(sides, numbers, strict=True)):
      sides = numbers  # some cells have not kept their problems
    seeds = [seed for seed in self._study.seeds if all(seed in side for side in sides)]
    if not seeds:
      return None
    new, old = ([side[seed] for seed in seeds] for side in sides)
    spread = estimate.spread(new, old)
    measure = estimate.between(new, old, spread)
    values = [[_value(spec) for spec in specs] for specs in (new, old)]
    return measure and (spread, seeds, measure, values)

  def _reached(self, claim: plan.Claim, world: str, seeds: list[int]) -> dict:
    """How many runs of each side have the score to which steps are counted."""
    if not claim.measure.startswith("train/steps@"):
      return {}
    runs = [[f"{world}/{arm}/seed{seed}" for seed in seeds]
            for arm in (claim.arm, claim.against)]  # fmt: skip
    return {
      "reached": [
        sum(self._numbers[name].reached(claim.measure) for name in side)
        for side in runs
      ]
    }

  def _sides(self, claim: plan.Claim, world: str, of) -> list[dict]:
    """The claim's measure by seed, where it is known, of its two sides."""
    found = [
      {
        seed: spec
        for seed in self._study.seeds
        if (spec := of(claim, *self._of(claim, world, side, seed))) is not None
      }
      for side in (claim.arm, claim.against)
      if side != plan.ZERO
    ]
    if claim.against == plan.ZERO:
      found.append({seed: _zero(spec) for seed, spec in found[0].items()})
    return found

  def _of(self, claim: plan.Claim, world: str, side: str, seed: int) -> tuple[str, str]:
    """The cell that a side is read of, and whether it is `before` or `after`."""
    before = side == plan.BEFORE and claim.arm != plan.BEFORE
    name = f"{world}/{claim.arm if before else side}/seed{seed}"
    return name, plan.BEFORE if before else "after"

  def _of_problems(
    self, claim: plan.Claim, name: str, when: str
  ) -> estimate.Spec | None:
    """A claim's measure of a cell, problem by problem."""
    if name not in self._numbers:
      return None
    if (k := names.tries(claim.measure)) is not None:
      one = self._evaluations[name][when]
      return bound.pass_at(one.ids, one.correct_PR, k)
    if names.looks(claim.measure):
      found = self._evaluations[name][when].thoughts(claim.measure)
    elif names.aligned(claim.measure):
      given = self._numbers[name].alignment(claim.measure)
      how = "mean over problems of the mean over responses"
      found = given and estimate.mean(claim.measure, *given, how)
    else:
      found = self._numbers[name].probed(claim.measure, when)
    return None if found is None or math.isnan(_value(found)) else found

  def _number(self, claim: plan.Claim, name: str, when: str) -> estimate.Spec | None:
    """The same as one number of the run."""
    if name not in self._numbers or names.tries(claim.measure) is not None:
      return None
    value = self._numbers[name].get(claim.measure, when)
    return None if value is None else number(claim.measure, value)


def _zero(spec: estimate.Spec) -> estimate.Spec:
  """0 in its place."""
  return dataclasses.replace(spec, stat=lambda w_BP: np.zeros(len(w_BP)), made=None)


def number(name: str, value: float) -> estimate.Spec:
  """One number of a run as a measure: only its seed is luck."""
  return estimate.Spec(
    name, ("run",), lambda weight_BP: np.full(len(weight_BP), value), "one number a run"
  )


def _value(spec: estimate.Spec) -> float:
  return float(spec.stat(np.ones((1, len(spec.units))))[0])


def _done(state: dict) -> bool:
  return state["state"] == cell_lib.DONE
