"""GGUF files: every type of block against a plain oracle, whole models, refusals."""

import dataclasses
import functools
import json
import struct

import gguf
import jax
import numpy as np
import pytest

from pxy import config, testing
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.run import folder as folder_lib
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import families, gguf_file, gguf_model, hf, load, names

ARCH = testing.arch(vocab_size=269, d_model=32, d_ff=64, head_dim=8, layers=2)
GEMMA3 = {
  "qk_norm": True,
  "post_norm": True,
  "embed_scale": True,
  "norm_plus_one": True,
  "activation": "gelu_tanh",
  "rope_theta": 1e6,
  "rope_local_theta": 1e4,
}
FIVE_IN_SIX = (True,) * 5 + (False,)
LLAMA3 = arch_lib.Scaling(32.0, (1.0, 4.0, 8192))
CASES = {
  "llama": ("llama", {"tied": False, "rope_theta": 5e5}),
  "llama_llama3": (
    "llama",
    {"rope_theta": 5e5, "rope_scaling": LLAMA3, "head_dim": 64, "layers": 1},
  ),
  "llama_linear": ("llama", {"rope_scaling": arch_lib.Scaling(2.5)}),
  "qwen2": ("qwen2", {"qkv_bias": True}),
  "qwen3": ("qwen3", {"qk_norm": True, "context": 40_960, "head_dim": 16}),
  "gemma3": (
    "gemma3",
    GEMMA3 | {"layers": 7, "window": 5, "local_pattern": FIVE_IN_SIX, "head_dim": 12},
  ),
  "gemma3_scaled": (
    "gemma3",
    GEMMA3
    | {"layers": 7, "window": 5, "local_pattern": FIVE_IN_SIX, "logit_softcap": 30.0}
    | {"rope_scaling": arch_lib.Scaling(8.0)},
  ),
  "gemma3_short": ("gemma3", GEMMA3 | {"layers": 3, "window": 5}),
  "gemma3_global": ("gemma3", GEMMA3 | {"rope_local_theta": None}),
}
"""The architecture of a file, and what is changed in ARCH."""


def their_name(family: str, name: str) -> str:
  """What the package that llama.cpp's converter uses calls a tensor."""
  [kind] = [k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == family]
  part, _, end = name.rpartition(".")
  return f"{gguf.get_tensor_name_map(kind, 64).get_name(part)}.{end}"


def rope_freqs(arch) -> np.ndarray:
  """llama.cpp's tensor for the scaling of Llama 3, in float32 as its converter."""
  low, high, context = np.float32(arch.rope_scaling.ramp)
  factor, out = np.float32(arch.rope_scaling.factor), []
  for i in range(0, arch.head_dim, 2):
    length = 2 * np.pi * np.float32(arch.rope_theta) ** np.float32(i / arch.head_dim)
    if length < context / high:
      out.append(1)
    elif length > context / low:
      out.append(factor)
    else:
      smooth = (context / np.float32(length) - low) / (high - low)
      out.append(1 / ((1 - smooth) / factor + smooth))
  return np.array(out, np.float32)


def permuted(value, heads):
  """What llama.cpp does to the query and key matrices of a llama."""
  shape = value.shape
  return (
    value.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)
  )


