"""The figures of docs/measures.md: one for each group of measures.

  pxy probe builtin:world --json world.json
  python docs/figures/measures.py world.json

A dot is a value, its line the 95 % interval over problems, a grey band the middle 95 %
of the null; the number in brackets is how many problems there are. Several models in
the file have a colour each. What the file lacks is left out.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

import matplotlib
from matplotlib import figure, ticker

from pxy.report import curve

HERE = pathlib.Path(__file__).resolve().parent
KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
VARIANTS = ("mark-first", "renamed", "backwards", "distractor", "style-last")
BANDS = ("head", "mid", "tail", "ghost", "seen", "unseen")
CONFIDENCES = {"agreement": "", "sequence": "_sequence"}
CONTEXTS = ("prompt", "document", "start")

FIGURES = {
  "bound": {
    "right answer in k": {k: f"bound/pass@{k}" for k in KS},
    "right in every step": {k: f"bound/verified_pass@{k}" for k in KS},
  },
  "robust": {
    "accuracy minus plain": {v: f"robust/change_{v}" for v in VARIANTS},
    "flip": {v: f"robust/flip_{v}" for v in VARIANTS},
  },
  "calibration": {
    title: {c: f"calibration/{name}{end}" for c, end in CONFIDENCES.items()}
    for title, name in {"ECE": "ece", "Brier": "brier", "AUROC": "auroc"}.items()
  },
  "hallucination": {
    kind: {band: f"hallucination/{band}_{kind}" for band in BANDS}
    for kind in ("correct", "wrong", "abstained")
  },
  "bias": {
    "total variation": {
      "from what is true": "bias/tv",
      "from no prompt": "bias/tv_start",
      "from an empty one": "bias/tv_empty",
    },
    "cues": {"cue": "bias/cue", "follows": "bias/follows", "s_AMB": "bias/s_amb"},
  },
  "kept": {
    "nats per token of held-out text": {c: f"kept/nll_{c}" for c in CONTEXTS},
    "nats by which a question helps": {"cloze": "kept/cloze"},
  },
  "diversity": {
    "right solutions": {
      "8 right ones have": "diversity/distinct@8",
      "there are at least": "diversity/chao1",
    },
    "entropy, nats": {
      "answer": "diversity/answer_entropy",
      "token": "diversity/token_entropy",
    },
  },
}
"""Of each figure the panels, and of each panel what stands beside a measure. Numbers
are a curve over k, words are rows."""


def draw(name: str, reports: Sequence[dict]) -> figure.Figure:
  """The figure of a group from what `pxy probe --json` wrote, one report a model."""
  panels = {
    title: kept
    for title, rows in FIGURES[name].items()
    if (kept := {k: m for k, m in rows.items() if any(m in of(r) for r in reports)})
  }
  if not panels:
    raise SystemExit(f"{name}: the file has none of its measures")
  tall = max(1.0 if _curved(rows) else len(rows) / 4 for rows in panels.values())
  fig = figure.Figure(figsize=(7.2, 0.8 + 1.5 * tall**0.7), layout="constrained")
  axes = fig.subplots(1, len(panels), squeeze=False)[0]
  for ax, (title, rows) in zip(axes, panels.items(), strict=True):
    ax.set_title(title)
    (_curve if _curved(rows) else _rows)(ax, rows, reports)
  if len(reports) > 1:
    for i, report in enumerate(reports):
      axes[-1].plot([], [], "o", color=curve.colour(i), ms=4, label=report["model"])
    fig.legend(loc="outside lower right", ncols=len(reports), frameon=False)
  return fig


def of(report: dict) -> dict[str, dict]:
  """Its measures by name."""
  return report["measures"]


def _curved(rows) -> bool:
  return all(isinstance(label, int) for label in rows)


def _curve(ax, rows, reports):
  """Over k, with bands."""
  for i, report in enumerate(reports):
    at = [(k, of(report)[m]) for k, m in rows.items() if m in of(report)]
    k = [k for k, _ in at]
    low, high, value = ([one[x] for _, one in at] for x in ("low", "high", "value"))
    ax.fill_between(k, low, high, color=curve.colour(i), alpha=0.18, lw=0)
    ax.plot(k, value, "o-", color=curve.colour(i), ms=3.5)
    null = [(k, one["null"]) for k, one in at if one["null"]]
    if null:
      edges = ([one[x] for _, one in null] for x in ("low", "high"))
      ax.fill_between([k for k, _ in null], *edges, color=curve.BEFORE, alpha=0.4, lw=0)
  ax.set_xscale("log", base=2)
  ax.xaxis.set_major_locator(ticker.FixedLocator(list(rows)))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:.0f}"))
  ax.yaxis.set_major_formatter(curve.percent)
  ax.set_ylim(0, 1)
  ax.set_xlabel(f"k responses to each of {max(one['n'] for _, one in at)} problems")


def _rows(ax, rows, reports):
  """A row a measure."""
  step, labels = 0.7 / len(reports), []
  for y, (label, measure) in enumerate(rows.items()):
    counts = []
    for i, report in enumerate(reports):
      if (one := of(report).get(measure)) is None:
        continue
      counts.append(one["n"])
      at = y + (i - (len(reports) - 1) / 2) * step
      if null := one["null"]:
        span = null["high"] - null["low"]
        ax.barh(at, span, step, null["low"], color=curve.BEFORE, alpha=0.4, lw=0)
      ax.plot([one["low"], one["high"]], [at, at], color=curve.colour(i), lw=1.4)
      ax.plot(one["value"], at, "o", color=curve.colour(i), ms=4.5)
    labels.append(f"{label} ({max(counts)})")
  ax.set_yticks(range(len(rows)), labels)
  ax.set_ylim(len(rows) - 0.4, -0.6)
  ax.grid(False)
  ax.grid(True, axis="x")
  left, right = ax.get_xlim()
  ax.set_xlim(min(0, left), max(0, right))
  if ax.dataLim.x0 < 0:
    ax.axvline(0, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  ax.xaxis.set_major_locator(ticker.MaxNLocator(4))


def main(path: str, out: pathlib.Path = HERE) -> None:
  found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  reports = found if isinstance(found, list) else [found]
  with matplotlib.rc_context(curve.STYLE):
    for name in FIGURES:
      fig = draw(name, reports)
      paper = curve.COLOURS["paper"][0]
      fig.savefig(out / f"{name}.svg", facecolor=paper, metadata={"Date": None})


if __name__ == "__main__":
  main(*sys.argv[1:])
