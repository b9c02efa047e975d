"""From a task to its grader: a function of one sample (sample.py).

pxy's own graders read and compare texts, by exact rules; of several right answers any
counts. `math` goes on to algebra where the rules do not decide, and `gym` to
reasoning-gym: those two are treated like a user's function (user.py), which is named
`package.module:function` or `path/to/file.py:function`. Left out: reward models.
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterable

from pxy import config, imports
from pxy.rewards import answer, chain, equal, known, sample, user, value
from pxy.rewards import short as short_lib

Item, Outcome, Grader = sample.Item, sample.Outcome, sample.Grader
scored, ungradable, failed = sample.scored, sample.ungradable, sample.failed


def best(outcomes: Iterable[Outcome | None]) -> Outcome | None:
  """Of a sample's outcomes by each of several right answers: the first that is right.

  Where none is, the answer is wrong only if all of them say so: else None where one
  leaves it open, or what has no score.
  """
  found = []
  for one in outcomes:
    if one is not None and one.score > 0:
      return one
    found.append(one)
  if None in found:
    return None
  return next((one for one in found if one.status != "scored"), found[0])


def _any(grade):
  """The grader, for items with several right answers as well."""

  @functools.wraps(grade)
  def of(item: Item):
    return best(map(grade, item.each()))

  return of


_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")


@_any
def arithmetic(item: Item) -> Outcome:
  """1 if the last box holds the answer's integer, of at most 1,000 digits, else 0."""
  if not _INTEGER.fullmatch(item.answer.strip()):
    return ungradable(f"the answer {item.answer[:40]!r} is no integer")
  found = (answer.boxed(item.response) or "").strip()
  same = _INTEGER.fullmatch(found) and int(found) == int(item.answer)
  return scored(1.0 if same else 0.0)


@_any
def boxed(item: Item) -> Outcome:
  """1 if the last box is the answer by the rules that need no algebra, else 0."""
  if not item.answer.strip():
    return ungradable("the answer is empty")
  found = answer.boxed(answer.said(item.text))
  return scored(found is not None and equal.decide(found, item.answer) is True)


@_any
def number(item: Item) -> Outcome:
  """1 if the response's number, or else its final one, is the answer's; for GSM8K."""
  expected = numeral(item.answer)
  if expected is None:
    return ungradable(f"the answer {item.answer[:40]!r} has no number")
  found = numeral(answer.said(item.text))
  return scored(found is not None and equal.decide(found, expected) is True)


def numeral(text: str) -> str | None:
  """What is marked or said to be the answer, or the number in it; else the last one."""
  found = answer.marked(text)
  if found is answer.NOWHERE:
    found = answer.stated(text)
    if found is None or value.read(found) is None:
      return answer.final_number(text)
  if found is None or value.read(found) is not None:
    return found
  return answer.first_number(found)


def _chain(item: Item, score: Callable[[dict], float]) -> Outcome:
  """Grades of the second world: a score made of both kinds of right, which are told."""
  trace, remarks = (item.columns.get(name) for name in ("trace", "remarks"))
  expected = " ".join(item.answer.split())
  if not expected:
    return ungradable("the answer is empty")
  found = chain.said(item.response)
  told = {"answer": float(found == expected)}
  told["abstained"] = float(found == chain.UNKNOWN)
  if isinstance(trace, str) and isinstance(remarks, str):
    told["verified"] = float(chain.verified(item.response, trace, remarks))
  elif score is not _answered:
    return ungradable("the row has no trace: columns `trace` and `remarks`, as world/*")
  return scored(score(told), told)


def _answered(told: dict) -> float:
  return told["answer"]


def said(item: Item) -> Outcome:
  """1 if what follows the last word `answer` is the answer, else 0."""
  return _chain(item, _answered)


def verified(item: Item) -> Outcome:
  """1 if the answer is right, and so is every hop to it, each stated; else 0."""
  return _chain(item, lambda told: told["verified"])


def abstain(item: Item) -> Outcome:
  """As `verified`, but wrong is -1, and to answer `unknown` where it is wrong is 0."""
  return _chain(item, lambda told: told["verified"] or told["abstained"] - 1)


def short(item: Item) -> Outcome:
  """1 if the first sentence is an accepted answer, or abstains where there is none.

  Columns: `accepted`, a list of answers that are right besides the answer; `question`,
  whose words a sentence may repeat; `answerable`, false where to abstain is right, as
  it is with the answer `unknown`; `cue`, an answer that is looked for besides. What is
  told is the row's answer or cue as the row writes it, `unknown`, or else the words.
  """
  answerable = item.columns.get("answerable", True)
  if not isinstance(answerable, bool):
    return ungradable("column `answerable` must be true or false")
  if item.answer.strip().lower() == short_lib.UNKNOWN:
    answerable = False
  if not item.answer.strip() and answerable:
    return ungradable("the answer is empty")
  said = short_lib.sentence(item.text)
  question = item.columns.get("question", item.prompt)
  accepted = item.columns.get(sample.ACCEPTED, [])
  if not isinstance(question, str) or not isinstance(accepted, list):
    return ungradable("column `question` must be text, and `accepted` a list of texts")
  right = answerable and short_lib.names(said, item.answers, question)
  abstained = not right and short_lib.abstains(said)
  told = {"answer": float(right if answerable else abstained)}
  told["abstained"] = float(abstained)
  cue = item.columns.get("cue")
  if abstained:
    found = short_lib.UNKNOWN
  elif right:
    found = item.answer
  elif isinstance(cue, str) and short_lib.names(said, [cue], question):
    found = cue
  else:
    found = " ".join(short_lib.words(said))
  return scored(told["answer"], told, found or None)


