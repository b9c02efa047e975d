"""Short answers and letters, by the tables of docs/graders.md and by cases."""

import pathlib
import re

import pytest

from pxy.rewards import short, tasks

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "graders.md"
QUESTION = "What is the capital of France?"
LISTED = ["Rome", "Paris", "Lima", "Oslo"]
CELL = re.compile(r"`([^`]*)`")


def item(response, answer="Paris", **columns):
  columns = {"question": QUESTION, "accepted": ["Lutetia"]} | columns
  return tasks.Item(response, answer, "prompt", "facts/capitals", columns=columns)


def verdict(outcome):
  assert outcome.status == "scored", outcome
  told = outcome.metrics
  assert outcome.score == told["answer"]
  return "right" if told["answer"] else "abstained" if told["abstained"] else "wrong"


def table(heading):
  text = PAGE.read_text(encoding="utf-8")
  part = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
  lines = [line for line in part.splitlines() if line.startswith("|")][2:]
  assert lines, f"docs/graders.md has no table under {heading!r}"
  return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_tables_are_true():
  for rule, *cells in table("Short answers"):
    for wanted, cell in zip(("right", "wrong", "abstained"), cells, strict=True):
      for response in CELL.findall(cell):
        response = response.replace(r"\n", "\n")
        found = verdict(tasks.short(item(response)))
        assert found == wanted, f"docs/graders.md, {rule!r}: {response!r} is {found}"
  for rule, *cells in table("Choices"):
    for wanted, cell in zip(("right", "wrong"), cells, strict=True):
      for response in CELL.findall(cell):
        outcome = tasks.choice(item(response, "B", choices=LISTED))
        assert verdict(outcome) == wanted, f"docs/graders.md, {rule!r}: {response!r}"


@pytest.mark.parametrize(
  ("response", "answer", "accepted", "found"),
  [
    ("St. John's", "Saint John’s", [], "right"),
    ("São Tomé", "Sao Tome", [], "right"),
    ("NDjamena", "N'Djamena", [], "right"),
    ("Guinea-Bissau", "Guinea", [], "wrong"),
    ("Equatorial Guinea", "Guinea", [], "wrong"),
    (
      "Democratic Republic of the Congo",
      "the Republic of the Congo",
      ["Congo"],
      "wrong",
    ),
    ("The Netherlands", "the Netherlands", [], "right"),
    ("Washington, D.C.", "Washington", ["Washington D.C."], "right"),
    ("", "Paris", [], "wrong"),
    ("A", "Paris", [], "wrong"),
    ("...", "Paris", [], "wrong"),
    ("<think>Paris", "Paris", [], "wrong"),
    ("Rome</think>\n\nParis", "Paris", [], "right"),
    (r"so \boxed{\text{Paris}}", "Paris", [], "right"),
    ("Paris " * 9000, "Paris", [], "wrong"),
  ],
)
def test_names(response, answer, accepted, found):
  assert verdict(tasks.short(item(response, answer, accepted=accepted))) == found


def test_an_answer_that_is_in_the_question_is_not_given_by_its_echo():
  columns = {"question": "Is the capital of France Paris or Rome?", "accepted": []}
  assert verdict(tasks.short(item("the capital of France Paris", **columns))) == "wrong"
  assert verdict(tasks.short(item("It is Paris.", **columns))) == "right"


def test_where_there_is_no_answer_to_abstain_is_right():
  for columns in ({"answerable": False}, {}):
    assert verdict(tasks.short(item("I don't know.", "unknown", **columns))) == "right"
    assert verdict(tasks.short(item("Paris", "unknown", **columns))) == "wrong"
  outcome = tasks.short(item("Unknown", "unknown", answerable=False))
  assert outcome.metrics == {"answer": 1.0, "abstained": 1.0}
  lies = tasks.short(item("Paris", "Paris", answerable=False))
  assert lies.score == 0, "a row with answerable: false has no right answer"


@pytest.mark.parametrize(
  ("grader", "answer", "columns"),
  [
    (tasks.short, " ", {}),
    (tasks.short, "Paris", {"accepted": "Lutetia"}),
    (tasks.short, "Paris", {"question": 3}),
    (tasks.short, "Paris", {"answerable": "false"}),
    (tasks.choice, "Paris", {}),
    (tasks.choice, "", {}),
    (tasks.choice, "B", {"choices": [1, 2]}),
  ],
)
def test_what_cannot_be_graded_is_said(grader, answer, columns):
  outcome = grader(item("Paris", answer, **columns))
  assert outcome.status == "ungradable" and outcome.why


@pytest.mark.parametrize(
  "unit", ["Paris ", "(", "**", "<think>", "\\boxed{", "Answer: "]
)
def test_hostile_text_gets_a_verdict(unit):
  text = unit * 20_000
  assert verdict(tasks.short(item(text))) == "wrong"
  assert verdict(tasks.choice(item(text, "B", choices=LISTED))) == "wrong"


def test_words():
  assert short.words("The Łódź-Ørsted, ‘Æ’!") == ["lodz", "orsted", "ae"]
  assert short.words("A") == ["a"] and short.words("?!") == []


@pytest.mark.parametrize(
  ("response", "columns", "said"),
  [
    ("It is **Paris**, a city.", {}, "Paris"),
    ("lutetia", {}, "Paris"),  # another of the right ones: they are one answer
    ("The capital of France is the Côte d'Or.", {"cue": "Côte d'Or"}, "Côte d'Or"),
    ("Lyon", {"cue": "Côte d'Or"}, "lyon"),
    ("Lyon", {"cue": 3}, "lyon"),
    ("I do not know.", {}, "unknown"),
    ("I do not know.", {"answerable": False}, "unknown"),
    ("Paris", {"answerable": False}, "paris"),
    ("", {}, None),
    ("<think>Paris", {}, None),
  ],
)
def test_what_a_short_answer_is(response, columns, said):
  """As the row writes it, so that equal answers are equal and a cue is recognised."""
  assert tasks.short(item(response, **columns)).answer == said


@pytest.mark.parametrize(
  ("response", "said"),
  [
    ("(b) Paris", "B"), ("c", "C"), ("B. Rome", None), ("Paris", None),
    ("I do not know", "unknown"), ("", None),
  ],
)  # fmt: skip
def test_what_a_choice_is(response, said):
  assert tasks.choice(item(response, "B", choices=LISTED)).answer == said
