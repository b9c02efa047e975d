"""The plots of `pxy bound` and `pxy probe`, and of probes during training.

Every number is drawn with its 95 % interval; grey is what it would be if there were
nothing to see. One report is drawn in the colours of what it tells apart, several (of
several runs) each in a colour of its own.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import ticker

from pxy.report import curve, plot

Measured = Sequence[tuple[str, dict]]
"""Names, and reports of --json."""

GREEN, RED = curve.COLOURS["c2"][0], curve.COLOURS["c1"][0]
SOLVED = {
  "bound/srr": "kept, of the base's",
  "bound/ndr": "new, of its own",
  "bound/nscr": "gained − lost",
}
BANDS = ("head", "mid", "tail", "ghost", "seen", "unseen", "unknown")
OVER_STEPS = {
  "bound/verified_pass@1": "verified pass@1",
  "bound/verified_pass@16": "verified pass@16",
  "bound/pass@1": "pass@1",
  "bound/pass@8": "pass@8",
  "calibration/ece": "calibration error",
  "hallucination/unknown_wrong": "unknown, yet answered",
  "bias/tv": "bias, TV",
  "robust/worst": "right in all variants",
  "diversity/answer_entropy": "entropy of answers",
}
"""What is drawn over steps: the first six that are known."""


def curves(measured: Measured) -> list[plot.Panel]:
  """pass@k, and its difference to the base, of reports that have them."""
  found = []
  for prefix, what in (("verified_", "every step right"), ("", "right answer")):
    if _any(measured, "measures", rf"bound/{prefix}pass@\d+"):
      found.append(
        _panel(
          f"bound-{prefix}pass",
          f"pass@k, {what}",
          "Chance that at least one of k responses is right, with 95 % intervals over"
          " problems. Rings: k = n, with no spread within a problem."
          + (" Grey: the answers of other problems, chance." if not prefix else ""),
          measured,
          lambda ax, m, p=prefix: _passk(ax, m, p),
        )
      )
  if _any(measured, "difference", r"bound/(verified_)?pass@\d+"):
    found.append(
      _panel(
        "bound-difference",
        "pass@k minus that of the base",
        "Paired by problem, 95 % intervals. Below zero, the base was better.",
        measured,
        _difference,
      )
    )
  return found


def bound(measured: Measured) -> list[plot.Panel]:
  """The panels that reports of `pxy bound` have data for."""
  found = curves(measured)
  if _any(measured, "measures", "|".join(SOLVED)):
    found.append(
      _panel(
        "bound-solved",
        "Solved problems, kept and gained",
        "A problem is solved if one of n/2 responses is right. Grey: two halves of the"
        " base's own responses.",
        measured,
        lambda ax, m: _dots(ax, m, SOLVED, clip=(-1, 1)),
      )
    )
  return found + _perplexities(
    "bound",
    measured,
    "Perplexity of what each wrote",
    "First the model that reads, then the one that wrote (gold: the world's own text).",
  )


def probe(measured: Measured) -> list[plot.Panel]:
  """The panels that reports of `pxy probe` have data for."""
  found = []
  if _have(measured, "reliability"):
    found.append(
      _panel(
        "probe-reliability",
        "Is it right as often as it is sure?",
        "Confidence is the share of a problem's other responses that give the same"
        " answer. Grey: where a calibrated model lies in 95 % of simulations.",
        measured,
        _reliability,
      )
    )
  if _have(measured, "risk"):
    found.append(
      _panel(
        "probe-risk",
        "Errors of the surest responses",
        "Error rate by the share of responses that are answered, the surest first, with"
        " 95 % intervals over problems. Dashed: the error rate of all, which a"
        " confidence that says nothing has throughout.",
        measured,
        _risk,
      )
    )
  bands = _bands(measured)
  if bands:
    found.append(
      _panel(
        "probe-hallucination",
        "Answers by how well known the subject is",
        "Share of responses that are right, abstain or are wrong, with 95 % intervals;"
        " (n problems). Of ghosts and unknown names nothing can be known."
        if len(measured) == 1
        else "Share of responses that give a wrong answer, with 95 % intervals.",
        measured,
        lambda ax, m: _hallucination(ax, m, bands),
      )
    )
  if _have(measured, "answers"):
    found.append(
      _panel(
        "probe-bias",
        "What is answered over all questions",
        "Share of each answer over all questions, with 95 % intervals over problems."
        " Lines: what is right; triangles: what is answered to no question at all.",
        measured,
        _answers,
      )
    )
  variants = {
    name: name.removeprefix("robust/accuracy_")
    for name in _names(measured, r"robust/accuracy_.+")
  }
  if variants:
    found.append(
      _panel(
        "probe-robust",
        "The same questions, put otherwise",
        "Accuracy in each variant, and the chance to be right in all of them at once;"
        " 95 % intervals. Dashed: the plain questions; grey: as many responses to one"
        " of them.",
        measured,
        lambda ax, m: _variants(ax, m, variants),
      )
    )
  return found + _perplexities(
    "probe",
    measured,
    "Perplexity by context",
    "Of the model's own responses, after their prompt, another prompt, and none.",
  )


def over_steps(groups) -> list[plot.Panel]:
  """A panel of the probes during training (probe_every), if there were any."""
  shown = [n for n in OVER_STEPS if any(_steps(g, n)[0] for g in groups)]
  if "bound/verified_pass@1" in shown:
    shown = [name for name in shown if not name.startswith("bound/pass@")]
  shown = shown[:6]
  if not shown:
    return []

  def drawn(fig, groups):  # names at the last curves alone
    rows = 2 if len(shown) > 2 else 1
    axes = np.ravel(fig.subplots(rows, -(-len(shown) // rows), squeeze=False))
    for ax in axes[len(shown) :]:
      ax.set_axis_off()
    for ax, name in zip(axes, shown, strict=False):
      ends = []
      for i, group in enumerate(groups):
        step, value, low, high = _steps(group, name)
        if step:
          ax.fill_between(step, low, high, color=curve.colour(i), alpha=0.18, lw=0)
          ax.plot(step, value, color=curve.colour(i), marker="o", ms=2.5)
          ends.append((value[-1], curve.colour(i), group.name))
      ax.set_title(OVER_STEPS[name])
      curve.over_steps(ax, groups, label=False, named=False)
      ax.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
      ax.yaxis.set_major_locator(ticker.MaxNLocator(4))
      if name == shown[-1]:
        curve.label_ends(ax, ends, groups)

  note = (
    "A few problems on the weights of each step (probe_every), with 95 % intervals over"
    " problems, or ± one standard error over seeds."
  )
  return [plot.Panel("probe-steps", "Probes", note, lambda _: True, drawn)]


# Data.


def _panel(key, title, note, measured, draw: Callable) -> plot.Panel:
  def drawn(fig, _):
    draw(fig.subplots(), measured)

  return plot.Panel(key, title, note, lambda _: True, drawn)


def _names(measured, pattern, where="measures") -> list[str]:
  """Names of measures, in the order in which they come."""
  names = (name for _, report in measured for name in report.get(where) or {})
  return [n for n in dict.fromkeys(names) if re.fullmatch(pattern, n)]


def _any(measured, where, pattern) -> bool:
  return bool(_names(measured, pattern, where))


def _have(measured, figure) -> bool:
  return any((report.get("figures") or {}).get(figure) for _, report in measured)


def _bands(measured) -> list[str]:
  """Bands of hallucination, known ones first."""
  names = _names(measured, r"hallucination/\w+_wrong")
  found = {name.removeprefix("hallucination/").removesuffix("_wrong") for name in names}
  return sorted(found, key=lambda b: (BANDS.index(b) if b in BANDS else len(BANDS), b))


def _steps(group, name) -> tuple[list, list, list, list]:
  """Steps at which all runs of a group were probed, value, low and high."""
  each = [
    {step: found[name] for step, found in run.probed.items() if name in found}
    for run in group.runs
  ]
  steps = sorted(set.intersection(*map(set, each))) if each else []
  out = [], [], []
  for step in steps:
    ends = [[run[step].get(key) for run in each] for key in ("value", "low", "high")]
    value, low, high = (np.array(end, float) for end in ends)  # None is nan
    if len(each) > 1:
      reach = value.std(ddof=1) / np.sqrt(len(each))
      low, high = value - reach, value + reach
    for column, x in zip(out, (value, low, high), strict=True):
      column.append(float(np.mean(x)))
  return steps, *out


def _at_k(measures: dict, prefix: str) -> list[tuple[int, dict]]:
  """(k, measure), k rising."""
  found = (
    (re.fullmatch(rf"bound/{prefix}pass@(\d+)", name), one)
    for name, one in measures.items()
  )
  return sorted(((int(m[1]), one) for m, one in found if m), key=lambda x: x[0])


# Drawing.


def _line(ax, points, hue, *, ends, name, size=3.5):
  """A curve over k with its band; k = n stands apart."""
  last = len(points)
  if last > 1 and "k = n" in str(points[-1][1].get("method")):
    last -= 1
  k = [k for k, _ in points]
  value, low, high = (
    [one[key] if one[key] is not None else np.nan for _, one in points]
    for key in ("value", "low", "high")
  )
  ax.fill_between(k[:last], low[:last], high[:last], color=hue, alpha=0.18, lw=0)
  ax.plot(k[:last], value[:last], color=hue, marker="o", ms=size)
  for i in range(last, len(points)):
    ax.plot(2 * [k[i]], [low[i], high[i]], color=hue, lw=1.2, alpha=0.6)
    ax.plot(k[i], value[i], "o", color=hue, mfc=curve.COLOURS["paper"][0], ms=4.5)
  ends.append((value[-1], hue, name))


def _over_k(ax, ends, names):
  from matplotlib import ticker

  ticks = sorted({int(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
  ax.set_xscale("log", base=2)
  ax.xaxis.set_major_locator(ticker.FixedLocator([t for t in ticks if t > 0]))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:.0f}"))
  ax.yaxis.set_major_formatter(curve.percent)
  ax.set_xlabel("k responses per problem")
  curve.label_ends(ax, ends, names)


def _passk(ax, measured, prefix):
  ends = []
  chance = [
    (k, one["null"]) for k, one in _at_k(measured[0][1]["measures"], prefix)
    if one.get("null") and one["null"]["value"] is not None
  ]  # fmt: skip
  if chance:
    k = [k for k, _ in chance]
    low, value, high = ([x[key] for _, x in chance] for key in ("low", "value", "high"))
    ax.fill_between(k, low, high, color=curve.MUTED, alpha=0.25, lw=0)
    ax.plot(k, value, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
    ends.append((value[-1], curve.MUTED, "chance"))
  base = next((r for _, r in measured if r.get("base_measures")), None)
  if base is not None:
    points = _at_k(base["base_measures"], prefix)
    if points:
      _line(ax, points, curve.BEFORE, ends=ends, name="base")
  for i, (name, report) in enumerate(measured):
    points = _at_k(report["measures"], prefix)
    if points:
      _line(ax, points, curve.colour(i), ends=ends, name=name)
  ax.set_ylim(0, 1.02)
  _over_k(ax, ends, ends)


def _difference(ax, measured):
  ax.axhline(0, color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  ends = []
  for i, (name, report) in enumerate(measured):
    held = report.get("difference") or {}
    kinds = [("verified_", "every step"), ("", "answer")]
    kinds = [(p, what) for p, what in kinds if _at_k(held, p)]
    for j, (prefix, what) in enumerate(kinds if len(measured) == 1 else kinds[:1]):
      label = what if len(measured) == 1 else name
      _line(ax, _at_k(held, prefix), curve.colour(i + j), ends=ends, name=label)
  ends = [end for end in ends if np.isfinite(end[0])]
  _over_k(ax, ends, ends)


def _rows(ax, labels):
  """An axis with a row for each label, from the top."""
  ax.set_yticks([-i for i in range(len(labels))])
  ax.set_yticklabels(labels)
  ax.set_ylim(0.5 - len(labels), 0.5)
  ax.grid(False)
  ax.grid(True, axis="x")


def _spread(i: int, many: int) -> float:
  """Where report i lies within its row."""
  return 0.0 if many == 1 else 0.28 - 0.56 * i / (many - 1)


def _key(ax, measured):
  """Names of several reports, in their colours."""
  if len(measured) > 1:
    for i, (name, _) in enumerate(measured):
      ax.plot([], [], "o", color=curve.colour(i), ms=4, label=name)
    ax.legend(
      frameon=False, labelcolor="linecolor", handlelength=0.6, loc="best", fontsize=7.5
    )


def _dots(ax, measured, labels: dict[str, str], clip=None):
  names = [n for n in labels if any(n in r["measures"] for _, r in measured)]
  for row, name in enumerate(names):
    for i, (_, report) in enumerate(measured):
      one = report["measures"].get(name)
      if one is None or one["value"] is None:
        continue
      y, null = -row + _spread(i, len(measured)), one.get("null")
      if null and null["low"] is not None:
        ax.plot(
          [null["low"], null["high"]], [y, y], color=curve.BEFORE, lw=7, alpha=0.35,
          solid_capstyle="butt",
        )  # fmt: skip
      ax.plot([one["low"], one["high"]], [y, y], color=curve.colour(i), lw=1.4)
      ax.plot(one["value"], y, "o", color=curve.colour(i), ms=4.5)
  n = {name: _n(measured, name) for name in names}
  _rows(ax, [f"{labels[name]} ({n[name]})" for name in names])
  if clip:
    low, high = ax.get_xlim()
    ax.set_xlim(min(0, max(low, clip[0] - 0.02)), min(high, clip[1] + 0.02))
  ax.xaxis.set_major_formatter(curve.percent)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(5))
  _key(ax, measured)


def _n(measured, name) -> int:
  return max(r["measures"][name]["n"] for _, r in measured if name in r["measures"])


def _variants(ax, measured, variants):
  for i, (_, report) in enumerate(measured):
    held = report["measures"]
    for name, variant in variants.items():
      change = held.get(f"robust/change_{variant}")
      if name in held and change is not None:
        plain = held[name]["value"] - change["value"]
        ax.axvline(plain, color=curve.colour(i), lw=0.9, ls=(0, (2, 2)))
        break
  _dots(ax, measured, variants | {"robust/worst": "right in all"}, clip=(0, 1))


def _perplexities(key, measured, title, note) -> list[plot.Panel]:
  names = [
    n.removeprefix("bound/ppl_").removesuffix("_median")
    for n in _names(measured, r"bound/ppl_.+_median")
  ]
  if not names:
    return []
  order = ("prompt", "start", "document", "other")
  names.sort(key=lambda name: order.index(name) if name in order else len(order))

  def draw(ax, measured):
    for row, name in enumerate(names):
      for i, (_, report) in enumerate(measured):
        held = [
          report["measures"].get(f"bound/ppl_{name}_{q}")
          for q in ("q25", "median", "q75")
        ]
        if any(one is None or one["value"] is None for one in held):
          continue
        y = -row + _spread(i, len(measured))
        low, middle, high = held
        ax.plot(
          [low["value"], high["value"]], [y, y], color=curve.colour(i), lw=6, alpha=0.3,
          solid_capstyle="butt",
        )  # fmt: skip
        span = [middle["low"], middle["high"]]
        ax.plot(span, [y, y], color=curve.colour(i), lw=1.4)
        ax.plot(middle["value"], y, "o", color=curve.colour(i), ms=4.5)
    n = {name: _n(measured, f"bound/ppl_{name}_median") for name in names}
    _rows(ax, [f"{name.replace('_', ' of ')} ({n[name]})" for name in names])
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    _key(ax, measured)

  note += " Dots: medians with 95 % intervals; bars: the quarter points; (n problems)."
  return [_panel(f"{key}-ppl", title, note, measured, draw)]


def _reliability(ax, measured):
  ax.plot([0, 1], [0, 1], color=curve.MUTED, lw=0.9, ls=(0, (2, 2)))
  for i, (_, report) in enumerate(measured):
    points = (report.get("figures") or {}).get("reliability") or []
    if not points:
      continue
    x, y, low, high = (
      np.array([p[key] for p in points], float)
      for key in ("confidence", "accuracy", "low", "high")
    )
    size = np.array([p["n"] for p in points], float)
    if len(measured) == 1:
      ax.fill_between(x, low, high, color=curve.BEFORE, alpha=0.3, lw=0)
    ax.plot(x, y, color=curve.colour(i), lw=1.2)
    ax.scatter(
      x, y, s=8 + 60 * size / size.max(), color=curve.colour(i), zorder=3, lw=0
    )
    if len(measured) == 1:
      for p in points:
        ax.annotate(
          f"{p['n']}", (p["confidence"], p["accuracy"]), xytext=(5, -9),
          textcoords="offset points", color=curve.MUTED, size=6.5,
        )  # fmt: skip
  ax.set_xlim(-0.02, 1.02)
  ax.set_ylim(-0.02, 1.02)
  ax.xaxis.set_major_formatter(curve.percent)
  ax.yaxis.set_major_formatter(curve.percent)
  ax.set_xlabel("confidence (numbers: responses)")
  ax.set_title("accuracy")
  _key(ax, measured)


def _risk(ax, measured):
  ends = []
  for i, (name, report) in enumerate(measured):
    points = (report.get("figures") or {}).get("risk") or []
    if not points:
      continue
    x, y, low, high = (
      [p[key] for p in points] for key in ("coverage", "risk", "low", "high")
    )
    ax.axhline(y[-1], color=curve.BEFORE, lw=0.9, ls=(0, (2, 2)))
    ax.fill_between(x, low, high, color=curve.colour(i), alpha=0.18, lw=0)
    ax.plot(x, y, color=curve.colour(i), marker="o", ms=3)
    ends.append((y[-1], curve.colour(i), name))
  ax.set_xlim(0, 1)
  ax.set_ylim(0, 1.02)
  ax.xaxis.set_major_formatter(curve.percent)
  ax.yaxis.set_major_formatter(curve.percent)
  ax.set_xlabel("coverage")
  ax.set_title("error rate")
  curve.label_ends(ax, ends, ends if len(measured) > 1 else [])


def _hallucination(ax, measured, bands):
  if len(measured) > 1:
    _dots(ax, measured, {f"hallucination/{b}_wrong": b for b in bands}, clip=(0, 1))
    return
  ((_, report),) = measured
  colours = {"correct": GREEN, "abstained": curve.BEFORE, "wrong": RED}
  for row, band in enumerate(bands):
    left = 0.0
    for kind, hue in colours.items():
      one = report["measures"].get(f"hallucination/{band}_{kind}")
      width = (one or {}).get("value") or 0.0
      if not width:
        continue
      ax.barh(-row, width, 0.62, left, color=hue, alpha=0.55, lw=0)
      if kind == "correct":
        ax.plot([one["low"], one["high"]], 2 * [-row + 0.1], color=hue, lw=1.6)
      if kind == "wrong":
        span = [1 - one["high"], 1 - one["low"]]
        ax.plot(span, 2 * [-row - 0.1], color=hue, lw=1.6)
      left += width
  n = {b: _n(measured, f"hallucination/{b}_wrong") for b in bands}
  _rows(ax, [f"{band} ({n[band]})" for band in bands])
  ax.set_xlim(0, 1)
  ax.xaxis.set_major_formatter(curve.percent)
  for x, (kind, hue) in zip((0, 0.5, 1), colours.items(), strict=True):
    ax.text(
      x, 1.03, {"correct": "right"}.get(kind, kind), color=hue, weight="bold",
      ha=("left", "center", "right")[int(2 * x)], transform=ax.transAxes,
    )  # fmt: skip


def _answers(ax, measured):
  known = [
    (i, (report.get("figures") or {}).get("answers") or [])
    for i, (_, report) in enumerate(measured)
  ]
  known = [(i, rows) for i, rows in known if rows]
  texts = list(dict.fromkeys(row["answer"] for _, rows in known for row in rows))
  for i, rows in known:
    for row in rows:
      y = -texts.index(row["answer"]) + _spread(i, len(measured))
      high = 0.7 if len(measured) == 1 else 0.5 / len(measured)
      ax.barh(y, row["given"], high, color=curve.colour(i), alpha=0.4, lw=0)
      ax.plot([row["low"], row["high"]], [y, y], color=curve.colour(i), lw=1.4)
      for context, sign in (("start", ">"), ("empty", "<")):
        if row.get(context) is not None:
          ax.plot(
            row[context], y - 0.2 * (context == "empty") + 0.2 * (context == "start"),
            sign, color=curve.CYCLE[3] if len(measured) == 1 else curve.colour(i), ms=4,
          )  # fmt: skip
  for row in known[0][1]:
    y = -texts.index(row["answer"])
    ax.plot(2 * [row["right"]], [y - 0.42, y + 0.42], color=curve.INK, lw=1.6)
  _rows(ax, [text[:24] for text in texts])
  ax.set_xlim(left=0)
  ax.xaxis.set_major_formatter(curve.percent)
  ax.set_xlabel(
    f"{known[0][1][0]['n']} questions; ▸ after a start token, ◂ empty prompt"
  )
  _key(ax, measured)
