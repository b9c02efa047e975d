"""Extraction and comparison of answers: by rule, by example, and on hostile text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy.rewards import answer, equal


@pytest.mark.parametrize(
  "text, expected",
  [
    (r"so \boxed{42}.", "42"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed {7}", "7"),
    (r"\fbox{7}", "7"),
    (r"\boxed{\frac{1}{2}} and text }", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\{1}", r"\{1"),
    (r"\boxed{a\\{b}}", r"a\\{b}"),
    (r"\boxed{\frac{\}{p}}", r"\frac{\}{p}"),
    (r"\boxed{}", ""),
    (r"\boxed{\boxed{3}}", "3"),
    (r"put it in \boxed. \boxed{5} is in \boxed", "5"),
    (r"\boxed{1} then \boxed{2", None),
    ("no box", None),
    ("", None),
    (r"\boxed{" + "1" * (answer.LONGEST + 1) + "}", None),
  ],
)
def test_boxed(text, expected):
  assert answer.boxed(text) == expected


@given(st.text(alphabet="ab1{}\\ ", max_size=30), st.text(max_size=30))
def test_boxed_returns_what_was_boxed(inside, before):
  depth = 0
  for c in inside:
    depth += (c == "{") - (c == "}")
    if depth < 0:
      break
  if depth != 0 or "\\" in inside:
    inside = inside.replace("{", "").replace("}", "").replace("\\", "")
  assert answer.boxed(before + r"\boxed{" + inside + "}") == inside


@pytest.mark.parametrize(
  "text, expected",
  [
    ("5 apples and 1,024 pears.", "1024"),
    ("work 12 #### -3.50\n", "-3.50"),
    ("one of 1,2,3", "3"),
    ("3-5", "5"),
    ("it is -5.", "-5"),
    (".5", ".5"),
    ("abc", None),
    ("", None),
  ],
)
def test_final_number(text, expected):
  assert answer.final_number(text) == expected


SAME = [
  ("42", " 42. "),
  (r"\frac{1}{2}", r"\dfrac12"),
  (r"\frac{1}{2}", r"\tfrac 1 2"),
  (r"\frac{1}{2}", "1/2"),
  (r"\frac{1}{2}", "0.5"),
  (r"\frac{1}{72}", r"\frac1{72}"),
  (r"-\frac{7}{2}", r"\frac{-7}2"),
  (r"\sqrt{3}", r"\sqrt3"),
  ("0.75", ".75"),
  ("2.5", "2.50"),
  ("5", "5.0"),
  ("5", "+5"),
  ("1000000", "1,000,000"),
  ("10080", r"10,\!080"),
  ("10080", "10{,}080"),
  (r"\left( 1, 2 \right]", "(1,2]"),
  (r"$\{1,2\}$", r"\{1, 2\}"),
  ("45", r"45^\circ"),
  ("45", r"45^{\circ}"),
  ("20", r"20\%"),
  ("20", r"\$20"),
  ("5", "x = 5"),
  ("odd", r"\text{odd}"),
  (r"5\text{ cm}", "5"),
  (r"5\text{ cm}^2", "5"),
  ("x^2", "x^{2}"),
  (r"x\le 2", r"x \leq 2"),
  ("-1", "\u22121"),
  (
    r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}",
    r"\begin{pmatrix}1\\-2\end{pmatrix}",
  ),
]
DIFFERENT = [
  ("1", "2"),
  ("12", r"\frac{1}{2}"),
  ("1", "-1"),
  ("(1,2)", "[1,2]"),
  ("(1,2)", "(2,1)"),
  ("1,2", "12"),
  ("2/4", "1/2"),
  (r"5\text{ cm}", r"5\text{ m}"),
  (r"\text{odd}", r"\text{even}"),
  ("x=5", "y=6"),
  ("0.5", "0.05"),
  ("100", "10"),
  ("", "0"),
  (r"\leftarrow", r"arrow"),
]


@pytest.mark.parametrize("a, b", SAME)
def test_same(a, b):
  forms = equal.normalise(a), equal.normalise(b)
  assert equal.equal(a, b) and equal.equal(b, a), forms


@pytest.mark.parametrize("a, b", DIFFERENT)
def test_different(a, b):
  assert not equal.equal(a, b) and not equal.equal(b, a), equal.normalise(a)


@settings(max_examples=200)
@given(st.text(alphabet=r"\frac{}()[]0123456789.,-+x=/$ ^_%!", max_size=25))
def test_equality_is_reflexive_and_blind_to_space(text):
  assert equal.equal(text, text)
  assert equal.equal(f"  {text}", text)


HOSTILE = [
  r"\boxed{" * 300_000,
  r"\boxed{" + "{" * 2_000_000,
  r"\boxed" + " " * 2_000_000,
  r"\boxed{}" * 250_000,
  "1" * 2_000_000,
  "1," * 1_000_000,
  "#" * 2_000_000,
  "+." * 1_000_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: t[:9])
def test_extraction_is_linear_on_hostile_text(text):
  start = time.process_time()
  answer.boxed(text)
  answer.final_number(text)
  assert time.process_time() - start < 2, "2 MB of text took more than two seconds"


@pytest.mark.parametrize(
  "unit",
  ["\\", "{", r"\text{", r"\frac", "^{", "1", "1,", "1,000", " ", r"\\", ".", "0."],
)
def test_comparison_is_fast_on_hostile_answers(unit):
  text = (unit * answer.LONGEST)[: answer.LONGEST]
  start = time.process_time()
  equal.equal(text, r"5\text{ cm}")
  assert time.process_time() - start < 0.5


def test_a_longer_answer_than_any_is_compared_as_it_is():
  long = "1 " * answer.LONGEST
  assert equal.equal(long, long) and not equal.equal(long, long + " ")
