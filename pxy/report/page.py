"""report.html and report.md: what a run did, for a person.

The page is one file without scripts or anything external; its content policy forbids
both, since it shows what a model wrote. All text is escaped, and control characters,
among them those that reverse the direction of writing, are made visible.
"""

import html
import json
import math
import pathlib
import re
from collections.abc import Sequence

from pxy import config, files, imports
from pxy.bucket import mirror
from pxy.report import curve, runs, sheet
from pxy.show import progress
from pxy.train import checkpoint

completions = imports.later("pxy.show.completions")

SAMPLES = 6
SHOWN = 3000
"""Characters of a response that are shown."""

ROWS = (
  ("Accuracy", r"(avg|pass|maj)@\d+"),
  ("Problems", r"groups/\w+"),
  ("Length", r"length/mean|truncated|ungraded"),
  ("Thoughts per response", r"thoughts/(reflection|transition|execution)"),
  ("Share of thoughts", r"thoughts/\w+_rate"),
)
MAIN_K = (1, 4, 16, 64, 256)


def write(folders: Sequence[pathlib.Path], out: pathlib.Path) -> pathlib.Path:
  """Writes report.md, report.html and plots/report.png; returns the page's path.

  Raises:
    config.Error: a folder is no run, or `out` cannot be written.
  """
  from pxy.report import (
    plot,  # matplotlib: a second that no run begins with
    probe_plot,
    sections,
  )

  groups = runs.group([runs.read(pathlib.Path(folder)) for folder in folders])
  out = pathlib.Path(out)
  panels = plot.available(groups) + probe_plot.over_steps(groups) + _aligned(groups)
  parts = sections.of(groups)
  try:
    out.mkdir(parents=True, exist_ok=True)
    pictures = {"report": panels} | {part.key: part.panels for part in parts}
    for name, drawn in pictures.items():
      if drawn:
        (out / "plots").mkdir(exist_ok=True)
        (out / "plots" / f"{name}.png").write_bytes(plot.png(groups, drawn))
    files.write_text(out / "report.md", _markdown(groups, panels, parts))
    files.write_text(out / "report.html", _html(groups, panels, parts))
  except OSError as error:
    raise config.Error(f"{error.filename or out}: {error.strerror or error}") from error
  return out / "report.html"


def keep(model: str, step: int | None, kind: str, found) -> pathlib.Path | None:
  """Keeps what was measured of a run folder as MODEL/KIND/STEP.json, whole or not at
  all, and writes the run's report anew; its path.

  Args:
    model: as it was named; what is no run folder keeps nothing.
    step: of the checkpoint; None: the newest.
    kind: `align`, `bound`, `gate` or `probe`.
    found: JSON; of `bound` and `probe` a report of --json, or a list of them.
  """
  with mirror.shared(model) as folder:
    return _keep(folder, step, kind, found)


def _keep(folder, step, kind, found):
  known = checkpoint.steps(folder / "checkpoints")
  if not known:
    return None
  step = max(known) if step is None else step
  if isinstance(found, list) and len(found) == 1:
    found = found[0]
  path = folder / kind / f"{step:08d}.json"
  try:
    files.write_json(path, found)
  except OSError as error:
    raise config.Error(f"{path}: {error.strerror or error}") from error
  if not (folder / "metrics.jsonl").is_file():
    return None
  return write([folder], folder)


def _aligned(groups) -> list:
  """Panels of what `pxy align` measured last, in the first run of each group."""
  from pxy.report import align_plot

  newest = [(g.name, list(g.runs[0].alignments.values())[-1:]) for g in groups]
  measured = [(name, found[0]) for name, found in newest if found]
  return align_plot.panels(measured) if measured else []


# Sentences and numbers.


def title(groups: Sequence[runs.Group]) -> str:
  """What was trained."""
  if len(groups) > 1:
    count = sum(len(group.runs) for group in groups)
    return (
      f"{count} runs"
      if count == len(groups)
      else f"{count} runs of {len(groups)} kinds"
    )
  first = groups[0].runs[0].config
  if "corpus" in first:
    corpus = first["corpus"]
    kind = corpus.get("kind", "arithmetic")
    world = f"arithmetic/{corpus.get('level')}" if kind == "arithmetic" else kind
    return f"Pre-training on {world}"
  return f"{first.get('model')} on {(first.get('data') or {}).get('task')}"


