"""Every notebook runs from top to bottom."""

import os
import pathlib

import nbclient
import nbformat
import pytest

COLABS = sorted((pathlib.Path(__file__).parent.parent / "colabs").glob("*.ipynb"))
SLOW = {"p_of_y.ipynb": (pytest.mark.slow, pytest.mark.timeout(1500))}
"""Minutes on a machine that has other work."""


@pytest.mark.parametrize("path", COLABS, ids=lambda p: p.name)
def test_it_has_no_outputs(path):
  notebook = nbformat.read(path, as_version=4)
  assert not any(cell.get("outputs") for cell in notebook.cells), (
    f"{path.name} was saved with outputs: clear them, diffs should show the text only"
  )


@pytest.mark.parametrize(
  "path", [pytest.param(p, id=p.name, marks=SLOW.get(p.name, ())) for p in COLABS]
)
def test_it_runs(path):
  notebook = nbformat.read(path, as_version=4)
  # As a reader would: on one device, not on the eight of the test suite.
  env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  most = 1200 if path.name in SLOW else 300
  client = nbclient.NotebookClient(notebook, timeout=most, kernel_name="python3")
  client.execute(env=env)
