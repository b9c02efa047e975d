"""What cells have found, and what that says of each claim: plain JSON.

    {"cells": [{"cell", "world", "method", "seed", "state", "measures", ...}],
     "claims": [{"claim", "world", "verdict", "difference", "low", "high", "p", ...}]}

pass@k is of the run's own last evaluation, problem by problem: differences are paired
by seed and by problem, and their interval holds the luck of both. A measure of `pxy
probe` is one number a run: paired by seed, with the luck of seeds alone. Seeds that one
of the two arms lacks are left out, and so are cells of another version than most.
"""

import collections
import dataclasses
import json
import pathlib
import re

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pxy.measures import arrays, bound, estimate, passk
from pxy.study import cell as cell_lib
from pxy.study import plan, verdict

_PASS = re.compile(r"bound/pass@(\d+)")


def tries(measure: str) -> int | None:
  """The k of `bound/pass@k`, which is of the run's own evaluation; None: of a probe."""
  match = _PASS.fullmatch(measure)
  return int(match[1]) if match else None


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Which responses were right: problems by rising id, 1, 0 or nan."""

  ids: tuple[str, ...]
  correct_PR: np.ndarray


def evaluations(run: pathlib.Path) -> dict[str, Evaluation]:
  """Those before and after a run's training, from its completions."""
  table = pq.read_table(
    run / "completions.parquet", columns=["step", "uid", "response", "reward"],
    filters=[("split", "=", "eval")],
  )  # fmt: skip
  steps = sorted(set(table["step"].to_pylist()))
  return {
    name: _evaluation(table.filter(pc.field("step") == at))
    for name, at in zip((plan.BEFORE, "after"), (steps[0], steps[-1]), strict=True)
  }


def _evaluation(table) -> Evaluation:
  ids = [f"{uid:09}" for uid in table["uid"].to_pylist()]
  units, row_PR = arrays.arrange(ids, table["response"].to_pylist())
  reward_PR = arrays.take(table["reward"].to_numpy(zero_copy_only=False), row_PR)
  return Evaluation(units, np.where(np.isnan(reward_PR), np.nan, reward_PR > 0.5))


class Results:
  """The cells of a study that are done, read once."""

  def __init__(self, study: plan.Study, out: pathlib.Path):
    self._study, self._out = study, out
    self._cells = {cell.name: cell for cell in study.cells()}
    self._state = {
      name: cell_lib.state(cell, out) for name, cell in self._cells.items()
    }
    counted = collections.Counter(
      json.dumps(one.get("versions")) for one in self._state.values() if _done(one)
    )
    self._most = counted.most_common(1)[0][0] if counted else None
    self._evaluations: dict[str, dict[str, Evaluation]] = {}
    self._probes: dict[str, dict[str, float]] = {}
    for name in self._cells:
      if self.counts(name):
        folder = out / name
        self._evaluations[name] = evaluations(folder / "run")
        self._probes[name] = _values(folder / "probe.json")

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
      row["measures"] = {
        f"{when}/bound/pass@{k}": passk.pass_at_k(one.correct_PR, k)[0]
        for when, one in self._evaluations[name].items()
        for k in bound.ks(one.correct_PR.shape[1])
      } | self._probes[name]  # fmt: skip
    return row

  def claims(self) -> list[dict]:
    """Every claim in every world where it is asked."""
    asked = [(c, w) for c in self._study.claims for w in self._study.asked(c)]
    found = [self._compared(claim, world) for claim, world in asked]
    known = [i for i, one in enumerate(found) if one is not None]
    p = [estimate.beyond_zero(found[i][0]) for i in known]
    tested = dict(zip(known, zip(p, estimate.holm(p), strict=True), strict=True))
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
      spread, seeds, measure = found[i]
      p, p_holm = tested[i]
      ruled = verdict.of(claim, spread, p_holm, len(seeds), len(known))
      rows.append(row | {
        "verdict": ruled.verdict, "difference": measure.value, "low": measure.low,
        "high": measure.high, "p": p, "p_holm": p_holm,
        "seeds": seeds, "problems": len(spread.units), "visible": ruled.visible,
        "seeds_needed": ruled.seeds, "method": measure.method,
      })  # fmt: skip
    return rows

  def _compared(self, claim: plan.Claim, world: str):
    """(spread, seeds, interval) of a claim, or None where nothing is there yet."""
    sides = []
    for name in (claim.arm, claim.against):
      arm = claim.arm if name == plan.BEFORE else name
      when = plan.BEFORE if name == plan.BEFORE else "after"
      sides.append({
        seed: spec
        for seed in self._study.seeds
        if (spec := self._spec(f"{world}/{arm}/seed{seed}", claim.measure, when))
      })  # fmt: skip
    seeds = [seed for seed in self._study.seeds if all(seed in side for side in sides)]
    if not seeds:
      return None
    new, old = ([side[seed] for seed in seeds] for side in sides)
    spread = estimate.spread(new, old)
    measure = estimate.between(new, old, spread)
    return measure and (spread, seeds, measure)

  def _spec(self, name: str, measure: str, when: str) -> estimate.Spec | None:
    if name not in self._evaluations:
      return None
    if (k := tries(measure)) is not None:
      one = self._evaluations[name][when]
      return bound.pass_at(one.ids, one.correct_PR, k)
    value = self._probes[name].get(measure if when == "after" else f"base {measure}")
    return None if value is None else number(measure, value)


def number(name: str, value: float) -> estimate.Spec:
  """One number of a run as a measure: only its seed is luck."""
  return estimate.Spec(
    name, ("run",), lambda weight_BP: np.full(len(weight_BP), value), "one number a run"
  )


def _values(path: pathlib.Path) -> dict[str, float]:
  """What a probe found: values by name, and those of the base as `base NAME`."""
  if not path.is_file():
    return {}
  found = json.loads(path.read_text(encoding="utf-8"))
  out = {}
  for report in found if isinstance(found, list) else [found]:
    for key, mark in (("measures", ""), ("base_measures", "base ")):
      for name, one in report.get(key, {}).items():
        if one["value"] is not None:
          out[mark + name] = one["value"]
  return out


def _done(state: dict) -> bool:
  return state["state"] == cell_lib.DONE
