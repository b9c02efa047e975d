"""`pxy doctor`: would a run work on this machine? A line for each thing that it needs.

    fail  out            /mnt/full: can be written, 20 MiB free
          cure: make room there ...

A check first finds facts out and then judges them (commands/checks/); none imports
JAX, so that two packages that do not go together are a line here and not an error.
Devices are tried in a process of their own. Lines are printed as they are known.
"""

import pathlib
import sys

from rich import console as rich_console
from rich import text as rich_text

from pxy import files
from pxy.commands.checks import chips, devices, machine, packages, reach
from pxy.commands.checks import line as line_lib

_COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDTH = 18
_PLACE = "choose another folder: pxy train ... --out FOLDER"
_CACHE = "set PXY_CACHE to a folder that can be written and has room"


def command(options) -> None:
  """`pxy doctor`; options are options.Doctor. Exits 1 if a run would fail."""
  if options.json is not None:
    files.writable(options.json, f"--json {options.json}")
  console = rich_console.Console(file=sys.stdout, highlight=False, soft_wrap=True)
  found = []
  for name, check in _checks(options.out):
    for line in line_lib.each(name, check):
      found.append(line)
      _print(console, line)
  fails = [line.name for line in found if line.status == "fail"]
  if options.json is not None:
    rows = [vars(line) for line in found]
    files.write_json(options.json, {"passed": not fails, "checks": rows})
  if fails:
    print(f"a run would fail here: {', '.join(dict.fromkeys(fails))}")
    raise SystemExit(1)
  print("a run would work here")


def _checks(out: str):
  """(name, function without arguments -> lines) in the order in which they are made."""
  facts = chips.Facts()

  def of_chips():
    nonlocal facts
    facts = chips.look()
    return chips.judge(facts)

  yield "packages", packages.check
  yield "chips", of_chips
  yield "memory", machine.memory
  if "://" in out:
    yield "bucket", lambda: reach.bucket(out)
  else:
    yield "out", lambda: machine.folder("out", pathlib.Path(out), machine.OUT, _PLACE)
  cache = machine.CACHE
  yield "cache", lambda: machine.folder("cache", files.cache(), cache, _CACHE)
  yield "compiled programs", machine.programs
  yield "shared memory", lambda: machine.shared(chips.count())
  yield "open files", machine.open_files
  yield "hub", reach.hub
  yield "devices", lambda: devices.check(chips.hoped(facts))


def _print(console: rich_console.Console, line: line_lib.Line) -> None:
  status = rich_text.Text(f"{line.status:<6}", style=_COLORS[line.status])
  console.print(status + f"{line.name:<{_WIDTH}} {line.found}")
  if line.cure:
    console.print(rich_text.Text(f"      cure: {line.cure}"))
