"""`pxy export`: a Hugging Face folder of a model."""

from pxy import files
from pxy.bucket import mirror
from pxy.weights import export


def command(options) -> None:
  """`pxy export`; options are options.Export."""
  with mirror.made(options.out, "config.json") as out:
    export.export(options.model, out, dtype=options.dtype, step=options.step)
    size = files.size(out)
  print(f"{options.out}: {size / 1e6:,.1f} MB, read again and compared")
