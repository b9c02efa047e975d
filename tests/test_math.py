"""The `math` grader on real answers: rewritten ones, wrong ones, and hostile ones."""

import math
import time

import pytest

from pxy import config
from pxy.rewards import answer, equal, pool, tasks

import answers

REWARD = config.Reward(workers=2, deadline=3.0, memory_mb=512)
EVERY = 17  # `python tests/answers.py` takes all


@pytest.fixture(scope="module")
def grader():
  with pool.Pool(REWARD, "math") as p:
    yield p


@pytest.mark.parametrize(
  ("changes", "wanted"), [(answers.REWRITES, 1.0), (answers.PERTURBATIONS, 0.0)]
)
def test_real_answers_rewritten_are_right_and_perturbed_are_wrong(
  grader, changes, wanted
):
  found = answers.rates(grader, answers.load()[::EVERY], changes, wanted)
  assert set(found) == set(changes), "a kind of change changed no answer"
  right, cases = (sum(entry[i] for entry in found.values()) for i in (0, 1))
  lost = [(name, *case) for name, entry in found.items() for case in entry[2]]
  assert right >= answers.LEAST * cases, f"{right} of {cases} are {wanted:g}: {lost}"


def test_strings_decide_most_samples():
  """A grade by sympy takes 500 times as long as one by strings."""
  known = answers.load()
  items = [
    tasks.Item(f"\\boxed{{{change(a)}}}", a)
    for a in known for change in answers.REWRITES.values()
  ]  # fmt: skip
  decided = [tasks.by_text(item) is not None for item in items]
  assert sum(decided) > 0.95 * len(decided)
  start = time.process_time()
  for item in items[:1000]:
    tasks.by_text(item)
  assert time.process_time() - start < 2


@pytest.mark.parametrize(
  ("response", "reference", "score"),
  [
    (r"so \boxed{x+1}", "1+x", 1),
    (r"\boxed{1} no: \boxed{\frac{\sqrt{2}}{2}}", r"\frac{1}{\sqrt{2}}", 1),
    (r"the answer is 1,024.", "1024", 1),
    (r"the answer is 1024 or 7", "1024", 0),
    (r"\boxed{1024", "1024", 0),
    ("", "1024", 0),
    (r"\boxed{}", "1024", 0),
    (r"\boxed{ }", "x", 0),
    (r"\boxed{2,-2}", "-2,2", 1),
    (r"\boxed{2}", "-2,2", 0),
    (r"\boxed{(2,-2)}", "(-2,2)", 0),
    (r"\boxed{\{2,-2\}}", r"\{-2,2\}", 1),
    (r"\boxed{(0,1) \cup (2,\infty)}", r"(2,\infty)\cup(0,1)", 1),
    (r"\boxed{[0,1)}", "(0,1)", 0),
    (r"\boxed{(1,2,3]}", "(1,2,3)", 0),
    (r"\boxed{1\,\text{or}\,2}", "1,2", 1),
    (r"\boxed{1 or 2}", "2{or}1", 1),
    (r"\boxed{8.24}", r"\approx8.24", 1),
    (r"\boxed{x = 5}", "5", 1),
    (r"\boxed{y = 5}", "x=6", 0),
    (r"\boxed{2x+2y=2}", "x+y=1", 1),
    (r"\boxed{10\frac1{12}}", r"\frac{121}{12}", 1),
    (r"\boxed{0.333}", r"\frac13", 0),
    (r"\boxed{0.3333333333}", r"\frac13", 1),
    (r"\boxed{2^{10}}", "1024", 1),
    (r"\boxed{\binom{5}{2}}", "10", 1),
    (r"\boxed{\begin{pmatrix} 1 \\ 4/2 \end{pmatrix}}",
     r"\begin{pmatrix}1\2\end{pmatrix}", 1),
    (r"\boxed{\begin{pmatrix} 1 \\ 3 \end{pmatrix}}",
     r"\begin{pmatrix}1\2\end{pmatrix}", 0),
    (r"\boxed{\text{Monday}}", "{Sunday}", 0),
    (r"\boxed{Sunday}", "{Sunday}", 1),
    (r"\boxed{nusday}", r"\text{Sunday}", 0),
    (r"\boxed{C}", r"\text{(C)}", 1),
    (r"\boxed{B}", r"\text{(C)}", 0),
    (r"\boxed{22_6}", "22_7", 0),
    (r"\boxed{22}", "22_7", 1),
    (r"\boxed{4:51:07}", "4:51:06", 0),
    (r"\boxed{1/0}", "x", 0),
    (r"\boxed{\frac{}{", "x", 0),
    (r"\boxed{\frac{}{}}", "x", 0),
    (r"\boxed{x^2}", r"The answer is \boxed{x \cdot x}", 1),
    ("\\boxed{\u0665}", "5", 0),
  ],
)  # fmt: skip
def test_by_example(grader, response, reference, score):
  outcome = grader.submit(pool.Item(response, reference)).result(20)
  assert (outcome.status, outcome.score) == ("scored", score), outcome


@pytest.mark.parametrize(
  "reference", ["", " ", "1/0", r"2007+\frac{\}{p}i2", r"\boxed{}", r"\frac{1"]
)
def test_what_cannot_be_graded_against_is_neither_right_nor_wrong(grader, reference):
  outcome = grader.submit(pool.Item(r"\boxed{7x}", reference)).result(20)
  assert outcome.status == "ungradable" and math.isnan(outcome.score), outcome
  assert "the answer" in outcome.why


