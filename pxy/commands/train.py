"""`pxy train`: a run, or with --dry-run what it would be."""

from pxy import loop
from pxy.commands import plan
from pxy.parallel import process


def command(options) -> None:
  """`pxy train`; options are options.Train."""
  if options.dry_run:
    plan.show(options.cfg)
    return
  with process.joined():
    loop.train(options.cfg, options.out, resume=options.resume, accept=options.accept)
