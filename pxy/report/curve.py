"""What the plots share: colours, curves over steps, phases, labels at lines' ends.

A colour has a light and a dark value. The light one is drawn; in an SVG it is then
replaced by a CSS variable, so that one drawing serves both.

matplotlib is imported by what draws: a run draws at its end, and a page needs colours.
"""

import numpy as np

# Name -> (light, dark). The light value is drawn and stands for the name in the SVG, so
# no two may be the same. The hues are Okabe and Ito's, a little darker for thin lines.
COLOURS = {
  "paper": ("#ffffff", "#14181d"),
  "ink": ("#1c2530", "#e6eaef"),
  "muted": ("#697480", "#97a3af"),
  "grid": ("#e6eaee", "#2a3138"),
  "shade": ("#f2f5f8", "#1b2127"),
  "before": ("#8c96a1", "#8a949f"),
  "c0": ("#0068b0", "#56b4f0"),
  "c1": ("#d55e00", "#ff9450"),
  "c2": ("#00936c", "#35d0a4"),
  "c3": ("#b04f8f", "#e79acb"),
  "c4": ("#8a6d00", "#e3c352"),
  "c5": ("#4a9fd8", "#a5d8ff"),
}
INK, MUTED, GRID, SHADE, BEFORE = (
  COLOURS[name][0] for name in ("ink", "muted", "grid", "shade", "before")
)
CYCLE = [COLOURS[f"c{i}"][0] for i in range(6)]
DASHES = ["-", (0, (4, 1.5)), (0, (1, 1.2))]

STYLE = {
  "font.family": "sans-serif",
  "font.sans-serif": ["DejaVu Sans"],
  "font.size": 8.5,
  "text.color": INK,
  "axes.edgecolor": GRID,
  "axes.labelcolor": MUTED,
  "axes.labelsize": 8.5,
  "axes.titlesize": 8.5,
  "axes.titlecolor": MUTED,
  "axes.titlelocation": "left",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.spines.left": False,
  "axes.grid": True,
  "axes.grid.axis": "y",
  "axes.axisbelow": True,
  "grid.color": GRID,
  "grid.linewidth": 0.8,
  "xtick.color": GRID,
  "ytick.color": GRID,
  "xtick.labelcolor": MUTED,
  "ytick.labelcolor": MUTED,
  "ytick.left": False,
  "lines.linewidth": 1.8,
  "lines.solid_capstyle": "round",
  "svg.fonttype": "none",
  "svg.hashsalt": "pxy",
  "text.parse_math": False,
}
Z95 = 1.96


def percent(x: float, _=None) -> str:
  """A formatter of an axis."""
  return f"{100 * x:.4g} %"


def colour(i: int) -> str:
  """Of group i."""
  return CYCLE[i % len(CYCLE)]


def first(groups, *names: str) -> str:
  """The first of the metrics that any group has."""
  return next((n for n in names if any(g.has(n) for g in groups)), names[-1])


def curves(ax, groups, name) -> list[tuple]:
  """One curve per group; returns their ends (height, colour, name), for labels."""
  bars = not same_phases(groups)
  return [
    curve(ax, group, group.series(name), i, bars=bars)
    for i, group in enumerate(groups)
    if group.has(name)
  ]


def curve(ax, group, series, i, *, bars=False) -> tuple:
  """One group's curve: running mean, over raw values or a band; returns its end."""
  hue = colour(i)
  dash = DASHES[(i // len(CYCLE)) % len(DASHES)]
  smooth = running(group, series.step, series.mean)
  if len(group.runs) == 1:
    ax.plot(series.step, series.mean, color=hue, lw=0.8, alpha=0.35)
  else:
    se = running(group, series.step, series.se)
    ax.fill_between(series.step, smooth - se, smooth + se, color=hue, alpha=0.18, lw=0)
  ax.plot(series.step, smooth, color=hue, ls=dash)
  if bars:
    mark_switches(ax, group, series, smooth, hue)
  return smooth[-1], hue, group.name


def running(group, step: np.ndarray, value: np.ndarray) -> np.ndarray:
  """Centred running mean over about a fifteenth of the run, within each phase."""
  half = len(step) // 30
  out = np.empty(len(step))
  phase = np.searchsorted([p.first for p in group.phases], step, side="right")
  for i in range(len(step)):
    near = np.arange(max(0, i - half), min(len(step), i + half + 1))
    out[i] = value[near[phase[near] == phase[i]]].mean()
  return out


def over_steps(ax, groups, *, label=True, named=True, shade=True) -> None:
  """The step axis, with the phases of the runs shaded if they agree."""
  from matplotlib import ticker

  last = max((g.phases[-1].last for g in groups if g.phases), default=1)
  ax.set_xlim(0, last)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
  if label:
    ax.set_xlabel("step")
  phases = groups[0].phases
  if len(phases) < 2 or not same_phases(groups):
    return
  for i, phase in enumerate(phases):
    start = 0 if i == 0 else phase.first - 0.5
    end = last if i == len(phases) - 1 else phase.last + 0.5
    if i % 2 == 0 and shade:
      ax.axvspan(start, end, color=SHADE, lw=0, zorder=0)
    if i:
      ax.axvline(start, color=MUTED, lw=0.9, ls=(0, (2, 2)), zorder=1)
    if named and (end - start) / last > 0.019 * len(phase.name):
      ax.annotate(
        phase.name,
        (start, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, 3),
        textcoords="offset points",
        color=MUTED,
        size=7.5,
        va="bottom",
      )


def same_phases(groups) -> bool:
  """Whether the runs switch phases at the same steps."""
  plans = [[(p.name, p.first) for p in g.phases] for g in groups]
  return all(plan == plans[0] for plan in plans)


def mark_switches(ax, group, series, smooth, hue) -> None:
  """Bars across the curve where its phase changes."""
  for phase in group.phases[1:]:
    at = phase.first - 0.5
    ax.plot(at, np.interp(at, series.step, smooth), "|", color=hue, ms=11, mew=1.8)


def from_zero(ax, share) -> None:
  """Lets the axis start at zero, if the curve then still fills `share` of it."""
  low, high = ax.get_ylim()
  if low < share * high:
    ax.set_ylim(0, 1.05 * high)


def label_ends(ax, ends, groups) -> None:
  """Names at the ends of lines, moved apart where they would overlap."""
  if len(groups) < 2 or not ends:
    return
  low, high = ax.get_ylim()
  gap = 0.085 if ax.get_position().height > 0.5 else 0.12
  ends = sorted(ends)
  heights = [(end[0] - low) / (high - low) for end in ends]
  for i in range(1, len(heights)):
    heights[i] = max(heights[i], heights[i - 1] + gap)
  over = max(0.0, heights[-1] - 1.0)
  ceiling = heights[-1] - over
  heights = [min(h, ceiling - gap * i) for i, h in enumerate(reversed(heights))][::-1]
  for height, (_, hue, name) in zip(heights, ends, strict=True):
    ax.annotate(
      name,
      (1, height),
      xycoords="axes fraction",
      xytext=(6, 0),
      textcoords="offset points",
      color=hue,
      weight="bold",
      va="center",
      size=8,
    )
