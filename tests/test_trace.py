"""Clean traces are right at every step; slips go on into the answer unless noticed."""

import operator
import re

import hypothesis
from hypothesis import strategies as st

from pxy.data import trace

SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
STEP = re.compile(r"(?:Wait, |Alternatively, another way: )?([\d +*-]+) = (\d+)")


def value(expression: str) -> int:
  """A sum of one or two signs; multiplication comes first in all that traces write."""
  first, sign, second, *rest = expression.split()
  out = SIGNS[sign](int(first), int(second))
  return SIGNS[rest[0]](out, int(rest[1])) if rest else out


@st.composite
def sums(draw):
  sign = draw(st.sampled_from("+-*"))
  a, b = draw(st.integers(0, 9999)), draw(st.integers(0, 9999))
  return sign, max(a, b), min(a, b)


@hypothesis.given(sums())
def test_clean_traces_are_right_at_every_step(problem):
  sign, a, b = problem
  thoughts, answer = trace.solve(sign, a, b, trace.clean)
  assert thoughts[0] == f"{a} {sign} {b}"
  assert answer == str(SIGNS[sign](a, b)), thoughts
  assert thoughts[-1] == f"\\boxed{{{answer}}}"
  steps = [STEP.fullmatch(line) for line in thoughts[1:-1] if "=" in line]
  assert len(steps) >= len(str(a))
  for step in steps:
    assert step and value(step[1]) == int(step[2]), (step, thoughts)


def test_addition_as_documented():
  thoughts, answer = trace.solve("+", 347, 285, trace.clean)
  assert thoughts == [
    "347 + 285",
    "7 + 5 + 0 = 12",
    "4 + 8 + 1 = 13",
    "3 + 2 + 1 = 6",
    "\\boxed{632}",
  ]
  assert answer == "632"


def test_subtraction_borrows():
  thoughts, _ = trace.solve("-", 402, 17, trace.clean)
  assert thoughts[1:] == [
    "12 - 7 - 0 = 5",
    "10 - 1 - 1 = 8",
    "4 - 0 - 1 = 3",
    "\\boxed{385}",
  ]


def test_multiplication_adds_partial_products():
  thoughts, _ = trace.solve("*", 34, 27, trace.clean)
  assert thoughts == [
    "34 * 27",
    *("34 * 7", "4 * 7 + 0 = 28", "3 * 7 + 2 = 23"),
    *("34 * 2", "4 * 2 + 0 = 8", "3 * 2 + 0 = 6"),
    *("238 + 680", "8 + 0 + 0 = 8", "3 + 8 + 0 = 11", "2 + 6 + 1 = 9"),
    "\\boxed{918}",
  ]


def slip_once(notice):
  """A slip of +1 at the first step only."""
  written = iter([1])

  def slip(right, high):
    extra = next(written, 0)
    return right + extra, notice if extra else ""

  return slip


def test_a_slip_goes_into_the_answer():
  thoughts, answer = trace.solve("+", 347, 285, slip_once(""))
  assert thoughts[1] == "7 + 5 + 0 = 13"
  assert answer == "633" and thoughts[-1] == "\\boxed{633}"


def test_a_slip_can_change_the_carry():
  thoughts, answer = trace.solve("+", 344, 285, slip_once(""))  # 4 + 5 = 9, written 10
  assert thoughts[2] == "4 + 8 + 1 = 13"
  assert answer == "630"


def test_a_noticed_slip_is_mended():
  for notice, again in (
    (trace.WAIT, "Wait, 7 + 5 + 0 = 12"),
    (trace.ANOTHER, "Alternatively, another way: 5 + 7 + 0 = 12"),
  ):
    thoughts, answer = trace.solve("+", 347, 285, slip_once(notice))
    assert thoughts[1:3] == ["7 + 5 + 0 = 13", again]
    assert answer == "632"


@hypothesis.given(sums(), st.integers(0, 10**6))
def test_any_slips_leave_a_number(problem, luck):
  sign, a, b = problem

  def slip(right, high):
    assert 0 <= right <= high
    return luck % (high + 1), ""

  thoughts, answer = trace.solve(sign, a, b, slip)
  assert answer == str(int(answer)), f"not in plain digits: {thoughts}"
