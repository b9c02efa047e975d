"""Hugging Face folders: exact round trips, foreign layouts, and refusals by name."""

import dataclasses
import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pxy import config, testing
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.train import checkpoint
from pxy.weights import families, hf, load

import reference_decoder

FAMILIES = {
  "llama": {"tied": False, "rope_theta": 5e5},
  "qwen2": {"qkv_bias": True},
  "qwen3": {"qk_norm": True, "context": 40_960, "norm_eps": 1e-6},
  "gemma3_text": {
    "layers": 4,
    "qk_norm": True,
    "post_norm": True,
    "norm_plus_one": True,
    "embed_scale": True,
    "activation": "gelu_tanh",
    "attn_scale": 24**-0.5,
    "logit_softcap": 30.0,
    "window": 3,
    "local_pattern": (True, True, False),
    "rope_theta": 1e6,
    "rope_local_theta": 1e4,
    "rope_scaling": arch_lib.Scaling(8.0),
  },
}
ARCH = testing.arch(vocab_size=11, d_model=8, d_ff=12, head_dim=6)


@pytest.fixture
def folder(tmp_path):
  """A llama folder as another program would have written it."""
  hf.save(tmp_path, ARCH, testing.params(ARCH))
  return tmp_path


def tensors(folder):
  return safetensors.numpy.load_file(folder / "model.safetensors")


def rewrite(folder, change):
  values = tensors(folder)
  change(values)
  safetensors.numpy.save_file(values, folder / "model.safetensors")


def reconfigure(folder, **changes):
  path = folder / "config.json"
  values = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(values))


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_exact(family, tmp_path):
  arch = dataclasses.replace(ARCH, **FAMILIES[family])
  params = testing.params(arch)
  hf.save(tmp_path, arch, params)
  assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
  got_arch, got = hf.load(tmp_path)
  assert got_arch == hf.arch(tmp_path) == arch
  jax.tree.map(np.testing.assert_array_equal, got, params)


