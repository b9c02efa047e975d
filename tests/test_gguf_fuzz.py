"""Hostile GGUF files: whatever the bytes, a config.Error of one line and no more.

Every file is a sound one with something about it changed. Loading may succeed only
where the result is what the file's own header implies.
"""

import dataclasses
import math
import pathlib
import struct
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
import test_gguf
from hypothesis import strategies as st

from pxy import config, testing
from pxy.weights import load

import hostile

ARCH = testing.arch(vocab_size=269, d_model=8, d_ff=12, head_dim=6, layers=1)
MEMORY = 32 * 2**20
"""Python and numpy may take this much for a file of 30 kB, errors included."""
TRIED = {"header": 300, "bytes": 300, "metadata": 300, "pieces": 300, "freqs": 100}
"""Files per test, of each variant."""
SOME = 4  # of so many, the memory of one is looked at


# A failure would print all of the fixture.
class Sound(tuple):
  __repr__ = object.__repr__


def settings(kind):
  return hypothesis.settings(
    max_examples=TRIED[kind],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )


LLAMA3 = {"head_dim": 64, "rope_theta": 5e5, "rope_scaling": test_gguf.LLAMA3}
VARIANTS = {
  "llama": ("llama", LLAMA3),  # its rotations are in a tensor
  "gemma3": ("gemma3", test_gguf.GEMMA3 | {"window": 5}),  # and a sentencepiece model
}


@pytest.fixture(scope="module", params=VARIANTS)
def sound(request):
  family, changes = VARIANTS[request.param]
  arch = dataclasses.replace(ARCH, **changes)
  return Sound(test_gguf.contents(arch, testing.params(arch), family))


def text(value) -> bytes:
  raw = value if isinstance(value, bytes) else str(value).encode()
  return struct.pack("<Q", len(raw)) + raw


def value(item) -> bytes:
  """A field's type and value. (type, bytes): as they are."""
  if isinstance(item, tuple):
    return struct.pack("<I", item[0]) + item[1]
  if isinstance(item, bool):
    return struct.pack("<I?", 7, item)
  if isinstance(item, int):
    return struct.pack("<Iq", 11, item) if item < 0 else struct.pack("<IQ", 10, item)
  if isinstance(item, float):
    return struct.pack("<If", 6, item)
  if isinstance(item, list) and item and isinstance(item[0], int):
    return struct.pack(f"<IIQ{len(item)}i", 9, 5, len(item), *item)
  if isinstance(item, list) and item and isinstance(item[0], float):
    return struct.pack(f"<IIQ{len(item)}f", 9, 6, len(item), *item)
  if isinstance(item, list):
    return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
  return struct.pack("<I", 8) + text(item)


def entry(name, shape, code, offset) -> bytes:
  dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
  return text(name) + dims + struct.pack("<IQ", code, offset)


def file(fields, tensors, changes=(), counts=None) -> bytes:
  """The bytes of a file; changes: (tensor's number, field of its entry, new value)."""
  entries, data = [], b""
  for name, (array, kind) in tensors.items():
    entry_of = {"name": name, "shape": array.shape[::-1], "code": int(kind)}
    entries.append(entry_of | {"offset": len(data)})
    data += array.tobytes() + bytes(-array.nbytes % 32)
  for number, key, new in changes:
    entries[number % len(entries)][key] = new
  header = b"GGUF" + struct.pack("<I", 3)
  header += struct.pack("<QQ", *(counts or (len(entries), len(fields))))
  header += b"".join(text(name) + value(item) for name, item in fields.items())
  header += b"".join(entry(**e) for e in entries)
  return header + bytes(-len(header) % 32) + data


