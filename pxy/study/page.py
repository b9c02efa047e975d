"""What a study found, to be read: README.md, its figures, results.json.

Everything on the page follows from results.json; `text` and the drawings take nothing
else.
"""

import collections
import io
import json
import math
import pathlib
import re
import statistics

import matplotlib
from matplotlib import figure as figure_lib

from pxy import files
from pxy.study import readings, verdict

COLOURS = {"supported": "#2e7d32", "contradicted": "#c62828", "undecided": "#757575"}
OTHER = "#1565c0"
"""Of `no difference larger than d`."""
SIDES = {"more": "above 0", "less": "below 0", "same": "none beyond the margin"}
_PALETTE = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["tab10"].colors]

_LEGEND = (
  "A world is a base model with its task; an arm is a method, trained on it with each",
  "seed. A difference is of two arms, paired by seed, with a 95 % interval: over",
  "seeds and problems, or over seeds alone where a run has one number, such as its",
  "steps to a score. p is that of a difference from 0, after Holm's correction for",
  "all comparisons of the study; a margin is what would matter. Told from 0, a claim",
  "is supported or contradicted, however small the difference; not told from it and",
  "surely within the margin, there is none larger. A claim of no difference asks for",
  "the margin alone. More on verdicts, and what each arm trains: `docs/study.md`,",
  "`pxy/methods.py`, and the study's own file.",
)


def write(out: pathlib.Path, results: dict) -> pathlib.Path:
  """Writes all of it into a folder; returns the page's path."""
  files.write_json(out / "results.json", results)
  for path, draw in drawings(results).items():
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(out / path, _png(draw))
  files.write_text(out / "README.md", text(results))
  return out / "README.md"


def drawings(results: dict) -> dict:
  """Figures by their path beside the page; each is made by a call."""
  found = {}
  if asked := _answered(results):
    found["forest.png"] = lambda: forest(asked)
  for name, there in _by_claim(asked).items():
    found[f"claims/{name}.png"] = lambda there=there: claim_figure(there)
  if worlds := _curves(results):
    found["curves.png"] = lambda: curves(worlds)
  return found


def text(results: dict) -> str:
  """The page."""
  asked = _answered(results)
  lines = ["# What the study found", "", _counted(results), "", *_LEGEND, ""]
  if "command" in results:
    lines += [f"    {results['command']}", ""]
  if asked:
    lines += ["![every claim: difference, 95 % interval, margin](forest.png)", ""]
  if results["claims"]:
    lines += [
      "| claim | world | measure | difference | 95 % | p, Holm | seeds | verdict |",
      "|---|---|---|---|---|---|---|---|",
      *map(_row, results["claims"]), "",
    ]  # fmt: skip
  lines += _methods(results)
  if _curves(results):
    lines += [
      "## While it trains", "",
      f"Mean score of the responses of every {readings.WINDOW} steps, which are to"
      " rows not trained on before; a band is one standard error over seeds.", "",
      "![score by step](curves.png)", "",
    ]  # fmt: skip
  if asked:
    lines += ["## Claim by claim", ""]
  for name, there in _by_claim(asked).items():
    lines += [f"### {_plain(there[0]['text'])}", "", *_claim(there), ""]
    lines += [f"![{name}: each run](claims/{name}.png)", ""]
  odd = [x for x in results["cells"] if x["state"] == "failed" or _left_out(x)]
  if odd:
    lines += ["## Cells that take no part", "", "| cell | state | |", "|---|---|---|"]
    lines += [*map(_cell, odd), ""]
  lines += _open(results)
  return "\n".join(lines)


def _open(results) -> list[str]:
  """Which cells have not been run, by world: methods and how many seeds."""
  left: dict[str, dict[str, int]] = {}
  for one in results["cells"]:
    if one["state"] == "open":
      there = left.setdefault(one["world"], {})
      there[one["method"]] = there.get(one["method"], 0) + 1
  if not left:
    return []
  lines = ["## Not run yet", ""]
  for world, there in left.items():
    said = ", ".join(f"{method} ({seeds})" for method, seeds in there.items())
    lines.append(f"- {world}, with the seeds that lack: {said}")
  return [*lines, ""]