LLAMA3 = arch_lib.Scaling(32.0, (1.0, 4.0, 8192))
YARN = arch_lib.Scaling(4.0, (1.0, 32.0, 4096), "whole_pairs", 1.1386294361119891)
VARIANTS = {
  "mistral": ("mistral", {"window": 4}),
  "smollm3": ("smollm3", {"rope_pattern": (True, False)}),
  "smollm3_window": (
    "smollm3",
    {"rope_pattern": (False, True), "window": 4, "local_pattern": (True, False)},
  ),
  "one_window": ("smollm3", {"window": 4, "local_pattern": (True, False)}),
  "yarn": ("llama", {"rope_scaling": YARN}),
  "yarn_all": (
    "qwen3",
    {"rope_scaling": arch_lib.Scaling(2.5, (0.5, 8.0, 64), "pairs", 1.3)},
  ),
  "llama3": ("llama", {"rope_scaling": LLAMA3}),
  "linear": ("qwen3", {"rope_scaling": arch_lib.Scaling(2.5)}),
  "qwen2_window": ("qwen2", {"window": 4, "local_pattern": (False, True)}),
  "qwen3_all_local": ("qwen3", {"window": 4}),
  "gemma_all_global": (
    "gemma3_text",
    {"window": None, "local_pattern": (), "rope_local_theta": None},
  ),
  "gemma_all_local": ("gemma3_text", {"local_pattern": ()}),
  "gemma_one_theta": ("gemma3_text", {"rope_scaling": None, "rope_local_theta": None}),
  "gemma_scale": ("gemma3_text", {"attn_scale": None, "tied": False}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_json_is_read_as_it_was_written(variant):
  family, flags = VARIANTS[variant]
  arch = dataclasses.replace(ARCH, **FAMILIES.get(family, {}) | flags)
  values = families.write(arch)
  assert values["model_type"] == family
  assert families.read(json.loads(json.dumps(values))) == arch
  assert not families.ignored(values), "what pxy writes, it reads"


def test_of_archs_that_compute_the_same_one_is_read_back():
  arch = dataclasses.replace(ARCH, **FAMILIES["gemma3_text"])
  long = dataclasses.replace(arch, local_pattern=(True, True, False, True, True))
  assert families.read(families.write(long)) == arch
  assert families.canonical(long) == arch


def test_both_spellings_of_rotations():
  base = families.write(dataclasses.replace(ARCH, **FAMILIES["gemma3_text"]))
  want = families.read(base)
  new = {k: v for k, v in base.items() if not k.startswith("rope_")}
  local = {"rope_type": "default", "rope_theta": 1e4}
  full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
  new["rope_parameters"] = {"full_attention": full, "sliding_attention": local}
  assert families.read(new) == want
  old = base | {"rope_scaling": {"type": "linear", "factor": 8.0}}
  old |= {"sliding_window_pattern": 3, "layer_types": None}
  assert families.read(old) == want
  llama = families.write(dataclasses.replace(ARCH, rope_theta=5e5, rope_scaling=LLAMA3))
  new = {k: v for k, v in llama.items() if not k.startswith("rope_")}
  new["rope_parameters"] = llama["rope_scaling"] | {"rope_theta": 5e5}
  assert families.read(new) == families.read(llama)
  with pytest.raises(config.Error, match="in rope_parameters 500000"):
    families.read(new | {"rope_theta": 1e4})
  with pytest.raises(config.Error, match="beside rope_parameters"):
    families.read(new | {"rope_scaling": llama["rope_scaling"]})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ({"hidden_act": "silu"}, "hidden_act"),
    ({"head_dim": None}, "head_dim"),
    ({"layer_types": ["sliding_attention"]}, "layer_types"),
    ({"layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ({"sliding_window": 0}, "window is 0"),
    ({"layer_types": None, "num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"layer_types": None, "sliding_window_pattern": 10**9}, "sliding_window_pattern"),
    ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor must be"),
    ({"rope_parameters": {"full_attention": {}}, "rope_scaling": None}, "rope_param"),
  ],
)
def test_what_gemma_asks_for_and_pxy_lacks_is_refused(changes, message):
  values = families.write(dataclasses.replace(ARCH, **FAMILIES["gemma3_text"]))
  with pytest.raises(config.Error, match=message):
    families.read(values | changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_means_what_its_names_say(family, tmp_path):
  arch = dataclasses.replace(ARCH, **FAMILIES[family])
  hf.save(tmp_path, arch, testing.params(arch))
  ids = np.arange(5, dtype=np.int32)
  _, want_TV = reference_decoder.forward(arch, tensors(tmp_path), ids)
  _, params = hf.load(tmp_path)
  one = np.ones((1, 5), np.int32)
  params = jax.device_put(params)
  hidden = decoder.forward(arch, params, jax.numpy.asarray(ids[None]), ids[None], one)
  logits_TV = decoder.logits(arch, params, hidden[0])
  np.testing.assert_allclose(logits_TV, want_TV, atol=1e-4, rtol=1e-4)


def test_names_and_shapes_are_those_of_llama(folder):
  layer = {
    "input_layernorm.weight": (8,),
    "mlp.down_proj.weight": (8, 12),
    "mlp.gate_proj.weight": (12, 8),
    "mlp.up_proj.weight": (12, 8),
    "post_attention_layernorm.weight": (8,),
    "self_attn.k_proj.weight": (12, 8),
    "self_attn.o_proj.weight": (8, 24),
    "self_attn.q_proj.weight": (24, 8),
    "self_attn.v_proj.weight": (12, 8),
  }
  want = {f"model.layers.{i}.{k}": v for i in range(2) for k, v in layer.items()}
  want |= {"model.embed_tokens.weight": (11, 8), "model.norm.weight": (8,)}
  assert {k: v.shape for k, v in tensors(folder).items()} == want


@pytest.mark.parametrize(
  ("dtype", "kind"), [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)]
)
def test_half_precision(dtype, kind, tmp_path):
  params = testing.params(ARCH)
  hf.save(tmp_path, ARCH, params, dtype=dtype)
  assert {v.dtype for v in tensors(tmp_path).values()} == {np.dtype(kind)}
  assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
  _, got = hf.load(tmp_path)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(kind).astype(np.float32)),
    got,
    params,
  )


def test_tokenizer_goes_along(tmp_path):
  tokenizer = testing.tokenizer()
  hf.save(tmp_path, testing.arch(), testing.params(testing.arch()), tokenizer=tokenizer)
  values = json.loads((tmp_path / "generation_config.json").read_text())
  assert values["eos_token_id"] == list(tokenizer.stop_ids)
  assert values["pad_token_id"] == tokenizer.pad_id
  assert (tmp_path / "tokenizer_config.json").is_file()
  assert hf.arch(tmp_path) == testing.arch()


def test_shards_by_index(folder):
  values = tensors(folder)
  named = sorted(values)
  parts = {"a.safetensors": named[:7], "b.safetensors": named[7:]}
  for shard, part in parts.items():
    safetensors.numpy.save_file({n: values[n] for n in part}, folder / shard)
  (folder / "model.safetensors").unlink()
  weight_map = {name: shard for shard, part in parts.items() for name in part}
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  _, params = hf.load(folder)
  jax.tree.map(np.testing.assert_array_equal, params, testing.params(ARCH))
  index.write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
  with pytest.raises(config.Error, match=r"no \.\./secret"):
    hf.load(folder)
  hf.save(folder, ARCH, params)  # A stale index must not win over the new weights.
  assert not index.exists()
  hf.load(folder)


def test_saving_in_shards(tmp_path):
  hf.save(tmp_path, ARCH, testing.params(ARCH), dtype="float16")
  whole = tensors(tmp_path)
  for most in (300, 700, 10**6, 300):
    hf.save(tmp_path, ARCH, testing.params(ARCH), dtype="float16", shard_bytes=most)
    index = tmp_path / "model.safetensors.index.json"
    there = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    if most == 10**6:
      assert there == ["model.safetensors"] and not index.exists()
      continue
    said = json.loads(index.read_text())
    assert sorted(set(said["weight_map"].values())) == there
    assert there[-1] == f"model-{len(there):05d}-of-{len(there):05d}.safetensors"
    total = 0
    for name in there:
      part = safetensors.numpy.load_file(tmp_path / name)
      size = sum(value.nbytes for value in part.values())
      assert size <= most or len(part) == 1
      total += size
      for tensor, value in part.items():
        assert said["weight_map"][tensor] == name
        np.testing.assert_array_equal(value, whole[tensor])
    assert said["metadata"] == {"total_size": total}
    hf.load(tmp_path)


def test_each_parameter_is_put_in_its_place_once(folder):
  mesh = mesh_lib.make(config.Mesh(data=1, fsdp=2, tensor=1))
  shapes = decoder.abstract(ARCH)
  where = mesh_lib.shardings(mesh, decoder.axes(ARCH), shapes)
  seen = []

  def put(path, value):
    seen.append(path)
    return value

  hf.load(folder, put)
  assert len(seen) == len(set(seen)) == len(jax.tree.leaves(shapes))
  sharded = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where
  )
  got = load.params(str(folder), sharded)
  jax.tree.map(np.testing.assert_array_equal, got, testing.params(ARCH))
  assert jax.tree.map(lambda x: x.sharding, got) == where


def test_the_host_holds_one_parameter_at_a_time(tmp_path):
  arch = testing.arch(layers=8, d_model=256, d_ff=1024)
  hf.save(tmp_path, arch, testing.params(arch), dtype="bfloat16")
  largest = max(4 * x.size for x in jax.tree.leaves(decoder.abstract(arch)))
  whole = 4 * decoder.size(arch)
  assert whole > 3 * largest
  tracemalloc.start()  # of Python and numpy, not of what put has moved elsewhere
  hf.load(tmp_path, lambda path, value: None)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1.5 * largest, f"{peak:,} bytes for a parameter of {largest:,}"


def test_what_only_repeats_is_let_through(folder):
  embed, head = "model.embed_tokens.weight", "lm_head.weight"
  buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
  rewrite(folder, lambda v: v.update({head: v[embed], buffer: np.ones(3, np.float32)}))
  hf.load(folder)
  rewrite(folder, lambda v: v.update({head: v[embed] + 1}))
  with pytest.raises(config.Error, match=r"ties lm_head\.weight"):
    hf.load(folder)


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_tensor(dtype, number, folder):
  """The largest numbers of either sign are numbers, and load."""
  kind = hf._DTYPES[dtype]
  largest = float(ml_dtypes.finfo(kind).max)

  def change(values):
    for name in values:
      values[name] = values[name].astype(kind)
    values[Q][:2, :2] = [[largest, -largest], [0.0, -0.0]]

  rewrite(folder, change)
  hf.load(folder)
  rewrite(folder, lambda values: values[Q].__setitem__((3, 5), number))
  with pytest.raises(config.Error, match=rf"tensor {Q} has numbers that are not"):
    load.params(str(folder), sharded_alone())


def test_a_checkpoint_of_a_run_as_well(tmp_path, monkeypatch):
  (tmp_path / "checkpoints").mkdir()
  held = jax.device_put(testing.params(ARCH))
  monkeypatch.setattr(checkpoint, "params", lambda *args: held)
  assert load.params(str(tmp_path), None) is held
  held["layers"]["attn"]["q"] = held["layers"]["attn"]["q"].at[1, 2].set(np.nan)
  with pytest.raises(config.Error, match=r"parameter layers\.attn\.q has numbers"):
    load.params(str(tmp_path), None)


def sharded_alone():
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    decoder.abstract(ARCH),
  )


