"""Graders by task, name and signature, and the three outcomes of what they return."""

import math
import subprocess
import sys

import numpy as np
import pytest

from pxy import config
from pxy.rewards import tasks
from pxy.rewards import user as user_lib


def item(response, answer="42", task="arithmetic/add3", **columns):
  return tasks.Item(
    response, answer, prompt="6*7=", task=task, ids=[1, 2], columns=columns
  )


@pytest.fixture
def user(tmp_path, monkeypatch):
  """Writes a grader file, and resolves a function of it."""
  monkeypatch.chdir(tmp_path)

  def resolve(source, name="f"):
    (tmp_path / "graders.py").write_text(source)
    return tasks.resolve(f"graders.py:{name}", "")

  return resolve


@pytest.mark.parametrize(
  "grader, task, response, answer, score",
  [
    ("auto", "arithmetic/add3", r"\boxed{42}", "42", 1),
    ("auto", "arithmetic/add3", r"\boxed{ +042 }", "42", 1),
    ("auto", "arithmetic/add3", r"\boxed{-0}", "0", 1),
    ("auto", "arithmetic/add3", r"\boxed{42.0}", "42", 0),
    ("auto", "arithmetic/add3", r"\boxed{6*7}", "42", 0),
    ("auto", "arithmetic/add3", r"\boxed{42", "42", 0),
    ("auto", "arithmetic/add3", "42", "42", 0),
    ("auto", "arithmetic/add3", "", "42", 0),
    ("auto", "arithmetic/add3", r"\boxed{" + "9" * 9000 + "}", "42", 0),
    ("auto", "arithmetic/add3", "\\boxed{\u0664\u0662}", "42", 0),
    ("auto", "qwen_amc2023", r"\boxed{\dfrac12}", r"\frac{1}{2}", 1),
    ("boxed", "arithmetic/add3", r"\boxed{42.0}", "42", 1),
    ("boxed", "", "27", "27", 0),
    ("auto", "openai/gsm8k", "so 6 * 7 #### 1,042", "… #### 1042", 1),
    ("auto", "openai/gsm8k", r"\boxed{1042} of 2000", "1042", 1),
    ("number", "", "none", "1042", 0),
  ],
)
def test_own_graders(grader, task, response, answer, score):
  outcome = tasks.resolve(grader, task)(item(response, answer))
  assert (outcome.status, outcome.score) == ("scored", score)


@pytest.mark.parametrize(
  "grader, answer",
  [("arithmetic", ""), ("arithmetic", "1/2"), ("boxed", " "), ("number", "none")],
)
def test_a_row_without_a_usable_answer_is_ungradable(grader, answer):
  outcome = tasks.resolve(grader, "")(item(r"\boxed{1}", answer))
  assert outcome.status == "ungradable" and math.isnan(outcome.score) and outcome.why


def test_trl_gets_batches_of_one_with_all_columns(user):
  grade = user("""
def f(prompts, completions, completion_ids=None, **columns):
  assert prompts == ["6*7="] and completions == ["so 42"], (prompts, completions)
  assert completion_ids == [[1, 2]], completion_ids
  assert columns == {"answer": ["42"], "solution": ["6*7=42"],
                     "ground_truth": ["42"], "level": [3]}, columns
  return [0.25]
""")
  assert grade(item("so 42", level=3, solution="6*7=42")).score == 0.25


def test_trl_gets_only_the_columns_it_names(user):
  grade = user(
    "def f(completions, solution): return [float(solution[0] in completions[0])]"
  )
  assert grade(item("so 42", other=1)).score == 1
  assert grade(item("so 43", other=1)).score == 0


def test_trl_gets_messages_where_the_prompt_is_messages(user):
  grade = user("""
def f(prompts, completions, **kwargs):
  assert prompts[0][0]["content"] == "6*7?" and "prompt" not in kwargs
  return [float(completions[0][0]["content"] == "42")]
""")
  assert grade(item("42", prompt=[{"role": "user", "content": "6*7?"}])).score == 1


