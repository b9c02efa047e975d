"""tokenizer.json of every kind of tokenizer: the same ids as the tokenizer itself."""

import functools
import json

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto

from pxy import config
from pxy.text import hf_files
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import load

import chat_worlds

KINDS = ("tiny", "bytes", "llama2", "llama3")


@functools.cache
def pair(kind):
  """(the tokenizer, what the `tokenizers` library reads from its tokenizer.json)."""
  if kind == "tiny":
    ours = tokenizer_lib.load(load.BUILTIN / "tiny")
  elif kind == "bytes":
    ours = tokenizer_lib.Bytes()
  else:
    world = chat_worlds.worlds()[kind]
    made = {str: tokenizer_lib.HFTokenizer, bytes: tokenizer_lib.SentencePiece}
    ours = made[type(world.source)](world.source, world.settings)
  theirs = tokenizers.Tokenizer.from_str(hf_files.source(ours))
  theirs.encode_special_tokens = True
  return ours, theirs


words = st.sampled_from(
  [
    "What",
    " is",
    "12",
    "+",
    "\\boxed{",
    "}",
    "\n",
    "\n\n",
    "  ",
    "Wait",
    "▁",
    "é",
    "😀",
  ]
)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(text=st.one_of(st.text(), st.lists(words).map("".join)))
def test_any_text(kind, text):
  ours, theirs = pair(kind)
  ids = ours.encode(text)
  assert theirs.encode(text, add_special_tokens=False).ids == ids
  assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_hard_texts_and_control_tokens(kind):
  ours, theirs = pair(kind)
  for text in [*chat_worlds.HARD, "".join(ours.controls)]:
    want = ours.encode(text)
    assert theirs.encode(text, add_special_tokens=False).ids == want, text
  assert {p: theirs.token_to_id(p) for p in ours.controls} == ours.controls
  theirs.encode_special_tokens = False  # as transformers reads text that it trusts
  try:
    for piece, number in ours.controls.items():
      assert theirs.encode(piece, add_special_tokens=False).ids == [number]
  finally:
    theirs.encode_special_tokens = True


def test_settings_name_no_class_of_a_family():
  world = chat_worlds.worlds()["gemma"]
  ours = tokenizer_lib.HFTokenizer(world.source, world.settings)
  settings = hf_files.settings(ours)
  assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
  assert "add_bos_token" not in settings and settings["eos_token"] == "<eos>"
  assert json.dumps(settings)


def changed(**of):
  """The embedded sentencepiece model with other specs."""
  model = proto.ModelProto.FromString(pair("tiny")[0].model)
  for name, value in of.items():
    spec = model.trainer_spec if hasattr(model.trainer_spec, name) else None
    setattr(model.normalizer_spec if spec is None else spec, name, value)
  return model


@pytest.mark.parametrize(
  "change, why",
  [
    ({"model_type": 1}, "no byte-pair model"),
    ({"byte_fallback": False}, "no bytes"),
    ({"precompiled_charsmap": b"x"}, "it normalises"),
    ({"remove_extra_whitespaces": True}, "drops spaces"),
    ({"escape_whitespaces": False}, "spaces are letters"),
    ({"treat_whitespace_as_suffix": True}, "spaces end words"),
    ({"add_dummy_prefix": True}, "texts begin with a space"),
  ],
)
def test_what_tokenizer_json_cannot_say_is_refused(change, why):
  fake = changed(**change)
  ours = tokenizer_lib.SentencePiece(pair("tiny")[0].model, {"eos_token": "<|im_end|>"})
  ours.model = fake.SerializeToString()
  with pytest.raises(config.Error, match=f"cannot be a tokenizer.json: .*{why}"):
    hf_files.source(ours)


def test_equal_scores_are_refused():
  fake = changed()
  merged = [p for p in fake.pieces if p.type == 1 and len(p.piece) > 1]
  merged[3].score = merged[2].score
  ours = tokenizer_lib.SentencePiece(pair("tiny")[0].model, {"eos_token": "<|im_end|>"})
  ours.model = fake.SerializeToString()
  with pytest.raises(config.Error, match="scores of pieces, are equal"):
    hf_files.source(ours)
