"""Draw responses and grade them: the one path of training, evaluation and the CLI.

  collect   n graded responses to each prompt
  step      the same for a training step: it may replace groups that teach nothing
            (reward.refill), and refuses a step whose verifier fails
  grade     grades of responses that are there already (run/stored.py)

Grading starts when a response ends, while the rest of the batch is still being drawn.
Of several processes each grades its share.
"""

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.parallel import process
from pxy.rewards import pool as pool_lib
from pxy.rewards import sample as sample_lib
from pxy.rl import rollout
from pxy.safety import interrupt, watchdog
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

  @property
  def heard(self) -> str:
    """The text as its grader reads it."""
    return sample_lib.heard(self.text, self.prompt.in_think)


@dataclasses.dataclass(frozen=True)
class Graded:
  """Graded responses in groups, one for each prompt: answers[p][r].

  Attributes:
    gen_seconds: of drawing; grade_seconds: of grading on top of it.
  """

  answers: list[list[Answer]]
  gen_seconds: float = 0.0
  grade_seconds: float = 0.0

  @property
  def flat(self) -> list[Answer]:
    """All answers, group by group."""
    return [answer for group in self.answers for answer in group]

  @property
  def prompts(self) -> list[prompts_lib.Prompt]:
    """The prompt of each group."""
    return [group[0].prompt for group in self.answers]

  @property
  def texts(self) -> list[list[str]]:
    return [[answer.text for answer in group] for group in self.answers]

  @property
  def scores_PR(self) -> np.ndarray:
    """float64, nan where there is none."""
    return self._each(lambda answer: answer.outcome.score)

  @property
  def valid_PR(self) -> np.ndarray:
    """Which samples have a score."""
    return self._each(lambda answer: answer.outcome.status == "scored")

  @property
  def length_PR(self) -> np.ndarray:
    """Tokens of the responses, stop tokens included."""
    return self._each(lambda answer: len(answer.sample.ids))

  @property
  def total_PR(self) -> np.ndarray:
    """log p of stored responses under what drew them, nats; nan where not known."""
    return self._each(lambda answer: answer.sample.total)

  @property
  def truncated_PR(self) -> np.ndarray:
    """Which responses the length limit has ended."""
    return self._each(lambda answer: answer.sample.stop == "length")

  def rollouts(self) -> rollout.Rollouts:
    """The responses as arrays, with their prompts and the sampler's log-probs."""
    return rollout.stack(
      [prompt.ids for prompt in self.prompts],
      [[answer.sample.ids for answer in group] for group in self.answers],
      [[answer.sample.logp for answer in group] for group in self.answers],
    )

  @property
  def mask_BT(self) -> np.ndarray | None:
    """Which tokens of `rollouts` are trained on; None: all of them."""
    rows = [answer.sample.mask for answer in self.flat]
    if all(row is None for row in rows):
      return None
    length_B = self.length_PR.reshape(-1)
    whole = [np.ones(n, bool) for n in length_B]
    rows = [w if row is None else row for w, row in zip(whole, rows, strict=True)]
    return rollout.pad(rows, bool)[0]

  @property
  def adv_BT(self) -> np.ndarray | None:
    """Advantages of the tokens of `rollouts`; None: they have their response's."""
    rows = [answer.sample.adv for answer in self.flat]
    return None if rows[0] is None else rollout.pad(rows, np.float32)[0]

  def _each(self, of) -> np.ndarray:
    return np.array([[of(answer) for answer in group] for group in self.answers])


@dataclasses.dataclass(frozen=True)
class Collector:
  """What draws and grades: `collect` and `step` use it.

  Attributes:
    engine: draws.
    pool: grades.
    tokenizer: makes texts of ids.
    stop: asked at every polling point whether to end.
    watch: names what is waited for.
    on_answer: gets the number of responses drawn so far.
    updates, epochs: of the whole run, for graders that ask how far it is.
  """

  engine: engine_lib.Engine
  pool: pool_lib.Pool
  tokenizer: object
  stop: Callable[[], bool] | None = None
  watch: watchdog.Watchdog = dataclasses.field(default_factory=watchdog.Watchdog)
  on_answer: Callable[[int], None] | None = None
  updates: int = 1
  epochs: float = 0.0

  def state(self, version: int) -> dict:
    """What graders are told of a run after so many updates, by TRL's names."""
    return {
      "global_step": version,
      "max_steps": self.updates,
      "epoch": self.epochs * version / max(self.updates, 1),
      "num_train_epochs": self.epochs,
    }


def step(
  collector: Collector,
  params,
  rounds: Sequence[Sequence[prompts_lib.Prompt]],
  n: int,
  *,
  key,
  version: int,
  max_failed: float,
) -> Graded:
  """The graded responses of a training step: n to each prompt of rounds[0].

  Args:
    rounds: the step's prompts; and spare ones, for each further round that may replace
      groups without contrast.
    key: JAX key of the step.
    version: updates that `params` have seen; every response carries it.
    max_failed: share of samples without a grade, above which the run ends.

  Raises:
    config.Error: too many samples got no grade.
    interrupt.Stopped: an end was asked for.
  """

  def draw(prompts, number):
    key_of = jax.random.fold_in(key, number)
    found = collect(collector, params, prompts, n, key=key_of, version=version)
    refuse_failures(found, max_failed)
    return found

  return refilled(draw, rounds)