def test_trl_may_want_the_ids_alone(user):
  grade = user(
    "def f(completion_ids, **kwargs): return [len(x) for x in completion_ids]"
  )
  assert grade(item("42")).score == 2


def test_trl_may_be_asynchronous(user):
  grade = user("async def f(completions, **kwargs): return [0.5]")
  assert grade(item("42")).score == 0.5


def test_verl_gets_its_four_arguments(user):
  grade = user("""
def f(data_source, solution_str, ground_truth, extra_info=None):
  assert (data_source, extra_info) == ("arithmetic/add3", {"index": 7})
  return {"score": float(ground_truth in solution_str), "acc": True, "n": 3, "p": "x"}
""")
  outcome = grade(item("so 42", extra_info={"index": 7}))
  assert outcome.score == 1 and outcome.metrics == {"acc": 1.0, "n": 3.0}


@pytest.mark.parametrize(
  "value, status",
  [
    ("1", "scored"),
    ("True", "scored"),
    ("np.float32(0.5)", "scored"),
    ("np.array(0.5)", "scored"),
    ("{'score': np.int64(1)}", "scored"),
    ("None", "ungradable"),
    ("{'score': None}", "ungradable"),
    ("{'acc': 1}", "failed"),
    ("'1'", "failed"),
    ("float('nan')", "failed"),
    ("float('inf')", "failed"),
    ("[1.0]", "failed"),
    ("1j", "failed"),
  ],
)
def test_what_a_function_returns(user, value, status):
  grade = user(f"import numpy as np\ndef f(solution_str, ground_truth): return {value}")
  outcome = grade(item("42"))
  assert outcome.status == status
  assert math.isfinite(outcome.score) == (status == "scored")
  assert bool(outcome.why) == (status != "scored")


def test_a_trl_function_must_return_one_reward_per_completion(user):
  with pytest.raises(TypeError, match="2 rewards"):
    user("def f(completions, **kwargs): return [1, 1]")(item("42"))


def test_a_package_function_by_its_import_path(tmp_path, monkeypatch):
  (tmp_path / "pxy_test_pkg").mkdir()
  (tmp_path / "pxy_test_pkg" / "mod.py").write_text(
    "def f(solution_str, ground_truth): return 1"
  )
  monkeypatch.syspath_prepend(tmp_path)
  assert tasks.resolve("pxy_test_pkg.mod:f", "")(item("")).score == 1


@pytest.mark.parametrize(
  "name, says",
  [
    ("nothing", "none of auto, arithmetic, boxed"),
    ("graders.py:", "named package.module:function"),
    ("graders.py:1", "named package.module:function"),
    ("missing.py:f", "no file 'missing.py'"),
    ("missing_package.mod:f", "missing_package"),
    ("graders.py:g", "no attribute 'g'"),
    ("graders.py:f", "TRL"),
    ("broken.py:f", "ZeroDivisionError"),
    ("leaves.py:f", "SystemExit"),
  ],
)
def test_wrong_names_are_one_line_with_the_cure(tmp_path, monkeypatch, name, says):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "graders.py").write_text("def f(text, label): return 1")
  (tmp_path / "broken.py").write_text("1 / 0")
  (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
  with pytest.raises(config.Error, match=r"^data\.grader: ") as e:
    tasks.resolve(name, "")
  assert says in str(e.value) and "\n" not in str(e.value)


def test_a_file_named_like_a_module_does_not_replace_it(tmp_path, monkeypatch):
  import json

  monkeypatch.chdir(tmp_path)
  (tmp_path / "json.py").write_text("def f(solution_str, ground_truth): return 1")
  tasks.resolve("json.py:f", "")
  assert sys.modules["json"] is json


def test_numpy_numbers_are_numbers():
  assert user_lib._number(np.float32(0.5)) == 0.5
  assert user_lib._number("1") is None


def test_workers_import_neither_jax_nor_numpy():
  code = (
    "import sys, pxy.rewards.worker\n"
    "print([m for m in ('jax', 'numpy', 'asyncio', 'pyarrow') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.stdout.strip() == "[]", done