FAULTS = {
  "missing": (lambda v: v.pop(Q), "q_proj.weight is missing"),
  "unknown": (lambda v: v.update({"extra": v[Q]}), "extra is not known"),
  "shape": (
    lambda v: v.update({Q: v[Q].T.copy()}),
    r"is \(8, 24\), config",
  ),
  "type": (lambda v: v.update({Q: v[Q].astype(np.int32)}), "type I32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused(fault, folder):
  change, message = FAULTS[fault]
  rewrite(folder, change)
  with pytest.raises(config.Error, match=message) as error:
    hf.load(folder)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model_type": "mamba"}, "model_type 'mamba'"),
    ({"num_experts": 8}, "num_experts"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope_parameters"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 8}}, "rope_scaling"),
    ({"attention_bias": True}, "attention_bias"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"hidden_act": "relu"}, "hidden_act"),
    ({"hidden_size": "8"}, "hidden_size"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ({"num_hidden_layers": 10**9}, "1000000000 layers"),
    ({"use_sliding_window": True, "sliding_window": 4}, "sliding_window"),
    ({"layer_types": ["sliding_attention"]}, "layer_types"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
  ],
)
def test_what_config_json_asks_for_and_pxy_lacks_is_refused(changes, message, folder):
  reconfigure(folder, **changes)
  with pytest.raises(config.Error, match=message) as error:
    hf.load(folder)
  assert "\n" not in str(error.value)


YARN_ASKED = {
  "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize(
  ("more", "want"),
  [
    ({}, {}),
    ({"beta_fast": 32, "beta_slow": 1, "truncate": True, "finetuned": True}, {}),
    ({"attention_factor": None, "beta_fast": None, "mscale": 1.0}, {}),
    ({"attention_factor": 1}, {"attention": 1.0}),
    ({"attention_factor": 0.9, "mscale": 2.0}, {"attention": 0.9}),
    ({"mscale": 1.0, "mscale_all_dim": 1.0}, {"attention": 1.0}),
    ({"truncate": False, "beta_fast": 8}, {"over": "pairs", "ramp": (1.0, 8.0, 4096)}),
  ],
)
def test_what_yarn_leaves_out(more, want):
  got = families.read(families.write(ARCH) | {"rope_scaling": YARN_ASKED | more})
  assert got.rope_scaling == dataclasses.replace(YARN, **want)
  beside = families.write(ARCH) | {"original_max_position_embeddings": 4096}
  del (asked := YARN_ASKED | more)["original_max_position_embeddings"]
  assert families.read(beside | {"rope_scaling": asked}) == got
  for wrong in (
    {"factor": None}, {"factor": 0.5}, {"beta_fast": 0.5}, {"attention_factor": -1.0},
    {"truncate": 0}, {"mscale": 1.0, "mscale_all_dim": -90.0}, {"attn_factor": 2.0},
    {"original_max_position_embeddings": 0}, {"beta_slow": 1e-320},
  ):  # fmt: skip
    with pytest.raises(config.Error, match=r"rope_scaling|arch: "):
      families.read(families.write(ARCH) | {"rope_scaling": YARN_ASKED | wrong})
  with pytest.raises(
    config.Error, match="original_max_position_embeddings is 2048, in"
  ):
    families.read(
      families.write(ARCH)
      | {"original_max_position_embeddings": 2048, "rope_scaling": YARN_ASKED}
    )


LEFT = {
  "use_mrope": False, "quantization_config": None, "num_experts": 0, "pruned_heads": {},
  "return_dict": True, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
  "_attn_implementation_autoset": True, "unsloth_version": "2025.1.1",
  "temperature": 0.7, "top_k": 50, "max_length": 20, "do_sample": True,
  "classifier_dropout": 0.1, "image_token_id": 151655, "use_sliding_window": False,
  "sliding_window": 4096, "max_window_layers": 28, "is_causal": True,
}  # fmt: skip


def test_fields_without_effect_are_let_through_and_named_once(folder, capsys):
  reconfigure(folder, **LEFT)
  assert hf.load(folder)[0] == hf.arch(folder) == ARCH
  named = set(LEFT) - {
    "use_sliding_window", "sliding_window", "max_window_layers", "is_causal",
  }  # fmt: skip
  values = json.loads((folder / "config.json").read_text())
  assert set(families.ignored(values)) == named
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "fields without effect are ignored: " in said
  assert all(name in said for name in named), said


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("use_mrope", True), ("num_experts", 8), ("num_experts_per_token", 2),
    ("quantization_config", {"bits": 4}), ("is_causal", False), ("use_rope", False),
    ("rotary_pct", 0.5), ("embedding_multiplier", 12.0), ("use_qk_norm", True),
    ("pruned_heads", {"0": [1]}), ("new_thing", float("nan")), ("sliding_window", 64),
  ],
)  # fmt: skip
def test_fields_that_may_have_an_effect_are_refused_by_name(name, value):
  with pytest.raises(config.Error, match=rf"field '{name}' .* is not supported"):
    families.read(families.write(ARCH) | {name: value})


