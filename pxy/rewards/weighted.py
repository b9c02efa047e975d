"""Several rewards of one response: their weighted sum, and what each of them was.

  reward = sum over graders of weight * score

A grader that failed leaves the sample without a grade, as one alone does, and so does
one of pxy's that has nothing to grade against. None of a user's function is "does not
apply": it is left out of the sum, as TRL leaves it out. The scores before weights are
metrics, under the graders' labels.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent import futures as futures_lib

from pxy import imports
from pxy.rewards import sample


def labels(names: Sequence[str]) -> list[str]:
  """Short names of graders: of a function what follows the colon, unless two share it.

  `labels(["math", "format.py:f"]) == ["math", "f"]`.
  """
  short = [name.rpartition(":")[2] for name in names]
  return [
    one if short.count(one) == 1 else name
    for one, name in zip(short, names, strict=True)
  ]


def combine(
  weights: dict[str, float], outcomes: Sequence[sample.Outcome]
) -> sample.Outcome:
  """The outcome of a sample from those by each grader, in the weights' order."""
  total, metrics, more, answer = 0.0, {}, [], None
  seconds = sum(one.seconds for one in outcomes)
  short = labels(list(weights))
  for (name, weight), label, one in zip(weights.items(), short, outcomes, strict=True):
    if one.status == "ungradable" and imports.is_path(name):
      continue
    if one.status != "scored":
      return sample.Outcome(one.status, why=f"{label}: {one.why}", seconds=seconds)
    total += weight * one.score
    metrics[label] = one.score
    more += [(label, *item) for item in one.metrics.items()]
    answer = one.answer if answer is None else answer
  if not metrics:
    why = "; ".join(
      f"{label}: {o.why}" for label, o in zip(short, outcomes, strict=True)
    )
    return sample.Outcome("ungradable", why=why, seconds=seconds)
  for label, key, value in more:
    metrics[key if key not in metrics else f"{label}/{key}"] = value
  return sample.Outcome("scored", total, "", seconds, metrics, answer)


def gathered(
  futures: Sequence[futures_lib.Future],
  combined: Callable[[list[sample.Outcome]], sample.Outcome],
) -> futures_lib.Future:
  """A future for what is made of the outcomes of several, once all are there."""
  out: futures_lib.Future = futures_lib.Future()
  left, lock = [len(futures)], threading.Lock()

  def done(_) -> None:
    with lock:
      left[0] -= 1
      last = left[0] == 0
    if last:
      out.set_result(combined([future.result() for future in futures]))

  for future in futures:
    future.add_done_callback(done)
  return out