def contents(arch, params, family="llama", kind="F32"):
  """(fields, tensors) of a file: name -> value, name -> (array, type)."""
  kind = gguf.GGMLQuantizationType[kind]
  tensors = {}
  for tensor in names.tensors(arch):
    value = params
    for key in tensor.path:
      value = value[key]
    value = value if tensor.layer is None else value[tensor.layer]
    value = np.ascontiguousarray(tensor.export(value), np.float32)
    if arch.norm_plus_one and tensor.path[-1] == "scale":
      value = value + np.float32(1)
    if family == "llama" and tensor.path[-1] in ("q", "k"):
      heads = arch.heads if tensor.path[-1] == "q" else arch.kv_heads
      value = permuted(value, heads)
    its = kind if value.ndim == 2 else gguf.GGMLQuantizationType.F32
    tensors[their_name(family, tensor.name)] = (gguf.quants.quantize(value, its), its)
  of = {
    "block_count": arch.layers,
    "context_length": arch.context,
    "embedding_length": arch.d_model,
    "feed_forward_length": arch.d_ff,
    "attention.head_count": arch.heads,
    "attention.head_count_kv": arch.kv_heads,
    "attention.key_length": arch.head_dim,
    "attention.value_length": arch.head_dim,
    "rope.freq_base": float(arch.rope_theta),
    "attention.layer_norm_rms_epsilon": float(arch.norm_eps),
  }
  if arch.window is not None:
    of["attention.sliding_window"] = arch.window
  if arch.logit_softcap is not None:
    of["final_logit_softcapping"] = arch.logit_softcap
  if arch.rope_scaling is not None and arch.rope_scaling.ramp is None:
    of |= {"rope.scaling.type": "linear"}
    of |= {"rope.scaling.factor": arch.rope_scaling.factor}
  elif arch.rope_scaling is not None:
    tensors["rope_freqs.weight"] = (rope_freqs(arch), gguf.GGMLQuantizationType.F32)
  fields = {"general.architecture": family, "general.name": "A test"}
  fields |= {f"{family}.{key}": value for key, value in of.items()}
  words = spm_vocabulary if family == "gemma3" else vocabulary
  return fields | words(), tensors


def vocabulary():
  """A byte-level BPE of the 256 bytes, ten merges, and three control tokens."""
  letters = sorted(tokenizer_lib.tokenizers.pre_tokenizers.ByteLevel.alphabet())
  merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("a", "n"),
            ("Ċ", "Ċ"), ("o", "n"), ("Ġ", "a"), ("in", "g")]  # fmt: skip
  controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  tokens = [*controls, *letters, *(a + b for a, b in merges)]
  types = [3] * 3 + [1] * (len(tokens) - 3)
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages[0].content }}<|im_end|>",
  }


def spm_vocabulary():
  """A sentencepiece vocabulary as Gemma 3's: controls, 256 bytes, seven pieces."""
  controls = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
  pieces = {"he": -1.0, "\u2581t": -2.0, "\u2581the": -3.0}
  pieces |= dict.fromkeys(["\u2581", "t", "h", "e"], -9.0)
  return {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [
      *controls,
      *(f"<0x{byte:02X}>" for byte in range(256)),
      *pieces,
    ],
    "tokenizer.ggml.scores": [-1000.0] * 262 + list(pieces.values()),
    "tokenizer.ggml.token_type": [3, 3, 3, 2, 3, 3] + [6] * 256 + [1] * len(pieces),
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": False,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.chat_template": "{{ bos_token }}<start_of_turn>user\n"
    "{{ messages[0].content }}<end_of_turn>\n<start_of_turn>model\n",
  }


