"""A model is let through where every interval lies within its bound, and only there.

What a gate reads is written here by hand; one real model is its base with noise on
every weight. That a model passes against itself stands in test_probe.py, for there it
has been asked all of it.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from pxy import config, fields
from pxy.commands import cli, experiment
from pxy.measures import gate as gate_lib
from pxy.measures import names
from pxy.measures.gate import Gate, judge
from pxy.report import runs, sections
from pxy.weights import export, load

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEAST = Gate("robust/worst", at_least=-0.01)
MOST = Gate("bias/tv", at_most=0.0)
LOOSE = dataclasses.replace(LEAST, undecided="passes")
BAND = Gate("bound/pass@1", of="value", at_least=0.2, at_most=0.4)


def found(low, high, **more) -> dict:
  """A number as --json has it."""
  middle = None if None in (low, high) else (low + high) / 2
  return {"value": middle, "low": low, "high": high, "null": None, "n": 9} | more


@pytest.mark.parametrize(
  ("gate", "span", "verdict", "passed"),
  [
    (LEAST, (-0.005, 0.02), "passes", True),
    (LEAST, (-0.01, 0.02), "passes", True),  # the bound itself is within
    (LEAST, (-0.05, -0.011), "fails", False),
    (LEAST, (-0.05, -0.01), "undecided", False),
    (LEAST, (-0.05, 0.3), "undecided", False),
    (LOOSE, (-0.05, 0.3), "undecided", True),
    (LOOSE, (-0.05, -0.011), "fails", False),
    (LEAST, (None, 0.3), "no number", False),
    (LOOSE, (None, None), "no number", False),
    (MOST, (-0.2, -0.1), "passes", True),
    (MOST, (0.001, 0.1), "fails", False),
    (MOST, (-0.001, 0.1), "undecided", False),
    (BAND, (0.2, 0.4), "passes", True),
    (BAND, (0.1, 0.19), "fails", False),
    (BAND, (0.41, 0.5), "fails", False),
    (BAND, (0.1, 0.5), "undecided", False),
    (BAND, (0.3, 0.41), "undecided", False),
  ],
)
def test_the_whole_interval_decides(gate, span, verdict, passed):
  one = judge(gate, "t", found(*span))
  assert (one.verdict, one.passed) == (verdict, passed), one.line
  row = json.loads(json.dumps(one.to_json()))
  assert (row["verdict"], row["passed"]) == (verdict, passed)
  assert row["measure"] == gate.measure and row["at_least"] == gate.at_least


def test_an_interval_without_width_is_no_certainty():
  """What nobody in few problems did is let through 2.5 times of 100 at most."""
  none_wrong = Gate("hallucination/unknown_wrong", of="value", at_most=0.05)
  for n, verdict in ((1, "undecided"), (30, "undecided"), (72, "passes")):
    one = judge(none_wrong, "t", found(0.0, 0.0, n=n))
    assert one.verdict == verdict, one.line
    assert one.found["low"] == 0 and "alike" in one.found["method"]
    assert one.found["high"] == pytest.approx(1 - 0.025 ** (1 / n))
  same = judge(LEAST, "t", found(0.0, 0.0))
  assert same.verdict == "undecided" and same.found["low"] < -0.01
  same = judge(LEAST, "t", found(0.0, 0.0), itself=True)
  assert same.passed and same.found["low"] == 0
  never = judge(none_wrong, "t", found(0.5, 0.5, n=10**6), itself=True)
  assert never.verdict == "fails"


def test_what_is_undefined_lets_nobody_through():
  one = judge(LOOSE, "t", None)
  assert not one.passed and one.verdict == "no number"
  assert one.line == (
    "robust/worst: difference undefined, at least -0.01 wanted: no number"
  )


def test_a_line_says_all():
  one = judge(LEAST, "t", found(-0.05, -0.012))
  assert one.line == (
    "robust/worst: difference -0.0310 (-0.0500 .. -0.0120), at least -0.01 wanted:"
    " fails"
  )
  one = judge(BAND, "t", found(0.1, 0.5))
  assert "value 0.3000 (0.1000 .. 0.5000), at least 0.2, at most 0.4" in one.line


@pytest.mark.parametrize(
  ("fields_of", "said"),
  [
    ({"measure": "robust/best", "at_least": 0}, "'robust/best' is no measure"),
    ({"measure": 3, "at_least": 0}, "measure: expected str"),
    ({"measure": "bias/tv"}, "gate bias/tv: no bound"),
    ({"measure": "bias/tv", "at_most": "0"}, "gate bias/tv: at_most: expected float"),
    ({"measure": "bias/tv", "at_most": float("nan")}, "must be a finite number"),
    ({"measure": "bias/tv", "at_most": True}, "gate bias/tv: at_most: expected float"),
    ({"measure": "bias/tv", "at_least": 1, "at_most": 0}, "nothing is within"),
    ({"measure": "bias/tv", "at_most": 0, "of": "both"}, "one of difference, value"),
    ({"measure": "bias/tv", "at_most": 0, "undecided": "no"}, "one of fails, passes"),
    ({"measure": "kept/kl_forward", "at_most": 1}, 'write of="value"'),
    ({"measure": "bound/nscr", "at_least": 0}, 'write of="value"'),
    ({"measure": "train/entropy", "at_least": 0}, "of a run's own files"),
  ],
)
def test_what_cannot_be_meant_is_one_line(fields_of, said):
  with pytest.raises(fields.Error) as error:
    Gate(**fields_of)
  assert said in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_measures_of_both_models_are_told_apart():
  both = {name for name in names.NAMES if gate_lib.OF_BOTH.fullmatch(name)}
  assert {"bound/srr", "bound/crossing", "kept/kl_{direction}"} <= both
  for name in ("bound/ppl_prompt_q25", "bound/pass@4", "kept/nll_start"):
    assert not gate_lib.OF_BOTH.fullmatch(name), name
  assert gate_lib.OF_BOTH.fullmatch("bound/ppl_base_new_median")


@pytest.mark.parametrize(
  ("body", "said"),
  [
    ("return (Gate('bias/tvv', at_most=0),)", "'bias/tvv' is no measure"),
    ("return ()", "everything would pass"),
    ("return 'bias/tv'", "returned str, not a tuple"),
    ("return ('bias/tv',)", "'bias/tv' is no pxy.measures.gate.Gate"),
    ("return (Gate('bias/tv', at_most=0),) * 2", "gate bias/tv: it comes twice"),
    ("return Gate('bias/tv', 'value')", "gate bias/tv: no bound"),
    ("return nothing", "NameError"),
  ],
)
def test_a_wrong_file_is_one_line(body, said, tmp_path, capsys):
  text = f"from pxy.measures.gate import Gate\ndef gates():\n  {body}\n"
  (tmp_path / "g.py").write_text(text)
  assert said in refused(capsys, "builtin:tiny", tmp_path / "g.py")


def refused(capsys, *words) -> str:
  """The one line of a `pxy gate` that refuses."""
  with pytest.raises(SystemExit) as stop:
    cli.main(["gate", *map(str, words)])
  error = capsys.readouterr().err
  assert stop.value.code == 2 and error.count("\n") == 1, error
  return error


def test_wrong_words_are_one_line(tmp_path, capsys):
  (tmp_path / "no.json").write_text("{]")
  (tmp_path / "other.json").write_text('{"scores": {}}')
  two = [report(), report() | {"model": "v"}]
  (tmp_path / "two.json").write_text(json.dumps(two))
  (tmp_path / "odd.json").write_text(json.dumps(report() | {"difference": [1]}))
  turned = report(**{"robust/worst": found(1, -1)})
  (tmp_path / "turned.json").write_text(json.dumps(turned))
  (tmp_path / "empty.py").write_text("")
  (tmp_path / "own.json").write_text(json.dumps(report()))
  (tmp_path / "far.py").write_text(
    "from pxy.measures.gate import Gate\n"
    "def gates(): return (Gate('robust/agreement', at_least=0),)\n"
  )
  for words, said in (
    (["builtin:tiny"], "--against BASE: name the model"),
    (["builtin:tiny", "strict"], "only default"),
    (["builtin:tiny", "no.py"], "gates no.py: no such file"),
    (["builtin:tiny", tmp_path / "no.json"], "not a Python file"),
    (["builtin:tiny", tmp_path / "empty.py"], "no function gates()"),
    ([tmp_path / "nothing.json"], "No such file"),
    ([tmp_path / "no.json"], "no.json: Expecting"),
    ([tmp_path / "other.json"], "no report that pxy probe or pxy bound wrote"),
    ([tmp_path / "two.json"], "several models"),
    ([tmp_path / "odd.json"], "no report that pxy probe or pxy bound wrote"),
    ([tmp_path / "turned.json"], "does not lie in its interval, 1 .. -1"),
    ([tmp_path / "own.json", "--against", "builtin:tiny"], "own.json says it"),
    ([tmp_path / "own.json", tmp_path / "far.py"], "near it there are robust/worst"),
  ):
    error = refused(capsys, *words)
    assert said in error, f"{words}: {error}"


def report(**difference) -> dict:
  """What `pxy probe --against --json` has."""
  held = {"robust/worst": found(0.0, 0.1), "kept/nll_document": found(-0.01, 0.0)}
  return {
    "model": "w", "task": "world", "against": "base", "measures": {},
    "base_measures": {}, "difference": held | difference,
  }  # fmt: skip


def test_a_report_is_judged_without_a_model(tmp_path, capsys):
  (tmp_path / "r.json").write_text(json.dumps(report()))
  cli.main(["gate", str(tmp_path / "r.json"), "--json", str(tmp_path / "g.json")])
  out = capsys.readouterr().out
  assert "w against base: 2 of 2 gates passed" in out
  assert "not asked of it: bound/pass@1" in out, "pxy's own are for any task"
  held = json.loads((tmp_path / "g.json").read_text())
  assert held["passed"] and held["model"] == "w" and held["against"] == "base"
  assert [row["verdict"] for row in held["gates"]] == ["passes"] * 2


def test_a_gate_is_asked_of_each_task_that_has_it(tmp_path, capsys):
  worse = report(**{"robust/worst": found(-0.3, -0.2)}) | {"task": "other"}
  del worse["difference"]["kept/nll_document"]
  (tmp_path / "r.json").write_text(json.dumps([report(), worse]))
  with pytest.raises(SystemExit) as stop:
    cli.main(["gate", str(tmp_path / "r.json")])
  out = capsys.readouterr().out
  assert stop.value.code == 1 and "2 of 3 gates passed" in out
  assert out.splitlines()[-1].endswith("wanted: fails (on other)"), out


def test_exit_codes_of_a_process(tmp_path):
  """And a base's number without the model's own is a gate that is not passed."""
  path, worse = tmp_path / "r.json", found(0.1, 0.2)
  base = {"base_measures": {"bias/tv": found(0.0, 0.1)}}
  path.write_text(json.dumps(report(**{"robust/worst": worse | {"low": -1}}) | base))
  done = subprocess.run(
    [sys.executable, "-m", "pxy", "gate", str(path)],
    env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    capture_output=True, text=True, timeout=120,
  )  # fmt: skip
  assert done.returncode == 1, done.stderr
  assert done.stdout.splitlines()[-2:] == [
    "robust/worst: difference 0.1500 (-1.0000 .. 0.2000), at least -0.01 wanted:"
    " undecided",
    "bias/tv: difference undefined, at most 0.05 wanted: no number",
  ]


def test_pxys_own_gates_and_those_of_the_docs_are_sound(tmp_path):
  (shown,) = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/gates.md").read_text("utf-8"), re.DOTALL
  )
  (tmp_path / "shown.py").write_text(shown)
  assert len(experiment.gates(tmp_path / "shown.py")) == 6
  own = experiment.gates("default")
  kinds = {one.measure.partition("/")[0] for one in own}
  assert {"bound", "robust", "hallucination", "bias", "kept"} <= kinds
  for one in own:
    assert judge(one, "t", found(0.0, 0.0), itself=True).passed, "a base passes"


def test_noise_is_seen_and_the_model_card_says_so(tmp_path, monkeypatch, capsys):
  run, real = tmp_path / "run", load.load
  (run / "checkpoints" / "00000003").mkdir(parents=True)
  tiny, rng = real("builtin:tiny"), np.random.default_rng(0)
  noisy = jax.tree.map(
    lambda x: x + 0.5 * x.std() * rng.standard_normal(x.shape).astype(x.dtype),
    tiny.params,
  )
  loaded = {
    str(run): dataclasses.replace(tiny, name="run", params=noisy),
    "builtin:tiny": tiny,
  }
  before = export.card(str(run), tiny, "bfloat16", 3)
  monkeypatch.setattr(load, "load", lambda model, step=None: loaded[model])
  (tmp_path / "kept.py").write_text(
    "from pxy.measures.gate import Gate\n"
    "def gates(): return (Gate('kept/nll_start', at_most=0.01),)\n"
  )
  sums = (f"{i} + {j} + 0 = {i + j}\n\n" for i in range(1, 7) for j in (1, 2))
  (tmp_path / "prose.txt").write_text("".join(sums))
  words = f"{tmp_path}/kept.py --task own.jsonl --text {tmp_path}/prose.txt --save"
  words += f" {tmp_path}/s --against builtin:tiny --json {tmp_path}/g.json"
  with pytest.raises(SystemExit) as stop:
    cli.main(["gate", str(run), *words.split()])
  held = json.loads((tmp_path / "g.json").read_text())
  (one,) = held["gates"]
  assert stop.value.code == 1 and one["verdict"] == "fails", one
  assert one["line"] in capsys.readouterr().out.splitlines()
  kept = json.loads((run / "gate" / "00000003.json").read_text())
  assert kept == held
  card = export.card(str(run), tiny, "bfloat16", None)
  cells = "| kept/nll_start | own.jsonl | difference | {:.4f} | {:.4f} to {:.4f} | 12 |"
  assert cells.format(one["value"], one["low"], one["high"]) in card, card
  assert "| at most 0.01 | fails | no |" in card and "`builtin:tiny`" in card
  assert str(tmp_path) not in card and "Gates" not in before
  early = export.card(str(run), tiny, "bfloat16", 2)
  assert "Gates" not in early, "those of other weights"
  (run / "gate" / "00000003.json").write_text('{"gates": [{}]}')
  with pytest.raises(config.Error, match="not what pxy gate wrote"):
    export.card(str(run), tiny, "bfloat16", None)


def test_the_report_of_a_run_has_its_gates():
  rows = [judge(LEAST, "t", found(*x)).to_json() for x in ((0.0, 0.1), (-1, -0.5))]
  run = runs.Run(pathlib.Path("w"), {}, [], {}, {}, gates={7: {"gates": rows}})
  (part,) = sections.of([runs.Group("w", [run])])
  assert part.facts == ["w, step 7: 1 of 2 gates passed.", f"{rows[1]['line']}."]
  assert part.table[2][3:] == ("−0.7500", "−1.0000 to −0.5000", "9", "fails")
  with pytest.raises(ValueError, match="each with its `line`"):
    runs._decided({"gates": [{"measure": "bias/tv"}]})
