"""Models of other libraries, as the examples show them: docs/models/.

Each checks its two gradients against pxy's own decoder itself, and fails where they
differ; here they run, and stay short.
"""

import pathlib
import runpy
import sys

import jax
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs/models"
MODELS = sorted(path.stem for path in FOLDER.glob("*_model.py"))


@pytest.fixture(scope="module")
def ours():
  """What the examples share; a module of this name is not left behind."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOLDER))
    import ours

    yield ours
  del sys.modules["ours"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_another_library_has_the_gradients_of_pxys_own(name, ours, capsys):
  runpy.run_path(str(FOLDER / f"{name}.py"))
  said = capsys.readouterr().out.splitlines()
  assert [line.split(":")[0] for line in said] == ["marginal_loss", "conditional_loss"]


def test_every_kind_of_model_has_an_example_of_less_than_40_lines():
  kinds = ["equinox", "hugging_face", "linen", "nnx", "plain"]
  assert MODELS == [f"{kind}_model" for kind in kinds]
  for name in MODELS:
    lines = (FOLDER / f"{name}.py").read_text("utf-8").splitlines()
    assert len(lines) < 40, f"docs/models/{name}.py has {len(lines)} lines: shorten it"


def test_another_gradient_is_seen(ours):
  loss = ours.objective.marginal_loss
  off = jax.tree.map(np.array, ours.gradients()["marginal_loss"])
  off["q"] = 1.001 * off["q"]
  with pytest.raises(AssertionError, match="marginal_loss: another gradient"):
    ours.check(loss, off, dict)