def write(path, fields, tensors):
  """Writes a file with the package that llama.cpp's own converter uses."""
  writer = gguf.GGUFWriter(path, fields["general.architecture"])
  for name, value in fields.items():
    if name == "general.architecture":
      continue
    if isinstance(value, bool):
      writer.add_bool(name, value)
    elif isinstance(value, int):
      writer.add_uint32(name, value)
    elif isinstance(value, float):
      writer.add_float32(name, value)
    elif isinstance(value, str):
      writer.add_string(name, value)
    else:
      writer.add_array(name, value)
  for name, (value, kind) in tensors.items():
    writer.add_tensor(name, value, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.fixture(scope="module")
def sound():
  """(fields, tensors) of a small llama."""
  return contents(ARCH, testing.params(ARCH))


# ---- blocks


def half(raw) -> float:
  return struct.unpack("<e", raw)[0]


def q8_0(b):
  return [half(b[:2]) * x for x in struct.unpack("32b", b[2:])]


def q4_0(b):
  low, high = [x & 15 for x in b[2:]], [x >> 4 for x in b[2:]]
  return [half(b[:2]) * (x - 8) for x in low + high]


def q4_1(b):
  low, high = [x & 15 for x in b[4:]], [x >> 4 for x in b[4:]]
  return [half(b[:2]) * x + half(b[2:4]) for x in low + high]


def five(low, bits):
  """32 numbers of five bits; the highest are apart."""
  four = [x & 15 for x in low] + [x >> 4 for x in low]
  [high] = struct.unpack("<I", bits)
  return [x | (high >> i & 1) << 4 for i, x in enumerate(four)]


def q5_0(b):
  return [half(b[:2]) * (x - 16) for x in five(b[6:], b[2:6])]


def q5_1(b):
  return [half(b[:2]) * x + half(b[2:4]) for x in five(b[8:], b[4:8])]


def q2_k(b):
  s, q, d, least = b[:16], b[16:80], half(b[80:82]), half(b[82:84])
  out = []
  for i in range(256):
    part, j = divmod(i, 128)
    x = q[32 * part + j % 32] >> 2 * (j // 32) & 3
    out.append(d * (s[i // 16] & 15) * x - least * (s[i // 16] >> 4))
  return out


def q3_k(b):
  high, q, s, d = b[:32], b[32:96], b[96:108], half(b[108:110])
  out = []
  for i in range(256):
    part, j = divmod(i, 128)
    k = i // 16
    scale = (s[k % 8] >> 4 * (k // 8) & 15) | (s[8 + k % 4] >> 2 * (k // 4) & 3) << 4
    x = q[32 * part + j % 32] >> 2 * (j // 32) & 3
    x -= 0 if high[j % 32] >> i // 32 & 1 else 4
    out.append(d * (scale - 32) * x)
  return out


def scales(s, j):
  """Scale and offset of the j-th of eight parts, 6 bits each."""
  if j < 4:
    return s[j] & 63, s[j + 4] & 63
  scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4
  return scale, (s[j + 4] >> 4) | (s[j] >> 6) << 4


def q4_k(b):
  d, least, s, q = half(b[:2]), half(b[2:4]), b[4:16], b[16:]
  out = []
  for j in range(8):
    scale, offset = scales(s, j)
    for x in q[32 * (j // 2) : 32 * (j // 2) + 32]:
      out.append(d * scale * (x >> 4 if j % 2 else x & 15) - least * offset)
  return out


def q5_k(b):
  d, least, s, high, q = half(b[:2]), half(b[2:4]), b[4:16], b[16:48], b[48:]
  out = []
  for j in range(8):
    scale, offset = scales(s, j)
    for i, x in enumerate(q[32 * (j // 2) : 32 * (j // 2) + 32]):
      x = (x >> 4 if j % 2 else x & 15) | (high[i] >> j & 1) << 4
      out.append(d * scale * x - least * offset)
  return out


def q6_k(b):
  low, high, scales, d = b[:128], b[128:192], struct.unpack("16b", b[192:208]), b[208:]
  out = []
  for i in range(256):
    part, j = divmod(i, 128)
    four = (low[64 * part + j % 64] >> (4 if j >= 64 else 0)) & 15
    two = (high[32 * part + j % 32] >> 2 * (j // 32)) & 3
    out.append(half(d) * scales[i // 16] * ((four | two << 4) - 32))
  return out


BLOCKS = {
  "F32": (4, (), lambda b: struct.unpack("<f", b)),
  "F16": (2, (), lambda b: struct.unpack("<e", b)),
  "BF16": (2, (), lambda b: struct.unpack("<f", b"\0\0" + b)),
  "Q8_0": (34, (0,), q8_0),
  "Q4_0": (18, (0,), q4_0),
  "Q4_1": (20, (0, 2), q4_1),
  "Q5_0": (22, (0,), q5_0),
  "Q5_1": (24, (0, 2), q5_1),
  "Q2_K": (84, (80, 82), q2_k),
  "Q3_K": (110, (108,), q3_k),
  "Q4_K": (144, (0, 2), q4_k),
  "Q5_K": (176, (0, 2), q5_k),
  "Q6_K": (210, (208,), q6_k),
}
"""Bytes of a block, where its float16 numbers are, and what it means."""


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_mean_what_the_oracle_says(kind, tmp_path):
  assert set(BLOCKS) == set(gguf_file.TYPES)
  size, halves, oracle = BLOCKS[kind]
  rng = np.random.default_rng(7)
  rows, blocks = 3, 4
  raw = rng.integers(0, 256, (rows * blocks, size), np.uint8)
  if halves:
    for at in halves:
      scale = rng.normal(size=(len(raw), 1)).astype(np.float16)
      raw[:, at : at + 2] = scale.view(np.uint8)
  else:  # any number but the largest ones, some of which are not finite
    raw[:, -1] &= 0xBF
  want = [oracle(bytes(block)) for block in raw]
  tensor = (raw.reshape(rows, -1), gguf.GGMLQuantizationType[kind])
  path = write(
    tmp_path / "x.gguf",
    {"general.architecture": "llama"},
    # Of an odd size first, so that what follows is padded.
    {"odd": (np.ones(3, np.float32), gguf.GGMLQuantizationType.F32), "x": tensor},
  )
  file = gguf_file.File(path)
  got = file.read("x")
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, np.reshape(want, (rows, -1)), rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(file.read("odd"), np.ones(3))


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_that_are_not_finite_are_refused(kind, tmp_path):
  size, halves, _ = BLOCKS[kind]
  raw = np.full((2, size), 0x35, np.uint8)
  raw[1, (halves or (size - 2,))[-1] :][:2] = [0xFF, 0x7F]  # a nan, also as bfloat16
  if kind == "F32":
    raw[1] = [0xFF] * 4
  tensor = (raw, gguf.GGMLQuantizationType[kind])
  fields = {"general.architecture": "llama"}
  file = gguf_file.File(write(tmp_path / "x.gguf", fields, {"x": tensor}))
  with pytest.raises(config.Error, match="tensor 'x' has numbers that are not finite"):
    file.read("x")


def test_the_header_is_read_as_the_package_reads_it(sound, tmp_path):
  path = write(tmp_path / "x.gguf", *sound)
  theirs, ours = gguf.GGUFReader(path), gguf_file.File(path)
  for name, field in theirs.fields.items():
    if name.startswith("GGUF."):
      continue
    want, got = field.contents(), ours.fields[name]
    if isinstance(want, float):
      got, want = np.float32(got), np.float32(want)
    assert np.array_equal(got, want), name
  assert len(ours.tensors) == len(theirs.tensors)
  for tensor in theirs.tensors:
    got = ours.tensors[tensor.name]
    assert got.shape == tuple(tensor.shape[::-1].tolist())
    assert (got.offset, got.size) == (tensor.data_offset, tensor.n_bytes)
    np.testing.assert_array_equal(ours.read(tensor.name), tensor.data)


# ---- models


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_model_it_was_made_from(case, tmp_path):
  family, changes = CASES[case]
  arch = dataclasses.replace(ARCH, **changes)
  params = testing.params(arch)
  path = write(tmp_path / "x.gguf", *contents(arch, params, family))
  policy = load.load(str(path))
  assert policy.arch == load.arch(str(path)) == arch
  # In a file 1 is added to the scales of Gemma's norms, which rounds.
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=6e-8)
  same = close if arch.norm_plus_one else np.testing.assert_array_equal
  jax.tree.map(same, policy.params, params)
  # And it is a model that HF software has words for.
  assert families.read(families.write(arch)) == arch


def test_fields_that_files_may_leave_out(sound, tmp_path):
  fields, tensors = sound
  left = ("key_length", "value_length", "freq_base", "head_count_kv")
  fields = {k: v for k, v in fields.items() if not k.endswith(left)}
  fields |= {"llama.vocab_size": 269, "llama.rope.scaling.type": "none"}
  fields |= {"llama.expert_count": 0, "llama.rope.dimension_count": 8}
  file = gguf_file.File(write(tmp_path / "x.gguf", fields, tensors))
  assert gguf_model.arch(file) == dataclasses.replace(ARCH, kv_heads=4)


def test_what_files_of_gemma3_leave_to_llama_cpp(tmp_path):
  """The scale of the 27B by its depth, and in newer files the windows' fields."""
  changes = GEMMA3 | {"layers": 62, "window": 5, "local_pattern": FIVE_IN_SIX}
  arch = dataclasses.replace(ARCH, **changes, d_model=5376, heads=32, head_dim=128)
  embed = {"token_embd.weight": f32(269, 1)}  # no more is looked at
  fields, _ = contents(ARCH, testing.params(ARCH), "gemma3")
  fields |= {"gemma3.block_count": 62, "gemma3.embedding_length": 5376}
  fields |= {"gemma3.attention.head_count": 32, "gemma3.attention.key_length": 128}
  fields |= {"gemma3.attention.value_length": 128, "gemma3.rope.freq_base": 1e6}
  fields |= {"gemma3.attention.sliding_window": 5}
  file = gguf_file.File(write(tmp_path / "x.gguf", fields, embed))
  assert gguf_model.arch(file) == dataclasses.replace(arch, attn_scale=168**-0.5)
  fields |= {"gemma3.block_count": 48, "gemma3.rope.freq_base_swa": 2e4}
  fields |= {"gemma3.attention.sliding_window_pattern": 2}
  file = gguf_file.File(write(tmp_path / "y.gguf", fields, embed))
  assert gguf_model.arch(file) == dataclasses.replace(
    arch, layers=48, rope_local_theta=2e4, local_pattern=(True, False)
  )


def test_eight_bits_make_nearly_the_same_logits(tmp_path):
  params = testing.params(ARCH)
  path = write(tmp_path / "x.gguf", *contents(ARCH, params, kind="Q8_0"))
  ids = np.arange(1, 9, dtype=np.int32)[None]

  def logits(params):
    hidden = decoder.forward(
      ARCH, jax.device_put(params), ids, np.arange(8)[None], np.ones_like(ids)
    )
    return decoder.logits(ARCH, jax.device_put(params), hidden)[0]

  got, want = logits(load.load(str(path)).params), logits(params)
  correlation = np.corrcoef(np.ravel(got), np.ravel(want))[0, 1]
  assert correlation > 0.999, "more changed than the rounding"


def test_a_run_keeps_the_tokenizer(sound, tmp_path):
  """tokenizer.json and the template of the file, as a run folder has them."""
  path = write(tmp_path / "x.gguf", *sound)
  policy = load.load(str(path))
  cfg = config.Train(model=str(path))
  with folder_lib.RunFolder(tmp_path / "run", cfg, "never") as folder:
    folder.start(policy.arch, policy.tokenizer)
  assert load.arch(str(tmp_path / "run")) == policy.arch
  back = tokenizer_lib.load(tmp_path / "run" / "model")
  text = "the thing on an inn<|im_end|>\n\n12 + 3 = 15 😀"
  assert back.encode(text) == policy.tokenizer.encode(text)
  assert back.settings == policy.tokenizer.settings
  assert back.chat_template == sound[0]["tokenizer.chat_template"]
  assert (back.start_id, back.end_id, back.pad_id, back.stop_ids) == (1, 2, 0, (2, 0))


def test_what_is_loaded_can_be_saved_for_others(sound, tmp_path):
  policy = load.load(str(write(tmp_path / "x.gguf", *sound)))
  hf.save(tmp_path / "hf", policy.arch, policy.params, tokenizer=policy.tokenizer)
  back = load.load(str(tmp_path / "hf"))
  assert back.arch == policy.arch
  jax.tree.map(np.testing.assert_array_equal, back.params, policy.params)
  values = json.loads((tmp_path / "hf" / "config.json").read_text())
  assert values["rms_norm_eps"] == 1e-6, "a float32, but as people write it"


# ---- refusals


def f32(*shape):
  return np.ones(shape, np.float32), gguf.GGMLQuantizationType.F32


REFUSED = {
  "general.architecture 'gemma2'": {"general.architecture": "gemma2"},
  "general.type is 'adapter'": {"general.type": "adapter"},
  "split.count is 2": {"split.count": 2},
  "rope.scaling.type 'yarn' is not supported; none, linear": {
    "llama.rope.scaling.type": "yarn"
  },
  "factor must be >= 1": {"llama.rope.scaling.factor": 0.5},
  "field llama.attention.sliding_window (5) is not": {
    "llama.attention.sliding_window": 5
  },
  "field llama.expert_count (8) is not": {"llama.expert_count": 8},
  "field llama.new_thing ('x') is not supported": {"llama.new_thing": "x"},
  "field llama.head_list (array([1, 2]": {"llama.head_list": [1, 2]},
  "llama.rope.dimension_count is not 8": {"llama.rope.dimension_count": 4},
  "field block_count is True, expected int": {"llama.block_count": True},
  "field block_count is None": {"llama.block_count": None},
  "arch: heads is 0": {"llama.attention.head_count": 0},
  "block_count says 900 layers, the file has 20": {"llama.block_count": 900},
  "tensor blk.2.attn_k.weight is missing": {"llama.block_count": 3},
  "tensor 'blk.1.attn_k.weight' is not known": {"llama.block_count": 1},
  "tensor blk.0.ffn_down.weight is (32, 64), the metadata imply (32, 65)": {
    "llama.feed_forward_length": 65
  },
  "its tokenizer has 269 tokens, its embedding 268: they do not belong": {
    "llama.vocab_size": 268
  },
  "rope_freqs.weight is (5,), the metadata imply 4": {"+rope_freqs.weight": f32(5)},
  "tensor 'extra\\n' is not known": {"+extra\n": f32(1)},
  "output_norm.weight is missing": {"-output_norm.weight": None},
  "token_embd.weight is missing": {"-token_embd.weight": None},
  "tensor output_norm.weight is (31,)": {"+output_norm.weight": f32(31)},
  "has numbers that are not finite": {
    "+output_norm.weight": (np.full(32, np.inf, np.float32), f32(1)[1])
  },
  "has type IQ4_NL, which is not supported; F32, F16": {
    "+output_norm.weight": (np.zeros(18, np.uint8), gguf.GGMLQuantizationType.IQ4_NL)
  },
  "has type I32, which is not": {"+output_norm.weight": (np.ones(32, np.int32), None)},
  "general.alignment is 24": {"general.alignment": 24},
  "tokenizer has 269 tokens, its embedding 268": {
    "+token_embd.weight": f32(268, 32),
  },
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_by_name(sound, tmp_path, message):
  fields, tensors = map(dict, sound)
  for name, value in REFUSED[message].items():
    if name[0] == "+":
      tensors[name[1:]] = value
    elif name[0] == "-":
      del tensors[name[1:]]
    elif value is None:
      del fields[name]
    else:
      fields[name] = value
  path = write(tmp_path / "x.gguf", fields, tensors)
  with pytest.raises(config.Error) as caught:
    load.load(str(path))
  assert message in str(caught.value)
  assert "x.gguf" in str(caught.value) and str(caught.value).isprintable()


def test_the_fetched_model_is_asked_for_by_name(tmp_path, monkeypatch):
  monkeypatch.setenv("PXY_MODELS", str(tmp_path))
  with pytest.raises(config.Error, match="run `make smollm2`, or set PXY_MODELS"):
    load.load("builtin:smollm2-135m")
  with pytest.raises(config.Error, match="no such folder or file; give"):
    load.load(str(tmp_path / "no.gguf"))
