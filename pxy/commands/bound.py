"""`pxy bound`: what a run does beside what its base could already do.

Every number is of stored samples (--save); how likely one model's text is to the other
needs the models, and is kept beside them.
"""

import dataclasses
import functools

import numpy as np

from pxy import config, files
from pxy.commands import eval as eval_lib
from pxy.commands import probe as probe_lib
from pxy.data import world_problems
from pxy.evaluate import probe, store
from pxy.measures import bound, diversity, estimate
from pxy.report import page
from pxy.show import progress

GUESSES = 64
"""Answers without reasoning, to each problem."""
SCORED = 8
"""Responses to a problem that are scored under the other model."""
MATCHED = (16, 7)
"""To find a temperature: samples to each problem, halvings. All problems: entropies
that agreed on the first 64 of 384 differed by .13 nats on all."""

_TRAINED = "a run is held against the base that it was trained from"


@dataclasses.dataclass(frozen=True)
class _Arm:
  """A model's responses: what one curve is of."""

  label: str
  examined: probe_lib.Examined
  table: probe.Table

  @functools.cached_property
  def specs(self) -> list[estimate.Spec]:
    """Its curves; and answer entropy beside token entropy: a model may be sure of its
    words and not of its answers."""
    t = self.table
    return [
      *probe.PARTS["bound"](t),
      diversity.answer_entropy(t.ids, t.answer_PR),
      diversity.token_entropy(t.ids, t.stored.entropy_PR, t.stored.length_PR),
    ]

  @functools.cached_property
  def measures(self) -> dict[str, estimate.Measure]:
    """Of its `specs`."""
    return estimate.measures(self.specs)

  @functools.cached_property
  def sometimes(self) -> np.ndarray:
    """Problems that it solves sometimes [P]."""
    return bound.sometimes(probe.best(self.table))

  @property
  def own(self) -> tuple[np.ndarray, np.ndarray]:
    """log p of its first responses under itself, and their tokens [P, SCORED]."""
    stored = self.table.stored
    return stored.logp["prompt"][:, :SCORED], stored.length_PR[:, :SCORED]

  @functools.cached_property
  def gold(self) -> tuple[np.ndarray, np.ndarray] | None:
    """log p of the right responses under it, and their tokens [P, 1]; None where the
    task has none."""
    return _gold(self)


def command(options) -> None:
  """`pxy bound BASE [RUN...]`; options are options.Bound."""
  for name in ("json", "plot"):
    if getattr(options, name) is not None:
      files.writable(getattr(options, name), f"--{name} {getattr(options, name)}")
  store.writable(options.save)
  if not options.model:
    raise config.Error("name a BASE: builtin:world, or a folder; see pxy bound --help")
  models = [probe_lib.Examined(options, m) for m in dict.fromkeys(options.model)]
  for run in models[1:]:
    probe_lib.same_tokens(run, models[0], _TRAINED)
  reports, kept = [], {}
  for task, plan in models[0].plans.items():
    ask = next(ask for ask in plan.asks if "bound" in ask.parts)
    arms = [_arm(one, one.model, plan, ask) for one in models]
    base, runs = arms[0], arms[1:]
    guesses = _guesses(models[0], plan, ask) if options.guess else None
    reports.append(_report(base, None, task, plan, ask, guesses))
    for run in runs:
      _same_problems(base, run)
      reports.append(_report(run, base, task, plan, ask, guesses))
      kept.setdefault(run.label, []).append(reports[-1])
      if options.matched:
        for hot, cold in ((base, run), (run, base)):
          arm = _matched(hot, cold, plan, ask)
          reports.append(_report(arm, base, task, plan, ask, None))
  for label, found in kept.items():
    page.keep(label, None, "bound", found)
  for report in reports:
    probe_lib.show(report)
  if options.plot is not None:
    from pxy.report import plot, probe_plot  # matplotlib

    options.plot.parent.mkdir(parents=True, exist_ok=True)
    panels = probe_plot.bound([(report["model"], report) for report in reports])
    options.plot.write_bytes(plot.png([], panels))
  if options.json is not None:
    eval_lib.write(options.json, reports)


def held(
  run: probe_lib.Examined, base: probe_lib.Examined, task: str, *, guess: bool
) -> dict:
  """What --json has of a run against its base, on one task of the base's plans.

  guess: also what can be guessed, for which the base is asked once more.
  """
  probe_lib.same_tokens(run, base, _TRAINED)
  plan = base.plans[task]
  ask = next(ask for ask in plan.asks if "bound" in ask.parts)
  new, old = (_arm(one, one.model, plan, ask) for one in (run, base))
  _same_problems(old, new)
  guesses = _guesses(base, plan, ask) if guess else None
  return _report(new, old, task, plan, ask, guesses)


def _arm(examined, label, plan, ask, **rule) -> _Arm:
  return _Arm(label, examined, _table(examined, plan, ask, **rule))


def _table(examined, plan, ask, **rule) -> probe.Table:
  """One form of each question, where they stand in the task in several."""
  return probe.singles(probe.table(examined.ask(plan, ask, **rule)))


