"""From a task to its grader: a function of one sample with three outcomes.

  scored      the verifier has spoken
  ungradable  there is nothing to grade against, or the verifier says "not mine" (None)
  failed      the verifier erred: it raised, hung, died or returned no number

The last two are excluded from training and counted; none of them is a silent 0 or 1. A
missing or truncated answer is an ordinary score of 0.

pxy's own graders read and compare texts, by exact rules. `math` goes on to algebra
where those do not decide, and `gym` to reasoning-gym: those two are treated like a
user's function. That, named `package.module:function` or `path/to/file.py:function`, is
called as TRL or verl call it, whichever its parameters say, with a batch of one: a
sample that breaks it then costs no other. Left out: reward models, and verl's custom
reward managers.
"""

import dataclasses
import importlib
import inspect
import math
import numbers
import re
from collections.abc import Callable

from pxy import config, imports
from pxy.rewards import answer, chain, equal, known, value
from pxy.rewards import short as short_lib


@dataclasses.dataclass(frozen=True)
class Item:
  """A sample to grade. `ids` are the response's tokens; `columns` the row's others."""

  response: str
  answer: str
  prompt: str = ""
  task: str = ""
  ids: list[int] | None = None
  columns: dict = dataclasses.field(default_factory=dict)


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

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")


def arithmetic(item: Item) -> Outcome:
  """1 if the last box holds the answer's integer, of at most 1,000 digits, else 0."""
  if not _INTEGER.fullmatch(item.answer.strip()):
    return ungradable(f"the answer {item.answer[:40]!r} is no integer")
  found = (answer.boxed(item.response) or "").strip()
  same = _INTEGER.fullmatch(found) and int(found) == int(item.answer)
  return scored(1.0 if same else 0.0)


def boxed(item: Item) -> Outcome:
  """1 if the last box is the answer by the rules that need no algebra, else 0."""
  if not item.answer.strip():
    return ungradable("the answer is empty")
  found = answer.boxed(answer.said(item.response))
  return scored(found is not None and equal.decide(found, item.answer) is True)


