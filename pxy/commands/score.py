"""`pxy score FILE`: grades of responses that are there already, by any grader.

A row of FILE has `response` and `answer`; a row of the result, in the same order, has
outcome, score, why and seconds. Other columns go to the grader: `data_source` (or
`task`) names the task, `extra_info` and the like are handed to functions of TRL's or
verl's signature. Rows that follow each other with one prompt and answer are a group for
those that see one. All rows are checked before one is graded.
"""

import collections
import contextlib
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Iterator

from pxy import config, files
from pxy.bucket import mirror, objects
from pxy.data import records, rows, sources
from pxy.evaluate import store
from pxy.rewards import pool, tasks
from pxy.show import progress

_AHEAD = 1024
"""Samples in the pool at a time: the file may be larger than memory."""
_SHOWN = 20
_EXAMPLE = '{"response": "so \\\\boxed{3}", "answer": "3"}'


def read(
  path: pathlib.Path, judge: config.Judge
) -> Iterator[tasks.Item | config.Error]:
  """The samples of a .jsonl file, or what is wrong with each line.

  Raises config.Error when the file itself cannot be read.
  """
  name = mirror.name(path)
  if not path.is_file():
    raise config.Error(f"{name}: no such file")
  if path.suffix != ".jsonl":
    raise config.Error(f"{name}: expected a .jsonl file, with rows such as {_EXAMPLE}")
  if (kept := store.items(path)) is not None:
    yield from kept
    return
  need = sources.needs_answer(judge, "")
  for where, values in records.jsonl(path):
    try:
      if isinstance(values, config.Error):
        raise values
      yield _item(values, need)
    except config.Error as error:
      yield config.Error(f"{name}, {where}: {error}")


def _here(word: str) -> pathlib.Path:
  """The file that a word names; what is in a bucket is fetched."""
  if not objects.is_url(word):
    return pathlib.Path(word)
  if (kept := store.held(word)) is not None:
    return kept
  found = records.paths(word)
  if len(found) > 1:
    raise config.Error(f"{word}: {len(found)} files; name one")
  return found[0]


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
  answers = rows.answers_of(columns, None, need_answer, _EXAMPLE)
  return tasks.Item(
    response=response,
    answer=answers[0],
    prompt=prompt if isinstance(prompt, str) else "",
    task=task,
    columns=rows.accepting(columns, answers),
  )


def command(options) -> None:
  """`pxy score`: grades to stdout or a file, a summary to stderr."""
  for path, name in ((options.out, "--out"), (options.json, "--json")):
    if path is not None:
      files.writable(path, f"{name} {path}")
  reward = config.Reward(
    workers=options.workers, deadline=options.deadline, memory_mb=options.memory_mb
  )
  judge = config.Data(grader=options.task, rewards=options.reward).judge
  if options.reward and options.task != config.Data().grader:
    raise config.Error("--task beside --reward: name all graders with --reward")
  for name in config.weights(judge):
    tasks.is_own(name)
  path = _here(options.file)
  total = _check(path, judge)
  seen: collections.Counter = collections.Counter()
  whys: collections.Counter = collections.Counter()
  scores = 0.0
  with contextlib.ExitStack() as stack:
    out = sys.stdout
    if options.out is not None:
      options.out.parent.mkdir(parents=True, exist_ok=True)
      out = stack.enter_context(options.out.open("w", encoding="utf-8"))
    count = stack.enter_context(progress.counting("grade", total))
    p = stack.enter_context(pool.Pool(reward, judge))
    parts: dict[str, list[float]] = {label: [] for label in p.labels}
    for done, outcome in enumerate(_graded(p, path, judge), 1):
      seen[outcome.status] += 1
      whys[outcome.why] += outcome.status != "scored"
      scores += outcome.score if outcome.status == "scored" else 0.0
      for label in parts.keys() & outcome.metrics.keys():
        parts[label].append(outcome.metrics[label])
      out.write(json.dumps(_row(outcome), ensure_ascii=True) + "\n")
      count(done)
  mean = scores / seen["scored"] if seen["scored"] else None
  text = f"{options.file}: {total} rows, {seen['scored']} scored"
  text += "" if mean is None else f" with mean {mean:.4f}"
  text += f", {seen['ungradable']} ungradable, {seen['failed']} failed"
  if lost := total - seen["scored"]:
    why, n = whys.most_common(1)[0]
    text += f" (most often, {n} of {lost}: {why})"
  rewards = {label: _spread(found) for label, found in parts.items()}
  for label, (center, sd) in rewards.items():
    text += f"; {label}: mean {center:.4f}, sd {sd:.4f}"
  print(text, file=sys.stderr)
  if options.json is not None:
    counts = {kind: seen[kind] for kind in ("scored", "ungradable", "failed")}
    files.write_json(
      options.json,
      {"file": options.file, "task": options.task, "rows": total, "mean": mean}
      | counts
      | ({"rewards": _plain(rewards)} if rewards else {}),
    )


def _spread(found: list[float]) -> tuple[float, float]:
  """Mean and standard deviation; nan of none."""
  if not found:
    return math.nan, math.nan
  return statistics.fmean(found), statistics.pstdev(found)


def _plain(rewards: dict[str, tuple[float, float]]) -> dict:
  return {
    label: {"mean": None, "sd": None} if math.isnan(m) else {"mean": m, "sd": sd}
    for label, (m, sd) in rewards.items()
  }


def _check(path: pathlib.Path, judge: config.Judge) -> int:
  """The number of rows; config.Error, and a line for each, when rows are wrong."""
  total, bad = 0, 0
  for item in read(path, judge):
    total += 1
    if isinstance(item, config.Error):
      bad += 1
      if bad <= _SHOWN:
        print(item, file=sys.stderr)
  name = mirror.name(path)
  if bad:
    raise config.Error(
      f"{name}: {bad} of {total} rows cannot be graded; mend them as said above"
    )
  if not total:
    raise config.Error(f"{name}: no rows")
  return total


def _graded(p: pool.Pool, path, judge) -> Iterator[pool.Outcome]:
  waiting: collections.deque = collections.deque()
  for items in _groups(read(path, judge), bool(p.together)):
    group = pool.Group(len(items))
    waiting += [p.submit(item, group, r) for r, item in enumerate(items)]
    while len(waiting) >= _AHEAD:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _groups(items, together: bool) -> Iterator[list[tasks.Item]]:
  """The items one by one; or those of one prompt that follow each other together."""
  group: list[tasks.Item] = []
  for item in items:
    if isinstance(item, config.Error):
      raise item  # the file has changed since it was checked
    if group and not (
      together
      and len(group) < _AHEAD
      and item.prompt
      and _about(item) == _about(group[0])
    ):
      yield group
      group = []
    group.append(item)
  if group:
    yield group


def _about(item: tasks.Item) -> tuple:
  return item.prompt, item.answer, item.task


def _row(outcome: pool.Outcome) -> dict:
  return {
    "outcome": outcome.status,
    "score": None if math.isnan(outcome.score) else outcome.score,
    "why": outcome.why,
    "seconds": round(outcome.seconds, 6),
  } | ({"metrics": outcome.metrics} if outcome.metrics else {})
