"""What a response's answer is, as its grader reads it; for votes, and to be stored.

A grader may tell (a function that returns verl's dict with a text under `pred`; `short`
and `choice`, which know the row), and those of pxy have a reading each. A function that
tells nothing has no notion of an answer: then there is none to count, which is not the
same as a response without one.
"""

import re
from collections.abc import Callable

from pxy import config
from pxy.rewards import answer, chain, gym, short, tasks

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
  "short": lambda response, _: " ".join(short.words(short.sentence(response))),
  "choice": lambda response, _: short.letter(short.sentence(response)),
}
"""(response, reference answer) -> its answer, by the name of a grader of pxy."""


def known(judge: config.Judge, task: str) -> bool:
  """Whether each response has its answer, or none, by a reading of pxy's."""
  return _reading(judge, task) is not None


def _reading(judge: config.Judge, task: str):
  """Of the first of the graders that has one; else None."""
  found = map(READINGS.get, tasks.names(judge, task))
  return next(filter(None, found), None)


def of(
  judge: config.Judge, task: str, response: str, reference: str, outcome: tasks.Outcome
) -> str | None:
  """The answer of a graded response, on one line; None where it has none.

  Args:
    judge: `auto`, one of pxy's, a user's function, or several.
    task: of the row, by which `auto` goes.
    response: as it is read (sample.heard).
    reference: the row's answer.
    outcome: of the response.
  """
  found = outcome.answer
  if found is None and (reading := _reading(judge, task)) is not None:
    found = reading(response, reference)
  return " ".join((found or "").split()) or None