def number(item: Item) -> Outcome:
  """1 if the response's number, or else its final one, is the answer's; for GSM8K."""
  expected = numeral(item.answer)
  if expected is None:
    return ungradable(f"the answer {item.answer[:40]!r} has no number")
  found = numeral(answer.said(item.response))
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
  it is with the answer `unknown`.
  """
  answerable = item.columns.get("answerable", True)
  if not isinstance(answerable, bool):
    return ungradable("column `answerable` must be true or false")
  if item.answer.strip().lower() == short_lib.UNKNOWN:
    answerable = False
  if not item.answer.strip() and answerable:
    return ungradable("the answer is empty")
  said = short_lib.sentence(item.response)
  question = item.columns.get("question", item.prompt)
  accepted = item.columns.get("accepted", [])
  if not isinstance(question, str) or not isinstance(accepted, list):
    return ungradable("column `question` must be text, and `accepted` a list of texts")
  accepted = [item.answer, *(name for name in accepted if isinstance(name, str))]
  right = answerable and short_lib.names(said, accepted, question)
  abstained = not right and short_lib.abstains(said)
  told = {"answer": float(right if answerable else abstained)}
  return scored(told["answer"], told | {"abstained": float(abstained)})


def choice(item: Item) -> Outcome:
  """1 if the first sentence is the answer's letter: `B`, `B.`, `(B)`, `Answer: B`.

  Column: `choices`, the texts of A, B, ..., of which the chosen one's may follow.
  """
  expected = item.answer.strip().upper()
  if len(expected) != 1 or not expected.isalpha():
    return ungradable(f"the answer {item.answer[:40]!r} is no letter")
  choices = item.columns.get("choices", [])
  if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
    return ungradable("column `choices` must be a list of texts")
  said = short_lib.sentence(item.response)
  found = short_lib.letter(said, choices)
  told = {"answer": float(found == expected)}
  abstained = not found and short_lib.abstains(said)
  return scored(told["answer"], told | {"abstained": float(abstained)})


def reference(text: str) -> str:
  """What `math` compares with: the answer, or what it has in a box."""
  inside = answer.boxed(text)
  return (text if inside is None else inside).strip()


def by_text(item: Item) -> Outcome | None:
  """The outcome of `math` as far as the rules decide it; None where algebra has to."""
  expected = reference(item.answer)
  if not expected:
    return ungradable("the answer is empty")
  found = answer.final(item.response)
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


def resolve(grader: str, task: str) -> Grader:
  """The grader's function. Anything but one of OWN is imported here, so call it in a
  worker only.

  Raises config.Error if it cannot be imported, or is a user's function that has neither
  TRL's nor verl's parameters.
  """
  if not is_own(grader):
    return _user(grader)
  found = name(grader, task)
  if found in OWN:
    return OWN[found]
  module_name, _, function = FORKED[found].partition(":")
  module = importlib.import_module(module_name)
  module.load()
  return getattr(module, function)


def _user(name: str) -> Grader:
  function = imports.function(name, "data.grader")
  parameters = inspect.signature(function).parameters
  if "completions" in parameters:
    call = _trl
  elif "solution_str" in parameters:
    call = _verl
  else:
    raise config.Error(
      f"data.grader: {name!r} takes neither `completions` (TRL) nor `solution_str` "
      f"(verl), but ({', '.join(parameters)})"
    )
  takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

  def grade(item: Item) -> Outcome:
    arguments, unpack = call(item)
    if not takes_all:
      arguments = {k: v for k, v in arguments.items() if k in parameters}
    value = function(**arguments)
    if inspect.isawaitable(value):
      import asyncio  # 30 ms of start-up that few graders need

      value = asyncio.run(_await(value))
    return _outcome(unpack(value))

  return grade


async def _await(value):
  return await value


def _trl(item: Item):
  """Arguments for f(prompts, completions, completion_ids, **columns), and its result.

  A row whose prompt is a list of messages gets its completion as messages too.
  """
  prompt, completion = item.columns.get("prompt", item.prompt), item.response
  if not isinstance(prompt, str):
    completion = [{"role": "assistant", "content": completion}]
  row = {"answer": item.answer, "solution": item.answer, "ground_truth": item.answer}
  row |= item.columns
  row |= {"prompts": prompt, "completions": completion, "completion_ids": item.ids}
  row.pop("prompt", None)

  def unpack(values):
    if len(values) != 1:
      raise TypeError(f"returned {len(values)} rewards for one completion")
    return values[0]

  return {k: [v] for k, v in row.items()}, unpack


def _verl(item: Item):
  """Arguments for compute_score, and its result as it is."""
  arguments = {
    "data_source": item.task,
    "solution_str": item.response,
    "ground_truth": item.answer,
    "extra_info": item.columns.get("extra_info") or {},
  }
  return arguments, lambda value: value


def _outcome(value) -> Outcome:
  """The outcome of what a function returned; a dict's other numbers become metrics, and
  a text under `pred`, as verl's own functions have it, is the response's answer."""
  metrics, told = {}, None
  if isinstance(value, dict):
    if "score" not in value:
      return failed("returned a dict without the key 'score'")
    found = {str(k): _number(v) for k, v in value.items() if k != "score"}
    metrics = {k: v for k, v in found.items() if v is not None}
    told = value["pred"] if isinstance(value.get("pred"), str) else None
    value = value["score"]
  if value is None:
    return ungradable("the grader returned None")
  score = _number(value)
  if score is None:
    return failed(f"returned {type(value).__name__}, not a number")
  if not math.isfinite(score):
    return failed(f"returned {score}")
  return scored(score, metrics, told)


def _number(value) -> float | None:
  if hasattr(value, "item"):  # numpy, torch
    value = value.item()
  return float(value) if isinstance(value, numbers.Real) else None