def headline(group: runs.Group) -> str:
  """What was trained, and how far it came: before -> after with 95 % intervals."""
  plan = ", then ".join(
    f"{_count(p.last - p.first + 1, 'step')} of {p.name}" for p in group.phases
  )
  plan = plan or "No step of training yet"
  name = next((n for n in group.eval_names if n.startswith("avg@")), None)
  if name is None:
    return f"{plan}."
  before, after = (
    group.score(group.first_eval, name),
    group.score(group.last_eval, name),
  )
  if math.isnan(after[0]):
    return f"{plan}; {name} at step {group.first_eval}: {_interval(before)}."
  verb = "took" if after[0] > before[0] else "left"
  if len(group.runs) > 1:
    return (
      f"{plan}, {_count(len(group.runs), 'seed')}: {name} went from"
      f" {_cell(name, before)} to {_cell(name, after)} (± standard error over seeds)."
    )
  overlap = abs(after[0] - before[0]) <= 1.96 * (before[1] + after[1])
  end = "; the intervals overlap, so no change is shown." if overlap else "."
  return (
    f"{plan} {verb} {name} on unseen problems from {_interval(before)} to"
    f" {_interval(after)}{end}"
  )


def _interval(score: runs.Score) -> str:
  value, se = score
  low, high = max(0, value - 1.96 * se), min(1, value + 1.96 * se)
  if math.isnan(se):
    return f"{100 * value:.1f} %"
  return f"{100 * value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _count(n: int, noun: str) -> str:
  return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _is_share(name: str) -> bool:
  return "@" in name or name in ("truncated", "ungraded") or name.endswith("_rate")


def _cell(name: str, score: runs.Score, sign: str = "") -> str:
  """78.4 ± 1.2 %, or a plain number with the digits that its error warrants."""
  value, se = score
  if math.isnan(value):
    return "–"
  if _is_share(name):
    error = "" if math.isnan(se) else f" ± {100 * se:.1f}"
    return _signs(f"{100 * value:{sign}.1f}{error} %")
  digits = 0 if abs(value) >= 100 or "groups/" in name else 1 if abs(value) >= 10 else 2
  error = "" if math.isnan(se) else f" ± {se:.{digits}f}"
  return _signs(f"{value:{sign}.{digits}f}{error}")


def _signs(text: str) -> str:
  """A true minus sign, and none for zero."""
  return re.sub(r"^[-+](0(\.0+)?)(?![\d.])", r"\1", text).replace("-", "−")


def _minus(after: runs.Score, before: runs.Score) -> runs.Score:
  """The difference, with the error of independent draws: on the safe side."""
  return after[0] - before[0], math.hypot(after[1], before[1])


def _one_table(group: runs.Group) -> list[tuple[str, list[tuple[str, ...]]]]:
  """(heading, rows of (metric, before, after, change)) of one group.

  A group with one evaluation so far has but one column.
  """
  out = []
  for heading, pattern in ROWS:
    rows = []
    for name in group.eval_names:
      if not re.fullmatch(pattern, name):
        continue
      if name.startswith("pass@") and int(name[5:]) not in MAIN_K:
        continue
      before, after = (
        group.score(s, name) for s in (group.first_eval, group.last_eval)
      )
      if name == "ungraded" and not before[0] and not after[0]:
        continue
      change = _cell(name, _minus(after, before), "+")
      label = name.split("/")[-1].removesuffix("_rate")
      label = "mean, tokens" if name == "length/mean" else label
      cells = (_cell(name, before), _cell(name, after), change)
      rows.append((label, *cells[: len(_columns(group))]))
    if rows:
      out.append((heading, rows))
  return out


def _columns(group: runs.Group) -> tuple[str, ...]:
  if group.last_eval is None:
    return (f"step {group.first_eval}",)
  return "before", "after", "change"