def test_an_unreadable_answer_still_matches_its_own_spelling(grader):
  outcome = grader.submit(pool.Item(r"\boxed{\phantom 1}", r"\phantom1")).result(9)
  assert outcome.score == 1


LARGE = r"\begin{pmatrix}" + r"\\".join(["&".join("123456789" * 4)] * 36)
HOSTILE = {
  "a tower": "9**9**9",
  "a tower in TeX": "9^{9^{9^{9}}}",
  "a tower in a matrix": r"\begin{pmatrix}10^{10^{10}}\\1\end{pmatrix}",
  "10**10**10": r"10^{10^{10}} + x",
  "a factorial": "(10^{9})!+x",
  "factorials of factorials": "((((9!)!)!)!)!",
  "a binomial": r"\binom{10^9}{5 \cdot 10^8}",
  "an integral": r"\int_0^1 \frac{e^{x^{x}}\sin(\tan x)}{\log(1+x^x)} dx",
  "integrals": r"\int" * 50 + "x" + "dx" * 50,
  "a sum": r"\sum_{k=1}^{10^{12}} \frac{1}{k^{k}}",
  "a product": r"\prod_{k=1}^{10^{9}} (x+k)",
  "a limit": r"\lim_{x \to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^{7^{7}}}",
  "a matrix power": LARGE + r"\end{pmatrix}^{1000000}",
  "a matrix": LARGE + r"\end{pmatrix}",
  "an inverse": LARGE.replace("1", "x") + r"\end{pmatrix}^{-1}",
  "an expansion": "(a+b+c+d+e+f+g+h)^{60}-1",
  "many roots": "+".join(rf"\sqrt{{{p}}}" for p in (2, 3, 5, 7, 11, 13, 17, 19, 23)),
  "roots in roots": r"\sqrt{1+" * 300 + "x" + "}" * 300,
  "fractions": r"\frac" * 4000,
  "fractions in fractions": r"\frac{1}{1+" * 600 + "x" + "}" * 600,
  "brackets": "(" * 4000 + "x" + ")" * 4000,
  "open brackets": "[" * 9000,
  "braces": "{" * 4000 + "x" + "}" * 4000,
  "subscripts": "x" + "_{x" * 2000 + "}" * 2000,
  "a list": ",".join("x" * 4000),
  "a long number": "9" * 9000,
  "a long decimal": "0." + "9" * 9000 + "x",
  "many signs": "-" * 9000 + "1",
  "many variables": "".join(chr(97 + i % 26) for i in range(9000)),
  "python": "__import__('os').system('sleep 9')",
  "a lambda": r"\operatorname{__import__}(os)",
  "zeros of a polynomial": "x^{10^{5}}+x^{99999}+1=0",
}


@pytest.fixture(scope="module")
def hasty():
  with pool.Pool(config.Reward(workers=2, deadline=1.0, memory_mb=256), "math") as p:
    yield p


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_its_deadline_and_itself(hasty, name):
  grader = hasty
  start = time.monotonic()
  bad = grader.submit(pool.Item(f"\\boxed{{{HOSTILE[name]}}}", "x^2+y"))
  good = grader.submit(pool.Item(r"\boxed{y+x^2}", "x^2+y"))
  outcome = bad.result(20)
  assert outcome.status == "failed" or outcome.score == 0, outcome
  assert time.monotonic() - start < 4
  assert good.result(20).score == 1
  assert grader.replaced == 0, "a sample reached the process that grades the others"


@pytest.mark.parametrize("reference", ["10^{10^{10}}+x", "9^{9^{9^{9}}}x", "(10^9)!x"])
def test_a_hostile_reference_too(hasty, reference):
  grader = hasty
  outcome = grader.submit(pool.Item(r"\boxed{x}", reference)).result(20)
  assert outcome.status != "scored" or outcome.score == 0, outcome
  assert grader.submit(pool.Item(r"\boxed{y+x}", "x+y")).result(20).score == 1


def test_ten_megabytes_cost_nobody_their_grade(grader):
  texts = [
    "\\boxed{" * 10**6, "9" * 10**7, r"\frac" * 2 * 10**6, "$" * 10**7,
    r"\boxed{" + "(" * 10**7 + "}",
  ]  # fmt: skip
  futures = [grader.submit(pool.Item(t, "x+1")) for t in texts]
  assert grader.submit(pool.Item(r"\boxed{1+x}", "x+1")).result(30).score == 1
  for future in futures:
    outcome = future.result(30)
    assert outcome.status == "failed" or outcome.score == 0, outcome


@pytest.mark.parametrize(
  "unit", ["a", "a,", "A,", "(", "1:", "1_", "\\frac{1}", "1,000"]
)
def test_strings_decide_in_linear_time(unit):
  text = (unit * answer.LONGEST)[: answer.LONGEST - 1] + "!"
  start = time.process_time()
  equal.decide("x", text)
  equal.decide(text, "x+1")
  assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
  ("text", "value"),
  [("1/2", 0.5), ("-1.50", -1.5), (r"2\frac{1}{2}", 2.5), ("1{,}000", 1000),
   (".5", 0.5), (r"-\frac34", -0.75), ("1/0", None), ("x", None),
   ("9" * 401, None), ("", None)],
)  # fmt: skip
def test_rationals(text, value):
  found = equal.rational(text)
  assert found == value if value is not None else found is None


def test_the_final_answer_is_the_box_and_a_number_only_without_one():
  assert answer.final(r"7 \boxed{x} 8") == "x"
  assert answer.final(r"7 \boxed{x") is None
  assert answer.final("7 and 8") == "8"
