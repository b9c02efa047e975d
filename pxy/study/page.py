"""What a study found, to be read: report.md, forest.png, results.json.

Everything on the page follows from results.json; `text` and `forest` take nothing else.
"""

import io
import json
import pathlib

from matplotlib import figure as figure_lib

from pxy import files

COLOURS = {"supported": "#2e7d32", "contradicted": "#c62828", "undecided": "#757575"}
OTHER = "#1565c0"
"""Of `no difference larger than d`."""


def write(out: pathlib.Path, results: dict) -> pathlib.Path:
  """Writes the three into a study's folder; returns the page's path."""
  files.write_json(out / "results.json", results)
  asked = [one for one in results["claims"] if "difference" in one]
  if asked:
    forest(asked, out / "forest.png")
  files.write_text(out / "report.md", text(results, bool(asked)))
  return out / "report.md"


def text(results: dict, drawn: bool) -> str:
  """The page."""
  lines = ["# What the study found", ""]
  if drawn:
    lines += ["![every claim: difference, 95 % interval, margin](forest.png)", ""]
  lines += [
    "| claim | world | measure | difference | 95 % | p, Holm | seeds | verdict |",
    "|---|---|---|---|---|---|---|---|",
  ]
  lines += map(_claim, results["claims"])
  lines += [
    "", "| cell | state | before | after | |", "|---|---|---|---|---|",
    *map(_cell, results["cells"]), "",
  ]  # fmt: skip
  return "\n".join(lines)


def _claim(one: dict) -> str:
  head = f"| {_plain(one['text'])} | {one['world']} | `{one['measure']}`"
  if "difference" not in one:
    return f"{head} | | | | | {one['verdict']} |"
  word = one["verdict"]
  if word == "undecided":
    word += f"; {one['visible']:.3g} could be seen"
    if (one["seeds_needed"] or 0) > len(one["seeds"]):
      word += f", {one['margin']:g} with {one['seeds_needed']} seeds"
  return (
    f"{head} | {one['difference']:+.4f} | {one['low']:+.4f} .. {one['high']:+.4f}"
    f" | {one['p_holm']:.3f} | {len(one['seeds'])} | {word} |"
  )


def _cell(one: dict) -> str:
  found = one.get("measures", {})
  shown = [
    f"{found[name]:.3f}" if name in found else ""
    for name in ("before/bound/pass@1", "after/bound/pass@1")
  ]
  more = one.get("why", "")
  if one.get("counts") is False:
    more = f"left out: of {json.dumps(one['versions'])}"
  return (
    f"| {one['cell']} | {one['state']} | {shown[0]} | {shown[1]} | {_plain(more)} |"
  )


def _plain(text: str) -> str:
  """Within a table's cell."""
  return " ".join(text.split()).replace("|", "\\|")


def forest(claims: list[dict], path: pathlib.Path) -> None:
  """A line for each claim: the difference, its interval, and the margin in grey."""
  rows = len(claims)
  figure = figure_lib.Figure(figsize=(10, 1.2 + 0.34 * rows), layout="constrained")
  axes = figure.subplots()
  for i, one in enumerate(reversed(claims)):
    colour = COLOURS.get(one["verdict"], OTHER)
    axes.fill_betweenx(
      [i - 0.4, i + 0.4], -one["margin"], one["margin"], color="#eeeeee"
    )
    axes.plot([one["low"], one["high"]], [i, i], color=colour, lw=2)
    axes.plot(one["difference"], i, "o", color=colour)
  axes.axvline(0, color="black", lw=0.8)
  axes.set_yticks(
    range(rows), [f"{one['text']} ({one['world']})" for one in reversed(claims)]
  )
  axes.set_xlabel("difference in the claim's measure; 95 % interval; grey: the margin")
  drawn = io.BytesIO()
  figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
  files.write_bytes(path, drawn.getvalue())
