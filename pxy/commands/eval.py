"""`pxy eval`: scores of models on tasks; and what `pxy align` shares with it."""

import contextlib
import dataclasses
import sys

from pxy import config, files
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
    (policy, problems, Evaluation).
  """
  data, cfg, limits = _configs(options, options.task, count, samples)
  policy = _policy(options.model, options.step, data)
  chosen = evaluate.problems(data, cfg, policy.tokenizer)
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(pool_lib.Pool(config.Reward(), data.grader))
    collector = _collector(stack, policy, limits, data, pool)
    found = _drawn(collector, policy, chosen, samples, options.seed)
  return policy, chosen, found


def _drawn(collector, policy, chosen, samples: int, seed: int) -> evaluate.Evaluation:
  with progress.counting("evaluate", len(chosen) * samples) as bar:
    return evaluate.evaluate(
      dataclasses.replace(collector, on_answer=bar),
      policy.params,
      chosen,
      samples,
      seed=seed,
    )


def _configs(options, task: str, count: int, samples: int):
  """What is evaluated, how, and the sampling of it; all are checked."""
  data = config.Data(
    task=task,
    grader=options.grader,
    max_prompt_tokens=options.max_prompt_tokens,
    template=options.template,
    system=options.system,
    template_arguments=options.template_arguments,
  )
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


def _policy(model: str, step: int | None, data: config.Data) -> load.Policy:
  policy = load.load(model, step)
  doubt = template.ending(policy.tokenizer, data.template, data.template_arguments)
  if doubt:
    print(f"pxy: warning: {doubt}", file=sys.stderr)
  return policy


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
    files.writable(options.save / "samples", f"--save {options.save}")
  elif len(contexts) > 1:
    raise config.Error(
      "--contexts: log p is of what is saved; name a folder with --save"
    )
  tasks = options.task or (config.Data().task,)
  asked = [
    _configs(options, task, options.problems, options.samples)
    for task in dict.fromkeys(tasks)
  ]
  reports = []
  models = _models(options.model, options.step)
  with pool_lib.Pool(config.Reward(), options.grader) as pool:
    for model, step in models:
      reports += _reports(model, step, asked, pool, options, len(models) > 1)
  evaluate.show({_title(report): report["scores"] for report in reports})
  if options.json is not None:
    files.write_json(options.json, reports[0] if len(reports) == 1 else reports)


def _reports(model, step, asked, pool, options, several: bool) -> list[dict]:
  """What --json has of a model, for each task."""
  policy = _policy(model, step, asked[0][0])
  sources = [
    prompts_lib.load(data, policy.tokenizer, cfg.split) for data, cfg, _ in asked
  ]
  kept = None if options.save is None else samples_lib.of_model(policy)
  likelihood = likelihood_lib.Likelihood(policy.arch)
  reports = []
  for (data, cfg, limits), source in zip(asked, sources, strict=True):
    report = {"model": model, "step": step, "task": data.task, "split": cfg.split}
    if step is None or not several:
      del report["step"]
    with contextlib.ExitStack() as stack:
      collector = _collector(stack, policy, limits, data, pool)
      if kept is None:
        chosen = source.first(cfg.problems)
        found = _drawn(collector, policy, chosen, cfg.samples, options.seed)
        sizes, scores = len(chosen), found.scores
      else:
        of = samples_lib.identity(kept, data, cfg.split, limits, options.seed)
        name = store.name(model, step, of)
        writer = stack.enter_context(store.Writer(options.save, name, of))
        stored = samples_lib.fill(
          collector,
          likelihood,
          policy,
          source,
          writer,
          cfg.problems,
          cfg.samples,
          seed=options.seed,
          contexts=likelihood_lib.names(options.contexts),
          step=step,
        ).first(cfg.problems, cfg.samples)
        sizes, scores = len(stored.problems), evaluate.of_stored(stored, pool.grader)
      report |= {"problems": sizes, "samples": cfg.samples}
      report["scores"] = scores_lib.to_json(scores)
      reports.append(report | ({"saved": str(stored.path)} if kept else {}))
  return reports


def _models(models, steps) -> list[tuple[str, int | None]]:
  """(model, step) of each that is evaluated."""
  if not models:
    raise config.Error("name a MODEL: builtin:tiny, or a folder; see pxy eval --help")
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


def _title(report: dict) -> str:
  step = f"@{report['step']}" if "step" in report else ""
  return f"{report['model']}{step} on {report['task']} ({report['split']})"
