"""A probe in the midst of a run: the quick plan of the model's world, on the weights as
they are, with the responses alone.

The responses are drawn anew each time with the same keys, so that two steps answer with
the same luck, and the run's own keys are not touched. What takes passes over other
contexts and texts (P(y), `kept`) is not among it, and no nulls are: `pxy probe RUN` has
both.
"""

import dataclasses
import pathlib

import jax

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.evaluate import plans, probe, samples, store
from pxy.measures import estimate
from pxy.sampling import collect

ELSEWHERE = "contexts"
"""A part of probe.PARTS that needs log-probs of more than was drawn."""


@dataclasses.dataclass(frozen=True)
class Glance:
  """What is asked of a world, small.

  Attributes:
    plan: with its asks made smaller.
    prompts: of each ask.
  """

  plan: plans.Plan
  prompts: tuple[list[prompts_lib.Prompt], ...]

  @property
  def total(self) -> int:
    """Responses that are drawn."""
    pairs = zip(self.plan.asks, self.prompts, strict=True)
    return sum(ask.samples * len(prompts) for ask, prompts in pairs)

  def limits(self, training: config.Sampling) -> config.Sampling:
    """The sampling of a probe: whole distributions, of the length that the plan has."""
    return dataclasses.replace(
      training,
      temperature=1.0,
      top_p=1.0,
      top_k=0,
      max_new_tokens=self.plan.max_new_tokens,
    )

  def __call__(
    self, collector: collect.Collector, params, *, seed: int, version: int
  ) -> dict[str, float]:
    """probe/NAME, probe/NAME/low and probe/NAME/high of each measure.

    Raises interrupt.Stopped when the collector's `stop` asks for an end.
    """
    specs, done, count = [], 0, collector.on_answer
    for ask, prompts in zip(self.plan.asks, self.prompts, strict=True):
      counted = count and (lambda n, done=done: count(done + n))
      graded = collect.collect(
        dataclasses.replace(collector, on_answer=counted),
        params,
        prompts,
        ask.samples,
        key=jax.random.key(seed),
        version=version,
      )
      specs += probe.specs(
        probe.table(_stored(graded, ask.samples, seed, collector)),
        [part for part in ask.parts if part != ELSEWHERE],
      )
      done += len(prompts) * ask.samples
    out = {}
    found = estimate.measures([dataclasses.replace(spec, null=None) for spec in specs])
    for name, one in sorted(found.items()):
      out[f"probe/{name}"] = one.value
      out[f"probe/{name}/low"], out[f"probe/{name}/high"] = one.low, one.high
    return out


def make(name: str, tokenizer) -> Glance:
  """That of a model's world; config.Error where it is of none."""
  found = plans.of_tokenizer(tokenizer)
  if found is None:
    raise config.Error(
      f"probe_every: {name} is of none of pxy's worlds; leave it out, and measure the"
      " checkpoints with pxy probe RUN --task TASK"
    )
  small = found[1].smaller()
  asks = tuple(ask for ask in small.asks if ask.parts != (ELSEWHERE,))
  plan = dataclasses.replace(small, asks=asks)

  def prompts(ask):
    data = config.Data(task=ask.task, max_prompt_tokens=plan.max_prompt_tokens)
    return prompts_lib.load(data, tokenizer, "test").first(ask.problems)

  return Glance(plan, tuple(map(prompts, asks)))


def _stored(graded: collect.Graded, n: int, seed: int, collector) -> store.Stored:
  """Responses that are in no file; log p under the prompt is the sampler's own."""
  ids = store.ids(graded.prompts)
  problems = [
    store.problem(prompt, place, name, None)
    for place, (prompt, name) in enumerate(zip(graded.prompts, ids, strict=True))
  ]

  def row(answer, name, r):
    logp = {"prompt": float(answer.sample.logp.sum())}
    return samples.row(answer, name, r, seed, collector) | {"logp": logp}

  groups = [
    [row(answer, name, r) for r, answer in enumerate(group)]
    for name, group in zip(ids, graded.answers, strict=True)
  ]
  about = {"samples": n, "contexts": ["prompt"]}
  return store.of_rows(pathlib.Path(), about, problems, groups)
