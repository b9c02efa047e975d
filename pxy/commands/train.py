"""`pxy train`: a run, or with --dry-run what it would be."""

import dataclasses

from pxy import config, loop
from pxy.commands import plan, xla_flags
from pxy.parallel import process


def command(options) -> None:
  """`pxy train`; options are options.Train."""
  cfg = options.cfg
  if options.reward:
    own = config.Data().grader  # in place of the experiment's
    data = dataclasses.replace(cfg.data, grader=own, rewards=options.reward)
    cfg = dataclasses.replace(cfg, data=data)
  if options.dry_run:
    plan.show(cfg)
    return
  xla_flags.choose(cfg.compute.dtype)
  with process.joined():
    loop.train(cfg, options.out, resume=options.resume, accept=options.accept)
