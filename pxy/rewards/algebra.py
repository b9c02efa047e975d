r"""Equality of mathematical answers by algebra: the part of `math` that needs sympy.

math-verify (Apache-2.0, https://github.com/huggingface/Math-Verify) reads both answers'
LaTeX into sympy, and compares numbers, expressions, sets, intervals and matrices. What
it reads was written by a model, and both parsing and simplifying may take for ever or
all memory (10**10**10). So `load` is called in a worker (worker.py), and `grade` in a
fork of it, with a deadline and a memory limit, for those samples alone that strings
cannot decide (`tasks.by_text`). math-verify's own time limits are signals, which a
sample could get in the way of; they are off.

An answer that is no value (1/0), or that cannot be read, is wrong. A reference answer
of that kind makes the sample ungradable: then only the same spelling would be right.
"""

import importlib
import logging

from pxy import config, fields
from pxy.rewards import answer, equal, tasks

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
    value = _parse(verifier, text)
    _same(verifier, value, value)


def grade(item: tasks.Item) -> tasks.Outcome:
  """1 if the last box, or else the final number, equals the answer; else 0."""
  if (decided := tasks.by_text(item)) is not None:
    return decided
  verifier = importlib.import_module("math_verify")
  reference = _parse(verifier, tasks.reference(item.answer))
  if why := _fault(verifier, reference):
    return _unusable(item, why)
  found = _parse(verifier, answer.final(item.response))
  if not found:
    return tasks.scored(0.0)
  try:
    return tasks.scored(_same(verifier, reference, found))
  except (MemoryError, RecursionError):
    raise
  except Exception:
    if _fault(verifier, found):
      return tasks.scored(0.0)
    raise


def usable(item: tasks.Item) -> tasks.Outcome:
  """Whether the item's answer can be graded against: scored 1, or ungradable."""
  verifier = importlib.import_module("math_verify")
  why = _fault(verifier, _parse(verifier, tasks.reference(item.answer)))
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
  return verifier.verify(
    reference, found, strict=True, timeout_seconds=None, raise_on_error=True
  )


def _fault(verifier, value: list) -> str:
  """What keeps a value from being compared; empty if it equals itself."""
  if not value:
    return "cannot be read as mathematics"
  try:
    return "" if _same(verifier, value, value) else "does not equal itself"
  except (MemoryError, RecursionError):
    raise
  except Exception as error:
    return f"is no value ({fields.line(error)})"
