"""`pxy eval`: scores of models on tasks; and what `pxy align` shares with it."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from pxy import config, files
from pxy.bucket import mirror
from pxy.data import prompts as prompts_lib
from pxy.evaluate import likelihood as likelihood_lib
from pxy.evaluate import run as evaluate
from pxy.evaluate import samples as samples_lib
from pxy.evaluate import scores as scores_lib
from pxy.evaluate import store
from pxy.rewards import pool as pool_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.show import progress
from pxy.text import template
from pxy.train import checkpoint
from pxy.weights import load


def examine(options, count: int, samples: int):
  """Draws and grades `samples` responses to each of the first `count` problems.

  options: those that `pxy eval` and `pxy align` share (options.OnTask).

  Returns:
    (policy, the split that the problems are of, Evaluation).
  """
  data, cfg, limits = configs(options, options.task, count, samples, options.reward)
  policy = loaded(options.model, options.step, data)
  source = prompts_lib.load(data, policy.tokenizer, cfg.split)
  chosen = source.first(cfg.problems)
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(pool_lib.Pool(config.Reward(), data.judge))
    collector = _collector(stack, policy, limits, data, pool)
    found = _drawn(collector, policy, chosen, samples, options.seed)
  return policy, source.of, found


def _drawn(collector, policy, chosen, samples: int, seed: int) -> evaluate.Evaluation:
  with progress.counting("evaluate", len(chosen) * samples) as bar:
    return evaluate.evaluate(
      dataclasses.replace(collector, on_answer=bar),
      policy.params,
      chosen,
      samples,
      seed=seed,
    )


def configs(options, task: str, count: int, samples: int, rewards=()):
  """What is evaluated, how, and the sampling of it; all are checked."""
  data = config.Data(
    task=task,
    columns=options.columns,
    grader=options.grader,
    rewards=rewards,
    max_prompt_tokens=options.max_prompt_tokens,
    template=options.template,
    system=options.system,
    template_arguments=options.template_arguments,
  )
  words = options.task if isinstance(options.task, tuple) else (options.task,)
  if any(map(prompts_lib.has_columns, words)):
    data = prompts_lib.of_task(data, task)
  cfg = config.Eval(
    split=options.split,
    problems=count,
    samples=samples,
    temperature=options.temperature,
    top_p=options.top_p,
  )
  limits = config.Sampling(max_new_tokens=options.max_new_tokens, slots=options.slots)
  config.check(config.Train(data=data, sampling=limits, eval=cfg, seed=options.seed))
  return data, cfg, evaluate.sampling(limits, cfg)


def loaded(model: str, step: int | None, data: config.Data) -> load.Policy:
  policy = load.load(model, step)
  tokenizer = template.using(policy.tokenizer, data.template)
  doubt = template.ending(tokenizer, data.template, data.template_arguments)
  if doubt:
    print(f"pxy: warning: {doubt}", file=sys.stderr)
  return dataclasses.replace(policy, tokenizer=tokenizer)


def _collector(stack, policy, limits, data, pool) -> collect.Collector:
  engine = engine_lib.Engine(
    policy.arch,
    sampling=limits,
    stop_ids=policy.tokenizer.stop_ids,
    max_prompt_tokens=data.max_prompt_tokens,
  )
  stack.enter_context(engine)
  return collect.Collector(engine, pool, policy.tokenizer)


def command(options) -> None:
  """`pxy eval`."""
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  contexts = likelihood_lib.names(options.contexts)
  if options.save is not None:
    store.writable(options.save)
  elif len(contexts) > 1:
    raise config.Error(
      "--contexts: log p is of what is saved; name a folder with --save"
    )
  tasks = options.task or (config.Data().task,)
  asked = [
    configs(options, task, options.problems, options.samples, options.reward)
    for task in dict.fromkeys(tasks)
  ]
  reports = []
  chosen = models(options.model, options.step)
  with pool_lib.Pool(config.Reward(), asked[0][0].judge) as pool:
    for model, step in chosen:
      reports += _reports(model, step, asked, pool, options, len(chosen) > 1)
  evaluate.show({title(report): report["scores"] for report in reports})
  if options.json is not None:
    write(options.json, reports)


def _reports(model, step, asked, pool, options, several: bool) -> list[dict]:
  """What --json has of a model, for each task."""
  policy = loaded(model, step, asked[0][0])
  sources = [
    prompts_lib.load(data, policy.tokenizer, cfg.split) for data, cfg, _ in asked
  ]
  subject = None if options.save is None else Subject(model, step, policy)
  reports = []
  for (data, cfg, limits), source in zip(asked, sources, strict=True):
    report = {"model": model, "step": step, "task": data.task, "split": source.of}
    if step is None or not several:
      del report["step"]
    if subject is None:
      with contextlib.ExitStack() as stack:
        collector = _collector(stack, policy, limits, data, pool)
        chosen = source.first(cfg.problems)
        found = _drawn(collector, policy, chosen, cfg.samples, options.seed)
      sizes, scores = len(chosen), found.scores
    else:
      contexts = likelihood_lib.names(options.contexts)
      stored = subject.ask(
        options.save, data, cfg, limits, source, pool,
        seed=options.seed, contexts=contexts,
      )  # fmt: skip
      sizes, scores = len(stored.problems), evaluate.of_stored(stored, pool.grader)
    report |= {"problems": sizes, "samples": cfg.samples}
    report["scores"] = scores_lib.to_json(scores)
    reports.append(report | ({"saved": mirror.name(stored.path)} if subject else {}))
  return reports


def write(path: pathlib.Path, reports: list[dict]) -> None:
  """--json: a report, or a list of several."""
  files.write_json(path, reports[0] if len(reports) == 1 else reports)


class Subject:
  """A model whose responses are stored: what its stores have in common."""

  def __init__(self, model: str, step: int | None, policy: load.Policy):
    self.model, self.step, self.policy = model, step, policy
    self.digests = samples_lib.of_model(policy)
    self.likelihood = likelihood_lib.Likelihood(policy.arch)

  def ask(
    self,
    folder: str,
    data: config.Data,
    cfg: config.Eval,
    limits: config.Sampling,
    source: prompts_lib.Source,
    pool: pool_lib.Pool,
    *,
    seed: int,
    contexts: Sequence[str] = ("prompt",),
  ) -> store.Stored:
    """`cfg.samples` responses to each of the first `cfg.problems` of a source, out of
    the folder as far as they are there, and there afterwards.

    limits: of the sampling, with the evaluation's rule.
    """
    of = samples_lib.identity(self.digests, data, cfg.split, limits, seed)
    name = store.name(self.model, self.step, of)
    with contextlib.ExitStack() as stack:
      writer = stack.enter_context(store.Writer(folder, name, of))
      return samples_lib.fill(
        _collector(stack, self.policy, limits, data, pool),
        self.likelihood,
        self.policy,
        source,
        writer,
        cfg.problems,
        cfg.samples,
        seed=seed,
        contexts=contexts,
        step=self.step,
      ).first(cfg.problems, cfg.samples)


def models(models, steps) -> list[tuple[str, int | None]]:
  """(model, step) of each that is evaluated."""
  if not models:
    raise config.Error("name a MODEL: builtin:world, or a folder; see --help")
  out = []
  for model in models:
    place, known = load.place(model), ()
    if "all" in steps:
      known = checkpoint.steps(place / "checkpoints")
      if not known:
        raise config.Error(f"--step all: {model} has no checkpoints; leave it out")
    chosen = known or [step for step in steps if step != "all"] or [None]
    out += [(model, step) for step in chosen]
  return list(dict.fromkeys(out))


def title(report: dict) -> str:
  """Of what --json has: which model, and what it was asked."""
  step = f"@{report['step']}" if "step" in report else ""
  split = f" ({report['split']})" if "split" in report else ""
  return f"{report['model']}{step} on {report['task']}{split}"
