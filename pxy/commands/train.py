"""`pxy train`: a run, or with --dry-run what it would be."""

import dataclasses

from pxy import loop
from pxy.commands import plan
from pxy.parallel import process


def command(options) -> None:
  """`pxy train`; options are options.Train."""
  cfg = options.cfg
  if options.reward:
    data = dataclasses.replace(cfg.data, rewards=options.reward)
    cfg = dataclasses.replace(cfg, data=data)
  if options.dry_run:
    plan.show(cfg)
    return
  with process.joined():
    loop.train(cfg, options.out, resume=options.resume)
