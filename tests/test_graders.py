"""Graders by the cases of each kind, by the tables of docs/graders.md, and by property.

`grader_cases.jsonl` are cases as people met them, `grader_cases_more.jsonl` further
ones of each kind: response, answer (text, or a number as a cell has it), grader, score.
"""

import collections
import itertools
import json
import pathlib
import re
import sys

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pxy import config
from pxy.commands import data as check
from pxy.data import rows
from pxy.rewards import answer, equal, exact, gym, known, numeric, pool, tasks, value

import answers

ROOT = pathlib.Path(__file__).parent
DATA = ROOT / "data"
REWARD = config.Reward(workers=2, deadline=60.0, memory_mb=512)
# The deadline is not what is tested here, and a busy machine may be slow.
CASES = [
  json.loads(line)
  for name in ("grader_cases.jsonl", "grader_cases_more.jsonl")
  for line in (DATA / name).read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({case["kind"] for case in CASES})


@pytest.fixture(scope="module")
def graders():
  with pool.Pool(REWARD, "math") as math, pool.Pool(REWARD, "number") as number:
    yield {"math": math, "number": number}


def grade(graders, cases):
  """(case, outcome) of each, the answers as a row of a file would give them."""
  futures = [
    graders[case["task"]].submit(
      tasks.Item(case["response"], rows.answers_of(row, "", True)[0])
    )
    for case in cases
    for row in [{"answer": case["answer"]}]
  ]  # fmt: skip
  return [(c, f.result(300)) for c, f in zip(cases, futures, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_cases_of_each_kind(graders, kind):
  cases = [case for case in CASES if case["kind"] == kind]
  wrong = [
    f"{c['response']!r} for {c['answer']!r}: {o.status} {o.score} {o.why}"
    for c, o in grade(graders, cases)
    if (o.status, o.score) != ("scored", c["score"])
  ]
  assert not wrong, f"{len(wrong)} of {len(cases)} are graded wrong:\n" + "\n".join(
    wrong
  )


def test_every_kind_has_right_and_wrong_answers_of_our_own():
  more = collections.Counter(
    case["kind"]
    for line in (DATA / "grader_cases_more.jsonl").read_text().splitlines()
    for case in [json.loads(line)]
  )
  assert all(more[kind] >= 5 for kind in KINDS), more
  for kind in KINDS:
    assert {c["score"] for c in CASES if c["kind"] == kind} == {0, 1}, kind


def table(heading: str) -> list[list[str]]:
  """The rows of the table under a heading of docs/graders.md, without its head."""
  text = (ROOT.parent / "docs" / "graders.md").read_text(encoding="utf-8")
  part = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
  lines = [line for line in part.splitlines() if line.startswith("|")]
  found = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]
  ]
  assert found, f"docs/graders.md has no table under {heading!r}"
  return found


PAIR = re.compile(r"`([^`]+)` ([=≠→]) (?:`([^`]+)`|none)")


def test_the_table_of_where_answers_stand_is_true():
  for rule, examples in table("Where the answer stands"):
    for response, _, wanted in PAIR.findall(examples):
      found = answer.final(response)
      same = equal.decide(found, wanted) if found is not None else wanted == ""
      assert same, f"docs/graders.md, {rule!r}: {response!r} gives {found!r}"


def test_the_table_of_what_is_equal_is_true(graders):
  pairs = [
    (rule, a, b, float(sign == "="))
    for rule, right, wrong in table("What is equal")
    for a, sign, b in PAIR.findall(right) + PAIR.findall(wrong)
  ]
  for turned in (False, True):
    futures = [
      graders["math"].submit(tasks.Item(f"\\boxed{{{a}}}", b))
      for a, b in ((b, a) if turned else (a, b) for _, a, b, _ in pairs)
    ]
    for (rule, a, b, wanted), future in zip(pairs, futures, strict=True):
      found = future.result(30)
      assert found.score == wanted, f"docs/graders.md, {rule!r}: {a} and {b}: {found}"


@pytest.mark.parametrize(
  ("a", "b", "same"),
  [
    ("|x+3|", "x+3", False),
    ("|x^2-9|", "9-x^2", False),
    ("|x^2-5x+6|", "x^2-5x+6", False),  # differs between 2 and 3 alone
    (r"\frac{|x-3|}{x-3}", "-1", False),
    ("|x-4|+|x-6|", "10-2x", False),
    ("|x-y|", "x-y", False),
    ("|x-5|", "|5-x|", True),
    (r"\sqrt{x-3}\sqrt{x+3}", r"\sqrt{x^2-9}", True),  # where both are real
    (r"\frac{x^2-9}{x-3}", "x+3", True),
  ],
)
def test_a_kink_is_seen_wherever_it_is(a, b, same):
  for one, other in ((a, b), (b, a)):
    found = numeric.judge(value.read(one), value.read(other))
    assert found is same, f"{one} and {other}: points of pxy/rewards/numeric.py"


def test_equal_is_reflexive_and_symmetric_on_real_answers():
  golds = answers.load()[::2][:500]
  assert len(golds) == 500
  for a, b in itertools.pairwise([*golds, golds[0]]):
    assert equal.same(a, a, lambda *_: None) is True, a
    forth, back = (equal.decide(x, y) for x, y in ((a, b), (b, a)))
    assert forth == back, f"{a!r} and {b!r}: {forth} one way, {back} the other"


integers = st.integers(-(10**30), 10**30)


@settings(max_examples=300, deadline=None)
@given(integers, integers, st.integers(1, 10**9), st.integers(1, 10**9))
def test_exact_numbers_are_equal_only_if_identical(a, b, c, d):
  fraction = exact.fractions.Fraction
  first, second = fraction(a, c), fraction(b, d)
  wanted = first == second
  spelled = [rf"\frac{{{a}}}{{{c}}}", f"{b}/{d}"]
  assert equal.decide(*spelled) is wanted
  assert equal.decide(str(a), str(b)) is (a == b)
  assert equal.decide(f"{a}+{c}".replace("+-", "-"), str(a + c)) is True
  assert equal.decide(str(a), str(a + d)) is False


def _joined(parts):
  """(text, value) of two such, by an operation that has a value."""
  (a, x), (b, y), sign = parts
  if sign == "/":
    if y == 0:
      return a, x
    return rf"\frac{{{a}}}{{{b}}}", x / y
  if sign == "^":
    power = int(abs(y)) % 6
    if x == 0:
      return a, x
    return f"({a})^{{{power}}}", x**power
  value = {"+": x + y, "-": x - y, r"\cdot ": x * y}[sign]
  return f"({a}){sign}({b})", value


numbers = st.integers(-40, 40).map(lambda n: (str(n), exact.fractions.Fraction(n)))
expressions = st.recursive(
  numbers,
  lambda inside: st.tuples(
    inside, inside, st.sampled_from(["+", "-", r"\cdot ", "/", "^"])
  ).map(_joined),
  max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(expressions, expressions, st.integers(1, 10**12))
def test_expressions_in_exact_numbers_are_equal_only_if_identical(one, other, tiny):
  (a, x), (b, y) = one, other
  assert equal.decide(a, b) is (x == y), f"{a} is {x}, {b} is {y}"
  assert equal.decide(a, f"{x.numerator}/{x.denominator}") is True, f"{a} is {x}"
  assert equal.decide(f"({a})+\\frac{{1}}{{{tiny}}}", a) is False, a


@settings(deadline=None)
@given(st.decimals(places=9, min_value=-1000, max_value=1000), st.integers(1, 10**6))
def test_decimals_that_differ_are_not_equal(x, step):
  other = x + step * type(x)("1e-9")
  assert equal.decide(f"{x:f}", f"{other:f}") is False
  assert equal.decide(f"{x:f}", f"{x:f}00") is True


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="\\frac{}()[]0123456789.,-+x=/$ ^_%!<>|&e√½", max_size=40))
def test_whatever_is_written_gets_a_verdict(text):
  assert equal.decide(text, text) is True
  for other in ("5", "x+1", r"\{1,2\}"):
    assert equal.decide(text, other) == equal.decide(other, text)
  answer.final(text)


