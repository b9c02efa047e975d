"""Several right answers, several weighted rewards, and rewards that see the group."""

import dataclasses
import json
import math
import random
import types

import numpy as np
import pytest
from test_graders import UNITS

from pxy import config
from pxy.commands import cli, options
from pxy.commands import data as check
from pxy.commands import train as train_command
from pxy.data import prompts, rows, sources
from pxy.evaluate import store
from pxy.report import plot
from pxy.rewards import given, gold, pool, sample, tasks, weighted
from pxy.run import numbers
from pxy.sampling import collect
from pxy.text import tokenizer as tokenizer_lib

from test_report import make

REWARD = config.Reward(workers=2, deadline=5.0, memory_mb=512)
GRADERS = """
import time

def rank(prompts, completions, completion_ids, trainer_state, log_metric, log_extra,
         level, **columns):
  '''The share of the group that is not longer: known only of the whole group.'''
  assert not set(columns) & {"prompt", "completion", "log_metric"}, columns
  assert len(set(prompts)) == 1 and len(level) == len(completions), (prompts, level)
  assert [ids[0] for ids in completion_ids] == list(range(len(completions)))
  lengths = [len(text) for text in completions]
  log_metric("longest", max(lengths))
  log_metric("part", trainer_state.global_step / trainer_state.max_steps)
  log_extra("length", lengths)
  return [sum(m <= n for m in lengths) / len(lengths) for n in lengths]

async def later(completions, **kwargs):
  return [None if "none" in text else 1.0 for text in completions]

def judged(completions, **kwargs):
  if "raise" in completions: raise ValueError("no")
  if "hang" in completions: time.sleep(60)
  if "slow" in completions: time.sleep(0.5)
  if "short" in completions: return [1.0]
  return ["text" if text == "text" else 0.5 for text in completions]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
  return float(solution_str in ground_truth["any"]) + extra_info["more"]

def polite(solution_str, ground_truth):
  return {"score": float("please" in solution_str), "words": 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("rewards")
  (folder / "own.py").write_text(GRADERS)
  return folder


@pytest.fixture(scope="module")
def several(folder):
  judge = ("number=1", "own.py:polite=0.5", "own.py:rank=0.25", "own.py:later=0.125")
  with pool.Pool(REWARD, judge, [folder]) as p:
    yield p


@pytest.fixture(scope="module")
def hasty(folder):
  reward = dataclasses.replace(REWARD, deadline=0.2)
  with pool.Pool(reward, "own.py:judged", [folder]) as p:
    yield p


def submitted(p, texts, order=None, **columns):
  """Outcomes of a group whose responses end in some order."""
  group = pool.Group(len(texts), {"global_step": 3, "max_steps": 12})
  futures = {}
  for r in order or range(len(texts)):
    item = pool.Item(texts[r], "5", "2 + 3?", ids=[r], columns=columns)
    futures[r] = p.submit(item, group, r)
  return [futures[r].result(30) for r in range(len(texts))]


# Several right answers.


@pytest.mark.parametrize(
  ("grader", "response", "score"),
  [
    ("arithmetic", r"\boxed{3}", 1), ("arithmetic", r"\boxed{8}", 1),
    ("arithmetic", r"\boxed{4}", 0), ("boxed", r"\boxed{8.0}", 1),
    ("boxed", r"\boxed{38}", 0), ("number", "#### 8", 1), ("number", "#### 9", 0),
    ("short", "It is 8.", 1), ("short", "9", 0),
  ],
)  # fmt: skip
def test_any_of_several_right_answers_counts(grader, response, score):
  item = tasks.Item(response, "3", columns={"accepted": ["8"]})
  assert tasks.resolve(grader, "")(item).score == score
  assert tasks.resolve(grader, "")(dataclasses.replace(item, answer="7")).score in (
    (score,) if "3" not in response else (0,)
  )


def test_math_takes_several_answers_also_by_algebra():
  item = tasks.Item(r"\boxed{\ln 8}", "x+1", columns={"accepted": [r"3\ln 2", 4]})
  assert item.answers == ["x+1", r"3\ln 2", "4"]
  assert tasks.by_text(item) is None, "left to the fork, where algebra may be slow"
  assert tasks.resolve("math", "")(item).score == 1
  one = dataclasses.replace(item, response=r"\boxed{4}")
  assert tasks.by_text(one).score == 1, "and no fork where the rules suffice"


def test_what_cannot_be_graded_against_leaves_a_wrong_answer_open():
  item = tasks.Item(r"\boxed{4}", "3", columns={"accepted": ["x"]})
  assert tasks.arithmetic(item).status == "ungradable"
  assert tasks.arithmetic(dataclasses.replace(item, response=r"\boxed{3}")).score == 1
  assert sample.right("3", {"accepted": "no list"}) == ["3"]
  assert sample.right("3", {"accepted": [True, None, 4.0, 0.1 + 0.2, "3"]}) == [
    "3",
    "4",
    "0.3",
  ]


@pytest.mark.parametrize(
  "task, there, none",
  [
    ("arithmetic/add3", r"so \boxed{7}", "so 7"),
    ("math", "The answer is 7.", ""),
    ("gsm8k", "it is 7 in all", "no idea"),
    ("world/chains", "friend of a is b . answer c5 d6", "friend of a is b . answer"),
    ("facts/choices", "B. Rome", "Rome, I think"),
    ("facts/capitals", "Rome.", " "),
    ("my rows", r"\boxed{x}", "x"),
  ],
)
def test_form_is_that_there_is_an_answer_right_or_wrong(task, there, none):
  columns = {"choices": ["Paris", "Rome"]}
  scores = [
    tasks.resolve("form", task)(tasks.Item(x, "A", task=task, columns=columns)).score
    for x in (there, none)
  ]
  assert scores == [1, 0]


def test_a_letter_of_several_is_a_choice():
  columns = {"choices": ["Rome", "Paris", "Lima"], "accepted": ["C", "Lutetia"]}
  found = {x: tasks.choice(tasks.Item(x, "B", columns=columns)).score for x in "ABCD"}
  assert found == {"A": 0, "B": 1, "C": 1, "D": 0}


@pytest.mark.parametrize(
  ("row", "answers"),
  [
    ({"answer": ["3", "8"]}, ["3", "8"]),
    ({"answer": [3, 0.1 + 0.2, 7.0]}, ["3", "0.3", "7"]),
    ({"answer": ["so 3 #### 3", "3"]}, ["3"]),
    ({"answer": ["3", "8"], "accepted": ["9"]}, ["3", "8", "9"]),
    ({"solution": [r"\boxed{3}", r"thus \boxed{8}"]}, ["3", "8"]),
    ({"reward_model": {"ground_truth": ["3", "8"]}}, ["3", "8"]),
    ({"answer": "3", "accepted": ["8"]}, ["3", "8"]),
  ],
)
def test_an_answer_that_is_a_list_has_several(row, answers):
  found = rows.of_values({"prompt": "p"} | row, "t", True)
  assert (found.answer, sample.right(found.answer, found.columns)) == (
    answers[0],
    answers,
  )
  assert "accepted" in found.columns or len(answers) == 1


def test_a_question_contradicts_itself_only_if_no_answer_is_shared():
  def row(answer, **columns):
    values = {"prompt": "p", "answer": answer} | columns
    return rows.of_values(values, "t", True)

  seen = rows.Seen(True)
  for one in (row(["3", "8"]), row("8"), row(3, accepted=[5]), row("3", accepted=True)):
    seen.check(one)
  with pytest.raises(config.Error, match="the same question"):
    seen.check(row("4", accepted=[5.5, None]))


@pytest.mark.parametrize(
  ("answer", "says"),
  [
    ([], "field 'answer': expected text or a number, found list"),
    (["3", []], "field 'answer[1]': expected text or a number, found list"),
    (["3", True], "field 'answer[1]': expected text or a number, found bool"),
    (["3", " "], "field 'answer[1]': expected an answer, found none"),
    (["3", math.nan], "field 'answer[1]': expected text or a number, found float"),
    ({"any": ["3"]}, "field 'answer': expected text or a number, found dict"),
  ],
)
def test_a_list_with_what_is_no_answer_is_refused(answer, says):
  with pytest.raises(config.Error) as e:
    rows.of_values({"prompt": "p", "answer": answer}, "t", True)
  assert says in str(e.value)


def test_a_function_gets_an_object_as_the_row_has_it(folder, monkeypatch):
  monkeypatch.chdir(folder)
  truth = {"any": ["3", "8"]}
  row = rows.of_values(
    {"prompt": "p", "reward_model": {"ground_truth": truth}, "extra_info": {"more": 2}},
    "t",
    False,
  )
  assert json.loads(row.answer) == truth, "what is shown of it"
  grade = tasks.resolve("own.py:compute_score", "")
  assert grade(tasks.Item("8", row.answer, columns=row.columns)).score == 3
  own = types.SimpleNamespace(
    **{
      "answer": ["3", "8"],
      "ground_truth": [1],
      "reward_model": {"ground_truth": " 3 "},
    }
  )
  (folder / "echo.py").write_text(
    "def f(solution_str, ground_truth): return float(repr(ground_truth)==solution_str)"
  )
  echo = tasks.resolve("echo.py:f", "")
  for names, wanted in (
    (("answer",), "['3', '8']"),
    (("answer", "ground_truth"), "[1]"),
    (("answer", "ground_truth", "reward_model"), "' 3 '"),
    ((), "'42'"),
  ):
    columns = {name: getattr(own, name) for name in names}
    assert echo(tasks.Item(wanted, "42", columns=columns)).score == 1, wanted


# What the template has opened.


@pytest.mark.parametrize(
  ("response", "score"),
  [
    (r"\boxed{5}", 0), ("the answer is 5", 0), ("5", 0), (r"no</think>\boxed{5}", 1),
    (r"\boxed{4}</think>The answer is 5.", 1), (r"a</think>b<think>\boxed{5}", 0),
  ],
)  # fmt: skip
def test_a_thought_that_the_template_opened_and_nothing_closed_is_no_answer(
  response, score
):
  item = tasks.Item(response, "5", in_think=True)
  graders = ("math", "boxed") if "boxed{5}" in response else ("math", "number")
  for grader in graders:
    assert tasks.resolve(grader, "")(item).score == score, grader
  told = given.of("math", "", sample.heard(response, True), "5", tasks.scored(score))
  assert (told == "5") == bool(score), "votes are of the same answers"
  plain = dataclasses.replace(item, in_think=False)
  if "think" not in response:
    assert tasks.resolve("math", "")(plain).score == 1


@pytest.mark.parametrize(
  ("end", "opened"),
  [
    ("<think>\n", True), ("<think>", True), ("<Thinking>\n\n", True),
    ("<think>\n\n</think>\n\n", False), ("", False), ("think\n", False),
  ],
)  # fmt: skip
def test_a_prompt_knows_that_its_template_opens_a_thought(tmp_path, end, opened):
  template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
  template += "{% if add_generation_prompt %}A: " + json.dumps(end)[1:-1].replace(
    "\\n", "\n"
  ) + "{% endif %}"  # fmt: skip
  tokenizer = tokenizer_lib.Bytes({"chat_template": template})
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps({"prompt": "What is <think>?", "answer": "5"}) + "\n")
  data = config.Data(task=str(path))
  (prompt,) = prompts.load(data, tokenizer).prompts
  assert prompt.in_think is opened
  row = store.problem(prompt, 0, "id", None)
  assert ("in_think" in row) is opened, "stores without one have the bytes they had"
  response = {"text": r"\boxed{5}", "ids": [1]}
  assert store.item(row, response).in_think is opened


# Several rewards.


@pytest.mark.parametrize(
  ("words", "found"),
  [
    ("math", {"math": 1}),
    (("math=1", "f.py:f=0.2"), {"math": 1, "f.py:f": 0.2}),
    (("math", "a=b.py:f=-1e-2"), {"math": 1, "a=b.py:f": -0.01}),
    (("math=0",), {"math": 0}),
  ],
)
def test_weights_by_name(words, found):
  assert config.weights(words) == found


@pytest.mark.parametrize(
  ("words", "says"),
  [
    (("math=",), "expected NAME=WEIGHT"), (("=1",), "expected NAME=WEIGHT"),
    (("math=one",), "expected NAME=WEIGHT"), (("math=nan",), "expected NAME=WEIGHT"),
    (("math=inf",), "expected NAME=WEIGHT"), (("math=1", "math=2"), "twice"),
  ],
)  # fmt: skip
def test_weights_that_are_none_are_refused_before_a_run(words, says):
  with pytest.raises(config.Error, match=says):
    config.check(config.Train(data=config.Data(rewards=words)))
  with pytest.raises(config.Error, match="beside data"):
    config.check(config.Train(data=config.Data(grader="math", rewards=("math=1",))))


def test_names_of_rewards_are_short_unless_two_share_one():
  assert weighted.labels(["math", "a.py:f", "b.py:f", "c.py:g"]) == [
    "math", "a.py:f", "b.py:f", "g",
  ]  # fmt: skip


OWN, USER = "math", "f.py:f"
SCORED = tasks.scored(0.5, {"words": 2.0}, "5")


@pytest.mark.parametrize(
  ("outcomes", "status", "score"),
  [
    ((tasks.scored(1), SCORED), "scored", 2.0),
    ((tasks.scored(1), tasks.ungradable("None")), "scored", 1.0),
    ((tasks.ungradable("empty"), SCORED), "ungradable", None),
    ((tasks.failed("hung"), SCORED), "failed", None),
    ((tasks.scored(1), tasks.failed("raised")), "failed", None),
  ],
)
def test_a_sum_has_a_grade_where_its_parts_have(outcomes, status, score):
  found = weighted.combine({OWN: 1.0, USER: 2.0}, outcomes)
  assert found.status == status
  if status == "scored":
    assert found.score == score and found.metrics["math"] == 1
    assert found.metrics == {"math": 1.0} | (
      {"f": 0.5, "words": 2.0} if score == 2 else {}
    )
  else:
    assert math.isnan(found.score) and found.why
  none = weighted.combine({USER: 1.0}, [tasks.ungradable("the grader returned None")])
  assert none.status == "ungradable" and "None" in none.why, "no 0 without a summand"


def test_rewards_are_summed_and_told_apart(several):
  texts = ["so 5, please", "5", "4 none", "nothing"]
  found = submitted(several, texts, order=[2, 0, 3, 1], level=7)
  assert several.labels == ["number", "polite", "rank", "later"]
  assert several.together == {"own.py:rank", "own.py:later"}
  number, polite, later = [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]
  rank = [1.0, 0.25, 0.5, 0.75]
  wanted = [
    a + 0.5 * b + 0.25 * c + 0.125 * d
    for a, b, c, d in zip(number, polite, rank, later, strict=True)
  ]
  assert [one.score for one in found] == wanted, found
  for r, one in enumerate(found):
    told = one.metrics
    assert ("later" in told) == (r != 2), "None does not apply, and is no 0"
    assert (told["number"], told["rank"]) == (number[r], rank[r])
    assert (told["words"], told["longest"], told["part"]) == (2, 12, 0.25)
    assert told["length"] == len(texts[r]), "of its own response, whatever the order"
  alone = several.submit(pool.Item("5", "5", ids=[0], columns={"level": 7}))
  assert alone.result(30).metrics["rank"] == 1, "without a group, of one"


def test_one_reward_has_todays_records(folder):
  item = pool.Item(r"\boxed{5}", "5")
  with pool.Pool(REWARD, ("boxed=1",)) as p:
    assert p.labels == [] and p.submit(item).result(30).metrics == {}
  with pool.Pool(REWARD, ("boxed=0.5",)) as p:
    assert p.submit(item).result(30).score == 0.5


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("raise", "ValueError: no"), ("short", "returned 1 rewards for 4 completions"),
    ("hang", "longer than 0.8 s"), ("text", "returned str, not a number"),
  ],
)  # fmt: skip
def test_a_failure_costs_the_group_and_no_other(hasty, text, says):
  bad = submitted(hasty, ["a", "b", text, "c"])
  lost = [2] if text == "text" else range(4)
  for r, one in enumerate(bad):
    assert (one.status == "failed") == (r in lost), one
    assert says in one.why or r not in lost
  assert [one.score for one in submitted(hasty, ["a", "b"])] == [0.5, 0.5]
  assert hasty.replaced == 0


def test_the_deadline_of_a_group_is_that_of_its_responses(hasty):
  assert [one.score for one in submitted(hasty, ["slow", *"abcd"])] == [0.5] * 5
  (late,) = submitted(hasty, ["slow"])
  assert late.status == "failed" and "longer than 0.2 s" in late.why


def test_a_group_that_is_not_complete_fails_when_the_pool_closes(folder):
  with pool.Pool(REWARD, "own.py:judged", [folder]) as p:
    future = p.submit(pool.Item("a", ""), pool.Group(2), 0)
  assert future.result(1).status == "failed"


def test_a_collector_hands_whole_groups_over():
  seen = []

  class Pool:
    def submit(self, item, group, place):
      seen.append((item.response, group, place, item.in_think))
      future = pool.concurrent.futures.Future()
      future.set_result(tasks.scored(place))
      return future

  class Engine:
    def run(self, params, ids, n, *, key, uids, first, version, on_finish, stop):
      made = [
        [types.SimpleNamespace(ids=np.array([p, r])) for r in range(n)]
        for p in range(len(ids))
      ]
      for r in reversed(range(n)):
        for p in range(len(ids)):
          on_finish(p, r, made[p][r])
      return made

  words = types.SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
  asked = [
    prompts.Prompt(np.array([u], np.int32), "", "", "t", u, {}, in_think=u == 1)
    for u in range(2)
  ]
  collector = collect.Collector(Engine(), Pool(), words, updates=8, epochs=2.0)
  found = collect.collect(collector, None, asked, 3, key=None, first=5, version=4)
  np.testing.assert_array_equal(found.scores_PR, [[0, 1, 2]] * 2)
  of = {text: group for text, group, _, _ in seen}
  assert len(set(map(id, of.values()))) == 2 and of["0 1"] is of["0 2"]
  assert {think for text, _, _, think in seen if text[0] == "1"} == {True}
  state = of["1 0"].state
  assert state == {
    "global_step": 4, "max_steps": 8, "epoch": 1.0, "num_train_epochs": 2.0,
  }  # fmt: skip
  assert found.answers[1][0].heard == "<think>1 0"


def test_metrics_and_report_have_each_reward(tmp_path):
  def answer(metrics):
    outcome = tasks.scored(1.0, metrics)
    one = types.SimpleNamespace(ids=np.zeros(2), logp=np.zeros(2), stop="stop")
    asked = types.SimpleNamespace(ids=[1])
    return collect.Answer(asked, one, "a", outcome)

  told = [{"math": 1.0, "f": 0.5, "words": 2.0}, {"math": 0.0, "words": 4.0}]
  graded = collect.Graded([[answer(x) for x in told]])
  ones = np.ones((1, 2)), np.ones((1, 2), bool)
  found = numbers.of_samples(graded, *ones, ["math", "f"])
  found = {k: v for k, v in found.items() if k.startswith("reward/")}
  assert found == {
    "reward/math/mean": 0.5, "reward/math/max": 1, "reward/math/min": 0,
    "reward/math/std": 0.5, "reward/f/mean": 0.5, "reward/f/max": 0.5,
    "reward/f/min": 0.5, "reward/f/std": 0, "reward/words": 3,
  }  # fmt: skip
  from pxy.report import runs

  folder = make(tmp_path / "run")
  before = [p.title for p in plot.available(runs.group([runs.read(folder)]))]
  path = folder / "metrics.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  path.write_text(
    "".join(json.dumps(x if "eval" in x else x | found) + "\n" for x in lines)
  )
  groups = runs.group([runs.read(folder)])
  panels = plot.available(groups)
  assert [p.title for p in panels if p.title not in before] == [
    "Reward: math", "Reward: f",
  ]  # fmt: skip
  assert "standard deviation" in plot.svg(panels[1], groups)


def test_options_reach_the_config(monkeypatch):
  found = {}
  monkeypatch.setattr(train_command.plan, "show", lambda cfg: found.update(cfg=cfg))
  words = ["--reward", "math=1", "--reward", "f.py:f=0.2", "--reward.workers", "3"]
  cli.main(["train", "qwen3_4b_math", "--dry-run", *words])
  assert found["cfg"].data.judge == ("math=1", "f.py:f=0.2")
  assert found["cfg"].reward.workers == 3
  assert options.Eval(model=("m",)).reward == ()


def test_score_sums_rewards_and_groups_rows_by_prompt(folder, monkeypatch, capsys):
  monkeypatch.chdir(folder)
  lines = [
    {"response": "5, please", "answer": ["4", "5"], "prompt": "2 + 3?", "level": 1},
    {"response": "5", "answer": ["4", "5"], "prompt": "2 + 3?", "level": 1},
    {"response": "6", "answer": "7", "prompt": "3 + 4?", "level": 1},
  ]
  (folder / "graders2.py").write_text(
    "def size(completions, **kwargs): return [float(len(completions))] * "
    "len(completions)\n"
  )
  (folder / "rows.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
  words = ["--reward", "number=1", "--reward", "graders2.py:size=0.1"]
  cli.main(["score", "rows.jsonl", *words, "--json", "sum.json"])
  out, err = capsys.readouterr()
  found = [json.loads(line) for line in out.splitlines()]
  assert [x["score"] for x in found] == [1.2, 1.2, 0.1]
  assert found[0]["metrics"] == {"number": 1.0, "size": 2.0}
  assert "number: mean 0.6667, sd 0.4714; size: mean 1.6667" in err
  kept = json.loads((folder / "sum.json").read_text())
  assert kept["rewards"]["number"]["mean"] == pytest.approx(2 / 3)
  with pytest.raises(SystemExit):
    cli.main(["score", "rows.jsonl", *words, "--task", "math"])
  assert "--task beside --reward" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("judge", "task", "needs"),
  [
    ("auto", "rows.jsonl", True), ("f.py:f", "rows.jsonl", False), ("gym", "x", False),
    (("f.py:f=1", "g.py:g=1"), "rows.jsonl", False), ("auto", "gym:chain_sum", False),
    (("f.py:f=1", "math=1"), "rows.jsonl", True),
  ],
)  # fmt: skip
def test_answers_are_needed_by_any_grader_of_pxys(judge, task, needs):
  assert sources.needs_answer(judge, task) is needs


def test_reference_answers_are_read_where_auto_chooses_math(
  tmp_path, monkeypatch, capsys
):
  known = [
    ("lighteval/MATH", "1/0", {}), ("openai/gsm8k", "1/0", {}),
    ("lighteval/MATH", "x", {"accepted": ["y"]}),
  ]  # fmt: skip
  assert gold.to_read("auto", known) == ["1/0", "x", "y"]
  assert gold.to_read(("f.py:f=1", "auto=1"), known) == ["1/0", "x", "y"]
  assert gold.to_read("boxed", known) == []
  path = tmp_path / "rows.jsonl"
  lines = [
    {"prompt": "p", "answer": ["1/2", "0.25"], "data_source": "openai/gsm8k"},
    {"prompt": "q", "answer": "x+1", "data_source": "lighteval/MATH"},
  ]
  path.write_text("".join(json.dumps(x) + "\n" for x in lines))
  monkeypatch.setattr(gold, "refuse", lambda found, _: [f"read: {found}"])
  monkeypatch.setattr(check, "graders", lambda *_: [])
  cli.main(["data", "check", str(path)])
  assert "read: ['x+1']" in capsys.readouterr().out


def test_data_check_grades_the_last_of_several_answers(tmp_path):
  path = tmp_path / "gsm8k.jsonl"
  path.write_text(json.dumps({"prompt": "p", "answer": ["1/2", "0.25"]}) + "\n")
  lines = check.graders(check.check(str(path)), "auto")
  assert lines[1].split() == [r"\boxed{0.25}", "for", "1/2", "|", "0.25:", "1"]


# A fuzz of whole responses.


def responses(count: int) -> list[str]:
  """Made of what graders look for: long, nested, torn, and in any order."""
  rng = random.Random(0)
  units = [*UNITS, "</think>", "</answer>", "}", ")", "]", "\\]", ".\n", "is ", "\0"]
  made = []
  for i in range(count):
    words = [rng.choice(units) for _ in range(rng.choice([3, 30, 300, 3000]))]
    text = "".join(words)
    if i % 3 == 0:
      depth = rng.choice([5, 500])
      text = r"\boxed{" + r"\frac{1+" * depth + text[:200] + "}{x}" * depth + "}"
    made.append(text)
  return made


def test_a_hostile_response_costs_itself():
  reward = dataclasses.replace(REWARD, deadline=2.0)
  judge = ("math=1", "number=1", "short=1")
  hostile = responses(36)
  with pool.Pool(reward, judge) as p:
    futures = [
      (p.submit(pool.Item(text, "7919")), p.submit(pool.Item("7919", "7919")))
      for text in hostile
    ]
    for text, (bad, good) in zip(hostile, futures, strict=True):
      assert good.result(60).score == 3, f"{text[:80]!r} cost another its grade"
      outcome = bad.result(60)
      assert outcome.status == "failed" or outcome.score == 0, (text[:80], outcome)
    assert p.replaced == 0, "a response reached the process that grades the others"
