"""`pxy eval`: scores of a model on a task; and what `pxy align` shares with it."""

import contextlib
import sys

from pxy import config, files
from pxy.evaluate import run as evaluate
from pxy.evaluate import scores as scores_lib
from pxy.rewards import pool as pool_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.show import progress
from pxy.text import template
from pxy.weights import load


def examine(options, count: int, samples: int):
  """Draws and grades `samples` responses to each of the first `count` problems.

  options: those that `pxy eval` and `pxy align` share (options.OnTask).

  Returns:
    (policy, problems, Evaluation).
  """
  data = config.Data(
    task=options.task,
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
  policy = load.load(options.model, options.step)
  doubt = template.ending(policy.tokenizer, data.template, data.template_arguments)
  if doubt:
    print(f"pxy: warning: {doubt}", file=sys.stderr)
  chosen = evaluate.problems(data, cfg, policy.tokenizer)
  with contextlib.ExitStack() as stack:
    engine = stack.enter_context(
      engine_lib.Engine(
        policy.arch,
        sampling=evaluate.sampling(limits, cfg),
        stop_ids=policy.tokenizer.stop_ids,
        max_prompt_tokens=data.max_prompt_tokens,
      )
    )
    pool = stack.enter_context(pool_lib.Pool(config.Reward(), data.grader))
    bar = stack.enter_context(progress.counting("evaluate", len(chosen) * samples))
    found = evaluate.evaluate(
      collect.Collector(engine, pool, policy.tokenizer, on_answer=bar),
      policy.params,
      chosen,
      samples,
      seed=options.seed,
    )
  return policy, chosen, found


def command(options) -> None:
  """`pxy eval`."""
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  _, chosen, found = examine(options, options.problems, options.samples)
  scores = scores_lib.to_json(found.scores)
  evaluate.show({f"{options.model} on {options.task} ({options.split})": scores})
  if options.json is not None:
    report = {
      "model": options.model,
      "task": options.task,
      "split": options.split,
      "problems": len(chosen),
      "samples": options.samples,
      "scores": scores,
    }
    files.write_json(options.json, report)
