"""Entries of a reasoning-gym task as rows; see rewards/gym.py for names and options.

Entry i is a function of (task, options, seed, i). `size` of them are drawn, 2,500
unless the options say otherwise; of equal questions the first stays. A hash of the
question names the split, so train, validation and test are disjoint: 80, 10 and 10 %.

The whole entry goes along as the row's columns, for `score_answer` in the worker.
"""

import contextlib
import functools
import hashlib
import io

from pxy import config
from pxy.data import rows
from pxy.rewards import gym
from pxy.show import progress

SIZE = 2500
_SPLIT_OF_BUCKET = ("test", "validation", *["train"] * 8)


def read(task: str, split: str) -> list[tuple[int, rows.Row]]:
  """(number, row) of a split; config.Error for an unknown task, option or split."""
  if split not in _SPLIT_OF_BUCKET:
    known = ", ".join(dict.fromkeys(reversed(_SPLIT_OF_BUCKET)))
    raise config.Error(f"{task}: split {split!r} is none of {known}")
  return [(uid, row) for uid, row in _all(task) if row.split == split]


@functools.lru_cache(maxsize=4)
def _all(task: str) -> tuple[tuple[int, rows.Row], ...]:
  name, options = gym.parse(task)
  options = {"size": SIZE, "seed": 0} | options
  dataset = gym.create(name, options)
  found, seen = [], set()
  quiet = contextlib.redirect_stdout(io.StringIO())  # some talk; stdout may be JSON
  with progress.counting(task, options["size"]) as count, quiet:
    for uid in range(options["size"]):
      entry = dataset[uid]
      question = entry["question"]
      if question not in seen:
        seen.add(question)
        found.append((uid, _row(task, entry)))
      count(uid + 1)
  return tuple(found)


def _row(task: str, entry: dict) -> rows.Row:
  question, reference = entry["question"], entry["answer"]
  bucket = hashlib.sha256(question.encode()).digest()[0] % len(_SPLIT_OF_BUCKET)
  return rows.Row(
    messages=[{"role": "user", "content": question}],
    answer="" if reference is None else str(reference),
    task=task,
    split=_SPLIT_OF_BUCKET[bucket],
    columns={
      "question": question,
      "answer": reference,
      "metadata": entry["metadata"],
    },
  )
