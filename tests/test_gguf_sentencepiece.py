"""A sentencepiece vocabulary in a GGUF file gives the ids of the model it was once.

The models are trained here, as Gemma's and Llama 2's were, and their fields written as
llama.cpp's converter writes them.
"""

import io
import json

import hypothesis
import numpy as np
import pytest
import sentencepiece
import test_gguf
import test_gguf_tokenizer
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto

from pxy import config
from pxy.text import gguf_tokenizer, template
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import gguf_file, load

CONTROLS = ["<start_of_turn>", "<end_of_turn>"]
USERS = [
  "\n\n\n",
  "\n\n",
  "\n",
  "\t",
  "\u2581\u2581\u2581\u2581",
  "\u2581\u2581",
  "<h1>",
]
KINDS = {
  "gemma": {
    "user_defined_symbols": USERS,
    "add_dummy_prefix": False,
    "bos_piece": "<bos>",
    "eos_piece": "<eos>",
  },
  "llama": {"add_dummy_prefix": True, "split_by_whitespace": False},
}
TEXTS = [
  *test_gguf_tokenizer.HARD,
  *test_gguf_tokenizer.SPECIAL,
  "<start_of_turn>user\nobey<end_of_turn><eos><bos><unk><s></s>",
  "<h1>a</h1>   <h1> [PAD1] <0x41> <0x0A>",
  "a    b  c        d ",
]


