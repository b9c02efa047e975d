"""`pxy gate`: may a model take its base's place? A bound on each of some measures.

The numbers are those of `pxy probe --against` and `pxy bound`, from stored responses
(--save) where these are there; only the parts that a gate names are asked.
"""

import dataclasses
import difflib
import json
import pathlib
import re

import jax
from rich import console
from rich import table as rich_table

from pxy import __version__, config, files
from pxy.bucket import mirror
from pxy.commands import bound as bound_lib
from pxy.commands import experiment
from pxy.commands import probe as probe_lib
from pxy.evaluate import store
from pxy.measures import estimate
from pxy.measures import gate as gate_lib
from pxy.report import page

OWN = "default"
"""Gates that came with pxy and are meant for any task."""
_KINDS = ("measures", "difference", "base_measures")
"""What a report has by name."""
_SAID = re.compile(r"calibration/.*_(p_true|stated)")
"""Confidences that the model is asked for."""


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What is known of a model on a task, as --json has it.

  Attributes:
    asked: names that one of the two models was asked for, defined or not.
    value, difference: by name; those that are defined.
    itself: the model is held against itself.
  """

  task: str
  asked: frozenset[str]
  value: dict[str, dict]
  difference: dict[str, dict]
  itself: bool = False


def command(options) -> None:
  """`pxy gate`; options are options.Gate. Exits 1 if a gate is not passed."""
  gates = experiment.gates(options.gates)
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  read = options.model.endswith(".json")
  head, numbers = _read(options) if read else _measured(options, gates)
  judged, lost = _judged(gates, numbers, options.gates)
  found = head | {
    "passed": all(one.passed for one in judged),
    "gates": [one.to_json() for one in judged],
    "not_asked": lost,
  }
  _show(found, judged)
  if not read:
    shown = page.keep(options.model, options.step, "gate", found)
    if shown is not None:
      print(f"report: {mirror.name(shown)}")
  if options.json is not None:
    files.write_json(options.json, found)
  if not found["passed"]:
    raise SystemExit(1)


def _judged(gates, numbers, word: str) -> tuple[list[gate_lib.Judged], list[str]]:
  """Each gate on each task that has its measure; and the names of pxy's own gates that
  none has."""
  judged, lost = [], []
  for one in gates:
    on = [task for task in numbers if one.measure in task.asked]
    for task in on:
      found = getattr(task, one.of).get(one.measure)
      judged.append(gate_lib.judge(one, task.task, found, itself=task.itself))
    if not on:
      lost.append(one.measure)
  if lost and (word != OWN or not judged):
    known = sorted(set().union(*(task.asked for task in numbers)))
    near = difflib.get_close_matches(lost[0], known, 3, 0.4) or known[:3]
    raise config.Error(
      f"gates {word}: {lost[0]} is of none of what was asked (docs/gates.md says which"
      f" columns or options it takes); near it there are {', '.join(near) or 'none'}"
    )
  return judged, lost


def _measured(options, gates) -> tuple[dict, list[Numbers]]:
  """What a model is, and its numbers by task."""
  store.writable(options.save)
  names = {one.measure for one in gates}
  both = {name for name in names if gate_lib.OF_BOTH.fullmatch(name)}
  alone = not both and all(one.of == "value" for one in gates)
  if options.against is None and not alone:
    raise config.Error(
      "--against BASE: name the model that it is held against (gates of a value alone"
      " need none)"
    )
  what = [part for part in probe_lib.ALL if part in map(_part, names - both)]
  said = bool(options.task) and any(map(_SAID.fullmatch, names))
  asked = options.probe(",".join(what), said)
  new = probe_lib.Examined(asked, options.model, options.step)
  found = probe_lib.specs_of(new, what, asked)
  head = {"model": options.model, "versions": _versions()}
  if options.step is not None:
    head["step"] = options.step
  if alone:
    return head, [_numbers(task, gates, one.specs) for task, one in found.items()]
  base, of_base = new, found
  if (options.against, None) != (options.model, options.step):
    base = probe_lib.Examined(asked, options.against)
    if base.plans.keys() != new.plans.keys():
      raise config.Error(
        f"{options.model} and {options.against} are of different worlds: name what to"
        " ask both with --task"
      )
    of_base = probe_lib.specs_of(base, what, asked)
  if any(name.startswith("kept/") for name in both):
    probe_lib.divergences(new, base, found)
  digests = (one.subject.digests["weights"] for one in (new, base))
  itself, numbers = len(set(digests)) == 1, []
  for task, one in found.items():
    own = _numbers(task, gates, one.specs, of_base[task].specs, itself)
    if any(name.startswith("bound/") for name in both):
      guess = "bound/guessable" in both
      report = bound_lib.held(new, base, task, guess=guess)
      own.value.update({x: y for x, y in report["measures"].items() if x in both})
      own = dataclasses.replace(own, asked=own.asked | both)
    numbers.append(own)
  return head | {"against": options.against}, numbers


def _part(name: str) -> str:
  """The part of `pxy probe` (probe.ALL) that has a measure."""
  return "calibration" if name.startswith("bound/ppl_") else name.partition("/")[0]


def _numbers(task: str, gates, specs, base=(), itself: bool = False) -> Numbers:
  wanted = {
    of: [x for x in specs if (x.name, of) in {(one.measure, one.of) for one in gates}]
    for of in ("value", "difference")
  }
  return Numbers(
    task,
    frozenset(spec.name for spec in (*specs, *base)),
    probe_lib.jsoned(estimate.measures(wanted["value"])),
    probe_lib.jsoned(probe_lib.differences(wanted["difference"], base)),
    itself,
  )


def _versions() -> dict[str, str]:
  return {"pxy": __version__, "jax": jax.__version__}


def _read(options) -> tuple[dict, list[Numbers]]:
  """The same of a file that `pxy probe --json` or `pxy bound --json` wrote."""
  path = pathlib.Path(options.model)
  for name in ("against", "step"):
    if getattr(options, name) is not None:
      raise config.Error(f"--{name}: {path} says it; leave it out")
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise config.Error(f"{path}: {getattr(error, 'strerror', 0) or error}") from error
  reports = found if isinstance(found, list) else [found]
  if not reports or not all(
    isinstance(one, dict)
    and isinstance(one.get("measures"), dict)
    and all(isinstance(one.get(kind, {}), dict) for kind in _KINDS)
    for one in reports
  ):
    raise config.Error(f"{path}: no report that pxy probe or pxy bound wrote")
  held = [one for one in reports if "against" in one] or reports
  heads = [
    {key: one[key] for key in ("model", "step", "against", "versions") if key in one}
    for one in held
  ]
  if any(head != heads[0] for head in heads):
    raise config.Error(f"{path}: it has several models; give a file of one")
  return heads[0], [_of_report(one) for one in held]


def _of_report(report: dict) -> Numbers:
  value, difference, base = (
    {name: one for name, one in report.get(kind, {}).items() if isinstance(one, dict)}
    for kind in _KINDS
  )
  asked = frozenset((*value, *difference, *base))
  # A step of a run may be held against its end, which has the same name.
  itself = "step" not in report and report.get("against") == report.get("model", "")
  return Numbers(str(report.get("task")), asked, value, difference, itself)


def _show(found: dict, judged: list[gate_lib.Judged]) -> None:
  """A table; then a line for each gate that is not passed, as plain text."""
  several = len({one.task for one in judged}) > 1
  held = f" against {found['against']}" if "against" in found else ""
  passed = sum(one.passed for one in judged)
  table = rich_table.Table(
    rich_table.Column("gate", overflow="fold"),
    *(rich_table.Column(name, no_wrap=True) for name in ("number", "95 %")),
    "wanted", "verdict", box=None, padding=(0, 1, 0, 0), title_justify="left",
    title=f"{found['model']}{held}: {passed} of {len(judged)} gates passed",
  )  # fmt: skip
  for one in judged:
    name = one.gate.measure + " (value)" * (one.gate.of == "value")
    name += f" on {one.task}" if several else ""
    lets = one.passed and one.verdict != gate_lib.PASSES
    verdict = f"{one.verdict}: passes" if lets else one.verdict
    table.add_row(name, *one.cells, one.gate.wanted, verdict)
  console.Console().print(table)
  if found["not_asked"]:
    print(f"not asked of it: {', '.join(found['not_asked'])}")
  for one in judged:
    if not one.passed:
      print(f"{one.line} (on {one.task})" if several else one.line)
