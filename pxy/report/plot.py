"""The plots of a report. Each panel draws what it is about into a (sub)figure.

Rules: lines are labelled where they end, not in a legend; phases are shaded and named,
and the switch is marked; a band is one standard error over seeds, or a 95 % interval
over problems; the raw values of a single run stay visible behind their running mean,
which never runs across a phase switch. Colours are told apart by the colour-blind.

Figures are SVG for the page, whose colours and font are CSS variables (light and dark
from the same drawing), and PNG elsewhere.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib import figure, ticker

from pxy.report import curve
from pxy.report import runs as runs_lib

RATE = "actor/lr"


@dataclasses.dataclass(frozen=True)
class Panel:
  """A plot: its title, how to read it, whether the data are there, and the drawing."""

  key: str
  title: str
  note: str
  known: Callable[[Sequence[runs_lib.Group]], bool]
  draw: Callable[[figure.FigureBase, Sequence[runs_lib.Group]], None]


def svg(panel: Panel, groups: Sequence[runs_lib.Group]) -> str:
  """The panel as an <svg> element for a page that defines the CSS variables."""
  with matplotlib.rc_context(curve.STYLE):
    fig = figure.Figure(figsize=(5.3, 2.9), layout="constrained")
    panel.draw(fig, groups)
    out = io.StringIO()
    fig.savefig(out, format="svg", transparent=True, metadata={"Date": None})
  text = out.getvalue()
  text = text[text.index("<svg") :]
  text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
  # Several drawings share a page: identifiers must not meet.
  text = re.sub(r'\bid="([^"]+)"', rf'id="{panel.key}-\1"', text)
  text = re.sub(r"(url\(|href=\")#", rf"\1#{panel.key}-", text)
  text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1, flags=re.S)
  text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1, flags=re.S)
  text = text.replace("<svg ", f'<svg role="img" aria-label="{panel.title}" ', 1)
  text = text.replace("'DejaVu Sans', sans-serif", "var(--font)")
  for name, (light, _) in curve.COLOURS.items():
    text = text.replace(light, f"var(--{name})")
  return text


def png(groups: Sequence[runs_lib.Group], panels: Sequence[Panel]) -> bytes:
  """All panels, two in a row, with their titles."""
  rows = -(-len(panels) // 2)
  with matplotlib.rc_context(curve.STYLE):
    columns = min(2, len(panels))
    fig = figure.Figure(figsize=(5.5 * columns, 3.2 * rows), layout="constrained")
    parts = fig.subfigures(rows, columns, squeeze=False, wspace=0.04, hspace=0.06)
    for part, panel in zip(parts.flat, panels, strict=False):
      part.suptitle(panel.title, x=0.01, ha="left", weight="bold", size=10)
      panel.draw(part, groups)
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=160, facecolor=curve.COLOURS["paper"][0])
  return out.getvalue()


def available(groups: Sequence[runs_lib.Group]) -> list[Panel]:
  """The panels that these runs have data for."""
  first, *others = PANELS
  return [panel for panel in (first, *rewards(groups), *others) if panel.known(groups)]


def rewards(groups: Sequence[runs_lib.Group]) -> list[Panel]:
  """A panel for each of several weighted rewards."""
  found = {
    name.removesuffix("/std"): None
    for group in groups
    for run in group.runs
    for record in run.steps
    for name in record
    if name.startswith("reward/") and name.endswith("/std")
  }
  return [
    Panel(
      f"reward-{i}",
      f"Reward: {name.removeprefix('reward/')}",
      "One of the summands of the reward, before its weight: mean and standard"
      " deviation over the samples of a step.",
      _all_have(f"{name}/mean", f"{name}/std"),
      functools.partial(_one_reward, name=name),
    )
    for i, name in enumerate(found)
  ]


# Panels.


def _reward(fig, groups):
  ax = fig.subplots()
  name = curve.first(groups, "solve_rate", "critic/score/mean")
  ends = curve.curves(ax, groups, name)
  share = all(
    0 <= g.series(name).mean.min() and g.series(name).mean.max() <= 1
    for g in groups
    if g.has(name)
  )
  if share:
    for i, group in enumerate(groups):
      one = len(groups) == 1
      _evaluations(ax, group, curve.INK if one else curve.colour(i), one)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(curve.percent)
  curve.over_steps(ax, groups)
  curve.label_ends(ax, ends, groups)


def _one_reward(fig, groups, name):
  parts = fig.subplots(1, 2)
  for ax, how in zip(parts, ("mean", "std"), strict=True):
    ends = curve.curves(ax, groups, f"{name}/{how}")
    ax.set_title({"mean": "mean", "std": "standard deviation"}[how])
    curve.over_steps(ax, groups, named=False)
  curve.label_ends(parts[-1], ends, groups)


def _evaluations(ax, group, colour, named):
  """Rings at the evaluations, with 95 % intervals, or ± se over seeds."""
  name = next((n for n in group.eval_names if n.startswith("avg@")), None)
  if name is None:
    return
  scores = [(step, *group.score(step, name)) for step in group.eval_steps]
  step, value, se = np.array(scores).reshape(-1, 3).T
  width = curve.Z95 if len(group.runs) == 1 else 1.0
  ax.errorbar(
    step,
    value,
    np.nan_to_num(width * se),
    fmt="o",
    ms=4.5,
    color=colour,
    lw=1.2,
    mfc=curve.COLOURS["paper"][0],
    mew=1.4,
    zorder=5,
    clip_on=False,
  )
  if named:
    for i in {0, len(step) - 1}:
      ax.annotate(
        f"{100 * value[i]:.1f} %",
        (step[i], value[i]),
        xytext=(7, 10) if i == 0 else (2, 11 if value[i] < 0.88 else -20),
        textcoords="offset points",
        ha="left" if i == 0 else "right",
        weight="bold",
      )


def _passk(fig, groups):
  ax = fig.subplots()
  ends = []
  one = len(groups) == 1
  models = {str(g.runs[0].config.get("model")) for g in groups}
  for i, group in enumerate(groups):
    names = sorted(
      (n for n in group.eval_names if n.startswith("pass@")),
      key=lambda n: int(n.split("@")[1]),
    )
    if not names:
      continue
    k = np.array([int(n.split("@")[1]) for n in names])
    curves = {}
    for when, step in (("before", group.first_eval), ("after", group.last_eval)):
      value, se = np.array([group.score(step, n) for n in names]).T
      curves[when] = value
      if when == "before" and i and len(models) == 1:
        continue  # The runs start from the same model: one curve stands for all.
      colour = curve.colour(i)
      if when == "before" and (one or len(models) == 1):
        colour = curve.BEFORE
      style = "-" if when == "after" or colour == curve.BEFORE else curve.DASHES[1]
      width = curve.Z95 if len(group.runs) == 1 else 1.0
      ax.fill_between(
        k, value - width * se, value + width * se, color=colour, alpha=0.18, lw=0
      )
      ax.plot(k, value, ls=style, color=colour, marker="o", ms=3.5)
      if np.isfinite(value).any() and not one:
        end = value[np.isfinite(value)][-1]
        if when == "after":
          ends.append((end, colour, group.name))
        elif colour == curve.BEFORE:
          ends.append((end, colour, "before"))
    if one:
      _name_between(ax, k, curves)
  ax.set_xscale("log", base=2)
  ticks = sorted({int(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
  ax.xaxis.set_major_locator(ticker.FixedLocator(ticks))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:.0f}"))
  ax.yaxis.set_major_formatter(curve.percent)
  low = ax.get_ylim()[0]
  ax.set_ylim(max(0, low), 1.02)
  ax.set_xlabel("k responses per problem")
  curve.label_ends(ax, ends, groups)


def _name_between(ax, k, curves):
  """Names two curves where they are farthest apart, the upper above it."""
  before, after = curves["before"], curves["after"]
  if not np.isfinite(after).any():
    return
  i = int(np.nanargmax(np.abs(after - before)[: max(1, len(k) - 1)]))
  up = after[i] >= before[i]
  for name, value, colour, above in (
    ("after", after[i], curve.CYCLE[0], up),
    ("before", before[i], curve.BEFORE, not up),
  ):
    ax.annotate(
      name,
      (k[i], value),
      xytext=(2, 13) if above else (8, -9),
      textcoords="offset points",
      color=colour,
      weight="bold",
      va="bottom" if above else "top",
    )


def _groups(fig, groups):
  ax = fig.subplots()
  kinds = ("solved", "mixed", "unsolved")
  if len(groups) > 1:
    ends = []
    for i, group in enumerate(groups):
      series = {kind: group.series(f"groups/{kind}") for kind in kinds}
      total = np.maximum(sum(s.mean for s in series.values()), 1)
      mixed = series["mixed"]
      share = runs_lib.Series(mixed.step, mixed.mean / total, mixed.se / total)
      bars = not curve.same_phases(groups)
      ends.append(curve.curve(ax, group, share, i, bars=bars))
    ax.set_ylim(0, 1.02)
    curve.over_steps(ax, groups)
    curve.label_ends(ax, ends, groups)
  else:
    group = groups[0]
    series = [group.series(f"groups/{kind}") for kind in kinds]
    step = series[0].step
    total = np.maximum(sum(s.mean for s in series), 1)
    share = np.array([curve.running(group, step, s.mean / total) for s in series])
    colours = (curve.COLOURS["c2"][0], curve.CYCLE[0], curve.BEFORE)
    floor = np.zeros(len(step))
    for kind, height, colour in zip(kinds, share, colours, strict=True):
      ax.fill_between(step, floor, floor + height, color=colour, alpha=0.3, lw=0)
      ax.plot(step, floor + height, color=curve.COLOURS["paper"][0], lw=1.2)
      at = int(np.argmax(height[1:-1])) + 1 if len(height) > 2 else 0
      if height[at] > 0.09:
        at = int(np.clip(at, len(step) * 0.14, len(step) * 0.86))
        ax.text(
          step[at],
          floor[at] + height[at] / 2,
          kind,
          color=colour,
          weight="bold",
          ha="center",
          va="center",
        )
      floor = floor + height
    ax.set_ylim(0, 1)
    curve.over_steps(ax, groups, shade=False)
    if len(step) > 1:
      ax.set_xlim(left=step[0])
  ax.yaxis.set_major_formatter(curve.percent)


def _length(fig, groups):
  top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
  ends = curve.curves(top, groups, "response_length/mean")
  curve.over_steps(top, groups, label=False, named=False)
  curve.from_zero(top, 0.6)
  top.set_title("mean, tokens")
  curve.label_ends(top, ends, groups)
  curve.curves(bottom, groups, "response_length/clip_ratio")
  curve.over_steps(bottom, groups, named=False)
  bottom.set_ylim(0, max(0.05, 1.1 * bottom.get_ylim()[1]))
  bottom.yaxis.set_major_locator(ticker.MaxNLocator(2))
  bottom.yaxis.set_major_formatter(curve.percent)
  bottom.set_title("truncated")


def _thoughts(fig, groups):
  parts = fig.subplots(1, 3)
  for ax, kind in zip(parts, ("reflection", "transition", "execution"), strict=True):
    ends = curve.curves(ax, groups, f"thoughts/{kind}_rate")
    ax.set_title(kind)
    curve.over_steps(ax, groups, named=False)
    low, high = ax.get_ylim()
    middle = (low + high) / 2
    reach = max(high - low, 0.02) / 2
    low = max(0.0, middle - reach)
    ax.set_ylim(low, max(low + 0.02, min(1.002, middle + reach)))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(curve.percent)
    ax.xaxis.set_major_locator(
      ticker.MaxNLocator(3, integer=True, steps=[1, 2, 4, 5, 10])
    )
  curve.label_ends(parts[-1], ends, groups)


def _loss(fig, groups):
  ax = fig.subplots()
  ends = curve.curves(ax, groups, "loss")
  curve.over_steps(ax, groups)
  curve.label_ends(ax, ends, groups)


def _entropy(fig, groups):
  ax = fig.subplots()
  ends = curve.curves(
    ax, groups, curve.first(groups, "rollout/entropy", "actor/entropy")
  )
  curve.over_steps(ax, groups)
  curve.from_zero(ax, 0.5)
  curve.label_ends(ax, ends, groups)


def _rate(fig, groups):
  ax = fig.subplots()
  ends = []
  for i, group in enumerate(groups):
    series = group.series(RATE)
    if len(series.step):  # as it was, and no running mean: it has no noise
      ax.plot(series.step, series.mean, color=curve.colour(i))
      ends.append((series.mean[-1], curve.colour(i), group.name))
  ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:.4g}"))
  curve.over_steps(ax, groups)
  ax.set_ylim(bottom=0)
  curve.label_ends(ax, ends, groups)


def _rate_moves(groups):
  """One rate that stands for the whole run is in its config."""
  each = (group.series(RATE).mean for group in groups)
  return any(len(np.unique(mean)) > 1 for mean in each)


def _all_have(*names):
  return lambda groups: any(all(g.has(n) for n in names) for g in groups)


def _has_passk(groups):
  return any(
    g.last_eval is not None and any(n.startswith("pass@") for n in g.eval_names)
    for g in groups
  )


PANELS = (
  Panel(
    "reward",
    "Reward",
    "Mean score of the samples trained on. Rings: avg@k on unseen problems, with 95 %"
    " intervals over problems, or ± se over seeds.",
    lambda groups: any(
      g.has(n) for g in groups for n in ("solve_rate", "critic/score/mean")
    ),
    _reward,
  ),
  Panel(
    "passk",
    "pass@k",
    "Chance that at least one of k responses to an unseen problem is right.",
    _has_passk,
    _passk,
  ),
  Panel(
    "groups",
    "Prompts with something to learn",
    "Share of the prompts whose responses are all right (solved), all wrong (unsolved)"
    " or both (mixed). Only mixed ones move GRPO.",
    _all_have("groups/solved", "groups/mixed", "groups/unsolved"),
    _groups,
  ),
  Panel(
    "length",
    "Response length",
    "Tokens of the sampled responses, and how many of them ran into the limit.",
    _all_have("response_length/mean", "response_length/clip_ratio"),
    _length,
  ),
  Panel(
    "thoughts",
    "Thoughts",
    "Share of the thoughts (stretches between blank lines) that reflect, change course,"
    " or just go on.",
    _all_have(
      *(f"thoughts/{k}_rate" for k in ("reflection", "transition", "execution"))
    ),
    _thoughts,
  ),
  Panel(
    "loss",
    "Loss",
    "Cross-entropy of the documents, nats per token.",
    _all_have("loss"),
    _loss,
  ),
  Panel(
    "entropy",
    "Entropy",
    "Of the sampled policy, nats per token. Near zero, the model no longer explores.",
    lambda groups: any(
      g.has(n) for g in groups for n in ("rollout/entropy", "actor/entropy")
    ),
    _entropy,
  ),
  Panel(
    "rate",
    "Learning rate",
    "Of each step.",
    _rate_moves,
    _rate,
  ),
)
