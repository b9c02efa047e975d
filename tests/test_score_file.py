"""`pxy score` and `pxy data check`: grades and checks of files, in real processes."""

import io
import json
import pathlib

import pytest

from pxy import config
from pxy.commands import cli
from pxy.rewards import gold

DATA = pathlib.Path(__file__).parent / "data"
AMC = DATA / "verl_format_amc2023.parquet"
ROWS = [
  {"response": r"so \boxed{x+1}", "answer": "1+x"},
  {"response": r"so \boxed{x+2}", "answer": "1+x"},
  {"response": r"so \boxed{7}", "answer": 7},
  {"response": "", "answer": "7"},
  {"response": r"\boxed{1}", "answer": ""},
  {"response": r"\boxed{\sum_{k=1}^{100000000} \frac{1}{k}}", "answer": "x^2+y"},
]


@pytest.fixture
def write(tmp_path):
  def of(rows, name="rows.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path / name

  return of


def run(capsys, *argv, code=0):
  """stdout's lines and stderr of `pxy ARGV`."""
  try:
    cli.main([str(word) for word in argv])
    ended = 0
  except SystemExit as stop:
    ended = stop.code
  out, err = capsys.readouterr()
  assert ended == code, err
  return out.splitlines(), err


def test_score_writes_a_row_for_each_in_order(write, capsys, tmp_path):
  path = write(ROWS)
  argv = ["score", path, "--task", "math", "--deadline", "2"]
  out, err = run(capsys, *argv, "--json", tmp_path / "sum.json")
  found = [json.loads(line) for line in out]
  assert all(list(row) == ["outcome", "score", "why", "seconds"] for row in found)
  assert [row["score"] for row in found] == [1, 0, 1, 0, None, None]
  assert [row["outcome"] for row in found[4:]] == ["ungradable", "failed"]
  assert "the answer is empty" in found[4]["why"] and "2 s" in found[5]["why"]
  assert found[5]["seconds"] >= 2
  says = "6 rows, 4 scored with mean 0.5000, 1 ungradable, 1 failed"
  assert says in err and err.count("\n") == 1, err
  summary = json.loads((tmp_path / "sum.json").read_text())
  assert (summary["rows"], summary["mean"], summary["failed"]) == (6, 0.5, 1)


def test_score_writes_to_a_file(write, capsys, tmp_path):
  out, _ = run(capsys, "score", write(ROWS[2:4]), "--out", tmp_path / "a" / "g.jsonl")
  lines = (tmp_path / "a" / "g.jsonl").read_text().splitlines()
  assert not out and [json.loads(line)["score"] for line in lines] == [1, 0]


@pytest.mark.parametrize(
  ("grader", "rows", "scores"),
  [
    ("boxed", ROWS[:3], [0, 0, 1]),
    ("number", [{"response": "so 7", "answer": "#### 7"}], [1]),
    ("auto", [{"response": "so 7", "answer": "7", "data_source": "gsm8k"}], [1]),
    ("auto", [{"response": r"\boxed{7}", "answer": "7", "task": "arithmetic/x"}], [1]),
    ("graders.py:f", [{"response": "abc", "extra_info": {"n": 3}}], [3]),
    ("graders.py:g", [{"response": "abc", "want": 5}], [5]),
  ],
)
def test_score_takes_every_grader(write, capsys, monkeypatch, grader, rows, scores):
  path = write(rows)
  monkeypatch.chdir(path.parent)
  (path.parent / "graders.py").write_text(
    "def f(solution_str, ground_truth, extra_info): return extra_info['n']\n"
    "def g(completions, want): return want\n"
  )
  out, _ = run(capsys, "score", path, "--task", grader)
  assert [json.loads(line)["score"] for line in out] == scores


@pytest.mark.parametrize(
  ("row", "says"),
  [
    ("{oops", "line 2: not JSON"),
    ("[1]", "line 2: field 'row': expected an object, found list"),
    ({"answer": "1"}, "line 2: field 'response': expected text, found NoneType"),
    ({"response": 3, "answer": "1"}, "field 'response': expected text, found int 3"),
    ({"response": "x"}, "field 'answer': expected it"),
    ({"response": "x", "answer": [1, []]}, "field 'answer[1]': expected text or a num"),
    ({"response": "x", "answer": "1", "task": 1}, "field 'data_source': expected text"),
  ],
)
def test_score_names_bad_rows_before_it_grades(write, capsys, row, says):
  path = write([ROWS[0], row])
  out, err = run(capsys, "score", path, code=2)
  assert not out and f"{path}, line 2: " in err and says in err
  assert "1 of 2 rows cannot be graded" in err


def test_score_refuses_in_one_line(write, capsys, tmp_path):
  for argv, says in (
    (["none.jsonl"], "none.jsonl: no such file"),
    ([write([""], "empty.jsonl")], "no rows"),
    ([write(ROWS), "--task", "maths"], "none of auto"),
    ([write(ROWS), "--out", tmp_path], "a folder is in the way"),
    ([write(ROWS), "--deadline", "0"], "must be positive"),
    ([AMC], "expected a .jsonl file"),
  ):
    out, err = run(capsys, "score", *argv, code=2)
    assert not out and err.count("\n") == 1 and says in err, err


def test_real_verl_rows_load_and_have_answers_that_can_be_graded(capsys):
  out, _ = run(capsys, "data", "check", AMC, "--task", "math")
  text = "\n".join(out)
  assert "40 rows, all usable" in text and "qwen_amc2023 40" in text
  assert "25 distinct, 0 formulas, all can be graded against" in text


def test_answers_that_cannot_be_read_are_said_before_training(write, capsys):
  rows = [{"prompt": f"p{i}", "answer": str(i)} for i in range(20)]
  path = write([*rows, {"prompt": "q", "answer": "1/0"}])
  out, _ = run(capsys, "data", "check", path, "--task", "math")
  text = "\n".join(out)
  assert "21 distinct, 1 formulas, 1 cannot be graded against; their 1 rows" in text
  assert "the answer '1/0' is no value" in text
  bad = write([*rows[:3], {"prompt": "q", "answer": "1/0"}], "bad.jsonl")
  _, err = run(capsys, "data", "check", bad, "--task", "math", code=2)
  assert "1 of 4 reference answers cannot be graded against" in err
  assert "reward.max_failed 10%" in err


def test_of_very_many_answers_the_first_are_read(monkeypatch):
  monkeypatch.setattr(gold, "MOST", 3)
  answers = ["1", "2", *(f"x+{i}" for i in range(5))]
  found = gold.check(answers, config.Reward(workers=1))
  assert (found.distinct, found.formulas, found.checked) == (7, 5, 3)
  assert "7 distinct, 5 formulas of which the first 3 were read" in found.lines()[0]


def test_a_reference_that_hangs_costs_its_deadline():
  reward = config.Reward(workers=1, deadline=1.0)
  found = gold.check(["x", "-" * 9000 + "x"], reward)
  (why,) = found.unusable.values()
  assert "longer than 1 s" in why and "the answer '-----" in why


def test_progress_is_on_stderr_alone(write, monkeypatch):
  from pxy.show import progress

  monkeypatch.setattr(progress, "EVERY", 0.0)
  err = io.StringIO()
  with progress.counting("grade", 3, file=err) as count:
    count(1)
  assert "grade  1/3" in err.getvalue()
