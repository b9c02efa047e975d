"""`pxy export`: a Hugging Face folder of a model."""

from pxy import files
from pxy.weights import export


def command(options) -> None:
  """`pxy export`; options are options.Export."""
  export.export(options.model, options.out, dtype=options.dtype, step=options.step)
  size = files.size(options.out)
  print(f"{options.out}: {size / 1e6:,.1f} MB, read again and compared")