def _many_table(groups: Sequence[runs.Group]) -> list[tuple[str, ...]]:
  """A header and a row per group: before -> after of the main scores."""
  names = dict.fromkeys(n for g in groups for n in g.eval_names if "@" in n)
  names = [n for n in names if not n.startswith("pass@") or int(n[5:]) in MAIN_K]
  table = [("run", "seeds", "steps", *(f"{name}, %" for name in names))]
  for group in groups:
    cells = []
    for name in names:
      before, after = (
        group.score(s, name) for s in (group.first_eval, group.last_eval)
      )
      cells.append(
        _cell(name, before)
        if math.isnan(after[0])
        else f"{100 * before[0]:.1f} → {_cell(name, after)}".removesuffix(" %")
      )
    seeds = ", ".join(map(str, group.seeds))
    steps = max((r["step"] for run in group.runs for r in run.steps), default=0)
    table.append((group.name, seeds, str(steps), *cells))
  return table


def _facts(groups: Sequence[runs.Group]) -> list[str]:
  if len(groups) > 1:
    return []
  group, facts = groups[0], []
  summary = group.runs[0].summary
  facts.append(f"seed {', '.join(map(str, group.seeds))}")
  if summary.get("seconds"):
    facts.append(f"{progress.clock(summary['seconds'])} of computing")
  if summary.get("tokens"):
    facts.append(f"{progress.amount(summary['tokens'])} tokens drawn")
  if not summary:
    facts.append("not finished")
  many = sum(len(run.interruptions) for run in group.runs)
  if many:
    facts.append("interrupted once" if many == 1 else f"interrupted {many} times")
  versions = summary.get("versions") or {}
  facts += [f"{name} {versions[name]}" for name in ("pxy", "jax") if name in versions]
  return facts


def _alignment(group: runs.Group) -> list[str]:
  """A sentence per measurement of `pxy align`."""
  out = []
  for run in group.runs:
    for step, found in run.alignments.items():
      split = found["splits"]["all"]
      if not split["responses"]:
        continue
      text = (
        f"Alignment at step {step}, {_count(split['responses'], 'response')}: the"
        f" gradients of log P(y) and log P(y|x) have a cosine of"
        f" {split['cosine']['value']:.2f} (mean) and an inner product below zero for"
        f" {100 * split['negative']['value']:.0f} % of the responses"
      )
      slope = found["one_step"]["slope"]
      if slope is not None:
        text += f"; a step on log P(y) moved log P(y|x) {slope:.2f} times as predicted"
      out.append(f"{text}.")
  return out


def _broken(group: runs.Group) -> list[str]:
  """Sentences on runs that were interrupted, or went on as others than they were; the
  last few times."""
  each = {"Interruptions of": "interruptions", "Accepted in": "accepted"}
  return [
    f"{begin} {run.path.resolve().name}: {'; '.join(getattr(run, name)[-10:])}."
    for run in group.runs
    for begin, name in each.items()
    if getattr(run, name)
  ]


# What it wrote.


def samples(run: runs.Run) -> tuple[list[int], list[dict[int, dict]]]:
  """Steps, and per problem its first response at each: nothing is picked.

  The steps are the first and the last evaluation, or, in a run without completions of
  evaluations, the first and the last step. Only what is shown is kept in memory.
  """
  import pyarrow.compute as pc  # a third of a second, when a report is written

  for split in ("eval", "train"):
    steps = sorted(run.evals) if split == "eval" else [r["step"] for r in run.steps]
    steps = list(dict.fromkeys([*steps[:1], *steps[-1:]]))
    found: dict[tuple[int, int], dict] = {}
    for batch in completions.read(run.path):
      keep = pc.and_(pc.equal(batch["split"], split), pc.equal(batch["response"], 0))
      for row in batch.filter(keep).to_pylist():
        if row["step"] in steps:
          found.setdefault((row["uid"], row["step"]), row)
    if found:
      uids = list(dict.fromkeys(uid for uid, _ in found))[:SAMPLES]
      return steps, [{s: found[u, s] for s in steps if (u, s) in found} for u in uids]
  return [], []


# The page.


def _text(value) -> str:
  """Escaped, with control characters made visible."""
  return html.escape(_visible(str(value)))


_CONTROL = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def _visible(text: str) -> str:
  return _CONTROL.sub("\ufffd", text)


