"""The curves of `pxy bound`: pass@k of a base and its runs, and their difference."""

import io
import re

from matplotlib import figure, ticker

from pxy.report import curve

_AT = re.compile(r"bound/(verified_)?pass@(\d+)")


def png(reports: list[dict]) -> bytes:
  """A picture of the reports that --json has."""
  verified = any("bound/verified_pass@1" in r["measures"] for r in reports)
  fig = figure.Figure(figsize=(10, 4), layout="constrained")
  left, right = fig.subplots(1, 2)
  for i, report in enumerate(reports):
    _band(left, report["measures"], verified, i, report["model"])
    _band(right, report.get("difference", {}), verified, i, report["model"])
  chance = [
    (k, m["null"]["value"])
    for k, m in _points(reports[0]["measures"], False)
    if m["null"] is not None
  ]
  if chance:
    left.plot(*zip(*chance, strict=True), color="0.5", ls=":", label="chance")
  left.set_ylabel(("verified " if verified else "") + "pass@k")
  right.set_ylabel("minus the base")
  right.axhline(0, color="0.5", lw=0.8)
  for ax in (left, right):
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(ticker.ScalarFormatter())
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(curve.percent))
    ax.set_xlabel("k")
    if ax.get_legend_handles_labels()[0]:
      ax.legend(fontsize=8)
  out = io.BytesIO()
  fig.savefig(out, format="png", dpi=120)
  return out.getvalue()


def _band(ax, measures: dict, verified: bool, i: int, label: str) -> None:
  points = _points(measures, verified)
  if not points:
    return
  ks = [k for k, _ in points]
  value, low, high = ([m[key] for _, m in points] for key in ("value", "low", "high"))
  ax.plot(ks, value, color=curve.colour(i), label=label)
  ax.fill_between(ks, low, high, color=curve.colour(i), alpha=0.15, lw=0)


def _points(measures: dict, verified: bool) -> list[tuple[int, dict]]:
  """(k, measure) by rising k."""
  found = []
  for name, measure in measures.items():
    match = _AT.fullmatch(name)
    if match and bool(match[1]) == verified:
      found.append((int(match[2]), measure))
  return sorted(found, key=lambda pair: pair[0])