def told(results: dict, name: str) -> str:
  """What became of a claim, for another page: its difference and verdict by world."""
  found = []
  for one in results["claims"]:
    if one["claim"] == name:
      number = f" {_difference(one)}," if "difference" in one else ""
      found.append(f"{one['world']}{number} {one['verdict']}")
  return "; ".join(found)


def ours(results: dict, name: str) -> str:
  """A figure for another page: of a method the accuracy that it ends with, of a claim
  its difference in each world; a dash where there is none yet."""
  at: dict[str, list[float]] = {}
  for one in results["cells"]:
    if one["method"] == name and "after/bound/pass@1" in one:
      at.setdefault(one["world"], []).append(100 * one["after/bound/pass@1"])
  said = [f"{world} {_about(values, 1)} %" for world, values in at.items()]
  said += [
    f"{one['world']} {_difference(one)}"
    for one in _answered(results)
    if one["claim"] == name and not at
  ]
  return ", ".join(said) or "-"


def _difference(one: dict) -> str:
  digits = 3 if max(abs(one["low"]), abs(one["high"])) >= 0.01 else 4
  at, low, high = (f"{one[x]:+.{digits}f}" for x in ("difference", "low", "high"))
  return f"{at} ({low} .. {high})"


def _answered(results) -> list[dict]:
  return [one for one in results["claims"] if "difference" in one]


def _by_claim(asked: list[dict]) -> dict[str, list[dict]]:
  """Each claim's rows, one a world."""
  found: dict[str, list[dict]] = {}
  for one in asked:
    found.setdefault(one["claim"], []).append(one)
  return found


def _counted(results) -> str:
  """How many cells and verdicts."""
  cells, claims = results["cells"], results["claims"]
  done = sum(map(_in, cells))
  seeds = sorted({one["seed"] for one in cells})
  hours = sum(one.get("seconds", 0) for one in cells) / 3600
  said = (
    f"{done} of {len(cells)} cells are done; seeds {', '.join(map(str, seeds))}. One"
    f" after the other they took {hours:.1f} hours."
  )
  of = collections.Counter(one.get("code", "an older one") for one in cells if _in(one))
  if len(of) > 1:
    each = ", ".join(f"{n} of {code}" for code, n in of.most_common())
    said += f" They are not of one state of pxy's code: {each}."
  if not claims:
    return said
  kinds = [_kind(one["verdict"]) for one in claims]
  each = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
  return f"{said} Of {len(claims)} comparisons: {each}."


def _kind(verdict: str) -> str:
  return "no difference beyond the margin" if "no difference" in verdict else verdict


def _row(one: dict) -> str:
  head = f"| {_plain(one['text'])} | {one['world']} | `{one['measure']}`"
  if "difference" not in one:
    return f"{head} | | | | | {one['verdict']} |"
  return (
    f"{head} | {one['difference']:+.4f} | {one['low']:+.4f} .. {one['high']:+.4f}"
    f" | {_p(one['p_holm'])} | {len(one['seeds'])} | {_verdict(one)} |"
  )


def _p(p: float) -> str:
  return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _verdict(one: dict) -> str:
  word = one["verdict"]
  if word == "undecided":
    if len(one["seeds"]) == 1:
      return f"{word}: of one seed the luck is unknown"
    if not any(one.get("reached", [1])):
      return f"{word}: no run gets there"
    if "reached" in one and verdict.rare(one["reached"], len(one["seeds"])):
      return f"{word}: not most runs of both arms get there"
    if not one["visible"]:
      return f"{word}: all seeds differ by the same, so the luck is unknown"
    word += f"; {one['visible']:.3g} could be seen"
    if one["seeds_needed"] is None:
      word += f", {one['margin']:g} with more problems, not seeds"
    elif one["seeds_needed"] > len(one["seeds"]):
      word += f", {one['margin']:g} with {one['seeds_needed']} seeds"
  return word


