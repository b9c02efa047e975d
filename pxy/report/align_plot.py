"""The plots of gradient alignment (evaluate/align.py); drawn like those of plot.py.

One measurement is drawn with right and wrong responses apart; several (of several runs)
each in a colour of their own.
"""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker

from pxy.report import curve, plot

Measured = tuple[str, dict]
"""A name, and the JSON of `pxy align`."""

SPLITS = (("correct", curve.COLOURS["c2"][0]), ("wrong", curve.COLOURS["c1"][0]))


def panels(measured: Sequence[Measured]) -> list[plot.Panel]:
  """The panels that these measurements have data for."""

  def panel(key, title, note, draw):
    def drawn(fig, _):
      draw(fig.subplots(), measured)

    return plot.Panel(f"align-{key}", title, note, lambda _: True, drawn)

  found = [
    panel(
      "cosine",
      "Alignment of the two gradients",
      "Cosine of the gradients of log P(y) and log P(y|x), a response a dot. Right of"
      " zero, moving y in P(y) moves it the same way in P(y|x). Bars: means.",
      _cosines,
    ),
    panel(
      "step",
      "One step on log P(y)",
      "Change of log P(y|x) per token that the first order predicts, and that a step"
      " made. On the line, the first order is all.",
      _steps,
    ),
  ]
  for key, label in (("position", "position"), ("entropy", "entropy")):
    if any(report[key] for _, report in measured):
      found.append(
        panel(
          key,
          f"Log-prob gap by {label}",
          f"Mean of log P(y_t|x, ...) − log P(y_t|c, ...) over the tokens in a bin of"
          f" {BINS[key]}.",
          functools.partial(_gaps, key=key),
        )
      )
  if any(len(report["blocks"]) > 1 for _, report in measured):
    found.append(
      panel(
        "blocks",
        "Alignment by block of parameters",
        "Mean cosine of the two gradients within each block.",
        _blocks,
      )
    )
  return found


BINS = {
  "position": "positions in the response, from 0",
  "entropy": "entropies of the next token given the prompt, in nats",
}


def _split(report, name) -> list[dict]:
  """Right or wrong responses; ungraded ones are neither."""
  return [
    row
    for row in report["responses"]
    if row["score"] is not None and (row["score"] > 0.5) == (name == "correct")
  ]


def _series(measured, value):
  """(label, colour, numbers) of each set of dots."""
  if len(measured) > 1:
    return [
      (name, curve.colour(i), [value(row) for row in report["responses"]])
      for i, (name, report) in enumerate(measured)
    ]
  ((_, report),) = measured
  return [
    (name, colour, [value(row) for row in _split(report, name)])
    for name, colour in SPLITS
  ]


def _cosines(ax, measured):
  series = _series(measured, lambda row: row["cosine"])
  rng = np.random.default_rng(0)  # the dots' heights mean nothing
  for i, (_, colour, x) in enumerate(series):
    y = -i + rng.uniform(-0.28, 0.28, len(x))
    ax.plot(x, y, "o", color=colour, ms=3.2, alpha=0.55, mew=0)
    if x:
      ax.plot(2 * [np.mean(x)], [-i - 0.36, -i + 0.36], color=colour, lw=2.4)
  ax.axvline(0, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  ax.set_yticks([-i for i in range(len(series))])
  ax.set_yticklabels([f"{name} ({len(x)})" for name, _, x in series])
  for label, (_, colour, _) in zip(ax.get_yticklabels(), series, strict=True):
    label.set_color(colour)
    label.set_weight("bold")
  ax.set_ylim(0.6 - len(series), 0.6)
  ax.grid(False)
  ax.grid(True, axis="x")
  low, high = ax.get_xlim()
  ax.set_xlim(min(low, -0.05), max(high, 0.05))
  ax.set_xlabel("cosine")


def _steps(ax, measured):
  both = _series(measured, lambda row: (row["predicted"], row["measured"]))
  flat = np.array([pair for _, _, pairs in both for pair in pairs]).reshape(-1, 2)
  if len(flat):
    ends = np.array([min(0.0, flat.min()), max(0.0, flat.max())])
    ax.plot(ends, ends, color=curve.BEFORE, lw=1.0)
  for name, colour, pairs in both:
    if pairs:
      x, y = np.array(pairs).T
      ax.plot(x, y, "o", color=colour, ms=3.2, alpha=0.6, mew=0, label=name)
  ax.axhline(0, color=curve.GRID, lw=0.8)
  for axis in (ax.xaxis, ax.yaxis):
    axis.set_major_locator(ticker.MaxNLocator(4))
    axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{1e3 * x:.3g}"))
  ax.set_xlabel("predicted, 0.001 nats per token")
  ax.set_title("measured")
  if len(both) > 1 and len(flat):
    ax.legend(frameon=False, loc="upper left", labelcolor="linecolor", handlelength=0.6)


def _gaps(ax, measured, *, key):
  ends = []
  for i, (name, report) in enumerate(measured):
    bins = report[key]
    if not bins:
      continue
    hue = curve.colour(i)
    y = [found["gap"] for found in bins]
    ax.plot(range(len(y)), y, color=hue, marker="o", ms=3.5)
    ends.append((y[-1], hue, name))
  longest = max((report[key] for _, report in measured), key=len)
  ax.axhline(0, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  ax.set_xticks(range(len(longest)))
  ax.set_xticklabels([_range(found, key) for found in longest], size=7.5)
  ax.set_xlabel(key if key == "position" else "entropy, nats")
  ax.set_title("gap, nats per token")
  curve.label_ends(ax, ends, measured)


def _range(found, key) -> str:
  low, high = found["from"], found["to"]
  if key == "position":
    return f"{low}" if high == low + 1 else f"{low}-{high - 1}"
  if high is None:
    return f"over {low:g}"
  return f"{low:g}-{high:g}" if low else f"under {high:g}"


def _blocks(ax, measured):
  named = [(name, report["blocks"]) for name, report in measured if report["blocks"]]
  places = list(dict.fromkeys(block for _, blocks in named for block in blocks))
  ends = []
  for i, (name, blocks) in enumerate(named):
    y = [blocks.get(place, {}).get("cosine", np.nan) for place in places]
    ax.plot(range(len(y)), y, color=curve.colour(i), marker="o", ms=3.5)
    ends.append((y[-1], curve.colour(i), name))
  ax.axhline(0, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  shown = range(0, len(places), max(1, len(places) // 10))
  ax.set_xticks(list(shown))
  ax.set_xticklabels([places[i].replace("layers.", "layer ") for i in shown], size=7.5)
  ax.set_title("cosine")
  curve.label_ends(ax, ends, measured)
