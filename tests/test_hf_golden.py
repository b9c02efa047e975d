"""Every family against what transformers computed: by layer, as a whole, and greedily.

tests/golden/make_hf.py wrote the files. tests/parity compares live.
"""

import functools
import json
import pathlib

import jax
import pytest
import safetensors.numpy

from pxy.model import decoder
from pxy.weights import families, hf, names

import hf_worlds

GOLDEN = pathlib.Path(__file__).parent / "golden"
CONFIGS = json.loads((GOLDEN / "hf.json").read_text())


@functools.cache
def golden():
  return safetensors.numpy.load_file(GOLDEN / "hf.safetensors")


@pytest.fixture
def model(request, tmp_path):
  """Arch and parameters of a case, through the files of a folder."""
  values = CONFIGS[request.param]
  tensors = names.tensors(families.read(values))
  weights = {t.name: hf_worlds.weight(t.name, t.shape) for t in tensors}
  (tmp_path / "config.json").write_text(json.dumps(values))
  safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
  return hf.load(tmp_path)


@pytest.fixture(autouse=True)
def eagerly():
  """Operation by operation: the cases share what is compiled."""
  with jax.disable_jit():
    yield


def over(cases):
  pairs = [(name, name) for name in cases]
  return pytest.mark.parametrize(("name", "model"), pairs, indirect=["model"])


each = over(hf_worlds.CASES)
AS_OTHERS = {"llama_yarn", "mistral", "qwen3_yarn_exact", "smollm3"}
"""Cases that go on from a cache as others do, here; in tests/parity all are drawn."""


@each
def test_layers_and_logits(name, model):
  arch, params = model
  want = {k: golden()[f"{name}.{k}"] for k in ("hidden", "logits")}
  ids_T = hf_worlds.ids()
  for depth in range(1, arch.layers + 1):
    got_TD = hf_worlds.hidden(arch, params, ids_T, depth)
    want_TD = want["hidden"][depth - 1]
    if depth < arch.layers:  # theirs have no norm behind them
      want_TD = hf_worlds.normed(arch, params, want_TD)
    hf_worlds.assert_close(got_TD, want_TD, f"layer {depth}")
  got_TV = decoder.logits(arch, params, got_TD)
  hf_worlds.assert_close(got_TV, want["logits"], "logits")


@over([name for name in hf_worlds.CASES if name not in AS_OTHERS])
def test_greedy(name, model):
  arch, params = model
  got = hf_worlds.greedy(arch, params, hf_worlds.ids())
  assert got == golden()[f"{name}.greedy"].tolist()


def test_every_option_changes_the_result():
  """Else a case could agree because its option is taken by neither side."""
  seen = {}
  for name in hf_worlds.CASES:
    first = golden()[f"{name}.hidden"].round(3).tobytes()
    assert seen.setdefault(first, name) == name
