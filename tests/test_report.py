"""A report is made from any run folder, shows what happened, and cannot be hijacked."""

import html.parser
import json
import pathlib
import xml.etree.ElementTree

import numpy as np
import pytest

from pxy import config, fields
from pxy.report import curve, page, plot, runs
from pxy.show import log

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=y> \u202e\x00 &amp; `|`"
DSRL = (("nsr-prerl", "marginal", 4), ("grpo", "conditional", 8))


def make(folder, *, seed=0, phases=DSRL, gain=0.04, ended=True, prompt="12 + 30?"):
  """A made-up run of a few steps."""
  rng = np.random.default_rng(seed)
  plan = [(name, space) for name, space, steps in phases for _ in range(steps)]
  cfg = config.Train(
    seed=seed, phases=tuple(config.Phase(n, steps=s) for n, _, s in phases)
  )
  with log.Log(folder) as writer:
    (folder / "config.json").write_text(json.dumps(fields.to_dict(cfg)))
    for step in range(len(plan) + 1):
      rate = 0.4 + gain * step
      if step:
        name, space = plan[step - 1]
        writer.write(
          {
            "step": step,
            "phase": name,
            "space": space,
            "critic/score/mean": rate + 0.02 * rng.normal(),
            "groups/solved": step,
            "groups/mixed": 15 - step,
            "groups/unsolved": 1,
            "actor/lr": 1e-4 / step,
            "response_length/mean": 50 + rng.normal(),
            "response_length/clip_ratio": 0.02,
            "thoughts/reflection_rate": 0.1,
            "thoughts/transition_rate": 0.0,
            "thoughts/execution_rate": 0.9,
            "rollout/entropy": None if step == 3 else 0.3,
          }
        )
      if step in (0, len(plan)) and (step == 0 or ended):
        score = {
          f"pass@{k}": {"value": min(1, rate * k**0.2), "se": 0.02} for k in (1, 4, 16)
        }
        score |= {"avg@16": {"value": rate, "se": 0.02}}
        score |= {"groups/solved": {"value": 5 + step, "se": 2.0}}
        row = {"uid": 7, "response": 0, "prompt": prompt, "answer": "42"}
        row |= {"outcome": "scored", "reward": float(step > 0), "stop": "stop"}
        writer.write({"step": step, "eval": score}, [row | {"completion": HOSTILE}])
  return folder


def test_interruptions_are_shown(tmp_path):
  folder = make(tmp_path / "run")
  notes = [
    {"begin": 0},  # killed: no end
    {"begin": 2},
    {"end": 5, "how": "stopped"},
    {"begin": 5},
    {"end": 12, "how": "finished"},
    {"begin": 12},  # with more steps: no interruption
  ]
  text = "".join(json.dumps(note) + "\n" for note in notes)
  (folder / "attempts.jsonl").write_text(text)
  page.write([folder], folder)
  for name in ("report.html", "report.md"):
    shown = (folder / name).read_text()
    assert "interrupted 2 times" in shown
    assert "killed, on from step 2; stopped at step 5, on from step 5." in shown


def test_what_was_accepted_on_the_way_is_shown(tmp_path):
  folder = make(tmp_path / "run")
  note = {"step": 4, "name": "<i>data", "was": {}, "now": {}}
  (folder / "used.json").write_text(json.dumps({"used": {}, "accepted": [note]}))
  page.write([folder], folder)
  shown = (folder / "report.html").read_text()
  assert "Accepted in run: another &lt;i&gt;data from step 4 on." in shown
  assert "from step 4 on" in (folder / "report.md").read_text()
  for text in ("[]", "{}", '{"accepted": [3]}', '{"accepted": 3}', "{"):
    (folder / "used.json").write_text(text)
    with pytest.raises(config.Error, match="damaged run folder"):
      runs.read(folder)


