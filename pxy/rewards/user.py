"""A function of the user's own, called as TRL or verl call it.

  TRL   f(prompts, completions, completion_ids, **columns) -> [reward or None]
        once for all responses to a prompt, so that it may compare them. Where its
        signature names them it also gets
          trainer_state  has global_step and max_steps, of updates, epoch and
                         num_train_epochs
          log_metric     (name, number): a metric of the group
          log_extra      (name, numbers): a metric of each response
  verl  compute_score(data_source, solution_str, ground_truth, extra_info)
        for one response; a number, or a dict with `score`. ground_truth is the row's
        own (`reward_model.ground_truth`, or the column): text, number, list or object

Both may be asynchronous. None is "does not apply": no grade. What a function raises
costs all that it was called with. Left out: verl's reward managers, TRL's environments
and texts for log_extra.
"""

import dataclasses
import inspect
import math
import numbers
import types
from collections.abc import Callable, Sequence

from pxy import config, imports
from pxy.rewards import sample
from pxy.rewards.sample import Item, Outcome

_NOT_COLUMNS = ("prompt", "completion")
"""TRL hands these over by their plurals."""


@dataclasses.dataclass(frozen=True)
class Function:
  """A user's function as a grader.

  Attributes:
    call: the function.
    together: whether it sees all responses to a prompt at once (TRL's).
    names: its parameters.
    takes_all: whether it takes any others.
  """

  call: Callable
  together: bool
  names: frozenset[str]
  takes_all: bool

  def __call__(self, item: Item) -> Outcome:
    return self.grade([item], {})[0]

  def grade(self, items: Sequence[Item], state: dict) -> list[Outcome]:
    """An outcome for each; of several only if `together`.

    state: what the trainer_state has.
    """
    if self.together:
      return self._trl(items, state)
    return [outcome(self._value(_verl(item))) for item in items]

  def _trl(self, items, state) -> list[Outcome]:
    told: dict[str, list[float]] = {}
    extra: list[dict[str, float]] = [{} for _ in items]

    def log_metric(name, value):
      told.setdefault(str(name), []).append(float(value))

    def log_extra(name, values):
      for own, value in zip(extra, values, strict=True):
        if (found := _number(value)) is not None:
          own[str(name)] = found

    rows = [_row(item) for item in items]
    arguments = {key: [row.get(key) for row in rows] for key in rows[0]}
    offered = {
      "trainer_state": types.SimpleNamespace(**_STATE | state),
      "log_metric": log_metric,
      "log_extra": log_extra,
    }
    arguments |= {k: v for k, v in offered.items() if k in self.names}
    values = self._value(arguments)
    if len(values) != len(items):
      raise TypeError(f"returned {len(values)} rewards for {_completions(items)}")
    metrics = {name: sum(x) / len(x) for name, x in told.items()}
    found = [outcome(value) for value in values]
    return [
      dataclasses.replace(one, metrics=one.metrics | own | metrics)
      for one, own in zip(found, extra, strict=True)
    ]

  def _value(self, arguments: dict):
    if not self.takes_all:
      arguments = {k: v for k, v in arguments.items() if k in self.names}
    value = self.call(**arguments)
    if inspect.isawaitable(value):
      import asyncio  # 30 ms of start-up that few graders need

      value = asyncio.run(_await(value))
    return value


def load(name: str) -> Function:
  """The function of that name; config.Error if it cannot be imported, or has neither
  TRL's nor verl's parameters."""
  function = imports.function(name, "data.grader")
  parameters = inspect.signature(function).parameters
  together = not parameters.keys().isdisjoint(("completions", "completion_ids"))
  if not together and "solution_str" not in parameters:
    raise config.Error(
      f"data.grader: {name!r} takes neither `completions` (TRL) nor `solution_str` "
      f"(verl), but ({', '.join(parameters)})"
    )
  takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  return Function(function, together, frozenset(parameters), takes_all)


_STATE = {"global_step": 0, "max_steps": 1, "epoch": 0.0, "num_train_epochs": 0.0}


def _completions(items) -> str:
  return "one completion" if len(items) == 1 else f"{len(items)} completions"


async def _await(value):
  return await value


def _row(item: Item) -> dict:
  """What TRL's function gets of an item. A row whose prompt is a list of messages gets
  its completion as messages too."""
  prompt, completion = item.columns.get("prompt", item.prompt), item.response
  if not isinstance(prompt, str):
    completion = [{"role": "assistant", "content": completion}]
  row = {"answer": item.answer, "solution": item.answer, "ground_truth": item.answer}
  row |= {k: v for k, v in item.columns.items() if k not in _NOT_COLUMNS}
  return row | {
    "prompts": prompt,
    "completions": completion,
    "completion_ids": item.ids,
  }


def _verl(item: Item) -> dict:
  """Arguments for compute_score."""
  model = item.columns.get("reward_model")
  truth = model.get("ground_truth") if isinstance(model, dict) else None
  if truth is None:
    truth = item.columns.get("ground_truth")
  if truth is None and isinstance(item.columns.get("answer"), (list, dict)):
    truth = item.columns["answer"]
  return {
    "data_source": item.task,
    "solution_str": item.response,
    "ground_truth": item.answer if truth is None else truth,
    "extra_info": item.columns.get("extra_info") or {},
  }


def outcome(value) -> Outcome:
  """The outcome of what a function returned; a dict's other numbers become metrics, and
  a text under `pred`, as verl's own functions have it, is the response's answer."""
  metrics, told = {}, None
  if isinstance(value, dict):
    if "score" not in value:
      return sample.failed("returned a dict without the key 'score'")
    found = {str(k): _number(v) for k, v in value.items() if k != "score"}
    metrics = {k: v for k, v in found.items() if v is not None}
    told = value["pred"] if isinstance(value.get("pred"), str) else None
    value = value["score"]
  if value is None:
    return sample.ungradable("the grader returned None")
  score = _number(value)
  if score is None:
    return sample.failed(f"returned {type(value).__name__}, not a number")
  if not math.isfinite(score):
    return sample.failed(f"returned {score}")
  return sample.scored(score, metrics, told)


def _number(value) -> float | None:
  if hasattr(value, "item"):  # numpy, torch
    value = value.item()
  return float(value) if isinstance(value, numbers.Real) else None
