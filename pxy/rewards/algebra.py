r"""Equality of mathematical answers by algebra: the part of `math` that needs sympy.

Most of what the rules (rules.py) leave open are two expressions, which numeric.py
decides to hundreds of digits. What has no value there (an integral, a sum, a limit)
math-verify (Apache-2.0, https://github.com/huggingface/Math-Verify) reads into sympy
and compares. It all was written by a model, and both parsing and simplifying may take
for ever or all memory (10**10**10). So `load` is called in a worker (worker.py), and
`grade` in a fork of it, with a deadline and a memory limit, for those samples alone
that the rules do not decide (`tasks.by_text`). math-verify's own time limits are
signals, which a sample could get in the way of; they are off.

An answer that is no value (1/0), or that cannot be read, is wrong. A reference answer
of that kind makes the sample ungradable: then only the same spelling would be right.
"""

import importlib
import logging
import re

from pxy import config, fields
from pxy.rewards import answer, equal, numeric, tasks, value

_WARM = (r"\frac{1}{2}+\sqrt{x}", r"(-\infty,1]\cup[2,3)", r"\{1,2\pi\}", "x^2-y=3i")


def load() -> None:
  """Imports math-verify and sympy, and fills their caches, for all forks to share."""
  try:
    verifier = importlib.import_module("math_verify")
  except ImportError as error:
    raise config.Error(
      f"data.grader 'math' needs math-verify ({error}): pip install math-verify"
    ) from None
  logging.disable(logging.CRITICAL)  # it logs what it cannot read
  for text in _WARM:
    found = _parse(verifier, text)
    _same(verifier, found, found)
  numeric.judge(value.read(r"\sin x+\sqrt2\pi"), value.read(r"\ln x"))


def grade(item: tasks.Item) -> tasks.Outcome:
  """1 if the last box, or else what the response says, equals the answer; else 0."""
  return tasks.best(map(_grade, item.each()))


def _grade(item: tasks.Item) -> tasks.Outcome:
  if (decided := tasks.by_text(item)) is not None:
    return decided
  expected, found = tasks.reference(item.answer), answer.final(item.text)
  wanted = value.read(expected)
  if wanted is not None and numeric.undefined(wanted):
    return _unusable(item, "is no value (division by zero)")
  try:
    verdict = equal.same(found, expected, numeric.judge)
  except numeric.Unknown:
    verdict = None
  if verdict is not None:
    return tasks.scored(verdict)
  return _by_sympy(item, expected, found)


_WORDS = re.compile(r"(?<![\\{a-zA-Z])[a-zA-Z]{3,}|\\(?:text|mbox)(?![a-z])")


def _by_sympy(item, expected: str, found: str) -> tasks.Outcome:
  verifier = importlib.import_module("math_verify")
  reference = _parse(verifier, expected)
  if why := _fault(verifier, reference):
    return _unusable(item, why)
  if value.read(found) is None and _WORDS.search(found):
    return tasks.scored(0.0)  # math-verify would take a fragment of it
  answers = _parse(verifier, found)
  if not answers:
    return tasks.scored(0.0)
  try:
    return tasks.scored(_same(verifier, reference, answers))
  except (MemoryError, RecursionError):
    raise
  except Exception:
    if _fault(verifier, answers):
      return tasks.scored(0.0)
    raise


def usable(item: tasks.Item) -> tasks.Outcome:
  """Whether the item's answer can be graded against: scored 1, or ungradable."""
  expected = tasks.reference(item.answer)
  wanted = value.read(expected)
  if wanted is not None:
    if numeric.undefined(wanted):
      return _unusable(item, "is no value (division by zero)")
    return tasks.scored(1.0)
  verifier = importlib.import_module("math_verify")
  why = _fault(verifier, _parse(verifier, expected))
  return _unusable(item, why) if why else tasks.scored(1.0)


def _unusable(item: tasks.Item, why: str) -> tasks.Outcome:
  return tasks.ungradable(f"the answer {item.answer[:60]!r} {why}")


def _parse(verifier, text: str) -> list:
  """What the text may mean; empty when it cannot be read."""
  return verifier.parse(
    r"\boxed{" + equal.tidy(text) + "}",
    [verifier.LatexExtractionConfig(boxed_match_priority=0)],
    fallback_mode="no_fallback",
    parsing_timeout=None,
    raise_on_error=False,
  )


def _same(verifier, reference: list, found: list) -> bool:
  """Whether math-verify says so, and numbers and kinds (rules.py) do not deny it."""
  said = verifier.verify(
    reference, found, strict=True, timeout_seconds=None, raise_on_error=True
  )
  return bool(said) and not _denied(reference[0], found[0])


def _denied(a, b) -> bool:
  """What math-verify takes for the same though it is not: tiny numbers, a tuple for a
  set."""
  sympy = importlib.import_module("sympy")
  kinds = (sympy.Tuple, sympy.FiniteSet, sympy.Interval, sympy.MatrixBase)
  if any(isinstance(x, kinds) for x in (a, b)):
    return [isinstance(a, k) for k in kinds] != [isinstance(b, k) for k in kinds]
  if not all(isinstance(x, sympy.Expr) and not x.free_symbols for x in (a, b)):
    return False
  x, y = (sympy.N(v, 50) for v in (a, b))
  if not all(v.is_Number or v.is_number for v in (x, y)):
    return False
  return bool(abs(x - y) > sympy.Float("1e-30", 50) * max(abs(x), abs(y)))


def _fault(verifier, found: list) -> str:
  """What keeps a value from being compared; empty if it equals itself."""
  if not found:
    return "cannot be read as mathematics"
  try:
    return "" if _same(verifier, found, found) else "does not equal itself"
  except (MemoryError, RecursionError):
    raise
  except Exception as error:
    return f"is no value ({fields.line(error)})"