class Reader(html.parser.HTMLParser):
  """Collects tags, what they refer to, and the text."""

  def __init__(self):
    super().__init__()
    self.tags, self.references, self.text = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.references += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
    assert not any(k.startswith("on") for k, _ in attrs), f"handler on {tag}"

  def handle_data(self, data):
    self.text.append(data)


def read(path):
  reader = Reader()
  reader.feed(path.read_text(encoding="utf-8"))
  reader.all = " ".join("".join(reader.text).split())
  return reader


def test_the_report_of_one_run(tmp_path):
  folder = make(tmp_path / "run")
  path = page.write([folder], folder)
  assert path == folder / "report.html"
  found = read(path)
  assert "4 steps of nsr-prerl, then 8 steps of grpo took avg@16" in found.all
  assert "from 40.0 % (95 % interval 36.1 to 43.9)" in found.all
  assert "to 88.0 % (95 % interval 84.1 to 91.9)." in found.all
  assert "40.0 ± 2.0 %" in found.all and "+48.0 ± 2.8 %" in found.all
  assert found.tags.count("svg") == len(plot.PANELS) - 1, "all have data but the loss"
  assert "nsr-prerl" in found.all and "thoughts" in found.all.lower()
  text = (folder / "report.md").read_text()
  assert "| avg@16 | 40.0 ± 2.0 % | 88.0 ± 2.0 % | +48.0 ± 2.8 % |" in text
  assert (folder / "plots" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_model_writes_is_only_text(tmp_path):
  folder = make(tmp_path / "run", prompt="<b>bold</b>\u2066")
  found = read(page.write([folder], folder))
  assert "script" not in found.tags and "img" not in found.tags
  assert "b" in found.tags and "<b>bold</b>\ufffd" in found.all
  assert "</pre><script>alert(1)</script>" in found.all, "shown as it was written"
  assert "\u202e" not in found.all and "\x00" not in found.all
  assert all(r.startswith("#") for r in found.references), "nothing external"
  raw = (folder / "report.html").read_text()
  assert "default-src 'none'" in raw and "@import" not in raw and "url(http" not in raw


def test_drawings_are_xml_with_colours_of_the_page(tmp_path):
  groups = runs.group([runs.read(make(tmp_path / "run"))])
  ids = []
  for panel in plot.available(groups):
    text = plot.svg(panel, groups)
    assert not any(light in text for light, _ in curve.COLOURS.values()), panel.key
    tree = xml.etree.ElementTree.fromstring(text)
    own = [e.get("id") for e in tree.iter() if e.get("id")]
    ids += own
    used = {v[1:] for e in tree.iter() for k, v in e.items() if k.endswith("href")}
    assert used <= set(own), f"{panel.key} refers to {used - set(own)}"
  assert len(ids) == len(set(ids)), "identifiers of the drawings on one page differ"


def test_colours_stand_for_one_name_each():
  light = [pair[0] for pair in curve.COLOURS.values()]
  assert len(set(light)) == len(light)


def test_runs_that_differ_in_the_seed_are_pooled(tmp_path):
  folders = [make(tmp_path / f"dsrl-s{i}", seed=i) for i in range(3)]
  other = (("grpo", "conditional", 12),)
  folders.append(make(tmp_path / "grpo", phases=other, gain=0.03))
  groups = runs.group([runs.read(folder) for folder in folders])
  assert [(g.name, g.seeds) for g in groups] == [("dsrl", [0, 1, 2]), ("grpo", [0])]
  name = "critic/score/mean"
  each = np.array([list(run.values(name).values()) for run in groups[0].runs])
  pooled = groups[0].series(name)
  np.testing.assert_allclose(pooled.mean, each.mean(0))
  np.testing.assert_allclose(pooled.se, each.std(0, ddof=1) / np.sqrt(3))
  found = read(page.write(folders, tmp_path / "out"))
  assert "4 runs of 2 kinds" in found.all
  assert "0, 1, 2" in found.all and "40.0 → 76.0 ± 2.0" in found.all
  assert "a bar across a curve marks its phase switch" in found.all


@pytest.mark.parametrize(
  "folders, name",
  [
    (["dsrl-s0", "dsrl-s1"], "dsrl"),
    (["dsrl_seed_10", "dsrl_seed_11"], "dsrl"),
    (["runs1", "runs2", "runs12"], "runs"),
    (["lr0.1-10", "lr0.1-11"], "lr0.1"),
    (["demo", "dsrl-1"], "demo + 1 more"),
    (["seed0", "seed1", "seed2"], "seed0 + 2 more"),
    (["math.v2", "math.v2-again"], "math.v2"),
    (["only-s1"], "only-s1"),
  ],
)
def test_a_group_has_a_whole_name(folders, name):
  found = [
    runs.Run(pathlib.Path(folder), {"seed": i}, [], {}, {})
    for i, folder in enumerate(folders)
  ]
  assert [group.name for group in runs.group(found)] == [name]


def test_metrics_are_pooled_over_the_steps_that_all_have(tmp_path):
  for i, steps in enumerate((4, 8)):
    make(tmp_path / f"s{i}", seed=i, phases=(("grpo", "conditional", steps),))
  both = [runs.read(tmp_path / f"s{i}") for i in range(2)]
  pooled = runs.Group("both", both).series("rollout/entropy")
  assert pooled.step.tolist() == [1, 2, 4], "step 3 has no entropy"


def test_a_running_mean_stays_within_its_phase(tmp_path):
  group = runs.group([runs.read(make(tmp_path / "run"))])[0]
  step = np.arange(1, 13)
  jump = np.where(step <= 4, 0.0, 1.0)
  np.testing.assert_array_equal(curve.running(group, step, jump), jump)


def test_a_run_under_way_has_a_report(tmp_path):
  folder = make(tmp_path / "run", ended=False)
  found = read(page.write([folder], folder))
  assert "avg@16 at step 0: 40.0 %" in found.all and "not finished" in found.all
  started = tmp_path / "started"
  started.mkdir()
  (started / "metrics.jsonl").touch()
  (started / "config.json").write_text(json.dumps(fields.to_dict(config.Train())))
  assert "No step of training yet." in read(page.write([started], started)).all


def test_a_pretraining_run_has_a_report(tmp_path):
  folder = tmp_path / "base"
  with log.Log(folder) as writer:
    for step in (1, 2, 3):
      writer.write({"step": step, "phase": "pretrain", "loss": 3.0 / step})
    score = {"avg@16": {"value": 0.5, "se": 0.02}}
    writer.write({"step": 3, "eval": score})
  (folder / "config.json").write_text(json.dumps(fields.to_dict(config.Pretrain())))
  found = read(page.write([folder], folder))
  assert "Pre-training on arithmetic/add3" in found.all
  assert "3 steps of pretrain; avg@16 at step 3: 50.0 %" in found.all
  assert "Cross-entropy" in found.all and "change" not in found.all.split("{")[0]


def test_no_improvement_is_not_sold_as_one(tmp_path):
  folder = make(tmp_path / "run", gain=0.001)
  group = runs.group([runs.read(folder)])[0]
  assert page.headline(group).endswith("the intervals overlap, so no change is shown.")


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
  with pytest.raises(config.Error, match=r"no run folder.*`pxy train`"):
    page.write([tmp_path], tmp_path)
  folder = make(tmp_path / "run")
  (folder / "config.json").write_text("{")
  with pytest.raises(config.Error, match="damaged run folder"):
    page.write([folder], folder)


def test_cells():
  assert page._cell("avg@16", (0.5, 0.01)) == "50.0 ± 1.0 %"
  assert page._cell("avg@16", (-0.5, np.nan), "+") == "−50.0 %"
  assert page._cell("truncated", (-0.0001, 0.0), "+") == "0.0 ± 0.0 %"
  assert page._cell("length/mean", (123.4, 1.2)) == "123 ± 1"
  assert page._cell("groups/solved", (3.0, 1.7)) == "3 ± 2"
  assert page._cell("avg@16", (np.nan, np.nan)) == "–"
