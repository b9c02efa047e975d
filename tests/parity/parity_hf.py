"""Every family against transformers, live: what it writes we read, and the other way.

Not part of the normal suite, for it needs torch and transformers: `make parity`.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers

from pxy import config
from pxy.model import decoder
from pxy.sampling import engine as engine_lib
from pxy.weights import families, hf

import hf_worlds

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))

import make_hf

each = pytest.mark.parametrize("name", hf_worlds.CASES)
GOLDEN = pathlib.Path(make_hf.__file__).parent
pytestmark = pytest.mark.filterwarnings("default")  # of torch and transformers


def tensors(folder):
  """All tensors of a folder, by name."""
  return {
    name: value
    for path in sorted(folder.glob("*.safetensors"))
    for name, value in safetensors.numpy.load_file(path).items()
  }


@pytest.fixture
def theirs(request, tmp_path):
  """(model, the folder that transformers saved it to)."""
  model = make_hf.model(request.param)
  model.save_pretrained(tmp_path / "theirs")
  return model, tmp_path / "theirs"


both = pytest.mark.parametrize(
  ("name", "theirs"), [(n, n) for n in hf_worlds.CASES], indirect=["theirs"]
)


@both
def test_what_transformers_saves_computes_the_same(name, theirs):
  model, folder = theirs
  arch, params = hf.load(folder)
  ids_T = hf_worlds.ids()
  want = make_hf.outputs(model, ids_T)
  with jax.disable_jit():
    for depth in range(1, arch.layers + 1):
      got_TD = hf_worlds.hidden(arch, params, ids_T, depth)
      want_TD = want["hidden"][depth - 1]
      if depth < arch.layers:  # theirs have no norm behind them
        want_TD = hf_worlds.normed(arch, params, want_TD)
      hf_worlds.assert_close(got_TD, want_TD, f"layer {depth}")
    got_TV = decoder.logits(arch, params, got_TD)
  hf_worlds.assert_close(got_TV, want["logits"], "logits")
  # As a run draws: compiled, with slots, from the same cache.
  with engine_lib.Engine(
    arch,
    sampling=config.Sampling(max_new_tokens=hf_worlds.NEW, slots=1),
    stop_ids=(),
    max_prompt_tokens=len(ids_T),
  ) as engine:
    [[sample]] = engine.run(params, [ids_T], 1, key=jax.random.key(0), greedy=True)
  assert sample.ids.tolist() == want["greedy"].tolist()


@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_pxy_saves_is_the_same_model_to_transformers(
  name, theirs, dtype, tmp_path
):
  model, folder = theirs
  model.to(getattr(make_hf.torch, dtype)).save_pretrained(folder)
  arch, params = hf.load(folder)
  hf.save(tmp_path / "ours", arch, params, dtype=dtype, shard_bytes=20_000)
  assert (tmp_path / "ours" / "model.safetensors.index.json").is_file()
  want, got = tensors(folder), tensors(tmp_path / "ours")
  assert got.keys() == want.keys()
  for tensor, value in want.items():
    assert got[tensor].dtype == value.dtype
    assert got[tensor].tobytes() == value.tobytes(), f"{tensor} is not byte-equal"
  before, after = (
    transformers.AutoModelForCausalLM.from_pretrained(
      where, attn_implementation="eager", dtype=dtype
    )
    for where in (folder, tmp_path / "ours")
  )
  kept, now = before.state_dict(), after.state_dict()
  assert kept.keys() == now.keys()
  for key, value in kept.items():
    assert value.dtype == now[key].dtype and bool((now[key] == value).all()), key
  ids_T = hf_worlds.ids()
  want, got = (make_hf.outputs(each.float(), ids_T) for each in (before, after))
  for key, value in want.items():
    np.testing.assert_array_equal(got[key], value, err_msg=key)


@each
def test_the_golden_files_are_of_today(name):
  model = make_hf.model(name)
  stored = safetensors.numpy.load_file(GOLDEN / "hf.safetensors")
  for key, value in make_hf.outputs(model, hf_worlds.ids()).items():
    hf_worlds.assert_close(value, stored[f"{name}.{key}"], key)
  values = json.loads((GOLDEN / "hf.json").read_text())[name]
  assert families.read(values) == families.read(
    json.loads(model.config.to_json_string(use_diff=True))
  )