def _html(groups, panels, parts_of) -> str:
  one = len(groups) == 1
  parts = [f"<h1>{_text(title(groups))}</h1>"]
  if one:
    parts.append(f'<p class="lead">{_text(headline(groups[0]))}</p>')
    parts.append(f'<p class="facts">{_text(" · ".join(_facts(groups)))}</p>')
    notes = [*_broken(groups[0]), *_alignment(groups[0])]
    parts += [f'<p class="note">{_text(text)}</p>' for text in notes]
    parts.append(_html_one(groups[0]))
  else:
    items = (f"<b>{_text(g.name)}</b>: {_text(headline(g))}" for g in groups)
    parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")
    parts.append(_html_many(groups))
  parts.append(_html_plots(groups, panels))
  parts += [_html_section(groups, part) for part in parts_of]
  if one:
    parts.append(_html_samples(groups[0]))
  for group in groups:
    settings = _text(json.dumps(group.runs[0].config, indent=2))
    name = "Config" if one else f"Config of {_text(group.name)}"
    parts.append(f"<details><summary>{name}</summary><pre>{settings}</pre></details>")
  return sheet.page(_text(title(groups)), "\n".join(parts))


def _html_plots(groups, panels) -> str:
  from pxy.report import plot

  figures = "".join(
    f"<figure><h2>{_text(p.title)}</h2>{plot.svg(p, groups)}"
    f"<figcaption>{_text(p.note)}</figcaption></figure>"
    for p in panels
  )
  return f'<div class="plots">{figures}</div>' if panels else ""


def _html_section(groups, part) -> str:
  out = f"<h2>{_text(part.title)}</h2>"
  out += "".join(f'<p class="note">{_text(fact)}</p>' for fact in part.facts)
  out += _html_plots(groups, part.panels)
  if part.questions:
    out += (
      '<h3>One question in every variant</h3><p class="note">The first questions of the'
      " task; nothing is picked. Each answer with the number of responses that gave"
      " it.</p>"
    )
    out += "".join(_html_rows(rows, "said") for rows in part.questions)
  return (
    f'<section class="part">{out}<details><summary>All'
    f" {len(part.table) - 1} numbers of {_text(part.title)}</summary>"
    f"{_html_rows(part.table, 'measures')}</details></section>"
  )


def _html_rows(rows, kind: str) -> str:
  """A table whose first row is its header."""
  head, *body = (
    "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in row) + "</tr>"
    for row, tag in zip(rows, ["th", *["td"] * (len(rows) - 1)], strict=True)
  )
  return (
    f'<div class="wide"><table class="{kind}"><thead>{head}</thead>'
    f"<tbody>{''.join(body)}</tbody></table></div>"
  )


def _html_one(group) -> str:
  parts = _one_table(group)
  if not parts:
    return ""
  half = [part for part in parts if part[0] in ("Accuracy", "Problems")]
  rest = [part for part in parts if part not in half]
  both = "".join(_html_table(part, _columns(group)) for part in (half, rest) if part)
  return f'<div class="tables">{both}</div><p class="note">{_text(_note(group))}</p>'


def _html_table(parts, columns) -> str:
  body = ""
  for i, (heading, rows) in enumerate(parts):
    span = f" colspan={len(columns) + 1}" if i else ""
    body += f'<tr class="head"><th{span}>{_text(heading)}</th>'
    body += "".join(f"<th>{name}</th>" for name in columns if i == 0) + "</tr>"
    for metric, *cells in rows:
      body += f"<tr><th>{_text(metric)}</th>"
      body += "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
  return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'


def _note(group) -> str:
  if len(group.runs) > 1:
    return f"Mean ± standard error over {len(group.runs)} seeds."
  found = group.runs[0].config.get("eval") or {}
  text = "± one standard error, over problems"
  if found.get("problems") and found.get("samples"):
    text += f": {found['problems']} of them, {found['samples']} responses to each"
  return text + "."


def _html_many(groups) -> str:
  header, *rows = _many_table(groups)
  head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
  body = "".join(
    f"<tr><th>{_text(name)}</th>"
    + "".join(f"<td>{_text(c)}</td>" for c in cells)
    + "</tr>"
    for name, *cells in rows
  )
  return (
    f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
    f'</table></div><p class="note">Before → after. {_text(_many_note(groups))}</p>'
  )


