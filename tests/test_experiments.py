"""Experiments: any method on any base, how they are named, and what they must go on
meaning."""

import ast
import dataclasses
import json
import pathlib
import re

import pytest

from pxy import config, methods
from pxy.commands import experiment

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "tests/golden/experiments.json").read_text())
"""By name, the fields of each public recipe that are not the defaults."""
SAYS = (
  r"^[^\n]*\?",
  r"\n +pxy (pre)?train experiments/{}\.py",
  r"\nCost: [^\n]*\d",
  r"Expected[^.]*\d",
)
MINE = """
from pxy.config import Data, Train
from pxy import methods

RATES = methods.Rates(1e-6, 1e-7, 1e-8, warmup=3, on_start="keep")


def config(method="dsrl"):
  data = Data(task="rows.jsonl")
  return Train(model="mine", data=data, phases=methods.phases(method, RATES))
"""


def kind(name):
  return config.Pretrain if name in ("base", "world_base") else config.Train


def changed(record):
  """What of a config differs from its defaults, as JSON values."""
  if isinstance(record, (tuple, list)):
    return [changed(x) for x in record]
  if not dataclasses.is_dataclass(record):
    return record
  default = type(record)()
  return {
    f.name: changed(getattr(record, f.name))
    for f in dataclasses.fields(record)
    if f.name == "terms" or getattr(record, f.name) != getattr(default, f.name)
  }


@pytest.mark.parametrize("name", experiment.own())
def test_a_public_recipe_means_what_it_meant(name):
  found = changed(experiment.load(name, kind(name)))
  assert found == GOLDEN[{"add3": "dsrl"}.get(name, name)], (
    "this experiment trains something else than before; if that is meant, write in"
    f" tests/golden/experiments.json: {json.dumps({name: found})}"
  )


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("base", experiment.bases())
def test_any_method_runs_on_any_base(base, method):
  cfg = experiment.load(f"{base}:{method}", config.Train)
  config.check(cfg)
  own = experiment.load(base, config.Train)
  assert dataclasses.replace(cfg, phases=own.phases, steps=own.steps) == own, (
    "a method is phases: model, data and sizes are the base's"
  )


@pytest.mark.parametrize("method", methods.METHODS)
def test_each_method_has_a_file_and_a_row_in_the_readme(method):
  assert experiment.load(method, config.Train) == experiment.load(
    f"add3:{method}", config.Train
  )
  rows = re.findall(r"^\| \[.*?\|", (ROOT / "README.md").read_text(), re.MULTILINE)
  assert f"[`{method}`](experiments/{method}.py)" in "".join(rows)


@pytest.mark.parametrize("name", experiment.own())
def test_an_experiment_says_question_command_cost_and_number(name):
  text = ast.get_docstring(ast.parse(experiment.own()[name].read_text()))
  for part in SAYS:
    part = part.replace("{}", name)
    assert re.search(part, text), f"{name}.py says no {part}: {text}"


def test_a_name_is_pxys_own_from_any_folder_and_a_file_is_the_users(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.py").write_text(MINE)
  (tmp_path / "grpo.py").write_text(MINE)
  cfg = experiment.load("mine.py:grpo", config.Train)
  assert cfg.model == "mine"
  assert cfg.phases == (config.Phase("grpo", (methods.GRPO,), lr=1e-6),)
  assert experiment.load("mine.py", config.Train).phases[0].steps == 3
  assert experiment.load("grpo", config.Train).model == "builtin:tiny"
  assert experiment.load("grpo.py", config.Train).model == "mine"
  assert experiment.load(tmp_path / "mine.py", config.Train).model == "mine"


def test_two_experiments_may_each_have_a_common(tmp_path):
  for folder, steps in (("a", 3), ("b", 4)):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "common.py").write_text(f"STEPS = {steps}\n")
    (tmp_path / folder / "run.py").write_text(
      "from pxy.config import Train\nimport common\n"
      "def config(): return Train(steps=common.STEPS)\n"
    )
  load = experiment.load
  assert load(tmp_path / "a/run.py", config.Train).steps == 3
  assert load(tmp_path / "b/run.py", config.Train).steps == 4


@pytest.mark.parametrize(
  ("word", "text"),
  [
    ("dsrrl", "pxy has none of that name; is it 'dsrl'? there are add3, all_down,"),
    ("mine", "for the file here write mine.py"),
    ("mine.py:grop", "unknown method 'grop'; is it 'grpo'? there are grpo, nsr_rl,"),
    ("qwen3_4b_math:", "unknown method ''; there are grpo"),
    ("dsrl:grpo", "takes no method; write config(method), as in add3, qwen3_4b_math,"),
    ("exps/dsrl.py", "no such file; `dsrl`, without folder and .py, is the one"),
    ("nope.py", "no such file; . has mine.py"),
    ("rows.jsonl", "not a Python file"),
    ("base", "this command needs a Train"),
    ("", "pxy has none of that name"),
  ],
)
def test_a_wrong_word_is_one_line_with_what_is_near(tmp_path, monkeypatch, word, text):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.py").write_text(MINE)
  (tmp_path / "rows.jsonl").touch()
  with pytest.raises(config.Error) as caught:
    experiment.load(word, config.Train)
  assert text in str(caught.value) and "\n" not in str(caught.value)
