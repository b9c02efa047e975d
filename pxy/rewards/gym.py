"""Tasks of reasoning-gym, by name: `gym:chain_sum?min_terms=2,max_terms=3`.

reasoning-gym (Apache-2.0, https://github.com/open-thought/reasoning-gym) has over a
hundred procedural tasks. Each makes entries (question, answer, metadata), and scores an
answer against an entry with 0 to 1. Some of the scorers evaluate the answer, so they
run in a fork of a worker, like a user's function; `data/gym.py` has the other half.

Options are those of the task's config class, checked by name and type. What is handed
to the scorer is the answer alone, never the whole response: the last box, or else what
stands between the last <answer> tags, or else the final number if the reference is one;
never what stands in <think>. A scorer that raises at the answer, and not at the
reference, has met a malformed one: 0.
"""

import dataclasses
import difflib
import importlib
import json
import re
import types
import typing

from pxy import config, fields
from pxy.rewards import answer, tasks

PREFIX = "gym:"
_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")
_TAG = re.compile(r"<answer>(.{0,10000}?)</answer>", re.DOTALL)
_RENDERED = ("size", "seed")


def load():
  """The package; config.Error with the cure where it is missing."""
  try:
    return importlib.import_module("reasoning_gym")
  except ImportError as error:
    raise config.Error(
      f"gym: tasks need reasoning-gym ({error}): pip install reasoning-gym"
    ) from None


def grade(item: tasks.Item) -> tasks.Outcome:
  """The task's own score of the answer in the response, 0 to 1."""
  name, options = parse(item.task)
  entry = {"question": item.prompt, "answer": item.answer, "metadata": {}} | {
    key: item.columns[key] for key in ("question", "answer", "metadata")
    if key in item.columns
  }  # fmt: skip
  found = extract(item.text, item.answer)
  if found is None:
    return tasks.scored(0.0)
  if item.answer and found == item.answer:
    return tasks.scored(1.0)
  options = {key: value for key, value in options.items() if key not in _RENDERED}
  task = create(name, options)
  try:
    return tasks.scored(task.score_answer(found, entry))
  except (MemoryError, RecursionError):
    raise
  except Exception:
    task.score_answer(str(entry["answer"]), entry)  # raises where the fault is its own
    return tasks.scored(0.0)


def extract(response: str, reference: str) -> str | None:
  """The answer inside a response; see the top."""
  response = answer.said(response)
  found = answer.boxed(response)
  if found is None:
    start = response.rfind("<answer>")
    tagged = _TAG.match(response, start) if start >= 0 else None
    found = tagged[1] if tagged else None
  if found is None and answer.final_number(reference) == reference:
    found = answer.final_number(response)
  return None if found is None else found.strip()


def parse(task: str) -> tuple[str, dict]:
  """Name and options of a task; config.Error for any that it does not have."""
  gym = load()
  name, _, text = task.removeprefix(PREFIX).partition("?")
  if name not in gym.factory.DATASETS:
    known = gym.factory.DATASETS
    near = ", ".join(difflib.get_close_matches(name, known, 3) or sorted(known)[:5])
    raise config.Error(f"{task}: reasoning-gym has no task {name!r}; is it {near}?")
  hints = typing.get_type_hints(gym.factory.DATASETS[name][1])
  options = {}
  for part in _OPTION.split(text) if text else []:
    key, equals, value = part.partition("=")
    if not equals or key not in hints:
      raise config.Error(
        f"{task}: {key!r} is no option of {name}; there are {', '.join(hints)}"
      )
    options[key] = _typed(hints[key], _value(value), f"{task}: {key}")
  return name, options


def create(name: str, options: dict):
  """The task's data set; config.Error where its own checks refuse the options."""
  try:
    return load().create_dataset(name, **options)
  except Exception as error:  # a task may assert anything
    reason = fields.line(error) or type(error).__name__
    raise config.Error(f"gym:{name}: it refuses {options}: {reason}") from None


def _value(text: str):
  try:
    return json.loads(text)
  except ValueError:
    return text


def _typed(hint, value, where: str):
  origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    if value is None and type(None) in args:
      return None
    return _typed(next(a for a in args if a is not type(None)), value, where)
  if origin is typing.Literal:
    if value not in args:
      raise config.Error(f"{where}: must be one of {', '.join(map(str, args))}")
    return value
  if isinstance(origin, type) and origin is not str and hasattr(origin, "__iter__"):
    if dataclasses.is_dataclass(origin) or not isinstance(value, list):
      raise config.Error(
        f'{where}: expected a list, such as ["a","b"], found {value!r}'
      )
    return tuple(value) if origin is tuple else value
  if origin is float and type(value) is int:
    return float(value)
  if origin is str and type(value) in (int, float):
    return str(value)
  if origin not in (int, float, str, bool):
    raise config.Error(f"{where}: cannot be given here")
  if type(value) is not origin:
    raise config.Error(f"{where}: expected {origin.__name__}, found {value!r}")
  return value
