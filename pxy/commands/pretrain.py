"""`pxy pretrain`: a base model from scratch, or with --dry-run what it would be."""

from pxy import pretrain
from pxy.commands import plan
from pxy.parallel import process


def command(options) -> None:
  """`pxy pretrain`; options are options.Pretrain."""
  process.alone("pretrain")
  if options.dry_run:
    plan.show(options.cfg)
    return
  pretrain.pretrain(
    options.cfg, options.out, resume=options.resume, accept=options.accept
  )
