"""`pxy report`: report.md and report.html of one or several runs."""

import pathlib

from pxy import config, files
from pxy.report import page


def command(options) -> None:
  """`pxy report`; options are options.Report."""
  if not options.runs:
    raise config.Error("report: name at least one run folder")
  if len({run.resolve() for run in options.runs}) < len(options.runs):
    raise config.Error("report: a run is named twice; it would count as two seeds")
  out = options.out
  if out is None:
    one = len(options.runs) == 1
    out = options.runs[0] if one else pathlib.Path("runs/report")
  if out.exists() and not out.is_dir():
    raise config.Error(f"--out {out}: a file is in the way; name a folder")
  files.writable(out / "report.html", f"--out {out}")
  print(page.write(list(options.runs), out))
