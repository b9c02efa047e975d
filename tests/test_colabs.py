"""Every notebook runs from top to bottom, after the one cell that installs pxy; what is
saved in it is its text and small figures."""

import base64
import pathlib
import sys

import nbformat
import pytest

COLABS = pathlib.Path(__file__).resolve().parent.parent / "colabs"
PAGES = sorted(COLABS.glob("*.ipynb"))
MOST = 300_000
"""Bytes of the figures of all notebooks together."""
CURE = "`make colabs` runs the notebooks and saves them as they should be"

sys.path.insert(0, str(COLABS))
import refresh  # noqa: E402


def figures(notebook):
  """(cell, what it shows, by type) of each output."""
  for cell in notebook.cells:
    for out in cell.get("outputs", ()):
      yield cell, dict(out.get("data", {"text": out.get("text", "")}))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_its_outputs_are_small_figures_and_nothing_else(path):
  notebook = nbformat.read(path, as_version=4)
  shown = [data for _, data in figures(notebook)]
  assert shown, f"{path.name} has no figure to be seen before it runs: {CURE}"
  for data in shown:
    assert list(data) == ["image/png"], f"{path.name} holds {list(data)}: {CURE}"
    png = base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG"), f"{path.name}: this is no PNG: {CURE}"
  counted = [c.id for c in notebook.cells if c.get("execution_count") is not None]
  assert not counted, f"{path.name}: cells {counted} are numbered: {CURE}"


def test_the_figures_are_small_together():
  pages = [nbformat.read(path, as_version=4) for path in PAGES]
  size = sum(len(data["image/png"]) for page in pages for _, data in figures(page))
  assert size < MOST, f"{size:,} bytes of figures: smaller ones, fewer, or less of each"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_it_begins_with_the_cell_that_installs(path):
  notebook = nbformat.read(path, as_version=4)
  first = next(cell for cell in notebook.cells if cell.cell_type == "code")
  text = (COLABS / "first_cell.py").read_text(encoding="utf-8").strip()
  assert first.source == text, f"{path.name} begins with another cell: {CURE}"


def test_of_outputs_the_pictures_stay(tmp_path):
  notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
  png = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAA"
    "AABJRU5ErkJggg=="
  )
  new, code = nbformat.v4.new_output, base64.b64encode(png).decode()
  notebook.cells[0].execution_count = 3
  notebook.cells[0].outputs = [
    new("stream", text="printed"),
    new("execute_result", {"text/plain": "0.5"}, execution_count=3),
    new("display_data", {"image/png": code, "text/plain": "<Figure>"}),
  ]
  refresh.keep_figures(notebook)
  assert notebook.cells[0].execution_count is None
  (out,) = notebook.cells[0].outputs
  assert list(out.data) == ["image/png"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_it_runs(path, tmp_path, monkeypatch):
  # As a reader would: elsewhere, on one device, not on the eight of the test suite.
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  refresh.run(nbformat.read(path, as_version=4), tmp_path)