def _report(arm, base, task, plan, ask, guesses) -> dict:
  """What --json has of an arm; with a base, what it gained and lost."""
  t = arm.table
  specs = _perplexities(arm, base)
  report = probe_lib.head(arm.label, task, dataclasses.replace(plan, asks=(ask,)))
  more = {}
  if guesses is not None:
    guess_PR = _matching(t, guesses)
    specs.append(bound.guessable(t.ids, guess_PR))
    marked = bound.guessed(guess_PR)
    report["guessed"] = [x for x, on in zip(t.ids, marked, strict=True) if on]
  if base is not None:
    new_PR, base_PR = (probe.best(x.table) for x in (arm, base))
    specs += bound.solved(t.ids, new_PR, base_PR)
    more = bound.crossing(t.ids, new_PR, base_PR)
    report["against"] = base.label
    report["base_measures"] = probe_lib.jsoned(base.measures)
    report["difference"] = probe_lib.jsoned(
      probe_lib.differences(arm.specs, base.specs)
    )
  found = arm.measures | estimate.measures(specs) | more
  report["measures"] = probe_lib.jsoned(found)
  return report


def _perplexities(arm: _Arm, base: _Arm | None) -> list[estimate.Spec]:
  """Perplexity of what each wrote under itself and under the other, and of the right
  responses under the base; all on the same problems, which one of them solves
  sometimes: those of a model alone are harder where it is weaker."""
  old = arm if base is None else base
  on_P = arm.sometimes | old.sometimes
  if not on_P.any():
    return []

  def of(name, logp_PR, length_PR):
    return bound.perplexity(arm.table.ids, name, logp_PR, length_PR, on_P)

  own_PR, length_PR = arm.own
  out = [] if base is None else of("new_new", own_PR, length_PR)
  if base is not None and base.examined is arm.examined:
    return out
  if base is not None:
    out += of("base_new", _under(base, arm), length_PR)
    out += of("new_base", _under(arm, base), base.own[1])
  out += of("base_base", *old.own)
  return out + ([] if old.gold is None else of("base_gold", *old.gold))


def _under(scorer: _Arm, writer: _Arm) -> np.ndarray:
  """log p of the writer's first responses under the scorer [P, SCORED]."""
  stored, ids = writer.table.stored, scorer.examined.subject.digests["weights"]
  path = stored.path.with_name(f"{stored.path.stem}.under-{ids}.json")
  texts = [[x.tolist() for x in group[:SCORED]] for group in stored.ids]

  def make():
    prompts = writer.examined.prompt_ids(stored)
    asked = [
      (prompts[name].tolist(), r, np.array(ids, np.int32))
      for name, group in zip(writer.table.ids, texts, strict=True)
      for r, ids in enumerate(group)
    ]
    examined = scorer.examined
    sums = examined.subject.likelihood(examined.policy.params, asked)
    logps = iter(logp for logp, _ in sums)
    return {"logp": [[next(logps) for _ in group] for group in texts]}

  found = store.beside(path, store.digest(writer.table.ids, texts), make)
  return np.array(found["logp"], np.float64)


def _gold(arm: _Arm) -> tuple[np.ndarray, np.ndarray] | None:
  t, tokenizer = arm.table, arm.examined.policy.tokenizer
  if not all(isinstance(row.get("trace"), str) for row in t.problems):
    return None
  prompts = arm.examined.prompt_ids(t.stored)
  texts = [[*tokenizer.encode(row["trace"]), tokenizer.end_id] for row in t.problems]
  asked = [
    (prompts[name].tolist(), 0, np.array(ids, np.int32))
    for name, ids in zip(t.ids, texts, strict=True)
  ]
  found = arm.examined.subject.likelihood(arm.examined.policy.params, asked)
  logp_PR = np.array([[logp] for logp, _ in found], np.float64)
  return logp_PR, np.array([[len(ids)] for ids in texts])


def _guesses(examined, plan, ask) -> probe.Table | None:
  """Answers of the base without reasoning, where the task has such a variant."""
  if ask.task != "world/chains":
    return None
  guess = dataclasses.replace(
    ask, task=f"world/{world_problems.GUESS}", samples=min(GUESSES, ask.samples)
  )
  return probe.table(examined.ask(plan, guess))


def _matching(t: probe.Table, guesses: probe.Table) -> np.ndarray:
  """Right guesses to the problems of t [P, R]; nan where a problem has none."""
  row = dict(zip(guesses.column("group"), guesses.right_PR, strict=True))
  none_R = np.full(guesses.right_PR.shape[1], np.nan)
  return np.stack([row.get(group, none_R) for group in t.column("group")])


def _matched(arm: _Arm, other: _Arm, plan, ask) -> _Arm:
  """The arm's model at the temperature where its answers have the other's entropy."""
  samples, halvings = MATCHED
  small = dataclasses.replace(ask, samples=min(samples, ask.samples))

  def entropy(table: probe.Table) -> float:
    found = estimate.measure(diversity.answer_entropy(table.ids, table.answer_PR))
    return 0.0 if found is None else found.value

  wanted = entropy(probe.table(other.table.stored.first(small.problems, small.samples)))
  low, high = 0.1, 4.0
  with progress.counting("temperature", halvings) as count:
    for i in range(halvings):
      middle = round((low * high) ** 0.5, 3)
      found = entropy(_table(arm.examined, plan, small, temperature=middle))
      low, high = (middle, high) if found < wanted else (low, middle)
      count(i + 1)
  chosen = round((low * high) ** 0.5, 3)
  label = f"{arm.label} at temperature {chosen:g}"
  return _arm(arm.examined, label, plan, ask, temperature=chosen)


def _same_problems(base: _Arm, run: _Arm) -> None:
  if base.table.ids != run.table.ids:
    raise config.Error(
      f"{base.label} and {run.label} were not asked the same problems: in one of them"
      " --max-prompt-tokens leaves out others; raise it"
    )
