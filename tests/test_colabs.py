"""Every notebook runs from top to bottom."""

import os
import pathlib

import nbclient
import nbformat
import pytest

COLABS = pathlib.Path(__file__).resolve().parent.parent / "colabs"


@pytest.mark.parametrize("path", sorted(COLABS.glob("*.ipynb")), ids=lambda p: p.name)
def test_it_runs(path):
  notebook = nbformat.read(path, as_version=4)
  assert not any(cell.get("outputs") for cell in notebook.cells), (
    f"{path.name} was saved with outputs: clear them, diffs should show the text only"
  )
  # As a reader would: on one device, not on the eight of the test suite.
  env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
  client.execute(env=env)
