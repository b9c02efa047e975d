"""Draw responses and grade them: the one path of training, evaluation and the CLI.

Grading starts when a response ends, while the rest of the batch is still being drawn.
Of several processes each grades its share.
"""

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.parallel import process
from pxy.rewards import pool as pool_lib
from pxy.safety import watchdog
from pxy.sampling import engine as engine_lib

POLL = 0.5
"""Seconds between looks at `stop` while grades are waited for."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """One response with its grade."""

  prompt: prompts_lib.Prompt
  sample: engine_lib.Sample
  text: str
  outcome: pool_lib.Outcome


@dataclasses.dataclass(frozen=True)
class Batch:
  """answers[p][r], the seconds of drawing, and those of grading on top of it."""

  answers: list[list[Answer]]
  gen_seconds: float
  grade_seconds: float

  @property
  def scores_PR(self) -> np.ndarray:
    """Scores, nan where there is none."""
    return np.array([[a.outcome.score for a in group] for group in self.answers])

  @property
  def valid_PR(self) -> np.ndarray:
    """Which samples have a score."""
    return np.array(
      [[a.outcome.status == "scored" for a in group] for group in self.answers]
    )


def collect(
  engine: engine_lib.Engine,
  pool: pool_lib.Pool,
  tokenizer,
  params,
  prompts: Sequence[prompts_lib.Prompt],
  n: int,
  *,
  key,
  version: int = 0,
  on_answer: Callable[[int], None] | None = None,
  stop: Callable[[], bool] | None = None,
  watch: watchdog.Watchdog | None = None,
) -> Batch:
  """n graded responses to each prompt; `on_answer` gets the number drawn so far.

  Response r to prompt p depends on (key, uid of p, r) only. A prompt that stands more
  than once in `prompts` gets different responses at each place.
  """
  start = time.perf_counter()
  texts, futures = {}, {}
  mine = set(process.share([(p, r) for p in range(len(prompts)) for r in range(n)]))
  watch = watch or watchdog.Watchdog()

  def ending():
    watch.beat("sample")
    return stop is not None and stop()

  def finished(p, r, sample):
    texts[p, r] = tokenizer.decode(sample.ids.tolist())
    if on_answer is not None:
      on_answer(len(texts))
    if (p, r) not in mine:
      return
    prompt = prompts[p]
    futures[p, r] = pool.submit(
      pool_lib.Item(
        response=texts[p, r],
        answer=prompt.answer,
        prompt=prompt.text,
        task=prompt.task,
        ids=sample.ids.tolist(),
        columns=prompt.columns,
      )
    )

  with watch("sample"):
    samples = engine.run(
      params,
      [p.ids for p in prompts],
      n,
      key=key,
      uids=_distinct([p.uid for p in prompts]),
      version=version,
      on_finish=finished,
      stop=ending,
    )
  drawn = time.perf_counter()
  waiting = set(futures.values())
  with watch("grade"):
    while process.some(bool(waiting)):
      done, waiting = concurrent.futures.wait(waiting, POLL)
      if done or not waiting:  # others may be slower
        watch.beat("grade")
      if process.some(bool(waiting)) and ending():
        raise engine_lib.Stopped
    outcomes = _outcomes({at: future.result() for at, future in futures.items()})
  answers = [
    [
      Answer(prompts[p], sample, texts[p, r], outcomes[p, r])
      for r, sample in enumerate(group)
    ]
    for p, group in enumerate(samples)
  ]
  return Batch(answers, drawn - start, time.perf_counter() - drawn)


def _outcomes(mine: dict) -> dict:
  """The outcomes of all processes by (prompt, response). Each has graded its share, and
  a grade may depend on the clock: all go on with the one that was given."""
  if process.count() == 1:
    return mine
  found = process.exchange(
    [[*at, dataclasses.asdict(outcome)] for at, outcome in mine.items()]
  )
  return {(p, r): pool_lib.Outcome(**x) for part in found for p, r, x in part}


def refilled(
  draw: Callable[[Sequence[prompts_lib.Prompt], int], Batch],
  rounds: Sequence[Sequence[prompts_lib.Prompt]],
) -> Batch:
  """Dynamic sampling, bounded: groups without contrast make room for new prompts.

  rounds[0] is the batch; each further round replaces the groups whose scores are all
  equal, which teach nothing to a method that compares them. What is still flat after
  the last round stays: the step goes on with less.

  draw(prompts, round) draws and grades.
  """
  batch = draw(rounds[0], 0)
  for number, spare in enumerate(rounds[1:], 1):
    flat = [p for p, scores in enumerate(batch.scores_PR) if not _contrast(scores)]
    if not flat:
      break
    more = draw(spare[: len(flat)], number)
    answers = list(batch.answers)
    for p, group in zip(flat, more.answers, strict=True):
      answers[p] = group
    batch = Batch(answers, batch.gen_seconds, batch.grade_seconds)
  return batch


def _contrast(scores_R: np.ndarray) -> bool:
  known = scores_R[np.isfinite(scores_R)]
  return known.size > 0 and bool((known != known[0]).any())


def refuse_failures(batch: Batch, most: float) -> None:
  """Stops a run whose verifier fails: config.Error above the share `most`."""
  lost = [a.outcome for g in batch.answers for a in g if a.outcome.status != "scored"]
  total = sum(len(group) for group in batch.answers)
  if len(lost) > most * total:
    why = collections.Counter(outcome.why for outcome in lost).most_common(1)[0][0]
    raise config.Error(
      f"{len(lost)} of {total} samples got no grade (most often: {why}), more than"
      f" reward.max_failed {most:.0%}; mend the grader or raise the limit"
    )


def refuse_stale(batch: Batch, version: int) -> None:
  """Lets a batch through that was drawn by the policy after `version` updates; else a
  config.Error: it would be trained on as if the present weights had drawn it."""
  found = {a.sample.version for group in batch.answers for a in group}
  if found != {version}:
    raise config.Error(
      f"rollouts of policy version {', '.join(map(str, sorted(found)))} for an update"
      f" of version {version}: stale ones are not trained on; continue from the last"
      " checkpoint with --resume auto"
    )


def _distinct(uids: Sequence[int]) -> list[int]:
  """uids, those that stand earlier in the list moved; the engine takes 32 bits."""
  taken, out = set(), []
  for uid in uids:
    while uid in taken:
      uid = (uid + 0x9E3779B1) % 2**32  # odd, so it comes by every number
    taken.add(uid)
    out.append(uid)
  return out
