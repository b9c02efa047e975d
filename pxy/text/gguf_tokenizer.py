"""The tokenizer inside a GGUF file, as the files that it was once made from.

`tokenizer.ggml.model` is `llama` for a sentencepiece model, which is written anew
(gguf_sentencepiece.py), or `gpt2` for a byte-level BPE, which becomes a tokenizer.json.
Of that a file has the pieces, their types and the merges, but only a name for how text
is split before the merges (`tokenizer.ggml.pre`). Each name here stands for what the
family's own tokenizer.json does:

    smollm          digits one by one, then GPT-2's words
    qwen2           NFC; words, single digits, punctuation with the newlines after it
    llama-bpe       the same without NFC, digits by up to three; a word that is a piece
                    is not built by merges
    gpt-2, default  GPT-2's words

What comes out is saved in a run folder as tokenizer.json or tokenizer.model, and
tokenizer_config.json, and is read from there by `tokenizer.load`.

Sources: ggml's docs/gguf.md; the tokenizer.json files of SmolLM2, Qwen2 and Llama 3.
Left out: unigram and wordpiece vocabularies; named templates (for tools, say) besides
the main one.
"""

import re

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from pxy import config
from pxy.text import gguf_sentencepiece
from pxy.text import tokenizer as tokenizer_lib

_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE = ("smollm", "qwen2", "llama-bpe", "gpt-2", "default")

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_NAMED = {
  "bos_token": "bos_token_id",
  "eos_token": "eos_token_id",
  "eot_token": "eot_token_id",
  "pad_token": "padding_token_id",
  "unk_token": "unknown_token_id",
}
_READ = (
  r"tokenizer\.(ggml\.(model|pre|tokens|token_type|scores|merges|add_\w+|\w+_token_ids?)"
  r"|chat_templates?(\.\w+)?|huggingface\.json)"
)


def read(fields: dict) -> tokenizer_lib.Tokenizer:
  """The tokenizer that a file's metadata describe.

  Args:
    fields: all metadata of the file, by name (weights/gguf_file.py).

  Raises:
    config.Error: it is not there, of another kind, or not sound.
  """
  for name in fields:
    if name.startswith("tokenizer.") and not re.fullmatch(_READ, name):
      raise config.Error(f"field {name} is not supported")
  kind = _take(fields, "tokenizer.ggml.model", str)
  kinds = {"gpt2": _byte_level, "llama": _sentencepiece}
  if kind not in kinds:
    raise config.Error(
      f"tokenizer.ggml.model {kind!r} is not supported; {', '.join(kinds)} are"
    )
  return kinds[kind](fields)


def _sentencepiece(fields: dict) -> tokenizer_lib.SentencePiece:
  pre = _take(fields, "tokenizer.ggml.pre", str, "default")
  if pre != "default":
    raise config.Error(f"tokenizer.ggml.pre {pre!r} is not supported beside llama")
  pieces, types = _pieces(fields)
  settings = _settings(fields, pieces)
  for key in settings.keys() & _NAMED.keys():
    i = pieces[settings[key]]
    if types[i] == _USER:  # by its use it is a control token
      types[i] = _CONTROL
    if types[i] not in (_CONTROL, _UNKNOWN):
      raise config.Error(
        f"tokenizer.ggml.{_NAMED[key]} is {i}, {settings[key]!r}, which is what"
        " ordinary text becomes: prompts could forge it"
      )
  # Files that do not say are of Llama 1 and 2, or read as if.
  settings["add_bos_token"] = _adds_bos(fields, settings, True)
  model = gguf_sentencepiece.model(
    fields["tokenizer.ggml.tokens"],
    types,
    _scores(fields, len(types)),
    _take(fields, "tokenizer.ggml.add_space_prefix", bool, True),
    pieces[settings["unk_token"]] if "unk_token" in settings else None,
  )
  try:
    out = tokenizer_lib.SentencePiece(model, settings)
  except RuntimeError as error:
    raise config.Error(f"tokenizer.ggml.tokens: {error}") from None
  for piece, i in out.controls.items():
    if i in out.encode(piece):
      raise config.Error(
        f"control token {piece!r} is what ordinary text becomes: prompts could forge it"
      )
  return out


def _byte_level(fields: dict) -> tokenizer_lib.HFTokenizer:
  pre = _take(fields, "tokenizer.ggml.pre", str)
  if pre not in _PRE:
    raise config.Error(
      f"tokenizer.ggml.pre {pre!r} is not supported; {', '.join(_PRE)} are"
    )
  if _take(fields, "tokenizer.ggml.add_space_prefix", bool, False):
    raise config.Error("field tokenizer.ggml.add_space_prefix (True) is not supported")
  pieces, types = _pieces(fields)
  settings = _settings(fields, pieces)
  settings["tokenizer_class"] = "PreTrainedTokenizerFast"
  hf = _bpe(pieces, types, _merges(fields), pre)
  if _adds_bos(fields, settings, pre == "llama-bpe"):
    bos = settings["bos_token"]
    hf.post_processor = processors.TemplateProcessing(
      single=[bos, "$A"], special_tokens=[(bos, hf.token_to_id(bos))]
    )
  return tokenizer_lib.HFTokenizer(hf.to_str(), settings)


