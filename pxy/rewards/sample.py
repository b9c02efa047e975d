"""A sample to grade, and its three outcomes.

  scored      the verifier has spoken
  ungradable  there is nothing to grade against, or the verifier says "not mine" (None)
  failed      the verifier erred: it raised, hung, died or returned no number

The last two are excluded from training and counted; none of them is a silent 0 or 1. A
missing or truncated answer is an ordinary score of 0.
"""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Item:
  """A sample to grade. `ids` are the response's tokens; `columns` the row's others.

  in_think: the prompt ends inside <think>, so the response begins there.
  """

  response: str
  answer: str
  prompt: str = ""
  task: str = ""
  ids: list[int] | None = None
  columns: dict = dataclasses.field(default_factory=dict)
  in_think: bool = False

  @property
  def text(self) -> str:
    """The response with the tag that the template has opened, for pxy's graders."""
    return heard(self.response, self.in_think)

  @property
  def answers(self) -> list[str]:
    """What is right: the answer, and what the column `accepted` lists besides it."""
    return right(self.answer, self.columns)

  def each(self) -> list["Item"]:
    """The item once for each right answer."""
    if len(self.answers) == 1:
      return [self]
    columns = {k: v for k, v in self.columns.items() if k != ACCEPTED}
    return [
      dataclasses.replace(self, answer=answer, columns=columns)
      for answer in self.answers
    ]


ACCEPTED = "accepted"
"""The column of a row's right answers besides its answer: texts and numbers."""


def heard(response: str, in_think: bool) -> str:
  """A response as it is read: behind <think>, if the prompt ends inside it."""
  return f"<think>{response}" if in_think else response


def right(answer: str, columns: dict) -> list[str]:
  """The right answers of a row, its own first."""
  more = columns.get(ACCEPTED)
  more = map(_text, more) if isinstance(more, list) else ()
  return list(dict.fromkeys([answer, *filter(None, more)]))


def _text(value) -> str:
  if isinstance(value, float):
    return number_text(value)
  one = isinstance(value, (str, int)) and not isinstance(value, bool)
  return str(value).strip() if one else ""


def number_text(value: float) -> str:
  """The decimal that a float means: 15 digits of it, 0.3 of 0.1 + 0.2.

  7.0 is 7: pandas turns a column of integers with gaps into floats.
  """
  if value.is_integer() and abs(value) < 1e15:
    return str(int(value))
  return f"{value:.15g}"


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a sample.

  Attributes:
    status: scored, ungradable or failed.
    score: nan unless scored.
    why: a line that says why it is not scored.
    seconds: of wall clock, that the grader took.
    metrics: name -> number, what else the grader told.
    answer: what it told to be the response's answer; None: it told none (given.py).
  """

  status: str
  score: float = math.nan
  why: str = ""
  seconds: float = 0.0
  metrics: dict = dataclasses.field(default_factory=dict)
  answer: str | None = None


def scored(
  score: float, metrics: dict | None = None, told: str | None = None
) -> Outcome:
  """The verifier's word, a finite number; by custom 0 to 1, or -1 to 1.

  told: the response's answer, where the grader says it.
  """
  return Outcome("scored", float(score), metrics=metrics or {}, answer=told)


def ungradable(why: str) -> Outcome:
  """No grade: there is nothing to grade against, or it is not the verifier's to say."""
  return Outcome("ungradable", why=why)


def failed(why: str, seconds: float = 0.0) -> Outcome:
  """No grade, for the verifier erred after `seconds`."""
  return Outcome("failed", why=why, seconds=seconds)


Grader = Callable[[Item], Outcome]
"""What it raises is a failed outcome to the worker that calls it."""
