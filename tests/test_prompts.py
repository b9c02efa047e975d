"""Prompts are a function of (seed, step); every dialect is read, every fault named."""

import datetime
import json
import types

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pxy import config
from pxy.commands import data as check
from pxy.data import prompts, rows
from pxy.text import tokenizer as tokenizer_lib

TOK = tokenizer_lib.Bytes()


@pytest.fixture
def write(tmp_path):
  def of(values, name="data.jsonl"):
    path = tmp_path / name
    if path.suffix == ".parquet":
      parquet.write_table(pa.Table.from_pylist(values), path)
    else:
      lines = [v if isinstance(v, str) else json.dumps(v) for v in values]
      path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)

  return of


def load(task, split="train", seed=0, **data):
  data = {"template": "plain", **data}
  return prompts.load(config.Data(task=task, **data), TOK, split, seed)


SAID = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "4"}]


def plain(n):
  return [{"prompt": f"question {i}", "answer": str(i)} for i in range(n)]


def test_batches_are_a_function_of_seed_and_step(write):
  path = write(plain(10))
  one, two = load(path), load(path)
  forward = [[p.uid for p in one.batch(step, 4)] for step in range(8)]
  backward = [[p.uid for p in two.batch(step, 4)] for step in reversed(range(8))]
  assert forward == backward[::-1]
  assert [p.uid for p in load(path, seed=1).batch(0, 10)] != [
    p.uid for p in one.batch(0, 10)
  ]
  negative = load(path, seed=-1).batch(0, 10)
  assert sorted(p.uid for p in negative) == list(range(10))


def test_epochs_continue_across_batches(write):
  source = load(write(plain(10)))
  drawn = [p.uid for step in range(10) for p in source.batch(step, 4)]  # four epochs
  epochs = [drawn[i : i + 10] for i in range(0, 40, 10)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(10)), "an epoch has every prompt once"
  assert len({tuple(epoch) for epoch in epochs}) == 4, "each epoch has its own order"
  assert epochs[0] != sorted(epochs[0]), "not shuffled"
  assert source.epoch(5, 4) == 2.0
  assert len(source.batch(0, 25)) == 25, "a batch may be larger than the task"


def test_evaluation_reads_in_order(write):
  source = load(write(plain(5)))
  assert [p.answer for p in source.first(3)] == ["0", "1", "2"]
  assert len(source.first(99)) == len(source) == 5


def test_one_prompt(write):
  assert [p.uid for p in load(write(plain(1))).batch(3, 2)] == [0, 0]


def test_arithmetic():
  source = load("arithmetic/add1", template="chat")
  prompt = source.first(1)[0]
  assert prompt.ids.dtype == np.int32 and prompt.ids.ndim == 1
  assert TOK.decode(prompt.ids) == f"user\n{prompt.text}\nassistant\n"
  assert prompt.task == "arithmetic/add1" and prompt.text.startswith("What is ")
  assert (len(source), source.dropped, source.split) == (75, 0, "train")
  train = {p.text for p in source.first(999)}
  test = {p.text for p in load("arithmetic/add1", "test").first(999)}
  assert test and not train & test
  with pytest.raises(config.Error, match="no such level"):
    load("arithmetic/add99")


VERL = {
  "data_source": "amc",
  "prompt": [
    {"role": "system", "content": "Box it."},
    {"role": "user", "content": "1 + 1?"},
  ],
  "ability": "MATH",
  "reward_model": {"style": "rule", "ground_truth": "2"},
  "extra_info": {"index": "a0", "split": None},
}


@pytest.mark.parametrize(
  ("row", "text", "answer", "task"),
  [
    (VERL, "Box it.\n\n1 + 1?", "2", "amc"),
    ({"prompt": "p", "solution": r"so $\boxed{\frac12}$ \boxed{3}"}, "p", "3", "data"),
    ({"prompt": [{"role": "user", "content": "p"}], "label": 7}, "p", "7", "data"),
    ({"question": "p", "answer": "18 eggs\n#### 18"}, "p", "18", "data"),
    ({"question": "p", "ground_truth": 3.0, "solution": "x"}, "p", "3", "data"),
    ({"question": "p", "answer": ["2.5"]}, "p", "2.5", "data"),
    (
      {
        "messages": [
          {"role": "user", "content": [{"type": "text", "text": "p"}]},
          {"role": "assistant", "content": [{"type": "text", "text": r"\boxed{4}"}]},
        ]
      },
      "p",
      "4",
      "data",
    ),
  ],
)
@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_dialects(write, row, text, answer, task, name):
  (prompt,) = load(write([row], name)).first(1)
  assert (prompt.text, prompt.answer, prompt.task) == (text, answer, task)
  assert TOK.decode(prompt.ids) == text
  for key in row:
    assert key in prompt.columns


