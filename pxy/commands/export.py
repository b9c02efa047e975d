"""`pxy export`: a Hugging Face folder of a model."""

from pxy.weights import export


def command(options) -> None:
  """`pxy export`; options are options.Export."""
  export.export(options.model, options.out, dtype=options.dtype, step=options.step)
  size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
  print(f"{options.out}: {size / 1e6:,.1f} MB, read again and compared")
