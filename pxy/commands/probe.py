"""`pxy probe`: what models are like beyond their accuracy; and what `pxy bound` shares.

Responses are stored (--save), and every number but those of `kept` is computed from the
store alone. `kept` needs the model: its sums stand beside the store, NAME.kept.json.
"""

import dataclasses
import math
import re

import jax
import numpy as np
from rich import console
from rich import table as rich_table

from pxy import __version__, config, files
from pxy.bucket import mirror
from pxy.commands import eval as eval_lib
from pxy.data import prompts as prompts_lib
from pxy.evaluate import asked as asked_lib
from pxy.evaluate import by_problem as by_problem_lib
from pxy.evaluate import figures as figures_lib
from pxy.evaluate import knowledge, plans, probe, store
from pxy.evaluate import likelihood as likelihood_lib
from pxy.measures import arrays, bias, calibration, estimate
from pxy.report import page
from pxy.rewards import pool as pool_lib
from pxy.show import progress
from pxy.text import template
from pxy.weights import load

ALL = ("bound", "robust", "calibration", "hallucination", "bias", "kept", "diversity")
ALONE = 512
"""Responses to no prompt."""
LEAST = 4
"""Responses to a problem."""


@dataclasses.dataclass
class Found:
  """What was found of a model on a task."""

  plan: plans.Plan
  specs: list[estimate.Spec] = dataclasses.field(default_factory=list)
  figures: dict[str, list] = dataclasses.field(default_factory=dict)