def _many_note(groups) -> str:
  text = "± one standard error, over problems."
  if any(len(g.runs) > 1 for g in groups):
    text = (
      "± one standard error: over seeds where there are several, else over problems."
    )
  if not curve.same_phases(groups):
    text += " In the plots, a bar across a curve marks its phase switch."
  return text


def _html_samples(group) -> str:
  steps, problems = samples(group.runs[0])
  if not problems:
    return ""
  out = (
    "<h2>What it writes</h2>"
    f'<p class="note">The first response to each of the first {len(problems)} problems,'
    " before and after; nothing is picked.</p>"
  )
  for found in problems:
    any_row = next(iter(found.values()))
    answer = f" · answer {_text(any_row['answer'])}" if any_row["answer"] else ""
    out += (
      '<section class="problem"><p class="prompt">'
      f'<bdi>{_clip(any_row["prompt"])}</bdi><span class="note">{answer}</span></p>'
      '<div class="pair">'
    )
    for step in steps:
      out += _html_response(step, found.get(step))
    out += "</div></section>"
  return out


def _html_response(step: int, row: dict | None) -> str:
  if row is None:
    return f'<div><p class="note">step {step}: none</p></div>'
  if row["outcome"] != "scored":
    kind, grade = "", f"{row['outcome']}: {row['why'] or ''}"
  else:
    right = (row["reward"] or 0) > 0.5
    kind, grade = ("right", "right") if right else ("wrong", "wrong")
    if row["reward"] not in (0.0, 1.0):
      grade += f" ({row['reward']:.2f})"
  if row["stop"] == "length":
    grade += ", truncated"
  return (
    f'<div class="{kind}"><p class="note">step {step} · <b>{_text(grade)}</b></p>'
    f"<pre>{_clip(row['completion'])}</pre></div>"
  )


def _clip(text: str | None) -> str:
  text = text or ""
  rest = len(text) - SHOWN
  return _text(text[:SHOWN]) + (f" … ({rest} more characters)" if rest > 0 else "")


# Markdown.


def _md(value) -> str:
  """One line of text that Markdown takes as text."""
  text = html.escape(" ".join(_visible(str(value)).split()), quote=False)
  return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)


def _md_table(rows: Sequence[Sequence[str]]) -> str:
  lines = ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in rows]
  lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
  return "\n".join(lines)


def _md_section(part) -> list[str]:
  out = [f"## {_md(part.title)}", *map(_md, part.facts)]
  if part.panels:
    out.append(f"![{_md(part.title)}](plots/{part.key}.png)")
    out += [f"- **{_md(p.title)}**: {_md(p.note)}" for p in part.panels]
  if part.questions:
    out.append(
      "One question in every variant; the first of the task, nothing is picked:"
    )
    out += map(_md_table, part.questions)
  return [*out, _md_table(part.table)]


def _markdown(groups, panels, parts_of) -> str:
  parts = [f"# {_md(title(groups))}"]
  if len(groups) == 1:
    group = groups[0]
    parts += [_md(headline(group)), _md(" · ".join(_facts(groups)))]
    parts += map(_md, [*_broken(group), *_alignment(group)])
    rows = [r for _, rows in _one_table(group)[:1] for r in rows]
    rest = [(f"{h}: {r[0]}", *r[1:]) for h, rows in _one_table(group)[1:] for r in rows]
    if rows or rest:
      parts.append(_md_table([("", *_columns(group)), *rows, *rest]))
      parts.append(_md(_note(group)))
  else:
    parts += [f"- **{_md(g.name)}**: {_md(headline(g))}" for g in groups]
    parts += [
      _md_table(_many_table(groups)),
      f"Before → after. {_md(_many_note(groups))}",
    ]
  if panels:
    parts.append("![Plots](plots/report.png)")
    parts += [f"- **{_md(p.title)}**: {_md(p.note)}" for p in panels]
  for part in parts_of:
    parts += _md_section(part)
  if len(groups) == 1:
    parts.append("Completions before and after are in report.html.")
  return "\n\n".join(parts) + "\n"