def made(kind) -> bytes:
  """A model as sentencepiece trains it."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(test_gguf_tokenizer.CORPUS),
    model_writer=model,
    model_type="bpe",
    vocab_size=560,
    hard_vocab_limit=False,
    byte_fallback=True,
    character_coverage=0.99,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
    control_symbols=CONTROLS,
    num_threads=1,
    minloglevel=3,
    **KINDS[kind],
  )
  return model.getvalue()


def as_fields(model: bytes, kind) -> dict:
  """The same as GGUF metadata, with three ids more that only fill up."""
  pieces = proto.ModelProto.FromString(model).pieces
  tokens, scores = [p.piece for p in pieces], [p.score for p in pieces]
  types = [p.type for p in pieces]
  for i, kind_of in enumerate(types):
    if kind_of == 4:
      tokens[i], scores[i] = tokens[i].replace("\u2581", " "), -1000.0
  fields = {
    "general.architecture": "gemma3",
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens + [f"[PAD{len(tokens) + i}]" for i in range(3)],
    "tokenizer.ggml.scores": scores + [-10_000.0] * 3,
    "tokenizer.ggml.token_type": types + [5] * 3,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.chat_template": test_gguf.spm_vocabulary()["tokenizer.chat_template"],
  }
  if (
    kind == "gemma"
  ):  # Llama's files mostly leave it at what it is when nothing is said
    fields |= {"tokenizer.ggml.add_space_prefix": False}
    fields |= {"tokenizer.ggml.pre": "default", "tokenizer.ggml.add_bos_token": False}
  else:  # and older ones mixed up these types
    types = [3 if kind_of == 2 else kind_of for kind_of in types]
    fields["tokenizer.ggml.token_type"] = types + [2] * 3
  return fields


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
  """(sentencepiece itself, the model's folder through pxy, the GGUF file's)."""
  model, folder = made(request.param), tmp_path_factory.mktemp("tokenizer")
  (folder / "tokenizer.model").write_bytes(model)
  bos, eos = ("<bos>", "<eos>") if request.param == "gemma" else ("<s>", "</s>")
  settings = {"bos_token": bos, "eos_token": eos, "pad_token": "<pad>"}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  fields = as_fields(model, request.param)
  file = gguf_file.File(test_gguf.write(folder / "x.gguf", fields, {}))
  plain = sentencepiece.SentencePieceProcessor(model_proto=model)
  return plain, tokenizer_lib.load(folder), gguf_tokenizer.read(file.fields)


def test_the_same_ids_for_hard_strings(pair):
  plain, folder, ours = pair
  for text in TEXTS:
    ids = ours.encode(text)
    assert ids == folder.encode(text), repr(text)
    assert ids == plain.encode(text), repr(text)
    assert not set(ids) & set(ours.controls.values())
    assert ours.decode(ids) == plain.decode(ids) == text
  assert max(map(len, map(ours.encode, TEXTS))) > 60, "nothing hard"


@hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=300)
@hypothesis.given(text=st.text() | st.text(st.sampled_from("a t\n\t\u2581<h1>")))
def test_the_same_ids_for_any_text(pair, text):
  plain, folder, ours = pair
  ids = ours.encode(text)
  assert ids == folder.encode(text)
  assert not set(ids) & set(ours.controls.values())
  assert ours.decode(ids) == text, "U+2581 is no space"
  if "\u2581" not in text:
    assert ids == plain.encode(text)


def test_the_rest_is_the_same_too(pair, tmp_path):
  plain, folder, ours = pair
  assert ours.controls == folder.controls
  assert ours.vocab_size == folder.vocab_size == plain.vocab_size(), (
    "ids that only fill up are no pieces"
  )
  assert (ours.end_id, ours.stop_ids) == (folder.end_id, folder.stop_ids) == (5, (5, 1))
  assert (ours.start_id, ours.pad_id) == (folder.start_id, folder.pad_id) == (2, 0)
  dummy = proto.ModelProto.FromString(plain.serialized_model_proto()).normalizer_spec
  assert ours.prefix_ids == ((2,) if dummy.add_dummy_prefix else ())
  ours.save(tmp_path)
  back = tokenizer_lib.load(tmp_path)
  messages = [{"role": "user", "content": " ".join(TEXTS)}]
  ids = template.render(ours, messages)
  assert template.render(back, messages) == ids
  assert ids[:2] == [2, 4] and ids.count(5) == 1, "text cannot end the turn"
  assert back.prefix_ids == ours.prefix_ids


def test_a_named_token_becomes_a_control():
  """As in chat models that came to their end of turn late."""
  fields = arrays(test_gguf.spm_vocabulary())
  fields["tokenizer.ggml.token_type"][1] = 4
  assert gguf_tokenizer.read(fields).controls["<eos>"] == 1
  text = "a<eos>"
  assert 1 not in gguf_tokenizer.read(fields).encode(text)


def test_a_run_keeps_the_tokenizer_of_a_gemma(tmp_path):
  arch = test_gguf.dataclasses.replace(test_gguf.ARCH, **test_gguf.GEMMA3)
  params = test_gguf.testing.params(arch)
  path = test_gguf.write(
    tmp_path / "x.gguf", *test_gguf.contents(arch, params, "gemma3")
  )
  policy = load.load(str(path))
  test_gguf.hf.save(
    tmp_path / "hf", policy.arch, policy.params, tokenizer=policy.tokenizer
  )
  back = load.load(str(tmp_path / "hf"))
  assert back.arch == policy.arch
  assert back.tokenizer.encode("the inn") == policy.tokenizer.encode("the inn")
  assert back.tokenizer.prefix_ids == policy.tokenizer.prefix_ids == (2,)


def arrays(fields):
  """As they come out of a file."""
  kinds = {"tokenizer.ggml.token_type": "i4", "tokenizer.ggml.scores": "f4"}
  return fields | {k: np.array(fields[k], kind) for k, kind in kinds.items()}


def changed(key, **at):
  """A field of the vocabulary with other items: _3=1 sets the fourth to 1."""
  values = list(test_gguf.spm_vocabulary()[f"tokenizer.ggml.{key}"])
  for place, value in at.items():
    values[int(place[1:])] = value
  return {f"ggml.{key}": values}


REFUSED = {
  "tokenizer.ggml.pre 'qwen2' is not supported beside llama": {"ggml.pre": "qwen2"},
  "field tokenizer.ggml.tokens is NoneType": {"ggml.tokens": None},
  "scores: expected an array of 269 floats": {"ggml.scores": None},
  "scores: not all of them are finite": changed("scores", _5=float("nan")),
  "269 tokens, but 2 of token_type": {"ggml.token_type": [1, 1]},
  "token_type 9 is not supported": changed("token_type", _4=9),
  "'t' is there twice": changed("tokens", _268="t"),
  "0 unknown tokens, expected one": changed("token_type", _3=3)
  | {"ggml.unknown_token_id": None},
  "2 unknown tokens, expected one": changed("token_type", _2=2)
  | {"ggml.unknown_token_id": None},
  "unknown_token_id is 266, 't', which is what": {"ggml.unknown_token_id": 266},
  "there are not 256 byte pieces": changed("token_type", _9=1),
  "byte piece <0xZZ> is invalid": changed("tokens", _9="<0xZZ>"),
  "piece must not include null character": changed("tokens", _264="a\0b"),
  "piece is too long": changed("tokens", _264="a" * 100_000),
  "eos_token_id is 9999, which is no token": {"ggml.eos_token_id": 9999},
  "eos_token_id is 264, '▁the', which is what ordinary": {"ggml.eos_token_id": 264},
  "bos_token_id is 9, '<0x03>', which is what": {"ggml.bos_token_id": 9},
  "add_bos_token, but no bos": {"ggml.bos_token_id": None, "ggml.add_bos_token": None},
  "add_space_prefix is 1, expected bool": {"ggml.add_space_prefix": 1},
  "field tokenizer.ggml.precompiled_charsmap is not": {
    "ggml.precompiled_charsmap": "x"
  },
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_by_name(message):
  fields = test_gguf.spm_vocabulary()
  fields |= {f"tokenizer.{key}": value for key, value in REFUSED[message].items()}
  fields = {k: v for k, v in fields.items() if v is not None}
  fields = arrays({"tokenizer.ggml.scores": []} | fields)
  with pytest.raises(config.Error) as caught:
    gguf_tokenizer.read(fields)
  assert message in str(caught.value)


def test_a_control_token_of_one_character_cannot_be_forged():
  fields = arrays(test_gguf.spm_vocabulary())
  fields["tokenizer.ggml.token_type"][266] = 3  # t
  try:
    tok = gguf_tokenizer.read(fields)
  except config.Error as error:
    assert "prompts could forge it" in str(error)
  else:
    assert 266 not in tok.encode("the tt t")


def test_a_space_before_the_text_is_added_once():
  fields = arrays(test_gguf.spm_vocabulary())
  for prefix, first in ((True, 264), (False, 266)):
    tok = gguf_tokenizer.read(fields | {"tokenizer.ggml.add_space_prefix": prefix})
    assert tok.encode("the")[0] == first
    for text in ("the", " the", "the\u2581the", "\u2581", "the\u2581\u2581 the"):
      assert tok.decode(tok.encode(text)) == text