class Examined:
  """A model, its plans, and the stores that were filled."""

  def __init__(self, options, model: str, step: int | None = None):
    self.options, self.model, self.step = options, model, step
    policy = load.load(model, step)
    tokenizer = template.using(policy.tokenizer, options.template)
    self.policy = dataclasses.replace(policy, tokenizer=tokenizer)
    self.subject = eval_lib.Subject(model, step, self.policy)
    self.plans = _plans(options, self.policy)
    self._sources: dict[tuple[config.Data, str], prompts_lib.Source] = {}

  def ask(self, plan: plans.Plan, ask: plans.Ask, **rule) -> store.Stored:
    """The responses to an ask; `rule`: another temperature."""
    data, cfg, limits = self._configs(plan, ask, **rule)
    source = self._source(data, cfg.split)
    contexts = likelihood_lib.known(self.policy.tokenizer, ask.contexts)
    with pool_lib.Pool(config.Reward(), data.grader) as pool:
      found = self.subject.ask(
        self.options.save, data, cfg, limits, source, pool,
        seed=self.options.seed, contexts=("prompt", *contexts),
      )  # fmt: skip
    if np.isnan(found.score_PR).all():
      raise config.Error(
        f"--task {ask.task}: no response has a grade, so there is nothing to measure:"
        " give the rows an `answer`, or name their grader with --grader (pxy data check"
        f" {ask.task} says what is wrong with each)"
      )
    return found

  def prompts(self, stored: store.Stored) -> dict[str, prompts_lib.Prompt]:
    """The prompts that a store answers, by problem."""
    data, split = self._asked(stored)
    found = self._source(data, split).prompts
    return dict(zip(store.ids(found), found, strict=True))

  def prompt_ids(self, stored: store.Stored) -> dict[str, np.ndarray]:
    """Ids of those, by problem."""
    return {name: prompt.ids for name, prompt in self.prompts(stored).items()}

  def confidences(self, stored: store.Stored) -> list[calibration.Confidence]:
    """What the model says of its answers; kept beside the store."""
    answers = [row[: probe.CONFIDENT] for row in stored.answers]
    asked = asked_lib.pairs(answers)
    prompts = self.prompts(stored)
    questions = [prompts[row["problem"]].text for row in stored.problems]
    data, _ = self._asked(stored)
    of = store.digest(self.subject.digests, [stored.about["of"], questions, asked])

    def make():
      count = len(asked) * len(asked_lib.KINDS)
      with progress.counting("ask about its answers", count) as bar:
        return asked_lib.confidences(
          self.policy, self.subject.likelihood, data, questions, asked, bar
        )

    found = store.beside(stored.path.with_suffix(".asked.json"), of, make)
    answer_PR, _ = arrays.codes(answers, [])
    return [
      calibration.given(kind, asked_lib.table(answers, asked, found[kind]), answer_PR)
      for kind in asked_lib.KINDS
    ]

  def _asked(self, stored: store.Stored) -> tuple[config.Data, str]:
    """How the prompts of a store were put, and their split."""
    of = stored.about["of"]
    data = config.Data(
      task=of["task"],
      columns=of.get("columns", ""),
      grader=of["grader"],
      template=of["template"],
      system=of["system"],
      template_arguments=tuple(of["template_arguments"]),
      max_prompt_tokens=of["max_prompt_tokens"],
    )
    return data, of["split"]

  def alone(self, plan: plans.Plan, context: str) -> store.Stored:
    """ALONE responses to no prompt: after a lone `start` token, or to an `empty`
    message."""
    tokenizer = self.policy.tokenizer
    if context == "start":
      ids = [tokenizer.start_id]
    else:
      ids = template.render(tokenizer, [{"role": "user", "content": ""}])
    prompt = prompts_lib.Prompt(np.array(ids, np.int32), "", "", context, 0, {})
    samples = ALONE // 8 if self.options.quick else ALONE
    ask = plans.Ask(plan.asks[0].task, 1, samples, ())
    data, cfg, limits = self._configs(plan, ask)
    data = dataclasses.replace(data, task=f"no prompt, {context}", grader=plan.grader)
    with pool_lib.Pool(config.Reward(), data.grader) as pool:
      return self.subject.ask(
        self.options.save, data, cfg, limits, prompts_lib.Source([[prompt]]), pool,
        seed=self.options.seed,
      )  # fmt: skip

  def _source(self, data: config.Data, split: str) -> prompts_lib.Source:
    if (data, split) not in self._sources:
      found = prompts_lib.load(data, self.policy.tokenizer, split)
      self._sources[data, split] = found
    return self._sources[data, split]

  def _configs(self, plan, ask, **rule):
    own = {}
    if plan.world:
      own = {
        name: getattr(plan, name) for name in ("max_prompt_tokens", "max_new_tokens")
      }
    asked = dataclasses.replace(self.options, **own, **rule)
    return eval_lib.configs(asked, ask.task, ask.problems, ask.samples)


def _plans(options, policy) -> dict[str, plans.Plan]:
  """By what is reported: a task of the user's own, or the model's world."""
  if options.task:
    if options.samples < LEAST:
      raise config.Error(
        f"--samples {options.samples}: pass@k is looked at up to a quarter of the"
        f" samples, and agreement needs others to agree with: at least {LEAST}"
      )
    return {
      task: plans.of_task(task, options.problems, options.samples)
      for task in dict.fromkeys(options.task)
    }
  found = plans.of_tokenizer(policy.tokenizer)
  if found is not None:
    name, plan = found
    return {name: plan.smaller() if options.quick else plan}
  raise config.Error(
    f"{policy.name} is of none of pxy's worlds: name what to ask with --task (a file,"
    " gym:NAME?...), with columns as docs/measures.md says"
  )