def outcome(raw: bytes, one_in=1):
  """What loading gives: None, or the error's text; checks memory and result."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "x.gguf"
    path.write_bytes(raw)
    try:
      with hostile.bounded(MEMORY, raw, one_in):
        policy = load.load(str(path))
    except config.Error as error:
      said = str(error)
      assert len(said) < 1000 and said.isprintable(), "an error is a line"
      assert "x.gguf" in said, "that names the file"
      return said
  arch, params = policy.arch, policy.params
  assert params["embed"].shape == (arch.vocab_size, arch.d_model)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params["layers"]))
  assert policy.tokenizer.decode(policy.tokenizer.encode("the inn")) is not None
  return None


def test_the_sound_file_loads(sound):
  assert outcome(file(*sound)) is None


NUMBER = st.one_of(
  st.integers(0, 300),
  st.sampled_from([2**20, 2**31, 2**32 - 1, 2**32, 2**40, 2**61, 2**62, 2**63]),
  st.sampled_from([2**64 - 32, 2**64 - 1]),
)
CHANGE = st.one_of(
  st.tuples(st.just("shape"), st.lists(NUMBER, max_size=6)),
  st.tuples(st.just("code"), st.one_of(st.integers(0, 45), st.just(2**32 - 1))),
  st.tuples(st.just("offset"), NUMBER.map(lambda n: n & ~31)),
  st.tuples(st.just("offset"), NUMBER),
  st.tuples(
    st.just("name"),
    st.sampled_from(
      ["", "output.weight", "token_embd.weight", "x" * 9000, "a\nb", b"\xff\xfe"]
    ),
  ),
)


@settings("header")
@hypothesis.given(
  changes=st.lists(st.tuples(st.integers(0, 30), CHANGE), min_size=1, max_size=3),
  counts=st.one_of(st.none(), st.none(), st.tuples(NUMBER, NUMBER)),
)
def test_tampered_directories(sound, changes, counts):
  fields, tensors = sound
  changes = [(number, *change) for number, change in changes]
  outcome(file(fields, tensors, changes, counts), SOME)


@settings("bytes")
@hypothesis.given(
  cut=st.one_of(st.just(1.0), st.floats(0, 1)),
  flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
  head=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
  more=st.binary(max_size=8),
)
def test_broken_bytes(sound, cut, flips, head, more):
  raw = bytearray(file(*sound))
  for place, byte in flips:
    raw[min(int(place * len(raw)), len(raw) - 1)] = byte
  for place, byte in head:
    raw[place] = byte
  outcome(bytes(raw[: math.ceil(cut * len(raw))]) + more, SOME)


WILD = st.one_of(
  st.booleans(),
  st.sampled_from([0, 1, 2, 7, -1, 2**20, 2**31 - 1, 2**31, 2**40, 2**63, 2**64 - 1]),
  st.floats(width=32),
  st.text(max_size=5),
  st.binary(max_size=5),
  st.lists(st.integers(-1, 2**31 - 1), min_size=1, max_size=3),
  st.lists(st.text(max_size=3), max_size=3),
  st.tuples(st.integers(0, 14), st.binary(max_size=20)),
  # Arrays: of any type, of any count, and what is there of them.
  st.builds(
    lambda kind, count, rest: (9, struct.pack("<IQ", kind, count) + rest),
    st.integers(0, 13),
    NUMBER,
    st.binary(max_size=20),
  ),
)


FIELDS = ["FAMILY.vocab_size", "FAMILY.rope.scaling.type", "FAMILY.rope.scaling.factor"]
FIELDS += ["FAMILY.rope.scale_linear", "FAMILY.rope.freq_base_swa", "FAMILY.x", "x"]
FIELDS += ["FAMILY.attention.sliding_window", "FAMILY.final_logit_softcapping"]
FIELDS += ["FAMILY.attention.sliding_window_pattern", "general.alignment"]
FIELDS += ["split.count", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.model"]


@settings("metadata")
@hypothesis.given(
  change=st.dictionaries(st.integers(0, 40), WILD, min_size=1, max_size=3),
  new=st.dictionaries(
    st.sampled_from(FIELDS),
    WILD,
    max_size=2,
  ),
)
def test_wild_metadata(sound, change, new):
  fields, tensors = sound
  names = sorted(fields)
  wild = {names[number % len(names)]: item for number, item in change.items()}
  family = fields["general.architecture"]
  new = {name.replace("FAMILY", family): item for name, item in new.items()}
  outcome(file(fields | wild | new, tensors), SOME)


PIECE = st.one_of(
  st.text(max_size=4),
  st.sampled_from(["", "\0", "a\0", "<0x00>", "<0xG0>", "<0x1>", "<unk>", "[PAD268]"]),
  st.sampled_from(["t", "the", " ", "  ", "\u2581", "\ufdd0", "a" * 3000, "\n"]),
)
SCORE = st.one_of(st.floats(width=32), st.sampled_from([0.0, -1.0, 3e38, -3e38]))


@settings("pieces")
@hypothesis.given(
  pieces=st.dictionaries(
    st.one_of(st.integers(0, 268), st.integers(260, 268)),
    st.tuples(PIECE, st.one_of(st.integers(1, 6), st.integers(-1, 9)), SCORE),
    max_size=4,
  ),
  types=st.dictionaries(st.integers(0, 268), st.integers(1, 6), max_size=3),
  cut=st.tuples(*[st.sampled_from([269, 269, 269, 268, 0])] * 3),
)
def test_wild_vocabularies(sound, pieces, types, cut):
  fields, tensors = sound
  changed = {}
  for key, at in (("tokens", 0), ("token_type", 1), ("scores", 2)):
    name = f"tokenizer.ggml.{key}"
    if name in fields:
      values = list(fields[name])
      for place, new in pieces.items():
        values[place] = new[at]
      for place, new in types.items() if key == "token_type" else ():
        values[place] = new
      changed[name] = values[: cut[at]]
  outcome(file(fields | changed, tensors), SOME)


@settings("freqs")
@hypothesis.given(
  st.lists(st.floats(width=32), min_size=1, max_size=40),
  st.booleans(),
  st.floats(width=32),
)
def test_wild_rotations(sound, values, fitting, theta):
  fields, tensors = sound
  values = (values * 32)[:32] if fitting else values
  tensor = np.array(values, np.float32), tensors["output_norm.weight"][1]
  theta = {f"{fields['general.architecture']}.rope.freq_base": theta}
  outcome(file(fields | theta, tensors | {"rope_freqs.weight": tensor}), SOME)


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (b"", "cannot be read"),
    (b"GGU", "ends within its header"),
    (b"GGML" + bytes(60), "does not begin with GGUF"),
    (b"GGUF" + bytes(60), "version 0"),
    (b"GGUF\0\0\0\3" + bytes(60), "version 50331648"),
    (b"GGUF\3\0\0\0" + b"\xff" * 60, "has 18,446,744,073,709,551,615 bytes"),
  ],
)
def test_what_is_no_gguf_file(raw, message):
  assert message in outcome(raw)


def test_arrays_in_arrays_do_not_recurse(sound):
  deep = struct.pack("<IQ", 9, 1) * 100_000
  assert "type 9" in outcome(file(sound[0] | {"x": (9, deep)}, sound[1]))


def test_giants_are_refused_before_anything_is_allocated(sound):
  fields, tensors = sound
  family = fields["general.architecture"]
  most = 2**31 - 1
  for change in (
    {"block_count": 2**40},
    {"block_count": 2**30},
    {"embedding_length": 2**30, "attention.key_length": 6},
    {"feed_forward_length": 2**62},
    {"attention.head_count": 2**40, "attention.head_count_kv": 2**40},
    {"attention.key_length": 2**30, "attention.value_length": 2**30},
    {"attention.sliding_window_pattern": 2**30},
    {"attention.sliding_window": 2**30},
    {"vocab_size": most},
    {"vocab_size": most, "embedding_length": most},
  ):
    change = {f"{family}.{key}": value for key, value in change.items()}
    assert outcome(file(fields | change, tensors)), change
  # Honest about its size in the directory, but the data is not there.
  at = list(tensors).index("token_embd.weight")
  for shape in ([8, 2**30], [2**32, 2**32], [2**63, 2**63, 2**63, 2**63]):
    raw = file(
      fields | {f"{family}.vocab_size": 2**30}, tensors, [(at, "shape", shape)]
    )
    assert "was it cut off?" in outcome(raw)


def test_tensors_may_not_share_their_bytes(sound):
  """Else a file of 1 MB could be a model of any size."""
  raw = file(*sound, [(1, "offset", 0)])
  assert "overlap" in outcome(raw)


def test_names_that_are_there_twice(sound):
  fields, tensors = sound
  raw = file(fields, tensors, [(1, "name", next(iter(tensors)))])
  assert "is there twice" in outcome(raw)
