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
from rich import table as rich_table

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.evaluate import passk
from pxy.evaluate import scores as scores_lib
from pxy.rewards import answer as answer_lib
from pxy.sampling import collect


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
