"""`pxy train`: a run, or with --dry-run what it would be."""

from pxy import loop
from pxy.commands import plan, xla_flags
from pxy.parallel import process


def command(options) -> None:
  """`pxy train`; options are options.Train."""
  cfg = options.asked()
  if options.dry_run:
    plan.show(cfg)
    return
  xla_flags.choose(cfg.compute.dtype)
  with process.joined():
    loop.train(cfg, options.out, resume=options.resume, accept=options.accept)
