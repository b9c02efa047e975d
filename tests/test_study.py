"""A study: what it refuses, how its cells run, and what its verdicts mean.

Cells are real processes here, of a few lines of Python in place of a training run.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pxy import config
from pxy.commands import study as study_lib
from pxy.measures import estimate
from pxy.show import completions
from pxy.study import cell as cell_lib
from pxy.study import local, page, results, slurm, verdict
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
      "claim end: before against grpo says nothing",
    ),
    (
      {"claims": (dataclasses.replace(CLAIM, measure="bias/tv"),)},
      "claim end: bias/tv is of `pxy probe`, which is not asked in world 'sums'",
    ),
    (
      {"claims": tuple(dataclasses.replace(CLAIM, name=f"c{i}") for i in range(51))},
      "claims: 51 comparisons, of which 2000 draws could see none after Holm's",
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
  rng = np.random.default_rng(0)
  runs_B = luck * rng.standard_normal(estimate.DRAWS) if seeds > 1 else np.zeros(2000)
  problems_B = value + problems * rng.standard_normal(estimate.DRAWS)
  return estimate.Spread(value, problems_B, runs_B, ("a", "b"))


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
  found = spread(value, error, 0)
  claim = dataclasses.replace(CLAIM, expects=expects)
  ruled = verdict.of(claim, found, estimate.beyond_zero(found), 5, 1)
  assert ruled.verdict == says
  assert ruled.visible == pytest.approx(2.8 * error, rel=0.1)


def test_one_run_decides_nothing():
  found = spread(0.3, 0.001, 0, seeds=1)
  ruled = verdict.of(CLAIM, found, 0.0, 1, 1)
  assert (ruled.verdict, ruled.seeds) == ("undecided", None)


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
  study = make(worlds=(PROBED,), seeds=seeds, claims=claims)
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
  measures = cells["sums/dsrl/seed0"]["measures"]
  assert measures["after/bound/pass@1"] == pytest.approx(0.7, abs=0.05)
  assert measures["bias/tv"] == 0.25
  text = page.write(tmp_path, found).read_text()
  assert "| DSRL ends above GRPO | sums | `bound/pass@1` | +0." in text
  assert json.loads((tmp_path / "results.json").read_text()) == found
  assert (tmp_path / "forest.png").read_bytes()[:4] == b"\x89PNG"


def test_cells_of_another_version_are_shown_and_left_out(tmp_path):
  study = study_of(tmp_path, (CLAIM,))
  path = tmp_path / "sums/dsrl/seed1/cell.json"
  path.write_text(path.read_text().replace('"pxy": "', '"pxy": "old-'))
  found = results.Results(study, tmp_path).to_json()
  assert found["claims"][0]["seeds"] == [0, 2]
  row = next(x for x in found["cells"] if x["cell"] == "sums/dsrl/seed1")
  assert row["counts"] is False and "measures" not in row
  assert "| sums/dsrl/seed1 | done |  |  | left out: of " in page.text(found, False)


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
  (failed / "mended").touch()
  left = [c for c in small.cells() if cell_lib.state(c, tmp_path)["state"] != "done"]
  assert run(left) == 0 and set(states(small, tmp_path).values()) == {"done"}
  assert starts(tmp_path, "sums/dsrl/seed1") == ["train", "train", "probe"]
  assert starts(tmp_path, "sums/grpo/seed0") == ["train", "probe"]


def test_a_signal_ends_the_cells_and_the_same_again_goes_on(small, tmp_path):
  (tmp_path / "slow").touch()
  runner = local.Runner(tmp_path, 1, {})
  look = runner._table

  def table(waiting):
    if (tmp_path / "sums/grpo/seed1/starts").exists():
      os.kill(os.getpid(), signal.SIGTERM)
    return look(waiting)

  runner._table = table
  start = time.monotonic()
  assert runner.run(small.cells()) == signal.SIGTERM
  assert time.monotonic() - start < 50, "the cell was waited for, not told"
  assert states(small, tmp_path)["sums/grpo/seed1"] == "open"
  (tmp_path / "slow").unlink()
  assert local.Runner(tmp_path, 1, {}).run([small.cells()[-1]]) == 0
  assert states(small, tmp_path)["sums/grpo/seed1"] == "done"


def test_rewards_and_rollouts_of_an_option_make_another_cell():
  configs = [
    study_lib.resolved(make(arms=(Arm("dsrl", options=options),)))["sums/dsrl/seed0"]
    for options in ((), ("--reward", "form=1", "--reward", "arithmetic=0"))
  ]
  assert configs[1].data.rewards == ("form=1", "arithmetic=0")
  same = [cell_lib.identity(make().cells()[0], cfg) for cfg in configs]
  assert same[0] != same[1]


def test_cores_are_shared():
  have = sorted(os.sched_getaffinity(0))
  assert local.cores(0, 1) == set(have)
  shares = [local.cores(i, 2) for i in range(2)]
  assert set.union(*shares) == set(have)
  assert len(have) == 1 or not set.intersection(*shares)


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
  assert (
    subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
  )


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
