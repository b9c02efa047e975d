"""What `pxy bound` and `pxy probe` found stays with a run, and its report shows it."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from pxy import config
from pxy.evaluate import figures, probe, store
from pxy.measures import bound, estimate
from pxy.report import page, plot, probe_plot, runs, sections
from pxy.show import log

import test_report

VARIANTS = ("plain", "backwards")
COLOURS = ("blue", "green", "red")
HOSTILE = "</td><script>alert(1)</script>\u202e|"
PARTS = ("bound", "robust", "calibration", "hallucination", "bias", "contexts")


def stored(right: float, seed: int, responses: int = 8) -> store.Stored:
  """Responses to made-up questions, each right with a chance that depends on it."""
  rng = np.random.default_rng(seed)
  problems, groups = [], []
  for place in range(24):
    gold = COLOURS[place % 3]
    band = ("head", "tail", "ghost")[place % 4 % 3]
    name = f"{place:04d}"
    problems.append(
      {
        "problem": name,
        "place": place,
        "uid": place,
        "digest": "",
        "prompt": f"colour of {name} ?",
        "answer": gold,
        "task": "made/up",
        "other": None,
        "group": f"{place // 2:04d}",
        "variant": VARIANTS[place % 2],
        "attribute": "colour",
        "band": band,
        "answerable": band != "ghost",
      }
    )
    chance = right * (0.3 + 0.7 * (place % 5) / 4)
    group = []
    for r in range(responses):
      others = [c for c in (*COLOURS, HOSTILE) if c != gold]
      answer = gold if rng.random() < chance else str(rng.choice(others))
      score = float(answer == gold)
      group.append(
        {
          "problem": name,
          "r": r,
          "seed": 0,
          "ids": [1, 2, 3],
          "text": answer,
          "stop": "stop",
          "status": "scored",
          "score": score,
          "why": "",
          "metrics": {"answer": score, "verified": score, "abstained": 0.0},
          "extracted": answer,
          "entropy": 1.0,
          "logp": {"prompt": -1.0 - rng.random(), "start": -6.0 - rng.random()},
        }
      )
    groups.append(group)
  about = {"samples": responses, "contexts": ["prompt", "start"]}
  return store.of_rows(pathlib.Path(), about, problems, groups)


def jsoned(specs):
  """As --json has it; nulls, which take their time, of the bound alone."""
  specs = [
    s if s.name.startswith("bound/") else dataclasses.replace(s, null=None)
    for s in specs
  ]
  return {name: one.to_json() for name, one in estimate.measures(specs).items()}


@pytest.fixture(scope="module")
def reports():
  """{kind: report} of a run against its base."""
  base, new = stored(0.5, 0), stored(0.8, 1)
  specs, old = (probe.specs(probe.table(x), PARTS) for x in (new, base))
  held = {spec.name: spec for spec in old}
  head = {
    "model": "run",
    "task": "made/up",
    "n_problems": 24,
    "n_samples": 8,
    "against": "builtin:base",
    "base_measures": jsoned(old),
    "difference": {
      spec.name: estimate.difference([spec], [held[spec.name]]).to_json()
      for spec in specs
      if spec.name.startswith("bound/") and spec.name in held
    },
  }
  solved = bound.solved(
    [row["problem"] for row in new.problems], new.verified_PR, base.verified_PR
  )
  measures = jsoned(specs)
  return {
    "bound": head
    | {
      "measures": {n: m for n, m in measures.items() if n.startswith("bound/")}
      | jsoned(solved)
    },
    "probe": head
    | {"measures": measures, "figures": figures.of(probe.table(new), PARTS)},
  }


@pytest.fixture(scope="module")
def made(reports, tmp_path_factory):
  """Two runs of different methods with both reports, and probes on the way."""
  root = tmp_path_factory.mktemp("runs")
  out = []
  for name, phases in (("dsrl", test_report.DSRL), ("grpo", test_report.DSRL[1:])):
    folder = test_report.make(root / name, phases=phases)
    records = log.metrics(folder)
    for record in records:
      last = record["step"] == records[-1]["step"]
      if ("eval" not in record and record["step"] % 4 == 1) or (
        "eval" in record and last
      ):
        for measure in ("bound/verified_pass@1", "bias/tv"):
          value = 0.3 + 0.01 * record["step"]
          record |= {f"probe/{measure}": value}
          record |= {f"probe/{measure}/low": value - 0.1}
          record |= {f"probe/{measure}/high": value + 0.1}
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "checkpoints" / "00000012").mkdir(parents=True)
    (folder / "bound").mkdir()
    (folder / "bound" / "00000012.json").write_text(json.dumps(reports["bound"]))
    shown = page.keep(str(folder), None, "probe", [reports["probe"]])
    assert shown == folder / "report.html"
    out.append(folder)
  return out


def test_points_are_those_of_the_responses():
  found = stored(0.8, 1)
  drawn = figures.of(probe.table(found), PARTS)
  assert set(drawn) == {"reliability", "risk", "answers", "variants"}
  assert sum(p["n"] for p in drawn["reliability"]) == found.score_PR.size
  wrong = 1 - np.nanmean(found.answer_right_PR)
  np.testing.assert_allclose(drawn["risk"][-1]["risk"], wrong)
  risks = [p["risk"] for p in drawn["risk"]]
  assert risks[0] < risks[-1], "agreement tells right from wrong here"
  assert all(p["low"] <= p["risk"] <= p["high"] for p in drawn["risk"])
  for what in ("given", "right"):
    total = sum(row[what] for row in drawn["answers"])
    np.testing.assert_allclose(total, 1, err_msg=f"shares of what is {what}")
  assert [row["answer"] for row in drawn["answers"]] == list(COLOURS)
  first = drawn["variants"][0]
  assert [row["variant"] for row in first["rows"]] == list(VARIANTS)
  row = first["rows"][0]
  assert row["prompt"] == found.problems[0]["prompt"], "the first; nothing is picked"
  assert row["right"] == found.verified_PR[0].sum() and row["n"] == 8
  order = [count for _, count in row["answers"]]
  assert order == sorted(order, reverse=True)


def test_answers_to_no_question_stand_beside_the_others():
  found = stored(0.8, 1)
  answers = figures.of(probe.table(found), ("bias",))["answers"]
  figures.alone(answers, found, "start")
  np.testing.assert_allclose(sum(row["start"] for row in answers), 1)
  nothing = found.take(range(2))
  nothing = store.of_rows(
    nothing.path,
    {"samples": 0, "contexts": ["prompt"]},
    nothing.problems,
    [[] for _ in nothing.problems],
  )
  figures.alone(answers, nothing, "empty")
  assert not any("empty" in row for row in answers), "undefined is absent, not 0"


def test_a_report_is_kept_with_the_run(reports, tmp_path):
  folder = tmp_path / "run"
  assert page.keep("builtin:world", None, "probe", reports["probe"]) is None
  assert page.keep(str(folder), None, "probe", reports["probe"]) is None
  assert not (folder / "probe").exists(), "of which checkpoint would it be?"
  for step in (4, 12):
    (folder / "checkpoints" / f"{step:08d}").mkdir(parents=True)
  page.keep(str(folder), None, "probe", [reports["probe"]])
  page.keep(str(folder), 4, "probe", [reports["probe"], reports["bound"]])
  one, two = (
    json.loads((folder / "probe" / f"{step:08d}.json").read_text()) for step in (12, 4)
  )
  assert one == json.loads(json.dumps(reports["probe"])), "one object, as --json has it"
  assert len(two) == 2, "of several tasks a list, as --json has it"
  assert [p.name for p in (folder / "probe").iterdir() if p.name.startswith(".")] == []


def test_the_page_of_a_run_has_its_bound_and_its_probes(made, reports):
  found = test_report.read(made[0] / "report.html")
  text = (made[0] / "report.md").read_text()
  for shown in (found.all, text):
    assert "The bound" in shown and "Probes" in shown
    assert "dsrl, step 12, on made/up: 24 problems, at most 8 responses" in shown
    assert "against builtin:base" in shown
    for panel in ("pass@k minus that of the base", "Errors of the surest responses"):
      assert panel in shown
    for name in reports["probe"]["measures"] | reports["bound"]["measures"]:
      assert name in shown.replace("\\", ""), f"the table lacks {name}"
  tables = {s.key: s.table for s in sections.of(runs.group([runs.read(made[0])]))}
  header, *rows = tables["bound"]
  assert header[:5] == ("measure", "value", "95 % interval", "null", "n")
  row = dict(zip(header, next(r for r in rows if r[0] == "bound/srr"), strict=True))
  srr = reports["bound"]["measures"]["bound/srr"]
  assert row["value"] == f"{srr['value']:.3f}"
  assert row["null"].startswith(f"{srr['null']['value']:.3f} (")
  assert row["n"] == "24" and row["meaning"].startswith("of what the base solves")
  assert [r[0] for r in rows[:3]] == ["bound/cover@0.1", "bound/cover@0.5",
                                      "bound/cover@0.9"]  # fmt: skip
  for name in ("bound", "probes"):
    assert (made[0] / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"plots/{name}.png" in text


def test_answers_that_are_shown_are_only_text(made):
  found = test_report.read(made[0] / "report.html")
  assert "script" not in found.tags and "\u202e" not in found.all
  assert "</td><script>alert(1)</script>\ufffd|" in found.all, "shown as it was given"
  text = (made[0] / "report.md").read_text()
  assert "<script>" not in text and "alert(1)&lt;/script&gt;\ufffd\\|" in text


def test_several_runs_stand_beside_each_other(made, tmp_path):
  path = page.write(made, tmp_path)
  found = test_report.read(path)
  groups = runs.group([runs.read(folder) for folder in made])
  parts = {part.key: part for part in sections.of(groups)}
  assert parts["probes"].table[0][:2] == ("measure", "run")
  assert {row[1] for row in parts["probes"].table[1:]} == {"dsrl", "grpo"}
  assert parts["probes"].questions[0][0][3:] == ("dsrl", "grpo")
  drawn = [p for part in parts.values() for p in part.panels]
  assert found.tags.count("svg") == len(plot.available(groups)) + 1 + len(drawn)
  keys = [p.key for p in (*plot.PANELS, *drawn)]
  assert len(set(keys)) == len(keys), "identifiers of two drawings would meet"


def test_tasks_have_a_section_each(reports, tmp_path):
  folder = test_report.make(tmp_path / "run")
  (folder / "probe").mkdir()
  other = reports["probe"] | {"task": "made/other"}
  text = json.dumps([reports["probe"], other])
  (folder / "probe" / "00000012.json").write_text(text)
  parts = sections.of(runs.group([runs.read(folder)]))
  assert [p.title for p in parts] == ["Probes: made/up", "Probes: made/other"]
  keys = [p.key for part in parts for p in part.panels]
  assert len(set(keys)) == len(keys), "identifiers of two drawings would meet"


def test_a_report_with_little_in_it_is_drawn(tmp_path, reports):
  """Nothing but a curve, without a base, null or interval; and nothing at all."""
  one = reports["bound"]["measures"]["bound/pass@1"] | {"null": None}
  for measures in ({"bound/pass@1": one}, {}):
    report = {"model": "m", "task": "t", "measures": measures}
    for of in (probe_plot.bound, probe_plot.probe):
      for panel in of([("m", report)]):
        assert plot.svg(panel, []).startswith("<svg")


def test_probes_on_the_way_are_of_the_weights_that_a_step_began_with(made):
  run = runs.read(made[0])
  assert list(run.probed) == [0, 4, 8, 12]
  found = run.probed[4]["bound/verified_pass@1"]
  np.testing.assert_allclose(
    [found["value"], found["low"], found["high"]], [0.35, 0.25, 0.45]
  )
  groups = runs.group([run])
  (panel,) = probe_plot.over_steps(groups)
  assert "bias, TV" in plot.svg(panel, groups)
  shutil.copytree(made[0], made[0].parent / "again", dirs_exist_ok=True)
  pooled = runs.group([run, runs.read(made[0].parent / "again")])
  assert "bias, TV" in plot.svg(*probe_plot.over_steps(pooled), pooled)
  without = runs.group([runs.read(test_report.make(made[0].parent / "without"))])
  assert probe_plot.over_steps(without) == []


@pytest.mark.parametrize("text", ["{", "[1]", '{"model": "m"}', '{"measures": 3}'])
def test_a_damaged_report_is_one_line_that_names_the_run(text, tmp_path):
  folder = test_report.make(tmp_path / "run")
  (folder / "probe").mkdir()
  (folder / "probe" / "00000012.json").write_text(text)
  with pytest.raises(config.Error, match="run: damaged run folder") as error:
    runs.read(folder)
  assert "\n" not in str(error.value)