@pytest.mark.parametrize(
  ("family", "changes", "message"),
  [
    ("mistral", {"layer_types": ["full_attention"] * 2}, "every layer has"),
    ("mistral", {"use_sliding_window": False}, "every layer has"),
    ("mistral", {"sliding_window": 0}, "window is 0"),
    ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers is"),
    ("smollm3", {"no_rope_layers": [1, 2]}, "no_rope_layers is"),
    ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "interval is 0"),
    ("smollm3", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
  ],
)
def test_what_contradicts_a_family_is_refused(family, changes, message):
  values = families.write(dataclasses.replace(ARCH, **VARIANTS[family][1]))
  with pytest.raises(config.Error, match=message):
    families.read(values | changes)


def test_broken_folders(folder, tmp_path_factory):
  with pytest.raises(config.Error, match=r"no config\.json"):
    hf.load(tmp_path_factory.mktemp("empty"))
  (folder / "model.safetensors").write_bytes(b"\x00" * 40)
  with pytest.raises(config.Error, match=r"model\.safetensors cannot be read"):
    hf.load(folder)
  (folder / "model.safetensors").unlink()
  with pytest.raises(config.Error, match=r"no model\.safetensors"):
    hf.load(folder)
  (folder / "config.json").write_text("{")
  with pytest.raises(config.Error, match="cannot be read"):
    hf.load(folder)


