"""What `pxy bound` and `pxy probe` measured, as sections of a report: plots, a few
questions with their answers, and a table of all measures; and what `pxy gate` decided.
Of each group of runs its first run is shown, as it was measured last.
"""

import dataclasses
import re
from collections.abc import Sequence

from pxy import fields
from pxy.measures import gate, names
from pxy.report import plot, probe_plot, runs

Rows = list[tuple[str, ...]]
KINDS = (
  ("bound", "The bound", "bounds", probe_plot.bound),
  ("probes", "Probes", "probes", probe_plot.probe),
)
LONG = 300
"""Characters of a question or an answer that are shown."""


@dataclasses.dataclass(frozen=True)
class Section:
  """One task of one of KINDS, or all gates.

  Attributes:
    key: of its files; letters, digits and hyphens.
    facts: what was measured, of which weights, a sentence each.
    table: all measures, a header first.
    questions: tables of one question in all its variants, headers first.
  """

  key: str
  title: str
  facts: list[str]
  panels: list[plot.Panel]
  table: Rows
  questions: list[Rows]


def of(groups: Sequence[runs.Group]) -> list[Section]:
  """Those that any of the runs has data for."""
  out = []
  for key, title, kind, panels in KINDS:
    found = [
      (group, *list(getattr(group.runs[0], kind).items())[-1])
      for group in groups
      if getattr(group.runs[0], kind)
    ]
    tasks = dict.fromkeys(str(r.get("task")) for *_, reports in found for r in reports)
    for number, task in enumerate(tasks):
      held = [
        (group, step, report)
        for group, step, reports in found
        for report in reports
        if str(report.get("task")) == task
      ]
      measured = [(group.name, report) for group, _, report in held]
      drawn = panels(measured)
      if key == "probes" and not any(part.key.startswith("bound") for part in out):
        drawn = probe_plot.curves(measured) + drawn
      own = key if len(tasks) == 1 else f"{key}-{number}"
      drawn = [dataclasses.replace(p, key=f"{p.key}-{number}") for p in drawn]
      out.append(
        Section(
          own,
          title if len(tasks) == 1 else f"{title}: {task}",
          [_fact(*one) for one in held],
          drawn,
          _table(measured),
          _questions(measured),
        )
      )
  return out + _gates(groups)


def _gates(groups: Sequence[runs.Group]) -> list[Section]:
  """What `pxy gate` decided last on each: how many gates passed, and which did not."""
  facts, table = [], [("gate", "run", "of", "number", "95 % interval", "n", "verdict")]
  for group in groups:
    for step, found in list(group.runs[0].gates.items())[-1:]:
      rows = found["gates"]
      passed = sum(bool(one.get("passed")) for one in rows)
      held = f" against {found['against']}" if "against" in found else ""
      facts.append(
        f"{group.name}, step {step}{held}: {passed} of {len(rows)} gates passed."
      )
      facts += [f"{one['line']}." for one in rows if not one.get("passed")]
      for one in rows:
        value, low, high = (_fine(one.get(key)) for key in ("value", "low", "high"))
        table.append((
          f"{one.get('measure')}, {one.get('wanted')}", group.name, str(one.get("of")),
          value, f"{low} to {high}", str(one.get("n") or "–"), str(one.get("verdict")),
        ))  # fmt: skip
  return [Section("gates", "Gates", facts, [], table, [])] if facts else []


def _fine(x: float | None) -> str:
  return "–" if x is None else gate.number(x).replace("-", "−")


def _fact(group: runs.Group, step: int, report: dict) -> str:
  text = (
    f"{group.name}, step {step}, on {report.get('task')}:"
    f" {report.get('n_problems')} problems, at most {report.get('n_samples')} responses"
    " to each"
  )
  if len(group.runs) > 1:
    text += f"; seed {group.runs[0].config.get('seed', 0)} alone"
  if report.get("against"):
    text += f"; against {report['against']}"
  return f"{text}."


def _table(measured) -> Rows:
  """A row for each measure and run."""
  several = len(measured) > 1
  base = any(report.get("difference") for _, report in measured)
  header = ["measure", *(["run"] if several else []), "value", "95 % interval", "null"]
  header += ["n", *(["base", "minus base", "95 % interval"] if base else []), "meaning"]
  order = sorted(
    {name for _, report in measured for name in report["measures"]}, key=_k
  )
  out = [tuple(header)]
  for name in order:
    for run, report in measured:
      one = report["measures"].get(name)
      if one is None:
        continue
      null = one.get("null")
      row = [name, *([run] if several else []), number(one["value"]), _span(one)]
      row += ["" if null is None else f"{number(null['value'])} ({_span(null)})"]
      row += [str(one["n"])]
      if base:
        old = (report.get("base_measures") or {}).get(name)
        row += ["" if old is None else number(old["value"])]
        more = (report.get("difference") or {}).get(name)
        row += ["", ""] if more is None else [number(more["value"]), _span(more)]
      out.append((*row, _meaning(name)))
  return out


def _k(name: str):
  """pass@4 comes before pass@16."""
  return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)]


def _meaning(name: str) -> str:
  try:
    return names.sentence(name)
  except fields.Error:  # of another version of pxy
    return ""


def number(x: float | None) -> str:
  """Three digits behind the point, and a true minus sign; none for zero."""
  if x is None:
    return "–"
  text = f"{x:.3f}" if abs(x) < 1000 else f"{x:.4g}"
  return text.replace("-", "" if float(text) == 0 else "−")


def _span(one: dict) -> str:
  return f"{number(one['low'])} to {number(one['high'])}"


def _questions(measured) -> list[Rows]:
  found = [
    (name, (report.get("figures") or {}).get("variants") or [])
    for name, report in measured
  ]
  found = [(name, groups) for name, groups in found if groups]
  if not found:
    return []
  said = {
    (name, row["variant"], row["prompt"]): row
    for name, groups in found
    for group in groups
    for row in group["rows"]
  }
  several = [name for name, _ in found] if len(measured) > 1 else ["answers"]
  out = []
  for group in found[0][1]:
    rows: Rows = [("variant", "question", "right answer", *several)]
    for row in group["rows"]:
      cells = [
        _said(said.get((name, row["variant"], row["prompt"]))) for name, _ in found
      ]
      given = (row["variant"], _cut(row["prompt"]), _cut(row["reference"]))
      rows.append((*given, *cells))
    out.append(rows)
  return out


def _said(row: dict | None) -> str:
  if row is None:
    return "–"
  answers = (
    f"{'no answer' if text is None else _cut(text)} × {count}"
    for text, count in row["answers"]
  )
  return f"{row['right']} of {row['n']} right: " + ", ".join(answers)


def _cut(text: str) -> str:
  return text if len(text) <= LONG else f"{text[:LONG]} …"
