"""Runs every notebook from a fresh kernel, and saves it with its figures alone.

    python colabs/refresh.py [NAME.ipynb ...]      (make colabs)

The first code cell of each is first_cell.py. Of what a cell shows, pictures are kept,
as small PNGs of few colours: a reader sees them before running, and a diff of a
notebook is its text. Text that is printed goes.
"""

import base64
import io
import pathlib
import sys
import time

import nbclient
import nbformat
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, COLOURS = 900, 32
"""Of a figure that is kept: pixels at most, and colours."""
SECONDS = 1200
"""At most, for one cell."""


def run(notebook, folder: pathlib.Path = HERE) -> None:
  """Executes it in place, in a fresh kernel whose current folder is `folder`."""
  resources = {"metadata": {"path": str(folder)}}
  nbclient.NotebookClient(
    notebook, timeout=SECONDS, kernel_name="python3", resources=resources
  ).execute()


def keep_figures(notebook) -> None:
  """Leaves of all outputs the pictures, made small, and nothing that a run changes."""
  for cell in notebook.cells:
    if cell.cell_type != "code":
      continue
    cell.execution_count = None
    cell.metadata.pop("execution", None)
    pictures = [
      small(base64.b64decode(out.data["image/png"]))
      for out in cell.outputs
      if "image/png" in out.get("data", ())
    ]
    cell.outputs = [
      nbformat.v4.new_output(
        "display_data", {"image/png": base64.b64encode(png).decode()}
      )
      for png in pictures
    ]
  notebook.metadata.language_info = {"name": "python"}


def small(png: bytes) -> bytes:
  """The picture at WIDTH or less, in COLOURS."""
  image = Image.open(io.BytesIO(png)).convert("RGB")
  if image.width > WIDTH:
    height = round(image.height * WIDTH / image.width)
    image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
  out = io.BytesIO()
  image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
  return out.getvalue()


def set_first(notebook) -> None:
  """Makes first_cell.py the first code cell."""
  cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
  cell.source = (HERE / "first_cell.py").read_text(encoding="utf-8").strip()


def main(names: list[str]) -> None:
  for path in [HERE / name for name in names] or sorted(HERE.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    set_first(notebook)
    began = time.monotonic()
    run(notebook)
    keep_figures(notebook)
    nbformat.write(notebook, path)
    seconds = time.monotonic() - began
    print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
  main(sys.argv[1:])