def _claim(there: list[dict]) -> list[str]:
  """What was expected and what came."""
  first = there[0]
  paper = f" The paper: {_plain(first['paper'])}." if first["paper"] else ""
  lines = [
    f"`{first['measure']}` of {first['arm']} against {first['against']}. Expected:"
    f" {SIDES[first['expects']]}; a margin of {first['margin']:g}.{paper}",
    "",
  ]
  for one in there:
    new, old = (_about(values) for values in one["values"])
    lines.append(
      f"- {one['world']}: {new} against {old}, {one['difference']:+.4f}"
      f" ({one['low']:+.4f} .. {one['high']:+.4f}): **{_verdict(one)}**" + _reached(one)
    )
  return lines


def _reached(one: dict) -> str:
  if "reached" not in one:
    return ""
  new, old = one["reached"]
  return (
    f"; {new} and {old} of {len(one['seeds'])} runs get there at all, the others count"
    " as all steps"
  )


def _about(values: list[float], digits: int = 4) -> str:
  """Mean, and the standard error over runs."""
  mean = f"{statistics.fmean(values):.{digits}f}"
  if len(values) < 2:
    return mean
  return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def _methods(results) -> list[str]:
  """A table of each world: methods by the accuracy that they end with."""
  lines = []
  rows: dict[str, dict[str, list[dict]]] = {}
  for one in results["cells"]:
    if "after/bound/pass@1" in one:
      rows.setdefault(one["world"], {}).setdefault(one["method"], []).append(one)
  for world, by_method in rows.items():
    runs = [one for there in by_method.values() for one in there]
    most = max(set.intersection(*(set(_ks(one)) for one in runs)))
    names = ("before/bound/pass@1", "after/bound/pass@1", f"after/bound/pass@{most}")
    table = [
      (statistics.fmean(one[names[1]] for one in there), method, there)
      for method, there in by_method.items()
    ]
    lines += [
      f"## Methods on {world}", "",
      f"| method | seeds | pass@1 before | after | pass@{most} after |",
      "|---|---|---|---|---|",
    ]  # fmt: skip
    for _, method, there in sorted(table, reverse=True):
      values = " | ".join(_about([one[name] for one in there]) for name in names)
      lines.append(f"| {method} | {len(there)} | {values} |")
    lines.append("")
  return lines


def _ks(one: dict) -> list[int]:
  found = (re.fullmatch(r"after/bound/pass@(\d+)", name) for name in one)
  return [int(match[1]) for match in found if match]


def _in(one: dict) -> bool:
  return one["state"] == "done" and not _left_out(one)


def _left_out(one: dict) -> bool:
  return one.get("counts") is False


def _cell(one: dict) -> str:
  more = one.get("why", "")
  if _left_out(one):
    more = f"left out: of {json.dumps(one['versions'])}"
  return f"| {one['cell']} | {one['state']} | {_plain(more)} |"


def _plain(text: str) -> str:
  """Within a table's cell."""
  return " ".join(text.split()).replace("|", "\\|")


def forest(claims: list[dict]) -> figure_lib.Figure:
  """A line for each claim: the difference, its interval, and the margin in grey, in
  units of the margin, since the measures have units of their own."""
  rows = len(claims)
  figure = figure_lib.Figure(figsize=(10, 1.2 + 0.3 * rows), layout="constrained")
  axes = figure.subplots()
  limit = 6.0
  axes.axvspan(-1, 1, color="#eeeeee")
  for i, one in enumerate(reversed(claims)):
    colour = COLOURS.get(one["verdict"], OTHER)
    low, at, high = (
      min(limit, max(-limit, one[name] / one["margin"]))
      for name in ("low", "difference", "high")
    )
    axes.plot([low, high], [i, i], color=colour, lw=2)
    axes.plot(at, i, "o" if abs(at) < limit else (">" if at > 0 else "<"), color=colour)
  axes.axvline(0, color="black", lw=0.8)
  axes.set_xlim(-limit - 0.2, limit + 0.2)
  axes.set_ylim(-0.8, rows - 0.2)
  axes.set_yticks(
    range(rows), [f"{one['text']} ({one['world']})" for one in reversed(claims)]
  )
  axes.set_xlabel(
    "difference in margins, its 95 % interval (cut off at 6; grey: within a margin)\n"
    "green: supported, red: contradicted, blue: none beyond it, grey: undecided",
    loc="right",
    fontsize=8,
  )
  return figure


