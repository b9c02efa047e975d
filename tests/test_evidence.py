"""docs/evidence says what its results.json says, and no more; so does the README."""

import json
import pathlib
import re
import zipfile

import pytest

from pxy.commands import experiment
from pxy.commands import study as study_lib
from pxy.study import cell as cell_lib
from pxy.study import page, plan

import told

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
STUDIES = {
  "claims": EVIDENCE,
  "rates": EVIDENCE / "rates",
  "real": EVIDENCE / "real",
  "real_rates": EVIDENCE / "real" / "rates",
}
"""Each study that was run, and where its page is."""


def read(name):
  return json.loads((STUDIES[name] / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_follows_from_the_numbers(name):
  folder, found = STUDIES[name], read(name)
  again = f"pxy study {name} --out RUNS --report {folder.relative_to(ROOT)}"
  assert (folder / "README.md").read_text(encoding="utf-8") == page.text(found), (
    f"write it anew: {again}"
  )
  drawn = {str(path.relative_to(folder)) for path in folder.glob("**/*.png")}
  inner = [str(other.relative_to(folder)) for other in STUDIES.values()
           if other != folder and other.is_relative_to(folder)]  # fmt: skip
  drawn = {path for path in drawn if not path.startswith(tuple(f"{x}/" for x in inner))}
  assert drawn == set(page.drawings(found)), f"draw them anew: {again}"


@pytest.mark.parametrize("name", STUDIES)
def test_the_numbers_are_of_the_study_that_is_shipped(name):
  study, found = experiment.study(name, plan.Study), read(name)
  cells = [cell.name for cell in study.cells()]
  assert [one["cell"] for one in found["cells"]] == cells
  asked = [(c.name, w) for c in study.claims for w in study.asked(c)]
  assert [(one["claim"], one["world"]) for one in found["claims"]] == asked


def best_of(name):
  """The rate with the highest pass@1 of each world and method that has all three."""
  swept: dict[tuple[str, str], list[tuple[float, float]]] = {}
  for one in read(name)["cells"]:
    if "after/bound/pass@1" in one:
      found = re.fullmatch(rf"(?:{one['world']}-)?(.*?)-(\d.*)", one["method"])
      score = one["after/bound/pass@1"], -float(found[2])
      swept.setdefault((one["world"], found[1]), []).append(score)
  return {key: -max(scores)[1] for key, scores in swept.items() if len(scores) == 3}


def test_rates_are_the_best_of_the_sweep():
  """claims.py takes what rates.py found, also where the paper has another."""
  best, study = best_of("rates"), experiment.study("claims", plan.Study)
  given = {
    (world, arm.name): float(words[words.index("--phases.0.lr") + 1])
    for arm in study.arms
    for world, words in arm.at
    if "--phases.0.lr" in words
  }
  assert len(best) > 10 and {key: given.get(key) for key in best} == best


def test_rates_of_the_real_model_are_the_best_of_its_sweep():
  """And the second phase is GRPO at its own."""
  best = {name: rate for (_, name), rate in best_of("real_rates").items()}
  for arm in experiment.study("real", plan.Study).arms:
    words = dict(zip(arm.options[::2], arm.options[1::2], strict=True))
    if arm.name in best:
      assert float(words["--phases.0.lr"]) == best[arm.name], arm.name
    assert float(words.get("--phases.1.lr", best["grpo"])) == best["grpo"], arm.name
  assert set(best) == {"grpo", "dsrl", "nsr_rl_warmup"}


def test_what_was_trained_twice_is_of_the_study_that_is_shipped():
  pairs = json.loads((told.EVIDENCE / "twice.json").read_text(encoding="utf-8"))
  found = {one["cell"]: one for one in told.numbers(told.EVIDENCE)["cells"]}
  assert len(pairs) > 80
  for cell, (_, now) in pairs.items():
    assert now == pytest.approx(found[cell]["after/bound/pass@1"], abs=1e-6), cell


@pytest.mark.parametrize("path", told.PAGES, ids=lambda path: path.name)
def test_what_other_pages_say_is_what_was_found(path):
  text = path.read_text(encoding="utf-8")
  tags = [found[0] for found in told.TAG.finditer(text)]
  opened = len(re.findall("<!-- (?:ours|told)", text))
  assert len(tags) == opened > 0, "a tag that nothing ends, or that nobody reads"
  wrong = [tag for tag in tags if told.anew(tag) != tag]
  assert not wrong, f"{path.name}: {wrong[0]}: write it anew: python tests/told.py"


def test_what_follows_names_its_claim():
  text = (ROOT / "docs" / "related.md").read_text(encoding="utf-8")
  follows = text[text.index("## What follows") :]
  known = {one["claim"] for one in read("claims")["claims"]}
  tags = re.findall(r"^- (.*)\[(open|evidence: (\S+))\]$", follows, re.MULTILINE)
  assert len(tags) == len(re.findall(r"^- ", follows, re.MULTILINE)) > 15
  assert {name for *_, name in tags if name} <= known
  for said, _, name in tags:
    assert not name or f"<!-- told {name} -->" in said, f"{name}: its number is missing"


@pytest.mark.parametrize("name", ["claims", "real"])
def test_cells_that_are_kept_are_of_the_study_that_is_shipped(name):
  """So that it goes on from them, and not anew."""
  study = experiment.study(name, plan.Study)
  configs = study_lib.resolved(study)
  named = {c.name: cell_lib.identity(c, configs.get(c.name)) for c in study.cells()}
  with zipfile.ZipFile(STUDIES[name] / "cells.zip") as file:
    kept = json.loads(file.read("study.json"))
    for cell, one in kept.items():
      assert one == named[cell], f"{cell} is another cell now: leave it out"
      assert json.loads(file.read(f"{cell}/cell.json"))["state"] == cell_lib.DONE
  assert kept, "no cell is in it"
