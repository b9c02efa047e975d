"""Evaluation: one code path in the training loop, in `pxy eval` and in pre-training.

Sampled, never greedy: n responses to each of the first problems of a split, a standard
error with every number, and the same keys at every evaluation of a run, so that two
checkpoints answer with the same luck.
"""

import contextlib
import dataclasses
import re
import sys

import jax
import numpy as np
from rich import console
from rich import table as rich_table

from pxy import collect, config, files
from pxy.data import prompts as prompts_lib
from pxy.evaluate import passk
from pxy.evaluate import scores as scores_lib
from pxy.report import progress
from pxy.rewards import answer as answer_lib
from pxy.rewards import pool as pool_lib
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.weights import load


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores by name as (value, standard error), and the answers[p][r] they are of."""

  scores: dict[str, passk.Score]
  answers: list[list[collect.Answer]]
  tokens: int


def problems(
  data: config.Data, cfg: config.Eval, tokenizer
) -> list[prompts_lib.Prompt]:
  """The first `cfg.problems` of the evaluation's task and split."""
  if cfg.task:
    data = dataclasses.replace(data, task=cfg.task)
  return prompts_lib.load(data, tokenizer, cfg.split).first(cfg.problems)


def sampling(training: config.Sampling, cfg: config.Eval) -> config.Sampling:
  """The sampling of an evaluation: its own distribution, the training's limits."""
  return dataclasses.replace(
    training, temperature=cfg.temperature, top_p=cfg.top_p, top_k=0
  )


def evaluate(
  engine, pool, tokenizer, params, problems, samples: int, *, seed: int, **collecting
) -> Evaluation:
  """Draws `samples` responses to each problem, grades and scores them.

  `collecting`: on_answer, stop, watch and version, as in collect.collect.
  """
  batch = collect.collect(
    engine,
    pool,
    tokenizer,
    params,
    problems,
    samples,
    key=jax.random.key(seed),
    **collecting,
  )
  answers = batch.answers
  scores = scores_lib.scores(
    batch.scores_PR,
    texts=[[a.text for a in group] for group in answers],
    answers=[[_answer(a.text) for a in group] for group in answers],
    length_PR=np.array([[len(a.sample.ids) for a in group] for group in answers]),
    truncated_PR=np.array(
      [[a.sample.stop == "length" for a in group] for group in answers]
    ),
  )
  return Evaluation(scores, answers, engine.stats.tokens)


def _answer(text: str) -> str | None:
  """What a response votes for in maj@k."""
  return answer_lib.boxed(text) or answer_lib.final_number(text)


def by_source(answers: list[list[collect.Answer]]) -> dict[str, float]:
  """val-core/{source}/{mean@k, pass@k} of each data source, as dashboards name them."""
  groups: dict[str, list] = {}
  for group in answers:
    groups.setdefault(group[0].prompt.task, []).append(group)
  out = {}
  for source, members in groups.items():
    score_PR = np.array([[a.outcome.score for a in group] for group in members])
    for name, (value, _) in scores_lib.scores(score_PR).items():
      kind, at, k = name.partition("@")
      if at:
        kind = "mean" if kind == "avg" else kind
        out[f"val-core/{source}/{kind}@{k}"] = value
  return out


def show(columns: dict[str, dict[str, dict]]) -> None:
  """Prints scores (as JSON holds them): a row per metric, a column per evaluation."""
  table = rich_table.Table("metric", *columns)
  names = dict.fromkeys(name for scores in columns.values() for name in scores)
  for name in names:
    cells = [_cell(name, scores.get(name, {})) for scores in columns.values()]
    table.add_row(name, *cells)
  console.Console().print(table)


def _cell(name: str, score: dict) -> str:
  value, se = score.get("value"), score.get("se")
  if value is None:
    return "-"
  share = re.match(r"(avg|pass|maj)@|truncated|ungraded|.*_rate", name)
  scale, unit, digits = (100, " %", 1) if share else (1, "", 2)
  error = "" if se is None else f" ± {scale * se:.{digits}f}"
  return f"{scale * value:.{digits}f}{error}{unit}"


def examine(options, count: int, samples: int):
  """Draws and grades `samples` responses to each of the first `count` problems.

  options: those that `pxy eval` and `pxy align` share (cli.OnTask).

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
  chosen = problems(data, cfg, policy.tokenizer)
  with contextlib.ExitStack() as stack:
    engine = stack.enter_context(
      engine_lib.Engine(
        policy.arch,
        sampling=sampling(limits, cfg),
        stop_ids=policy.tokenizer.stop_ids,
        max_prompt_tokens=data.max_prompt_tokens,
      )
    )
    pool = stack.enter_context(pool_lib.Pool(config.Reward(), data.grader))
    bar = stack.enter_context(progress.counting("evaluate", len(chosen) * samples))
    found = evaluate(
      engine,
      pool,
      policy.tokenizer,
      policy.params,
      chosen,
      samples,
      seed=options.seed,
      on_answer=bar,
    )
  return policy, chosen, found


def command(options) -> None:
  """`pxy eval`."""
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  _, chosen, found = examine(options, options.problems, options.samples)
  scores = scores_lib.to_json(found.scores)
  show({f"{options.model} on {options.task} ({options.split})": scores})
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