def _pieces(fields: dict) -> tuple[dict[str, int], list[int]]:
  """Ids by piece, without those that only fill up the embedding, and all types."""
  tokens = _take(fields, "tokenizer.ggml.tokens", list)
  types = fields.get("tokenizer.ggml.token_type")
  types = [_NORMAL] * len(tokens) if types is None else _integers(types)
  if len(types) != len(tokens):
    raise config.Error(
      f"tokenizer.ggml: {len(tokens)} tokens, but {len(types)} of token_type"
    )
  strange = set(types) - set(range(_NORMAL, _BYTE + 1))
  if strange:
    raise config.Error(f"tokenizer.ggml.token_type {min(strange)} is not supported")
  pieces: dict[str, int] = {}
  for i, piece in enumerate(tokens):
    if types[i] == _UNUSED:
      continue
    if not piece or piece in pieces:
      raise config.Error(f"tokenizer.ggml.tokens: {piece!r} is there twice, or empty")
    pieces[piece] = i
  return pieces, types


def _merges(fields: dict) -> list[tuple[str, str]]:
  merges = [tuple(m.split(" ")) for m in _take(fields, "tokenizer.ggml.merges", list)]
  for pair in merges:
    if len(pair) != 2 or not all(pair):
      raise config.Error(f"tokenizer.ggml.merges: {' '.join(pair)!r} is no pair")
  return merges


def _settings(fields: dict, pieces: dict[str, int]) -> dict:
  """What tokenizer_config.json says of it."""
  settings: dict = {"clean_up_tokenization_spaces": False}
  by_id = {i: piece for piece, i in pieces.items()}
  for key, name in _NAMED.items():
    i = _take(fields, f"tokenizer.ggml.{name}", int, -1)
    if i in by_id:
      settings[key] = by_id[i]
    elif i != -1 or key == "eos_token":
      raise config.Error(f"tokenizer.ggml.{name} is {i}, which is no token")
  if "tokenizer.chat_template" in fields:
    settings["chat_template"] = _take(fields, "tokenizer.chat_template", str)
  return settings


def _adds_bos(fields: dict, settings: dict, unsaid: bool) -> bool:
  """Whether texts begin with the bos token; `unsaid`: if the file does not say."""
  adds = _take(fields, "tokenizer.ggml.add_bos_token", bool, unsaid)
  if adds and "bos_token" not in settings:
    raise config.Error("tokenizer.ggml.add_bos_token, but no bos_token_id")
  return adds


def _bpe(pieces, types, merges, pre) -> tokenizers.Tokenizer:
  whole = pre == "llama-bpe"
  try:
    model = models.BPE(vocab=pieces, merges=merges, ignore_merges=whole)
  except Exception as error:  # `tokenizers` raises bare Exception
    raise config.Error(f"tokenizer.ggml.merges: {error}") from None
  hf = tokenizers.Tokenizer(model)
  hf.pre_tokenizer = _splits(pre)
  hf.decoder = decoders.ByteLevel()
  if pre == "qwen2":
    hf.normalizer = normalizers.NFC()
  controls = [p for p, i in pieces.items() if types[i] in (_CONTROL, _UNKNOWN)]
  made = {a + b for a, b in merges} | set(pre_tokenizers.ByteLevel.alphabet())
  for piece in controls:
    if piece in made or (whole and _is_word(hf, piece)):
      raise config.Error(
        f"control token {piece!r} is what ordinary text becomes: prompts could forge it"
      )
  hf.add_special_tokens([_added(piece, special=True) for piece in controls])
  users = [piece for piece, i in pieces.items() if types[i] == _USER]
  hf.add_tokens([_added(piece, special=False) for piece in users])
  return hf


def _splits(pre: str) -> pre_tokenizers.PreTokenizer:
  if pre in ("gpt-2", "default"):
    return pre_tokenizers.ByteLevel(add_prefix_space=False)
  if pre == "smollm":
    first = pre_tokenizers.Digits(individual_digits=True)
  else:
    words = tokenizers.Regex(_WORDS % ("" if pre == "qwen2" else "{1,3}"))
    first = pre_tokenizers.Split(words, behavior="isolated")
  last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")
  return pre_tokenizers.Sequence([first, last])


def _is_word(hf: tokenizers.Tokenizer, piece: str) -> bool:
  """Whether the text that a piece spells is one word, hence the piece itself."""
  words = hf.pre_tokenizer.pre_tokenize_str(hf.decoder.decode([piece]))
  return [word for word, _ in words] == [piece]


def _added(piece: str, special: bool) -> tokenizers.AddedToken:
  return tokenizers.AddedToken(piece, special=special, normalized=False)


def _scores(fields: dict, count: int) -> list[float]:
  values = fields.get("tokenizer.ggml.scores")
  if getattr(getattr(values, "dtype", None), "kind", "") != "f" or len(values) != count:
    raise config.Error(f"tokenizer.ggml.scores: expected an array of {count} floats")
  if not np.isfinite(values).all():
    raise config.Error("tokenizer.ggml.scores: not all of them are finite")
  return values.tolist()


def _integers(values) -> list[int]:
  kind = getattr(getattr(values, "dtype", None), "kind", "")
  if kind not in ("i", "u"):
    raise config.Error("tokenizer.ggml.token_type: expected an array of integers")
  return values.tolist()


def _take(fields: dict, name: str, kind: type, *default):
  value = fields[name] if name in fields else default[0] if default else None
  if type(value) is not kind:
    found = type(value).__name__ if kind is list else repr(value)
    raise config.Error(f"field {name} is {found}, expected {kind.__name__}")
  return value