def test_an_interrupted_save_leaves_no_model(folder, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError("disk full")

  monkeypatch.setattr(safetensors.numpy, "save_file", fail)
  with pytest.raises(OSError, match="disk full"):
    hf.save(folder, ARCH, testing.params(ARCH))
  with pytest.raises(config.Error, match=r"no config\.json"):
    hf.load(folder)
  assert not list(folder.glob(".*")), "a temporary file was left"


def test_an_arch_without_a_family_is_refused_before_writing(folder):
  arch = dataclasses.replace(ARCH, embed_scale=True)  # of Gemma, without its norms
  with pytest.raises(config.Error, match="no HF family"):
    hf.save(folder, arch, testing.params(arch))
  hf.load(folder)  # What was there is still there.


def test_configs_of_published_models():
  smol = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666,
    "intermediate_size": 1536, "is_llama_config": True,
    "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama",
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3", "use_cache": True, "vocab_size": 49152,
  }  # fmt: skip
  assert families.read(smol) == arch_lib.Arch(
    49152, 30, 576, 9, 3, 64, 1536, 8192, rope_theta=1e5, norm_eps=1e-5
  )
  assert decoder.size(families.read(smol)) == 134_515_008
  qwen = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
    "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
    "initializer_range": 0.02, "intermediate_size": 9728,
    "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
    "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
    "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
  }  # fmt: skip
  got = families.read(qwen)
  assert got.qk_norm and got.head_dim == 128 and got.rope_theta == 1e6
  assert decoder.size(got) == 4_022_468_096
  gemma = {
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "attn_logit_softcapping": None, "bos_token_id": 2,
    "cache_implementation": "hybrid", "eos_token_id": [1, 106],
    "final_logit_softcapping": None, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "initializer_range": 0.02, "intermediate_size": 6912,
    "max_position_embeddings": 32768, "model_type": "gemma3_text",
    "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
    "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0", "use_cache": True, "vocab_size": 262144,
  }  # fmt: skip
  got = families.read(gemma)
  assert got.local_pattern == (True,) * 5 + (False,) and got.window == 512
  assert (got.rope_theta, got.rope_local_theta, got.scale) == (1e6, 1e4, 1 / 16)
  assert decoder.size(got) == 999_885_952
  distilled = {
    "architectures": ["Qwen2ForCausalLM"], "attention_bias": True,
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02,
    "intermediate_size": 8960, "max_position_embeddings": 131072,
    "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 12,
    "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.44.0", "use_cache": True,
    "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
  }  # fmt: skip
  got = families.read(distilled)
  assert got.qkv_bias and got.window is None
  assert families.ignored(distilled) == ("attention_bias", "use_mrope")
  assert decoder.size(got) == 1_777_088_000
  mistral = {
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 32768,
    "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0", "use_cache": True, "vocab_size": 32000,
  }  # fmt: skip
  got = families.read(mistral)
  assert (got.window, got.local_pattern, got.tied) == (4096, (), False)
  assert decoder.size(got) == 7_241_732_096
  assert families.read(mistral | {"sliding_window": None}).window is None
  del mistral["sliding_window"]
  assert families.read(mistral).window == 4096, "as MistralConfig has it"
  smol3 = {
    "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128012,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 11008, "layer_types": ["full_attention"] * 36,
    "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": False,
    "model_type": "smollm3", "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9, "num_attention_heads": 16,
    "num_hidden_layers": 36, "num_key_value_heads": 4, "pad_token_id": 128004,
    "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 5000000.0, "sliding_window": None, "torch_dtype": "bfloat16",
    "transformers_version": "4.54.0.dev0", "use_cache": False,
    "use_sliding_window": False, "vocab_size": 128256,
  }  # fmt: skip
  got = families.read(smol3)
  assert (got.rope_pattern, got.tied) == ((True, True, True, False), True)
  assert decoder.size(got) == 3_075_098_624
  assert families.read(smol3 | {"no_rope_layers": None}) == got
  llama = smol | {
    "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "head_dim": 64,
    "max_position_embeddings": 131072, "rope_theta": 500000.0, "vocab_size": 128256,
    "rope_scaling": {
      "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
      "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
  }  # fmt: skip
  assert families.read(llama).rope_scaling == LLAMA3
  assert decoder.size(families.read(llama)) == 1_235_814_400
