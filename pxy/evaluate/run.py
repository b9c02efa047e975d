"""Evaluation: one code path in the training loop, in `pxy eval` and in pre-training.

Sampled, never greedy: n responses to each of the first problems of a split, a standard
error with every number, and the same keys at every evaluation of a run, so that two
checkpoints answer with the same luck.
"""

import dataclasses
import re

import jax
import numpy as np
from rich import console

from pxy import config, imports
from pxy.data import prompts as prompts_lib
from pxy.evaluate import scores as scores_lib
from pxy.evaluate import store
from pxy.measures import passk
from pxy.rewards import given
from pxy.sampling import collect

rich_table = imports.later("rich.table")


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores by name as (value, standard error), the responses that they are of, and the
  tokens that were drawn."""

  scores: dict[str, passk.Score]
  graded: collect.Graded
  tokens: int


def problems(
  data: config.Data, cfg: config.Eval, tokenizer
) -> list[prompts_lib.Prompt]:
  """The first `cfg.problems` of the evaluation's task and split."""
  if cfg.task:
    data = prompts_lib.of_task(data, cfg.task)
  if cfg.grader:
    data = dataclasses.replace(data, grader=cfg.grader, rewards=())
  return prompts_lib.load(data, tokenizer, cfg.split).first(cfg.problems)


def sampling(training: config.Sampling, cfg: config.Eval) -> config.Sampling:
  """The sampling of an evaluation: its own distribution, the training's limits."""
  return dataclasses.replace(
    training, temperature=cfg.temperature, top_p=cfg.top_p, top_k=0
  )


def evaluate(
  collector: collect.Collector,
  params,
  problems,
  samples: int,
  *,
  seed: int,
  version: int = 0,
) -> Evaluation:
  """Draws `samples` responses to each problem, grades and scores them.

  Raises interrupt.Stopped when the collector's `stop` asks for an end.
  """
  graded = collect.collect(
    collector, params, problems, samples, key=jax.random.key(seed), version=version
  )
  scores = scores_lib.scores(
    graded.scores_PR,
    texts=graded.texts,
    answers=[_answers(collector.pool.grader, group) for group in graded.answers],
    length_PR=graded.length_PR,
    truncated_PR=graded.truncated_PR,
  )
  return Evaluation(scores, graded, collector.engine.stats.tokens)


def of_stored(stored: store.Stored, grader: config.Judge) -> dict[str, passk.Score]:
  """The scores of responses that are there: those that `evaluate` has of them."""
  answers = [
    group if any(group) or given.known(grader, problem["task"]) else None
    for problem, group in zip(stored.problems, stored.answers, strict=True)
  ]
  return scores_lib.scores(
    stored.score_PR,
    texts=stored.texts,
    answers=answers,
    length_PR=stored.length_PR,
    truncated_PR=stored.truncated_PR,
  )


def _answers(
  grader: config.Judge, group: list[collect.Answer]
) -> list[str | None] | None:
  """What the responses to a problem vote for in maj@k; None: see scores.scores."""
  task = group[0].prompt.task
  found = [given.of(grader, task, a.heard, a.prompt.answer, a.outcome) for a in group]
  return found if any(found) or given.known(grader, task) else None


def by_source(graded: collect.Graded) -> dict[str, float]:
  """val-core/{source}/{mean@k, pass@k} of each data source, as dashboards name them."""
  sources = np.array([prompt.task for prompt in graded.prompts])
  out = {}
  for source in dict.fromkeys(sources.tolist()):
    score_PR = graded.scores_PR[sources == source]
    for name, (value, _) in scores_lib.scores(score_PR).items():
      kind, at, k = name.partition("@")
      if at:
        kind = "mean" if kind == "avg" else kind
        out[f"val-core/{source}/{kind}@{k}"] = value
  return out


def show(columns: dict[str, dict[str, dict]]) -> None:
  """Prints scores (as JSON holds them): a row per metric, a column per evaluation."""
  table = rich_table.Table()
  table.add_column("metric", no_wrap=True)
  for name in columns:
    table.add_column(name, overflow="fold")
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
