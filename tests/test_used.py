"""What a run is made of: each thing that changes under it is found, and by its name."""

import dataclasses
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from pxy import config, imports, testing
from pxy.data import prompts as prompts_lib
from pxy.run import folder as folder_lib
from pxy.run import same, used
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import load

GRADER = "import helper\n\ndef score(completions, **columns):\n  return [0.0]\n"
TERM = config.Term(advantage="adv.py:rank", kl="k2", kl_coef=0.1)
CFG = config.Train(
  data=config.Data(task="rows.jsonl", grader="mine.py:score"),
  eval=config.Eval(task="unseen.jsonl"),
  phases=(config.Phase(terms=(TERM,)),),
  model="model",
)


def about(cfg, tokenizer):
  prompts = []
  for task in (cfg.data.task, cfg.eval.task):
    data = dataclasses.replace(cfg.data, task=task)
    prompts += prompts_lib.load(data, tokenizer).prompts
  policy = load.About(testing.arch(), tokenizer, "m", pathlib.Path("model"))
  return json.loads(json.dumps(used.of_train(cfg, policy, prompts)))


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A folder with all that a run is made of; the current one."""
  monkeypatch.chdir(tmp_path)
  row = '{"question": "1 + %d?", "answer": "3"}\n'
  pathlib.Path("rows.jsonl").write_text(row % 2 + row % 3)
  pathlib.Path("unseen.jsonl").write_text(row % 9)
  pathlib.Path("mine.py").write_text(GRADER)
  pathlib.Path("helper.py").write_text("LIMIT = 1\n")
  pathlib.Path("adv.py").write_text("def rank(rewards, graded):\n  return rewards\n")
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
  return tmp_path


def append(name, text="\n"):
  with open(name, "a", encoding="utf-8") as file:
    file.write(text)


def templated(tokenizer):
  return tokenizer_lib.Bytes({**tokenizer.settings, "chat_template": "{{ messages }}"})


def pieces(tokenizer):
  return tokenizer_lib.Bytes({**tokenizer.settings, "eos_token": "<|endoftext|>"})


CHANGES = {
  "a row": ("data", lambda: append("rows.jsonl", '{"question": "?", "answer": "1"}\n')),
  "an unseen row": ("data", lambda: append("unseen.jsonl", "\n")),
  "the grader": ("grader", lambda: append("mine.py", "# other\n")),
  "what the grader imports": ("grader", lambda: append("helper.py")),
  "an advantage": ("terms", lambda: append("adv.py")),
  "weights of the reference": ("reference", lambda: append("model/model.safetensors")),
  "the template": ("template", lambda: templated),
  "the tokenizer": ("tokenizer", lambda: pieces),
}


@pytest.mark.parametrize("name, change", CHANGES.values(), ids=CHANGES)
def test_what_changes_is_refused_by_name_accepted_by_it_and_noted(
  world, name, change, capsys
):
  tokenizer = testing.tokenizer()
  before = about(CFG, tokenizer)
  assert before.keys() == {*same.MADE_OF}, "another entry: name it in same.MADE_OF"
  made(world, before)
  after = about(CFG, (change() or (lambda same: same))(tokenizer))
  with pytest.raises(config.Error) as error:
    resumed(world).made_of(after)
  text = str(error.value)
  assert text.endswith(f"what is there: --accept {name}") and "\n" not in text
  assert stored(world) == {"used": before, "accepted": []}, "a refusal changes nothing"
  resumed(world, ["seed", name]).made_of(after)
  assert f"made with: {name}" in capsys.readouterr().err
  note = {"step": 7, "name": name, "was": before[name], "now": after[name]}
  assert stored(world) == {"used": after, "accepted": [note]}
  resumed(world).made_of(after)
  assert stored(world) == {"used": after, "accepted": [note]}, "a note stays"
  with pytest.raises(config.Error, match=f"--accept {name}"):
    resumed(world).made_of(before)


def made(world, entries):
  """A run of seven steps that is made of these."""
  folder = folder_lib.RunFolder(world / "run", CFG, "never")
  folder.made_of(entries)
  folder.start(testing.arch(), testing.tokenizer())
  saved = world / "run" / "checkpoints" / "00000007"
  saved.mkdir(parents=True)
  (saved / "manifest.json").write_text("{}")


def resumed(world, accept=()):
  return folder_lib.RunFolder(world / "run", CFG, "must", accept)


def stored(world):
  found = json.loads((world / "run" / "used.json").read_text())
  assert found.pop("versions")["pxy"]
  return found


def test_the_message_names_the_file(world):
  tokenizer = testing.tokenizer()
  made(world, about(CFG, tokenizer))
  append("unseen.jsonl")
  append("helper.py")
  with pytest.raises(config.Error) as error:
    resumed(world).made_of(about(CFG, tokenizer))
  assert "data (unseen.jsonl), grader (" in str(error.value)
  assert str(error.value).endswith("helper.py): bring it back, or give another folder,"
                                   " or go on with what is there: --accept data"
                                   " --accept grader")  # fmt: skip


def test_files_that_have_moved_are_the_same(world):
  tokenizer = testing.tokenizer()
  made(world, about(CFG, tokenizer))
  os.rename("rows.jsonl", "moved.jsonl")
  cfg = dataclasses.replace(CFG, data=dataclasses.replace(CFG.data, task="moved.jsonl"))
  resumed(world).made_of(about(cfg, tokenizer))
  assert stored(world)["used"]["data"]["files"][0]["path"] == "moved.jsonl"


def test_a_run_without_used_json_goes_on_and_says_so(world, capsys):
  entries = about(CFG, testing.tokenizer())
  made(world, entries)
  (world / "run" / "used.json").unlink()
  resumed(world).made_of(entries)
  assert "no used.json tells what the run was made of up to step 7; data, grader" in (
    capsys.readouterr().err
  )
  assert stored(world)["used"] == entries


def test_before_the_first_checkpoint_all_may_change(world, capsys):
  tokenizer = testing.tokenizer()
  folder_lib.RunFolder(world / "run", CFG, "auto").made_of(about(CFG, tokenizer))
  append("mine.py")
  after = about(CFG, tokenizer)
  folder_lib.RunFolder(world / "run", CFG, "auto").made_of(after)
  assert stored(world)["used"] == after and not capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"used": 3, "accepted": []}', "\0"])
def test_a_broken_used_json_is_named_in_one_line(world, text):
  made(world, {})
  (world / "run" / "used.json").write_text(text)
  with pytest.raises(config.Error, match=r"used\.json: [^\n]*$"):
    resumed(world).made_of({})


@pytest.mark.parametrize("entry", [None, 3, [], {"files": 3}, {"files": [3, {}]}])
def test_odd_entries_are_differences_and_no_crash(world, entry):
  entries = about(CFG, testing.tokenizer())
  made(world, entries | {"data": entry})
  with pytest.raises(config.Error, match="--accept data"):
    resumed(world).made_of(entries)


def test_rows_that_are_made_are_digested_as_they_came_out(world):
  task = "0.5 * arithmetic/add2 + 0.5 * variants:rows.jsonl"
  cfg = config.Train(data=config.Data(task=task), eval=config.Eval(task="rows.jsonl"))
  policy = load.About(testing.arch(), testing.tokenizer(), "m", pathlib.Path("model"))

  def of(*answers):
    ids = np.zeros(1, np.int32)
    tasks = ("arithmetic/add2", "rows.jsonl", "facts/cities")
    prompts = [
      prompts_lib.Prompt(ids, "?", answer, tasks[i % 3], i, {})
      for i, answer in enumerate(answers)
    ]
    return used.of_train(cfg, policy, prompts)

  found = of("1", "2", "3")
  assert [one["path"] for one in found["data"]["files"]] == ["rows.jsonl"]
  assert found["grader"]["names"] == ["arithmetic", "boxed", "short"]
  of_form = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, grader="form"))
  assert used._graders(used._judges(of_form), ["MATH"])["names"] == ["form"]
  asked = dataclasses.replace(of_form, eval=config.Eval(grader="auto"))
  assert used._graders(used._judges(asked), ["MATH"])["names"] == ["form", "math"]
  assert found["data"]["rows"]["count"] == 3
  assert of("1", "2", "3") == found
  other = of("1", "2", "4")
  assert other["data"]["files"] == found["data"]["files"]
  assert other["data"]["rows"] != found["data"]["rows"]


def test_the_version_of_what_a_grader_asks_is_told():
  found = used._graders(["math"], ["MATH"])
  assert found["names"] == ["math"] and found["versions"]["math-verify"]
  assert used._graders(["boxed"], ["MATH"])["versions"] == {}


def test_code_is_followed_where_it_is_the_users_own(world, monkeypatch):
  files = {
    "pkg/__init__.py": "",
    "pkg/rewards.py": "from . import rules\nfrom pkg.deep.one import f\nimport json\n",
    "pkg/rules.py": "import numpy, pxy.fields, other\n",
    "pkg/deep/__init__.py": "",
    "pkg/deep/one.py": "from ..rules import x\n",
    "pkg/unused.py": "",
    "other.py": "def f(:\n",
  }
  for name, text in files.items():
    (world / name).parent.mkdir(parents=True, exist_ok=True)
    (world / name).write_text(text)
  found = imports.sources("pkg.rewards:score")
  names = {path.relative_to(world).as_posix() for path in found}
  assert names == files.keys() - {"pkg/unused.py"}
  assert "pkg" not in sys.modules, "looking runs nothing"
  installed = world / "site-packages"
  (world / "pkg").rename(world / "moved")
  (installed / "pkg").mkdir(parents=True)
  (installed / "numpy.py").write_text("")
  (installed / "pkg" / "__init__.py").write_text("")
  (installed / "pkg" / "rewards.py").write_text("import numpy\nimport pkg.more\n")
  (installed / "pkg" / "more.py").write_text("")
  monkeypatch.syspath_prepend(installed)
  found = imports.sources("pkg.rewards:score")
  assert {path.name for path in found} == {"__init__.py", "rewards.py", "more.py"}
  assert imports.sources("no.such:f") == imports.sources("none.py:f") == []
