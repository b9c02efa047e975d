"""What a response's answer is, as its grader reads it; for votes, and to be stored.

A grader may tell (a function that returns verl's dict with a text under `pred`), and
those of pxy have a reading each. A function that tells nothing has no notion of an
answer: then there is none to count, which is not the same as a response without one.
"""

import re
from collections.abc import Callable

from pxy.rewards import answer, chain, gym, tasks

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII)


def _integer(response: str, reference: str) -> str | None:
  found = (answer.boxed(response) or "").strip()
  return str(int(found)) if _INTEGER.fullmatch(found) else found


READINGS: dict[str, Callable[[str, str], str | None]] = {
  "arithmetic": _integer,
  "boxed": lambda response, _: answer.boxed(answer.said(response)),
  "number": lambda response, _: tasks.numeral(answer.said(response)),
  "math": lambda response, _: answer.final(response),
  "gym": gym.extract,
  "answer": lambda response, _: chain.said(response),
  "verified": lambda response, _: chain.said(response),
  "abstain": lambda response, _: chain.said(response),
}
"""(response, reference answer) -> its answer, by the name of a grader of pxy."""


def known(grader: str, task: str) -> bool:
  """Whether each response has its answer, or none, by a reading of pxy's."""
  return tasks.name(grader, task) in READINGS


def of(
  grader: str, task: str, response: str, reference: str, outcome: tasks.Outcome
) -> str | None:
  """The answer of a graded response, on one line; None where it has none.

  Args:
    grader: `auto`, one of pxy's, or a user's function.
    task: of the row, by which `auto` goes.
    reference: the row's answer.
    outcome: of the response.
  """
  found = outcome.answer
  if found is None and known(grader, task):
    found = READINGS[tasks.name(grader, task)](response, reference)
  return " ".join((found or "").split()) or None
