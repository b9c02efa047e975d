"""A tokenizer as transformers and vLLM read it: tokenizer.json, and settings beside it.

transformers makes a tokenizer of tokenizer.json to the letter only where the settings
name no class of a family: `LlamaTokenizer`, say, takes the vocabulary and splits text
by rules of its own. So the class is the plain one. (For model_type qwen2 transformers 5
takes Qwen's rules whatever is said; those are what Qwen2's own tokenizer.json has.)

A sentencepiece model becomes a byte-pair model of the `tokenizers` library. Of two
pieces that can be merged, sentencepiece takes the pair with the best score, the library
the one whose merge stands first; so merges are written by score, one for each way to
cut a piece in two:

    merges = [(l, r) for piece in by_score for l + r == piece if l, r are pieces]

Sentencepiece writes a space as U+2581; here pieces have the space itself, so that the
character U+2581 in a text is none, and becomes bytes, as in `tokenizer.SentencePiece`.

Source: sentencepiece's src/bpe_model.cc. Left out: unigram models and normalisation,
which no family that pxy reads has; for these `source` raises, and their folder keeps
tokenizer.model alone. Bytes of broken characters decode to another number of U+FFFD.
"""

import itertools

import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import decoders, models, normalizers, pre_tokenizers

from pxy import config
from pxy.text import tokenizer as tokenizer_lib

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)  # types of pieces
_BPE = 2
_SPACE = "\u2581"
# Their place is the post-processor of tokenizer.json, which says the same or more.
_DROPPED = ("add_bos_token", "add_eos_token", "add_prefix_space", "auto_map", "legacy")


def settings(tokenizer: tokenizer_lib.Tokenizer) -> dict:
  """The content of tokenizer_config.json."""
  kept = {k: v for k, v in tokenizer.settings.items() if k not in _DROPPED}
  return kept | {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
  }


def source(tokenizer: tokenizer_lib.Tokenizer) -> str:
  """The text of tokenizer.json; config.Error: it cannot express the tokenizer."""
  if isinstance(tokenizer, tokenizer_lib.HFTokenizer):
    return tokenizer.source
  if isinstance(tokenizer, tokenizer_lib.SentencePiece):
    hf = _of_sentencepiece(proto.ModelProto.FromString(tokenizer.model))
  else:
    hf = _of_bytes()
  controls = sorted(tokenizer.controls, key=tokenizer.controls.get)
  hf.add_special_tokens([_added(piece, special=True) for piece in controls])
  return hf.to_str(pretty=True)


def _of_sentencepiece(model) -> tokenizers.Tokenizer:
  trainer, normal = model.trainer_spec, model.normalizer_spec
  kinds = {piece.type for piece in model.pieces}
  refused = {
    "it is no byte-pair model": trainer.model_type != _BPE,
    "it has no bytes": not trainer.byte_fallback or _BYTE not in kinds,
    "it normalises": bool(normal.precompiled_charsmap),
    "it drops spaces": normal.remove_extra_whitespaces,
    "its spaces are letters": not normal.escape_whitespaces,
    "its spaces end words": trainer.treat_whitespace_as_suffix,
    "some pieces are unused": _UNUSED in kinds,
    "texts begin with a space, and there are pieces that text may not be merged into": (
      normal.add_dummy_prefix and _USER in kinds
    ),
  }
  for why, true in refused.items():
    if true:
      raise config.Error(f"the sentencepiece model cannot be a tokenizer.json: {why}")
  pieces = [piece.piece.replace(_SPACE, " ") for piece in model.pieces]
  ids = {piece: i for i, piece in enumerate(pieces)}
  of_type = [piece.type for piece in model.pieces]
  scores = {
    piece: one.score
    for piece, one in zip(pieces, model.pieces, strict=True)
    if one.type == _NORMAL
  }
  merged = sorted(
    (piece for piece in scores if len(piece) > 1), key=scores.get, reverse=True
  )
  if len(ids) < len(pieces) or len({scores[piece] for piece in merged}) < len(merged):
    raise config.Error(
      "the sentencepiece model cannot be a tokenizer.json: two pieces, or scores of"
      " pieces, are equal"
    )
  cuts = [
    (piece[:i], piece[i:])
    for piece in merged
    for i in range(1, len(piece))
    if piece[:i] in scores and piece[i:] in scores
  ]
  unknown = pieces[of_type.index(_UNKNOWN)]
  hf = tokenizers.Tokenizer(
    models.BPE(vocab=ids, merges=cuts, unk_token=unknown, byte_fallback=True)
  )
  steps = [decoders.ByteFallback(), decoders.Fuse()]
  if normal.add_dummy_prefix:
    hf.normalizer = normalizers.Prepend(" ")
    steps.append(decoders.Strip(" ", 1, 0))
  hf.decoder = decoders.Sequence(steps)
  users = [p for p, kind in zip(pieces, of_type, strict=True) if kind == _USER]
  hf.add_tokens([_added(piece, special=False) for piece in users])
  return hf


def _of_bytes() -> tokenizers.Tokenizer:
  """Byte b has id b; its name is the letter that the library has for it: the byte's
  own where it can be seen, else the next from U+0100 on."""
  seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  hidden = itertools.count(0x100)
  names = [chr(byte if byte in seen else next(hidden)) for byte in range(256)]
  hf = tokenizers.Tokenizer(
    models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[])
  )
  hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  hf.decoder = decoders.ByteLevel()
  return hf


def _added(piece: str, special: bool) -> tokenizers.AddedToken:
  return tokenizers.AddedToken(piece, special=special, normalized=False)