@pytest.mark.parametrize(
  ("row", "columns", "text", "answer", "told"),
  [
    ({"problem": "p", "solution": r"so \boxed{4}"}, "", "p", "4",
     "question from 'problem', answer from 'solution'"),
    ({"instruction": "p", "input": "q", "output": "4"}, "", "p\n\nq", "4",
     "question from 'instruction', answer from 'output'"),
    ({"instruction": "p", "input": "", "output": "4", "system": "s"}, "", "s\n\np", "4",
     "question from 'instruction', answer from 'output'"),
    ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "4"}],
      "system": "s"}, "", "s\n\np", "4",
     "question from 'conversations', answer from 'conversations'"),
    ({"messages": json.dumps(SAID)}, "", "p", "4",
     "question from 'messages', answer from 'messages'"),
    ({"prompt": json.dumps(SAID[:1]), "expected_answer": 4}, "", "p", "4",
     "question from 'prompt', answer from 'expected_answer'"),
    ({"prompt": "p", "reward_model": json.dumps({"ground_truth": "4"}), "answer": "x"},
     "", "p", "4", "question from 'prompt', answer from 'reward_model.ground_truth'"),
    ({"prompt": '[{"a": 1}] has how many?', "answer": 1}, "",
     '[{"a": 1}] has how many?', "1", "question from 'prompt', answer from 'answer'"),
    ({"prompt": "no", "answer": "no", "x": "p", "y": {"z": r"\boxed{4}"}},
     "question=x, answer=y.z", "p", "4", "question from 'x', answer from 'y.z'"),
    ({"chat": SAID}, "question=chat", "p", "4",
     "question from 'chat', answer from 'chat'"),
    ({"prompt": "p", "answer": "4", "images": [], "image": None, "video": {"path": ""}},
     "", "p", "4", "question from 'prompt', answer from 'answer'"),
  ],
)  # fmt: skip
def test_columns_by_name_or_as_they_are_said(write, row, columns, text, answer, told):
  source = load(write([row]), columns=columns)
  (prompt,) = source.first(1)
  assert (prompt.text, prompt.answer, source.fields) == (text, answer, (told,))
  assert check.check(write([row]), columns=columns).columns == {told: 1}


def test_the_source_and_the_split_may_have_other_names(write):
  row = {"prompt": "p", "answer": "4", "from": "amc", "part": "test", "split": "x"}
  (found,) = rows.read(write([row]), columns="data_source=from,split=part")
  assert (found.task, found.split) == ("amc", "test")


@pytest.mark.parametrize(
  ("columns", "says"),
  [
    ("question", "data.columns 'question': expected FIELD=COLUMN, such as question="),
    ("a=b", "of question, answer, split, data_source"),
    ("question=a,prompt=b", "data.columns 'prompt=b': expected"),
    ("question=x", "line 1: field 'x': expected it, for data.columns says question=x;"
     " there are prompt, answer"),
  ],
)  # fmt: skip
def test_a_wrong_column_map_is_one_line(write, columns, says):
  with pytest.raises(config.Error) as caught:
    load(write(plain(1)), columns=columns)
  assert says in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(config.Error, match="arithmetic/add1 has no columns to name"):
    load("arithmetic/add1", columns="question=x")
  data = config.Data(task="a.jsonl", columns="question=x")
  assert prompts.of_task(data, "arithmetic/add1").columns == "", "of another task"
  assert prompts.of_task(data, "1 * arithmetic/add1 + 1 * b.csv").columns


def test_a_question_has_one_answer(write):
  again = {"prompt": "question 1", "answer": "1.0"}
  assert len(load(write([*plain(2), again]))) == 3, "1 and 1.0 are the same"
  path = write([*plain(2), {"prompt": "question 1", "answer": "5"}])
  says = (
    f"{path}, line 3: field 'answer': '5', but '1' for the same question in {path},"
    " line 2; keep the right one of the rows"
  )
  with pytest.raises(config.Error) as caught:
    load(path)
  assert says in str(caught.value)
  found = check.check(path)
  assert found.contradictions == [str(caught.value)] and not found.problems
  with pytest.raises(config.Error, match="1 of 3 rows cannot be used"):
    _check(path)
  assert len(load(path, grader="my.module:reward")) == 3, "it needs no answer"
  system = [{"role": "system", "content": "s"}, {"role": "user", "content": "question"}]
  other = [{"prompt": system, "answer": "1"}, {"prompt": system[1:], "answer": "2"}]
  assert len(load(write(other))) == 2, "another chat is another question"