def command(options) -> None:
  """`pxy probe`."""
  what = _parts(options)
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  if options.by_problem is not None:
    files.writable(options.by_problem, f"--by-problem {options.by_problem}")
  store.writable(options.save)
  if options.p_true and not options.task:
    raise config.Error(
      "--p-true: the embedded worlds have no words for it; name what to ask with --task"
    )
  base = None if options.against is None else Examined(options, options.against)
  of_base = specs_of(base, what, options) if base else {}
  measured = {t: jsoned(estimate.measures(one.specs)) for t, one in of_base.items()}
  reports = []
  made = [(base.model, base.step, True, t, one.specs) for t, one in of_base.items()]
  for model, step in eval_lib.models(options.model, options.step):
    held = base and (base.model, base.step) == (model, step)
    new = base if held else Examined(options, model, step)
    found = of_base if new is base else specs_of(new, what, options)
    if base and "kept" in what:
      divergences(new, base, found)
    own = []
    for task, one in found.items():
      report = head(model, task, one.plan) | ({} if step is None else {"step": step})
      report["measures"] = jsoned(estimate.measures(one.specs))
      if task in of_base:
        report["against"] = options.against
        report["base_measures"] = measured[task]
        report["difference"] = jsoned(differences(one.specs, of_base[task].specs))
      report["figures"] = one.figures
      made.append((model, step, False, task, one.specs))
      own.append(report)
      show(report)
    reports += own
    shown = page.keep(model, step, "probe", own)
    if shown is not None:
      print(f"report: {mirror.name(shown)}")
  if options.by_problem is not None:
    rows = [by_problem_lib.table(*of_task) for of_task in made]
    by_problem_lib.write(options.by_problem, rows)
  if options.json is not None:
    eval_lib.write(options.json, reports)


def _parts(options) -> tuple[str, ...]:
  asked = [word for word in options.what.replace(" ", "").split(",") if word]
  for word in asked:
    if word not in ALL:
      raise config.Error(f"--what {word}: there are {', '.join(ALL)}")
  return tuple(asked) or ALL


def specs_of(of: Examined, what, options) -> dict[str, Found]:
  """What is found of a model, by task."""
  out = {}
  for name, plan in of.plans.items():
    found = out[name] = Found(plan)
    few = None
    for ask in plan.asks:
      parts = [
        p for p in ask.parts if ("calibration" if p == "contexts" else p) in what
      ]
      if not parts:
        continue
      if "bound" not in parts:  # which alone looks at more
        ask = dataclasses.replace(ask, samples=min(ask.samples, probe.CONFIDENT))
      t = probe.table(of.ask(plan, ask))
      found.specs += probe.specs(t, parts)
      found.figures |= figures_lib.of(t, parts)
      if options.p_true and "calibration" in parts:
        for confidence in of.confidences(t.stored):
          right_PR = t.right_PR[:, : probe.CONFIDENT]
          found.specs += calibration.specs(t.ids, confidence, right_PR)
      if "bias" in parts and plan.world:
        few = probe.marginal_of(t)
    if few is not None:
      for context in ("start", "empty"):
        stored = of.alone(plan, context)
        found.specs += _prior(few, stored, context)
        figures_lib.alone(found.figures.get("answers", []), stored, context)
    if "kept" in what:
      found.specs += _kept(of, plan, options)
  return out


def _prior(few: probe.Table, alone: store.Stored, context: str) -> list[estimate.Spec]:
  """All answers against those without a prompt."""
  count_A = probe.counted(alone, probe.few_answers(few))
  if not count_A.sum():
    return []
  return bias.without_prompt(few.ids, probe.few_shares(few), count_A, prior=context)


def _kept(of: Examined, plan: plans.Plan, options) -> list[estimate.Spec]:
  """Measures of held-out text and facts; the sums stay beside the stores."""
  count = knowledge.DOCUMENTS // 8 if options.quick else knowledge.DOCUMENTS
  if options.text is not None:
    from pxy.data import text as text_lib

    rows = [(t.id, t.text) for t in text_lib.read(options.text)[:count]]
    texts = knowledge.paragraphs(rows, of.policy.tokenizer, of.policy.arch.context - 1)
  elif plan.world is not None:
    texts = knowledge.documents(plan, of.policy.tokenizer, count)
  else:
    return []
  asked = store.digest(
    of.subject.digests, [[t.name, t.prompt, t.ids.tolist()] for t in texts]
  )
  own = store.name(of.model, of.step, {"task": "kept", "split": "test", "seed": 0,
    "sampling": {"temperature": 0.0, "top_p": 1.0}, "asked": asked})  # fmt: skip

  def make():
    found = {
      "texts": {
        "names": [t.name for t in texts],
        "nll": knowledge.nll(of.policy, of.subject.likelihood, texts),
      }
    }
    if plan.corpus == "world":
      facts = knowledge.FACTS // 4 if options.quick else knowledge.FACTS
      found["facts"] = knowledge.facts(of.policy, of.subject.likelihood, facts)
    return found

  found = store.beside(f"{options.save}/{own}.kept.json", asked, make)
  return knowledge.specs(found)


