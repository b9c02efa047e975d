"""Hostile model folders: whatever the bytes, a config.Error of one line and no more.

Every file is a sound one with something about it changed. Loading may succeed only
where the result is what config.json implies.
"""

import json
import math
import pathlib
import struct
import tempfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pxy import config, testing
from pxy.model import layers
from pxy.weights import families, hf

import hostile

ARCH = testing.arch(vocab_size=11, d_model=8, d_ff=12, head_dim=6, layers=1)


# A failure would print all of the fixture.
class Sound(tuple):
  __repr__ = object.__repr__


MEMORY = 32 * 2**20
"""Python and numpy may take this much for a folder of 8 kB, errors included."""
TRIED = {"header": 1500, "bytes": 1000, "config": 1500}
SOME = 4  # of so many, the memory of one is looked at

WILD = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(-3, 20),
  st.sampled_from([2**30, 2**31, 2**40, 2**63, 2**64, 10**30, -(2**63), 10**400]),
  st.floats(),
  st.text(max_size=5),
  st.lists(st.integers(-1, 2**40), max_size=3),
  st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def settings(kind):
  return hypothesis.settings(
    max_examples=TRIED[kind],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
  """(config.json, header, data) of a folder that loads."""
  folder = tmp_path_factory.mktemp("sound")
  hf.save(folder, ARCH, testing.params(ARCH))
  raw = (folder / "model.safetensors").read_bytes()
  (length,) = struct.unpack("<Q", raw[:8])
  header = json.loads(raw[8 : 8 + length])
  values = json.loads((folder / "config.json").read_text())
  return Sound((values, header, raw[8 + length :]))


def file(header, data: bytes, claimed: int | None = None) -> bytes:
  """A safetensors file; `claimed` is what it says of its header's length."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  length = len(text) if claimed is None else claimed
  return struct.pack("<Q", length) + text + data


def outcome(values, weights: bytes, one_in=1):
  """What loading gives: None, or the error's text; checks memory and result."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    (folder / "config.json").write_bytes(text)
    (folder / "model.safetensors").write_bytes(weights)
    try:
      with hostile.bounded(MEMORY, text + weights, one_in):
        arch, params = hf.load(folder)
    except config.Error as error:
      text = str(error)
      assert len(text) < 1000 and text.isprintable(), "an error is a line"
      return str(error)
  assert params["embed"].shape == (arch.vocab_size, arch.d_model)
  assert all(x.dtype == np.float32 for x in params["layers"]["attn"].values())
  return None


def test_the_sound_folder_loads(sound):
  values, header, data = sound
  assert outcome(values, file(header, data)) is None


@st.composite
def changes(draw):
  """What to change in a header: (which tensor, field, new value)."""
  field = draw(st.sampled_from(["shape", "dtype", "data_offsets", "", "name"]))
  number = st.one_of(
    st.integers(-2, 300), st.sampled_from([2**31, 2**32, 2**62, 2**64 - 1, 2**64])
  )
  value = {
    "shape": st.lists(number, max_size=4),
    "dtype": st.sampled_from(
      ["F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", "f32"]
    ),
    "data_offsets": st.lists(number, max_size=3),
    "": WILD,
    "name": st.sampled_from(["", "lm_head.weight", "x" * 9000, "__metadata__", "a\nb"]),
  }[field]
  return draw(st.integers(0, 30)), field, draw(st.one_of(value, value, WILD))


@settings("header")
@hypothesis.given(change=st.lists(changes(), min_size=1, max_size=3))
def test_tampered_headers(sound, change):
  values, header, data = sound
  tampered = json.loads(json.dumps(header))
  for number, field, value in change:
    name = sorted(header)[number % len(header)]
    if field == "name":
      tampered[str(value)] = tampered.pop(name, {})
    elif field and isinstance(tampered.get(name), dict):
      tampered[name][field] = value
    else:
      tampered[name] = value
  outcome(values, file(tampered, data), SOME)


@settings("bytes")
@hypothesis.given(
  cut=st.floats(0, 1),
  claimed=st.one_of(
    st.none(), st.integers(0, 4000), st.sampled_from([2**27, 2**40, 2**63, 2**64 - 1])
  ),
  flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
  more=st.binary(max_size=8),
)
def test_broken_bytes(sound, cut, claimed, flips, more):
  values, header, data = sound
  raw = bytearray(file(header, data, claimed))
  for place, byte in flips:
    raw[8 + int(place * 1500)] = byte
  outcome(values, bytes(raw[: math.ceil(cut * len(raw))]) + more, SOME)


@settings("config")
@hypothesis.given(
  change=st.dictionaries(st.integers(0, 40), WILD, min_size=1, max_size=3),
  new=st.dictionaries(
    st.sampled_from(
      ["rope_parameters", "rope_scaling", "layer_types", "head_dim", "x"]
    ),
    WILD,
    max_size=2,
  ),
)
def test_wild_configs(sound, change, new):
  values, header, data = sound
  names = sorted(values)
  wild = {names[number % len(names)]: value for number, value in change.items()}
  outcome(values | wild | new, file(header, data), SOME)


GEMMA = {
  "head_dim": 8, "hidden_size": 16, "intermediate_size": 8, "layer_types": None,
  "max_position_embeddings": 64, "model_type": "gemma3_text", "num_attention_heads": 2,
  "num_hidden_layers": 3, "num_key_value_heads": 1, "query_pre_attn_scalar": 8,
  "rope_local_base_freq": 1e4, "rope_scaling": None, "rope_theta": 1e6,
  "sliding_window": 4, "sliding_window_pattern": 2, "vocab_size": 11,
  "final_logit_softcapping": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
QWEN = GEMMA | {
  "model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 1,
}  # fmt: skip
for name in ("query_pre_attn_scalar", "rope_local_base_freq", "sliding_window_pattern"):
  del QWEN[name]
del QWEN["final_logit_softcapping"]
SMOL = QWEN | {
  "model_type": "smollm3", "no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2,
}  # fmt: skip
del SMOL["max_window_layers"]
TURNS = st.fixed_dictionaries(
  {},
  optional={
    "rope_type": st.sampled_from(["default", "linear", "llama3", "yarn", None, 3]),
    "type": st.sampled_from(["linear", "llama3", []]),
    "rope_theta": WILD,
    "factor": st.one_of(st.floats(1, 64), WILD),
    "attention_factor": WILD,
    "beta_fast": WILD,
    "mscale": WILD,
    "mscale_all_dim": WILD,
    "truncate": WILD,
    "low_freq_factor": st.one_of(st.floats(0.1, 2), WILD),
    "high_freq_factor": st.one_of(st.floats(2, 8), WILD),
    "original_max_position_embeddings": st.one_of(st.integers(1, 64), WILD),
  },
)
WILDER = st.one_of(
  WILD,
  TURNS,
  st.fixed_dictionaries({"full_attention": TURNS, "sliding_attention": TURNS}),
  st.lists(st.sampled_from(["full_attention", "sliding_attention", 1]), max_size=4),
)


@settings("config")
@hypothesis.given(
  sound=st.sampled_from([GEMMA, QWEN, SMOL]),
  change=st.dictionaries(
    st.sampled_from([*sorted(SMOL | GEMMA), "rope_parameters", "max_window_layers"]),
    WILDER,
    min_size=1,
    max_size=3,
  ),
)
def test_wild_windows_and_rotations(sound, change):
  """They are written out per layer, so they too must be refused before that."""
  assert families.read(sound), "the sound config is refused"
  try:
    with hostile.bounded(MEMORY, repr(change).encode(), SOME):
      arch = families.read(sound | change)
  except config.Error:
    arch = None
  if arch is not None:
    assert families.read(families.write(arch)) == arch
    if arch.rope_scaling is not None and arch.rope_scaling.over != "turns":
      layers._pairs(arch.rope_scaling, arch.rope_theta, arch.head_dim)


@pytest.mark.parametrize(
  "text",
  [
    b"",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"vocab_size": ' + b"9" * 10_000 + b"}",
    b'{"model_type": "llama", "model_type": ["llama"]}',
  ],
  ids=lambda text: repr(text[:16]),
)
def test_what_is_no_config(sound, text):
  _, header, data = sound
  assert outcome(text, file(header, data))


@pytest.mark.parametrize(
  "index",
  [
    b"[" * 100_000,
    b'{"weight_map": {"a": "/etc/passwd"}}',
    b'{"weight_map": {"a": ".."}}',
    b'{"weight_map": {"a": "\\u0000"}}',
    b'{"weight_map": {"a": "%s"}}' % (b"x" * 5000),
    b'{"weight_map": {"a": {"b": 1}}}',
  ],
  ids=lambda text: repr(text[:40]),
)
def test_hostile_indexes(tmp_path, index):
  hf.save(tmp_path, ARCH, testing.params(ARCH))
  (tmp_path / "model.safetensors.index.json").write_bytes(index)
  with pytest.raises(config.Error):
    hf.load(tmp_path)


def test_giants_are_refused_before_anything_is_allocated(sound):
  values, header, data = sound
  for change in (
    {"vocab_size": 2**40},
    {"hidden_size": 2**30, "head_dim": 6},
    {"num_hidden_layers": 2**40},
    {"intermediate_size": 2**62},
    {"num_attention_heads": 2**40, "num_key_value_heads": 2**40},
    {"num_attention_heads": 2**30, "num_key_value_heads": 2**30, "head_dim": 2**30},
    {"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 1, "intermediate_size": 2**31 - 1},
  ):
    assert outcome(values | change, file(header, data)), change
  # Honest about its size in the header, but the data is not there.
  giant = header | {"model.embed_tokens.weight": dict(header["model.norm.weight"])}
  giant["model.embed_tokens.weight"] |= {
    "shape": [2**30, 8],
    "data_offsets": [0, 2**35],
  }
  assert outcome(values | {"vocab_size": 2**30}, file(giant, data))