def split(own=None, inside=None, **more):
  """A row with a split in its column, and one in its extra_info."""
  given = {"split": own, "extra_info": {"index": 0, "split": inside}} | more
  return {"prompt": f"{own} {inside} {more}", "answer": "1"} | given


def test_a_split_may_be_named_in_two_places(write):
  path = write([
    split("train"), split("test"), split(None, "test"), split("test", "test"),
    split("test", extra_info={"index": 3}),
    split("train", extra_info=json.dumps({"index": 4})),
    split(None, extra_info=json.dumps({"split": "test"})),
  ])  # fmt: skip
  assert [p.uid for p in load(path).first(9)] == [0, 5], "test rows are trained on"
  assert [p.uid for p in load(path, "test").first(9)] == [1, 2, 3, 4, 6]
  with pytest.raises(config.Error) as caught:
    load(write([split("test", "train")]))
  assert (
    "line 1: field 'split': 'test', but extra_info.split is 'train'; write the same in"
    " both, or drop one"
  ) in str(caught.value)
  for first, second in ((split("test"), split()), (split(), split("test"))):
    with pytest.raises(config.Error, match=r"line 2: field 'split': .* in every row"):
      load(write([first, second]))


def test_a_file_without_splits_is_evaluated_under_a_name(write):
  assert load(write(plain(2)), "test").of == "all rows"
  train = write([split("train")])
  assert (load(train, "test").of, load(train, "test").split) == ("train", None)
  both = write([split("train"), split("test")])
  assert load(both, "test").of == "test"
  assert load("arithmetic/add1", "test").of == "test"


def test_columns_are_json(write):
  when = datetime.datetime(2024, 5, 6)
  row = {"prompt": "p", "answer": "1", "when": when, "nested": {"list": [1, None]}}
  (prompt,) = load(write([row], "data.parquet")).first(1)
  back = json.loads(json.dumps(prompt.columns))
  assert back["when"] == "2024-05-06 00:00:00" and back["nested"] == {"list": [1, None]}


def test_splits_that_rows_name(write):
  marked = [
    {"prompt": "a", "answer": "1", "extra_info": {"split": "train"}},
    {"prompt": "b", "answer": "2", "split": "test"},
  ]
  path = write(marked)
  assert [p.text for p in load(path, "test").first(9)] == ["b"]
  assert [p.uid for p in load(path, "test").first(9)] == [1], "uid is the row's number"
  assert load(path, "train").split == "train"
  with pytest.raises(
    config.Error, match="no rows of split 'dev'; there are test, train"
  ):
    load(path, "dev")
  assert load(write(plain(3)), "test").split is None


def test_long_prompts_are_dropped_and_counted(write):
  path = write([{"prompt": "x" * n, "answer": "1"} for n in (3, 30, 5, 5)])
  source = load(path, max_prompt_tokens=5)
  assert (len(source), source.dropped, source.duplicates) == (3, 1, 1)
  assert [p.uid for p in source.first(9)] == [0, 2, 3]
  with pytest.raises(config.Error, match=r"all 4 .* raise it \(the longest has 30\)"):
    load(path, max_prompt_tokens=2)