def divergences(new: Examined, base: Examined, found: dict[str, Found]) -> None:
  """Adds KL divergences from the base, forward and reverse, of each one's responses
  after its own prompts. Raises config.Error where the two have other tokenizers."""
  same_tokens(new, base, "KL needs one: leave `kept` out of --what")
  for one in found.values():
    plan = one.plan
    ask = next((a for a in plan.asks if "contexts" in a.parts), plan.asks[0])
    of_base, of_new = base.ask(plan, ask), new.ask(plan, ask)
    for direction, p, q, stored in (
      ("forward", base, new, of_base),
      ("reverse", new, base, of_new),
    ):
      prompts = p.prompt_ids(stored)
      one.specs += knowledge.divergences(p.policy, q.policy, stored, prompts, direction)


def same_tokens(new: Examined, base: Examined, why: str) -> None:
  """Refuses two models of different tokenizers."""
  if new.subject.digests["tokenizer"] != base.subject.digests["tokenizer"]:
    raise config.Error(f"{base.model} and {new.model} have different tokenizers: {why}")


def differences(new, base) -> dict[str, estimate.Measure]:
  """Of all measures that both have, paired by problem."""
  old = {spec.name: spec for spec in base}
  out = {}
  for spec in new:
    if spec.name in old and set(spec.units) & set(old[spec.name].units):
      found = estimate.difference([spec], [old[spec.name]])
      if found is not None:
        out[spec.name] = found
  return out


def head(model: str, task: str, plan: plans.Plan) -> dict:
  """What a report begins with."""
  return {
    "model": model,
    "task": task,
    "n_problems": sum(ask.problems for ask in plan.asks),
    "n_samples": max(ask.samples for ask in plan.asks),
    "versions": {"pxy": __version__, "jax": jax.__version__},
  }


def jsoned(found: dict[str, estimate.Measure]) -> dict:
  """As --json has it, by name, pass@2 before pass@16."""

  def natural(name):
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in parts]

  return {name: found[name].to_json() for name in sorted(found, key=natural)}


def show(report: dict) -> None:
  """A table: measure, value, interval, null; and the difference to the base."""
  held = report.get("against")
  table = rich_table.Table(
    rich_table.Column("measure", no_wrap=True),  # names are to be read whole
    "value", "95 %", "null", *(["minus base", "95 %"] if held else []),
    title=eval_lib.title(report) + (f", against {held}" if held else ""),
    box=None, padding=(0, 1, 0, 0), title_justify="left",
  )  # fmt: skip
  differ = report.get("difference", {})
  for name, one in report["measures"].items():
    row = [name, _number(one["value"]), _span(one), _span(one["null"])]
    if held:
      row += [_number(differ[name]["value"]), _span(differ[name])] if (
        name in differ
      ) else ["", ""]  # fmt: skip
    table.add_row(*row)
  console.Console().print(table)


def _number(x: float | None) -> str:
  if x is None or math.isnan(x):
    return "-"
  return f"{x:.3f}" if abs(x) < 1000 else f"{x:.3g}"


def _span(one: dict | None) -> str:
  return "" if one is None else f"{_number(one['low'])} .. {_number(one['high'])}"
