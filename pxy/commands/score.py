"""`pxy score FILE`: grades of responses that are there already, by any grader.

A row of FILE has `response` and `answer`; a row of the result, in the same order, has
outcome, score, why and seconds. Other columns go to the grader: `data_source` (or
`task`) names the task, `extra_info` and the like are handed to functions of TRL's or
verl's signature. All rows are checked before one is graded.
"""

import collections
import contextlib
import json
import math
import pathlib
import sys
from collections.abc import Iterator

from pxy import config, files
from pxy.data import records, rows
from pxy.evaluate import store
from pxy.rewards import pool, tasks
from pxy.show import progress

_AHEAD = 1024
"""Samples in the pool at a time: the file may be larger than memory."""
_SHOWN = 20
_EXAMPLE = '{"response": "so \\\\boxed{3}", "answer": "3"}'


def read(path: pathlib.Path, grader: str) -> Iterator[tasks.Item | config.Error]:
  """The samples of a .jsonl file, or what is wrong with each line.

  Raises config.Error when the file itself cannot be read.
  """
  if not path.is_file():
    raise config.Error(f"{path}: no such file")
  if path.suffix != ".jsonl":
    raise config.Error(f"{path}: expected a .jsonl file, with rows such as {_EXAMPLE}")
  if (kept := store.items(path)) is not None:
    yield from kept
    return
  need = tasks.is_own(grader) and grader != "gym"
  for where, values in records.jsonl(path):
    try:
      if isinstance(values, config.Error):
        raise values
      yield _item(values, need)
    except config.Error as error:
      yield config.Error(f"{path}, {where}: {error}")


def _item(values, need_answer: bool) -> tasks.Item:
  if not isinstance(values, dict):
    raise rows.wrong("row", "an object", values, f"write {_EXAMPLE}")
  response = values.get("response")
  if not isinstance(response, str):
    raise rows.wrong("response", "text", response, f"write {_EXAMPLE}")
  task = values.get("data_source", values.get("task", ""))
  if not isinstance(task, str):
    raise rows.wrong("data_source", "text", task, "name the task, or leave it out")
  prompt = values.get("prompt", "")
  need_answer = need_answer and not task.startswith("gym:")
  if values.get("answer") == "":
    need_answer = False  # the grader says what it makes of it
  columns = {k: v for k, v in values.items() if k != "response" and v is not None}
  return tasks.Item(
    response=response,
    answer=rows.answer_of(columns, None, need_answer, _EXAMPLE),
    prompt=prompt if isinstance(prompt, str) else "",
    task=task,
    columns=columns,
  )


def command(options) -> None:
  """`pxy score`: grades to stdout or a file, a summary to stderr."""
  for path, name in ((options.out, "--out"), (options.json, "--json")):
    if path is not None:
      files.writable(path, f"{name} {path}")
  reward = config.Reward(
    workers=options.workers, deadline=options.deadline, memory_mb=options.memory_mb
  )
  tasks.is_own(options.task)
  total = _check(options.file, options.task)
  seen: collections.Counter = collections.Counter()
  whys: collections.Counter = collections.Counter()
  scores = 0.0
  with contextlib.ExitStack() as stack:
    out = sys.stdout
    if options.out is not None:
      options.out.parent.mkdir(parents=True, exist_ok=True)
      out = stack.enter_context(options.out.open("w", encoding="utf-8"))
    count = stack.enter_context(progress.counting("grade", total))
    p = stack.enter_context(pool.Pool(reward, options.task))
    for done, outcome in enumerate(_graded(p, options.file, options.task), 1):
      seen[outcome.status] += 1
      whys[outcome.why] += outcome.status != "scored"
      scores += outcome.score if outcome.status == "scored" else 0.0
      out.write(json.dumps(_row(outcome), ensure_ascii=True) + "\n")
      count(done)
  mean = scores / seen["scored"] if seen["scored"] else None
  text = f"{options.file}: {total} rows, {seen['scored']} scored"
  text += "" if mean is None else f" with mean {mean:.4f}"
  text += f", {seen['ungradable']} ungradable, {seen['failed']} failed"
  if lost := total - seen["scored"]:
    why, n = whys.most_common(1)[0]
    text += f" (most often, {n} of {lost}: {why})"
  print(text, file=sys.stderr)
  if options.json is not None:
    counts = {kind: seen[kind] for kind in ("scored", "ungradable", "failed")}
    files.write_json(
      options.json,
      {"file": str(options.file), "task": options.task, "rows": total, "mean": mean}
      | counts,
    )


def _check(path: pathlib.Path, grader: str) -> int:
  """The number of rows; config.Error, and a line for each, when rows are wrong."""
  total, bad = 0, 0
  for item in read(path, grader):
    total += 1
    if isinstance(item, config.Error):
      bad += 1
      if bad <= _SHOWN:
        print(item, file=sys.stderr)
  if bad:
    raise config.Error(
      f"{path}: {bad} of {total} rows cannot be graded; mend them as said above"
    )
  if not total:
    raise config.Error(f"{path}: no rows")
  return total


def _graded(p: pool.Pool, path, grader) -> Iterator[pool.Outcome]:
  waiting: collections.deque = collections.deque()
  for item in read(path, grader):
    if isinstance(item, config.Error):
      raise item  # the file has changed since it was checked
    waiting.append(p.submit(item))
    if len(waiting) >= _AHEAD:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _row(outcome: pool.Outcome) -> dict:
  return {
    "outcome": outcome.status,
    "score": None if math.isnan(outcome.score) else outcome.score,
    "why": outcome.why,
    "seconds": round(outcome.seconds, 6),
  } | ({"metrics": outcome.metrics} if outcome.metrics else {})