def collect(
  collector: Collector,
  params,
  prompts: Sequence[prompts_lib.Prompt],
  n: int,
  *,
  key,
  first: int = 0,
  version: int = 0,
) -> Graded:
  """n graded responses to each prompt, those from number `first` on.

  Response r to prompt p depends on (key, uid of p, r) only. A prompt that stands more
  than once in `prompts` gets different responses at each place.

  Raises:
    interrupt.Stopped: an end was asked for.
  """
  stop, watch = collector.stop, collector.watch
  start = time.perf_counter()
  texts, futures = {}, {}
  state = collector.state(version)
  groups = {p: pool_lib.Group(n, state) for p in process.share(range(len(prompts)))}

  def ending():
    watch.beat("sample")
    return stop is not None and stop()

  def finished(p, r, sample):
    texts[p, r] = collector.tokenizer.decode(sample.ids.tolist())
    if collector.on_answer is not None:
      collector.on_answer(len(texts))
    if p in groups:
      item = _item(prompts[p], sample, texts[p, r])
      futures[p, r] = collector.pool.submit(item, groups[p], r)

  with watch("sample"):
    samples = collector.engine.run(
      params,
      [p.ids for p in prompts],
      n,
      key=key,
      uids=_distinct([p.uid for p in prompts]),
      first=first,
      version=version,
      on_finish=finished,
      stop=ending,
    )
  drawn = time.perf_counter()
  outcomes = _outcomes(collector, futures)
  answers = [
    [
      Answer(prompts[p], sample, texts[p, r], outcomes[p, r])
      for r, sample in enumerate(group)
    ]
    for p, group in enumerate(samples)
  ]
  return Graded(answers, drawn - start, time.perf_counter() - drawn)


def grade(
  collector: Collector, groups: Sequence[Sequence[Answer]], *, version: int = 0
) -> Graded:
  """The same answers, groups of equal size, with the grades of the collector's pool.

  version: updates made, for graders that ask. Raises interrupt.Stopped.
  """
  start, futures = time.perf_counter(), {}
  state = collector.state(version)
  for p in process.share(range(len(groups))):
    group = pool_lib.Group(len(groups[p]), state)
    for r, answer in enumerate(groups[p]):
      item = _item(answer.prompt, answer.sample, answer.text)
      futures[p, r] = collector.pool.submit(item, group, r)
  outcomes = _outcomes(collector, futures)
  answers = [
    [
      dataclasses.replace(answer, outcome=outcomes[p, r])
      for r, answer in enumerate(group)
    ]
    for p, group in enumerate(groups)
  ]
  return Graded(answers, 0.0, time.perf_counter() - start)


def _item(prompt, sample, text) -> pool_lib.Item:
  """What a grader is given of a response."""
  return pool_lib.Item(
    response=text,
    answer=prompt.answer,
    prompt=prompt.text,
    task=prompt.task,
    ids=sample.ids.tolist(),
    columns=prompt.columns,
    in_think=prompt.in_think,
  )


def _outcomes(collector: Collector, futures: dict) -> dict:
  """The outcomes of all processes by (prompt, response), once they are there. Each has
  graded its share, and a grade may depend on the clock: all go on with the one that was
  given."""
  stop, watch, waiting = collector.stop, collector.watch, set(futures.values())
  with watch("grade"):
    while process.some(bool(waiting)):
      done, waiting = concurrent.futures.wait(waiting, POLL)
      if done or not waiting:  # others may be slower
        watch.beat("grade")
      if process.some(bool(waiting)) and stop is not None and stop():
        raise interrupt.Stopped
  mine = {at: future.result() for at, future in futures.items()}
  if process.count() == 1:
    return mine
  found = process.exchange(
    [[*at, dataclasses.asdict(outcome)] for at, outcome in mine.items()]
  )
  return {(p, r): pool_lib.Outcome(**x) for part in found for p, r, x in part}


def refilled(
  draw: Callable[[Sequence[prompts_lib.Prompt], int], Graded],
  rounds: Sequence[Sequence[prompts_lib.Prompt]],
) -> Graded:
  """Dynamic sampling, bounded: groups without contrast make room for new prompts.

  rounds[0] is the batch; each further round replaces the groups whose scores are all
  equal, which teach nothing to a method that compares them. What is still flat after
  the last round stays: the step goes on with less.

  draw(prompts, round) draws and grades.
  """
  graded = draw(rounds[0], 0)
  for number, spare in enumerate(rounds[1:], 1):
    flat = [p for p, scores in enumerate(graded.scores_PR) if not _contrast(scores)]
    if not flat:
      break
    more = draw(spare[: len(flat)], number)
    answers = list(graded.answers)
    for p, group in zip(flat, more.answers, strict=True):
      answers[p] = group
    graded = Graded(
      answers,
      graded.gen_seconds + more.gen_seconds,
      graded.grade_seconds + more.grade_seconds,
    )
  return graded


def _contrast(scores_R: np.ndarray) -> bool:
  known = scores_R[np.isfinite(scores_R)]
  return known.size > 0 and bool((known != known[0]).any())


def refuse_failures(graded: Graded, most: float) -> None:
  """Stops a run whose verifier fails: config.Error above the share `most`."""
  lost = [a.outcome for a in graded.flat if a.outcome.status != "scored"]
  total = len(graded.flat)
  if len(lost) > most * total:
    why = collections.Counter(outcome.why for outcome in lost).most_common(1)[0][0]
    raise config.Error(
      f"{len(lost)} of {total} samples got no grade (most often: {why}), more than"
      f" reward.max_failed {most:.0%}; mend the grader or raise the limit"
    )


def refuse_stale(graded: Graded, version: int) -> None:
  """Lets responses through that the policy drew after `version` updates; else a
  config.Error: they would be trained on as if the present weights had drawn them."""
  found = {answer.sample.version for answer in graded.flat}
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
