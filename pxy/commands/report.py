"""`pxy report`: report.md and report.html of one or several runs."""

import contextlib
import pathlib

from pxy import config, files
from pxy.bucket import mirror, objects
from pxy.report import page


def command(options) -> None:
  """`pxy report`; options are options.Report."""
  runs, out = options.runs, options.out
  if not runs:
    raise config.Error("report: name at least one run folder")
  if len({_place(run) for run in runs}) < len(runs):
    raise config.Error("report: a run is named twice; it would count as two seeds")
  if out is None:
    out = runs[0] if len(runs) == 1 else "runs/report"
  with contextlib.ExitStack() as stack:
    folders = {
      place: stack.enter_context(mirror.shared(place, new=place not in runs))
      for place in dict.fromkeys((*runs, out))
    }
    here = folders[out]
    if here.exists() and not here.is_dir():
      raise config.Error(f"--out {out}: a file is in the way; name a folder")
    files.writable(here / "report.html", f"--out {out}")
    written = page.write([folders[run] for run in runs], here)
  print(f"{out.rstrip('/')}/{written.name}" if objects.is_url(out) else written)


def _place(run: str) -> str:
  return run.rstrip("/") if objects.is_url(run) else str(pathlib.Path(run).resolve())