def claim_figure(there: list[dict]) -> figure_lib.Figure:
  """Each run on both sides, joined by seed; a panel a world."""
  figure = figure_lib.Figure(figsize=(3.2 * len(there), 2.6), layout="constrained")
  for axes, one in zip(figure.subplots(1, len(there), squeeze=False)[0], there,
                       strict=True):  # fmt: skip
    new, old = one["values"]
    for a, b in zip(old, new, strict=True):
      axes.plot([0, 1], [a, b], "o-", color="#9e9e9e", lw=1, ms=4)
    means = [statistics.fmean(values) for values in (old, new)]
    colour = COLOURS.get(one["verdict"], OTHER)
    axes.plot([0, 1], means, "s-", color=colour, lw=2.5)
    axes.set_xticks([0, 1], [one["against"], one["arm"]])
    axes.set_xlim(-0.4, 1.4)
    axes.set_title(f"{one['world']}: {_kind(one['verdict'])}", fontsize=8)
    axes.set_ylabel(one["measure"], fontsize=8)
    axes.tick_params(labelsize=8)
  return figure


def _curves(results) -> dict[str, dict[str, list[list[float]]]]:
  """World: method: the curve of each run, of those that are equally long."""
  found: dict[str, dict[str, list[list[float]]]] = {}
  for one in results["cells"]:
    if one.get("curve"):
      there = found.setdefault(one["world"], {}).setdefault(one["method"], [])
      there.append(one["curve"])
  return found


def curves(worlds: dict[str, dict[str, list[list[float]]]]) -> figure_lib.Figure:
  """Score by step, a panel a world; lines are named where they end."""
  most = max(map(len, worlds.values()))
  height = max(5, 0.14 * most + 1)
  figure = figure_lib.Figure(figsize=(6.2 * len(worlds), height), layout="constrained")
  for axes, (world, methods) in zip(
    figure.subplots(1, len(worlds), squeeze=False)[0], worlds.items(), strict=True
  ):
    last = []
    for i, (method, runs) in enumerate(methods.items()):
      runs = [run for run in runs if len(run) == len(runs[0])]
      mean = [statistics.fmean(at) for at in zip(*runs, strict=True)]
      steps = [readings.WINDOW * (t + 1) for t in range(len(mean))]
      colour, dash = _PALETTE[i % 10], ("-", "--", ":")[i // 10 % 3]
      axes.plot(steps, mean, dash, color=colour, lw=1.5)
      if len(runs) > 1:
        error = [
          statistics.stdev(at) / math.sqrt(len(at)) for at in zip(*runs, strict=True)
        ]
        low = [m - e for m, e in zip(mean, error, strict=True)]
        high = [m + e for m, e in zip(mean, error, strict=True)]
        axes.fill_between(steps, low, high, color=colour, alpha=0.12, lw=0)
      last.append((mean[-1], steps[-1], method, colour))
    last.sort()
    places = _apart([y for y, *_ in last], axes.get_ylim(), max(36, most))
    for (y, x, method, colour), place in zip(last, places, strict=True):
      axes.annotate(
        method.removeprefix(f"{world}-"), (x, y), (x * 1.04, place),
        annotation_clip=False, va="center", fontsize=7, color=colour,
        arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4},
      )  # fmt: skip
    axes.set_title(world)
    axes.set_xlabel("step")
    axes.set_ylabel("mean score")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.25)
  return figure


def _apart(at: list[float], span: tuple[float, float], most: int) -> list[float]:
  """Rising places near those of `at`, within the span, of which `most` have room."""
  low, high = span
  gap, out = (high - low) / most, []
  for y in at:
    out.append(max(y, out[-1] + gap if out else low))
  top = high
  for i in reversed(range(len(out))):
    out[i] = top = min(out[i], top)
    top -= gap
  return out


def _png(draw) -> bytes:
  drawn = io.BytesIO()
  draw().savefig(drawn, format="png", dpi=80, metadata={"Software": None})
  return drawn.getvalue()