UNITS = [
  "(", "\\frac{", "\\frac", " ", "{", "[", "\\{", "$", "\\(", "1", "1,", "1,000", "a",
  "\\boxed", "\\boxed{", "\\boxed{1},", "<think>", "<answer>", "####", "#### 1", "|",
  "the answer is ", "\\text{a", "1 ", "1/", "-", "^", "_", "!", "\\sqrt", "\\sin ", "<",
  "0.\\overline", "1e", "1{,}", "~", "or ", "x = ", "√", "½", "\\$", "°", "cm ", "\\\\",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_text_costs_few_operations(unit):
  """Python's calls, which regular expressions are few of: they grow as the text does,
  and stop growing where an answer is longer than any."""

  def calls(size: int) -> int:
    text = (unit * size)[:size]
    n = 0

    def count(*_):
      nonlocal n
      n += 1

    sys.setprofile(count)
    try:
      answer.final(text)
      equal.decide(text[: answer.LONGEST - 1], "x+1")
      equal.decide("5", text[:600])
    finally:
      sys.setprofile(None)
    return n

  few, many = calls(20_000), calls(40_000)
  assert many < 2.2 * few + 2000, f"{few} calls for 20 kB, {many} for 40 kB"
  assert many < 500_000, f"{many} calls"


@pytest.mark.parametrize(
  ("text", "decided"),
  [
    ("10^{10^{10}}", False),
    ("9^{9^{9^{9^{9}}}}", False),
    ("(10^{9})!", False),
    (r"\frac{1}{10^{10^{10}}}", False),
    ("((((9!)!)!)!)!", False),
    (r"2^{-10^{10^{10}}}", False),
    (r"\binom{10^9}{5\cdot10^8}", None),
  ],
)
def test_bounds_tell_large_numbers_from_small_ones(text, decided):
  assert equal.decide(text, "5") is decided
  with pytest.raises(exact.TooLarge):
    exact.of(value.read(text))


@pytest.mark.parametrize(
  ("source", "grader"),
  [
    ("lighteval/MATH", "math"), ("DigitalLearningGmbH/MATH-lighteval", "math"),
    ("HuggingFaceH4/MATH-500", "math"), ("math_dapo", "math"), ("math500", "math"),
    ("BytedTsinghua-SIA/DAPO-Math-17k", "math"), ("aime24", "math"),
    ("aime_2025", "math"), ("qwen_amc2023", "math"), ("amc23", "math"),
    ("minerva_math", "math"), ("OlympiadBench", "math"), ("olympiad_bench", "math"),
    ("numina_cn_k12", "math"), ("AI-MO/NuminaMath-CoT", "math"),
    ("openai/gsm8k", "number"), ("tfds:gsm8k?prompt=q,answer=a", "number"),
    ("arithmetic/add3", "arithmetic"), ("gym:chain_sum", "gym"),
    ("rows", None), ("mathematica", None), ("camcorder", None), ("", None),
  ],
)  # fmt: skip
def test_auto_knows_the_usual_sources(source, grader):
  assert known.grader(source) == grader
  assert tasks.name("auto", source) == (grader or tasks.UNKNOWN)
  assert tasks.name("math", source) == "math"


def test_data_check_says_which_grader_each_source_gets(tmp_path):
  path = tmp_path / "mixed.jsonl"
  sources = ("lighteval/MATH", "openai/gsm8k", "our_own")
  path.write_text(
    "".join(
      json.dumps({"prompt": f"{s} {i}", "answer": f"{i}/7", "data_source": s}) + "\n"
      for s in sources
      for i in range(1, 6)
    )
  )
  lines = check.graders(check.check(str(path)), "auto")
  assert len(lines) == 3 * (1 + 3), lines
  assert "lighteval/MATH: math" in lines[0] and "openai/gsm8k: number" in lines[4]
  assert "our_own: boxed, for the source is unknown" in lines[8]
  assert lines[1].split() == [r"\boxed{1/7}", "for", "1/7:", "1"]


class Scorer:
  """A task of reasoning-gym whose scorer wants integers, or is broken."""

  def __init__(self, broken: bool):
    self.broken = broken

  def score_answer(self, answer, entry):
    if self.broken:
      raise KeyError("metadata")
    return float(int(answer) == int(entry["answer"]))


@pytest.mark.parametrize(
  ("response", "score"),
  [(r"\boxed{8}", 1), (r"\boxed{7}", 0), (r"\boxed{eight}", 0), ("<think>8", 0)],
)
def test_a_malformed_answer_to_a_gym_task_is_wrong(monkeypatch, response, score):
  monkeypatch.setattr(gym, "parse", lambda task: ("sums", {}))
  monkeypatch.setattr(gym, "create", lambda name, options: Scorer(broken=False))
  item = tasks.Item(response, "08", task="gym:sums")
  assert gym.grade(item).score == score
  monkeypatch.setattr(gym, "create", lambda name, options: Scorer(broken=True))
  if "boxed" in response:
    with pytest.raises(KeyError):
      gym.grade(item)


def test_number_cells_of_parquet_mean_their_value(tmp_path):
  columns = {
    "question": pyarrow.array(["a", "b", "c"]),
    "answer": pyarrow.array([0.1, 1 / 3, 7.0], pyarrow.float32()),
  }
  for name, kind in (("f", None), ("d", pyarrow.float64())):
    if kind is not None:
      columns["answer"] = pyarrow.array([0.1 + 0.2, 2 / 3, 6.02e23], kind)
    parquet.write_table(pyarrow.table(columns), tmp_path / f"{name}.parquet")
  found = [row.answer for row in rows.read(tmp_path / "f.parquet")]
  assert found == ["0.1", "0.3333333", "7"]
  assert all(
    equal.decide(a, b) for a, b in zip(found, ["0.1", "1/3", "7"], strict=True)
  )
  found = [row.answer for row in rows.read(tmp_path / "d.parquet")]
  wanted = ["0.3", r"\frac23", r"6.02\times10^{23}"]
  assert all(equal.decide(a, b) for a, b in zip(found, wanted, strict=True)), found