def choice(item: Item) -> Outcome:
  """1 if the first sentence is the answer's letter: `B`, `B.`, `(B)`, `Answer: B`.

  Columns: `choices`, the texts of A, B, ..., of which the chosen one's may follow;
  `accepted`, of which letters count.
  """
  expected = item.answer.strip().upper()
  if len(expected) != 1 or not expected.isalpha():
    return ungradable(f"the answer {item.answer[:40]!r} is no letter")
  choices = item.columns.get("choices", [])
  if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
    return ungradable("column `choices` must be a list of texts")
  said = short_lib.sentence(item.text)
  found = short_lib.letter(said, choices)
  right = {expected, *(answer.strip().upper() for answer in item.answers)}
  abstained = not found and short_lib.abstains(said)
  told = {"answer": float(found in right), "abstained": float(abstained)}
  if abstained:
    found = short_lib.UNKNOWN
  elif found in right:
    found = expected
  return scored(told["answer"], told, found or None)


def form(item: Item) -> Outcome:
  """1 if there is an answer where the task's own grader looks for one, right or wrong:
  the control of a reward."""
  found = _FORMS.get(name("auto", item.task), lambda item: answer.final(item.text))(
    item
  )
  return scored(bool(found and found.strip()))


_FORMS: dict[str, Callable[[Item], str | None]] = {
  "arithmetic": lambda item: answer.boxed(item.response),
  "boxed": lambda item: answer.boxed(answer.said(item.text)),
  "number": lambda item: numeral(answer.said(item.text)),
  "verified": lambda item: chain.said(item.response),
  "short": lambda item: short_lib.sentence(item.text),
  "choice": lambda item: short_lib.letter(
    short_lib.sentence(item.text), item.columns.get("choices", [])
  ),
}
"""What is found as an answer, by the grader that `auto` takes."""


def reference(text: str) -> str:
  """What `math` compares with: the answer, or what it has in a box."""
  inside = answer.boxed(text)
  return (text if inside is None else inside).strip()


@_any
def by_text(item: Item) -> Outcome | None:
  """The outcome of `math` as far as the rules decide it; None where algebra has to."""
  expected = reference(item.answer)
  if not expected:
    return ungradable("the answer is empty")
  found = answer.final(item.text)
  if found is None or not found.strip():
    return scored(0.0)
  same = equal.decide(found, expected)
  return None if same is None else scored(same)


OWN = {
  "arithmetic": arithmetic,
  "boxed": boxed,
  "number": number,
  "answer": said,
  "verified": verified,
  "abstain": abstain,
  "short": short,
  "choice": choice,
  "form": form,
}
"""Graders that are safe to run on one sample after another in one process."""
FORKED = {
  "math": "pxy.rewards.algebra:grade",
  "gold": "pxy.rewards.algebra:usable",
  "gym": "pxy.rewards.gym:grade",
}
"""Graders of pxy that give a model's text to libraries: a process for each sample."""


def is_own(grader: str) -> bool:
  """Whether the name is `auto` or pxy's, and not a user's function; else an Error.

  Imports nothing of the user's, so that a config can be checked before anything runs.
  """
  if grader == "auto" or grader in OWN or grader in FORKED:
    return True
  if not imports.is_path(grader):
    raise config.Error(
      f"data.grader: {grader!r} is none of auto, {', '.join(OWN)}, math, gym; a"
      " function of your own is named package.module:function or"
      " path/to/file.py:function"
    )
  return False


UNKNOWN = "boxed"
"""What `auto` takes for a source whose name says nothing."""


def name(grader: str, task: str) -> str:
  """The grader of a task: `auto` goes by its name (known.py), any other is itself."""
  return (known.grader(task) or UNKNOWN) if grader == "auto" else grader


def names(judge: config.Judge, task: str) -> list[str]:
  """The graders of a task, of which a run may have several."""
  return [name(one, task) for one in config.weights(judge)]


def resolve(grader: str, task: str) -> Grader:
  """The grader's function. Anything but one of OWN is imported here, so call it in a
  worker only.

  Raises config.Error if it cannot be imported, or is a user's function that has neither
  TRL's nor verl's parameters.
  """
  if not is_own(grader):
    return user.load(grader)
  found = name(grader, task)
  if found in OWN:
    return OWN[found]
  module_name, _, function = FORKED[found].partition(":")
  module = importlib.import_module(module_name)
  module.load()
  return getattr(module, function)
