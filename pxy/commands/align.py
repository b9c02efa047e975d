"""`pxy align`: draws responses to a task, grades them, and measures alignment.

The JSON holds what align.summary says, and a row for each response. Of a run folder it
is also kept as RUN/align/STEP.json, and RUN's report shows it.
"""

import jax
import numpy as np
from rich import console
from rich import table as rich_table

from pxy import config, files
from pxy.bucket import mirror
from pxy.commands import eval as eval_lib
from pxy.evaluate import align
from pxy.report import align_plot, page, plot
from pxy.rl import context, pack, view
from pxy.run import batch
from pxy.show import progress
from pxy.train import step as step_lib


def command(options) -> None:
  """`pxy align`; options are options.Align."""
  for name in ("n", "responses", "step_size"):
    if not getattr(options, name) > 0:
      raise config.Error(f"--{name.replace('_', '-')}: must be > 0")
  term = config.Term(space="marginal", context=options.context)
  problems = -(-options.n // options.responses)
  least = context.of(term).groups(term)

  def enough(there: int) -> None:
    if there < least:
      raise config.Error(
        f"--context {options.context} needs {least} problems, there are {there}: raise"
        f" --n (--responses {options.responses} to each), or name a task with more"
      )

  enough(problems)
  for name in ("json", "plot"):
    if getattr(options, name) is not None:
      files.writable(getattr(options, name), f"--{name} {getattr(options, name)}")
  policy, split, found = eval_lib.examine(options, problems, options.responses)
  enough(len(found.graded.answers))
  rollouts = found.graded.rollouts()
  contexts = batch.contexts(policy.tokenizer, [term])
  ones_B = np.ones(len(rollouts.response_len_B))
  marginal = batch.view_of(term, rollouts, contexts, jax.random.key(options.seed))
  views = [
    pack.rows(view.conditional(rollouts), rollouts, ones_B, ones_B),
    pack.rows(marginal, rollouts, ones_B, ones_B, on_policy=False),
  ]
  # Of whole distributions: top-p's set of tokens is another in each view.
  sampling = config.Sampling(temperature=options.temperature or 1.0)
  scorers = [
    step_lib.scorer(policy.arch, config.Compute(), sampling, forward_mode=forward)
    for forward in ((False, True) if options.one_gradient else (False,))
  ]
  meter = align.Meter(*scorers, step=options.step_size)
  flat = found.graded.flat[: options.n]
  views = [jax.tree.map(lambda x: x[: len(flat)], packed) for packed in views]
  rows = []
  with progress.counting("align", len(flat)) as count:
    for row in meter(policy.params, *views):
      rows.append(row)
      count(len(rows))
  report = {
    "model": options.model,
    "task": options.task,
    "split": split,
    "context": options.context,
    "temperature": options.temperature,
    "top_p": options.top_p,
    "seed": options.seed,
    "step_size": options.step_size,
    **align.summary(rows, [(a.prompt.uid, a.outcome.score) for a in flat]),
    "responses": [_row(a, row) for a, row in zip(flat, rows, strict=True)],
  }
  show(report)
  _write(options, report)


def _row(answer, row) -> dict:
  """A response's numbers as JSON; those of its tokens are in the bins."""
  score = answer.outcome.score
  numbers = ("inner", "cosine", "norm_conditional", "norm_marginal")
  numbers += ("eta", "predicted", "measured")
  tokens = row["tokens"]
  return {
    "uid": answer.prompt.uid,
    "outcome": answer.outcome.status,
    "score": score if np.isfinite(score) else None,
    "tokens": tokens,
    "logp_conditional": float(row["logp_conditional"].mean()) if tokens else None,
    "logp_marginal": float(row["logp_marginal"].mean()) if tokens else None,
    **{name: row[name] for name in numbers},
    "inner_sum": row["inner"] * tokens**2,
    "blocks": row["blocks"],
  }


def _write(options, report) -> None:
  if options.json is not None:
    files.write_json(options.json, report)
  if options.plot is not None:
    panels = align_plot.panels([("", report)])
    files.write_bytes(options.plot, plot.png([], panels))
  shown = page.keep(options.model, options.step, "align", report)
  if shown is not None:
    print(f"report: {mirror.name(shown)}")


def show(report: dict) -> None:
  """Prints the summary: a column for all, correct and wrong responses."""
  splits = report["splits"]
  table = rich_table.Table(
    f"log P(y) and log P(y|x), context {report['context']}",
    *(f"{name} ({found['responses']})" for name, found in splits.items()),
  )
  for name, label in ROWS.items():
    table.add_row(label, *(_cell(name, found[name]) for found in splits.values()))
  console.Console().print(table)
  step, splits = report["one_step"], report["splits"]
  if step["slope"] is not None:
    print(
      f"one step of {report['step_size']:g} nats per token: log P(y|x) changed"
      f" {step['slope']:.3f} times as much as the first order says"
    )


ROWS = {
  "inner": "inner product, per token",
  "inner_sum": "inner product, summed",
  "cosine": "cosine",
  "negative": "share negative",
  "logp_conditional": "log P(y|x) per token",
  "logp_marginal": "log P(y) per token",
  "gap": "log-prob gap per token",
}


def _cell(name: str, score: dict) -> str:
  value, se = score["value"], score["se"]
  if value is None:
    return "-"
  if name == "negative":
    return f"{100 * value:.1f} %"
  error = "" if se is None else f" ± {se:.2g}"
  span = "" if "logp" in name else f"  [{score['min']:.3g}, {score['max']:.3g}]"
  return f"{value:.3g}{error}{span}"