def test_answers_are_needed_by_built_in_graders_only(write):
  path = write([{"prompt": "p", "note": "n"}])
  (prompt,) = load(path, grader="my.module:reward").first(1)
  assert prompt.answer == "" and prompt.columns["note"] == "n"
  with pytest.raises(config.Error, match="field 'answer': expected it"):
    load(path)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("{oops", r"line 2: not JSON .* write one object per line, such as"),
    (
      '{"prompt": "a", "answer": "1", "answer": "2"}',
      "line 2: key 'answer': twice in one object; keep one of them",
    ),
    (
      '{"prompt": "a", "answer": "1", "extra_info": {"n": 1, "n": 1}}',
      "line 2: key 'n': twice in one object",
    ),
    ("[1]", "line 2: field 'row': expected an object, found list"),
    ({"answer": "1"}, "line 2: field 'prompt': expected it .* found only answer"),
    ({"prompt": 5, "answer": "1"}, "expected text or a list of messages, found int 5"),
    ({"prompt": " ", "answer": "1"}, "expected a question, found empty text"),
    ({"prompt": [], "answer": "1"}, "expected text or a list of messages, found list"),
    ({"prompt": ["a"], "answer": "1"}, r"prompt\[0\]': expected an object with role"),
    (
      {"prompt": [{"role": "bot", "content": "x"}], "answer": "1"},
      r"prompt\[0\].role': expected one of system, user, assistant, found 'bot'",
    ),
    (
      {"prompt": [{"role": "user", "content": None}], "answer": "1"},
      r"prompt\[0\].content': expected text, found NoneType",
    ),
    (
      {"prompt": [{"role": "assistant", "content": "x"}], "answer": "1"},
      "expected the last message to be the user's, found assistant",
    ),
    ({"prompt": "p", "answer": {"a": 1}}, "'answer': expected text or a number, found"),
    (
      {"prompt": "p", "answer": True},
      "'answer': expected text or a number, found bool",
    ),
    ({"prompt": "p", "answer": " "}, "'answer': expected an answer, found none"),
    ({"prompt": "p", "answer": "1", "data_source": 3}, "'data_source': expected text"),
    (
      {"prompt": "p", "answer": "1", "images": ["a.png"]},
      r"line 2: field 'images': expected none, for questions are text, found list"
      r" \['a.png'\]; leave the row out, or drop the column",
    ),
    (
      {"prompt": "p", "answer": "1", "image": {"bytes": None, "path": "a.png"}},
      "field 'image': expected none",
    ),
    ({"messages": str(SAID)}, "'messages': .* with json.dumps, not str"),
    ({"messages": json.dumps(SAID)[:-3]}, "'messages': expected messages, or these as"),
    ({"prompt": str(SAID[:1]), "answer": "1"}, "'prompt': .* with json.dumps, not str"),
    (
      {"prompt": "p", "reward_model": "{'ground_truth': '4'}", "answer": "1"},
      "'reward_model': expected an object, or one as JSON, found str",
    ),
    (
      {"prompt": "p", "answer": "1", "extra_info": '{"split": "a", "split": "b"}'},
      "'extra_info': key 'split': twice in one object",
    ),
    (
      {"conversations": [{"from": "tool", "value": "x"}], "answer": "1"},
      r"conversations\[0\].from': expected one of human, .*, found 'tool'",
    ),
    (
      {"instruction": "p", "output": "1", "history": [["a", "b"]]},
      "field 'history': expected none",
    ),
    ({"instruction": "p", "input": 5, "output": "1"}, "field 'input': expected text"),
    (
      {"prompt": [{"role": "user", "content": " "}], "answer": "1"},
      "field 'prompt': expected a question, found empty text",
    ),
  ],
)
def test_faults_are_named(write, row, message):
  path = write([plain(1)[0], row])
  with pytest.raises(config.Error, match=message) as caught:
    load(path)
  assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def test_binary_columns_and_text_that_is_not_utf8(write, tmp_path):
  path = write([{"prompt": "p", "answer": "1", "image": b"\xff"}], "data.parquet")
  with pytest.raises(config.Error, match=r"row 0: field 'image'.*drop the column"):
    load(path)
  (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "answer": "1"}\n')
  with pytest.raises(config.Error, match="line 1: not UTF-8 text"):
    load(str(tmp_path / "latin.jsonl"))


def test_files_that_cannot_be_read(write, tmp_path):
  (tmp_path / "bad.parquet").write_text("PAR1?")
  for task, message in (
    (str(tmp_path / "none.jsonl"), "no such file"),
    (str(tmp_path / "bad.parquet"), "not a readable parquet file"),
    (
      "gsm8k",
      "expected arithmetic/LEVEL, world/KIND, facts/KIND, a .jsonl, .json, .csv or",
    ),
    (write([""]), "no rows"),
  ):
    with pytest.raises(config.Error, match=message):
      load(task)
  with pytest.raises(config.Error, match=r"expected a \.jsonl, \.json, \.csv or"):
    next(rows.read(write(plain(1), "data.txt")))


def test_check_finds_every_fault(write):
  path = write([plain(1)[0], "{", {"prompt": "question 0", "answer": 1}, {"prompt": 1}])
  summary = check.check(path)
  assert (summary.rows, summary.duplicates, summary.longest) == (4, 1, 10)
  assert summary.tasks == {"data": 2}
  assert ["line 2" in summary.problems[0], "line 4" in summary.problems[1]] == [
    True
  ] * 2


def _check(task):
  check.command(types.SimpleNamespace(file=task, task="auto", columns=""))


def test_check_command(write, capsys):
  _check(write(plain(3)))
  assert "3 rows, all usable" in capsys.readouterr().out
  path = write([*plain(1), *["{"] * 30])
  with pytest.raises(config.Error, match="30 of 31 rows cannot be used"):
    _check(path)
  assert "and 10 more" in capsys.readouterr().out
