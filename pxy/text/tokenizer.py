"""Text to ids and back: sentencepiece, Hugging Face tokenizers, or bytes.

One rule matters more than all others: `encode` never returns the id of a control token,
whatever the text. A prompt or a document that contains the letters `<|im_end|>` gets
the ids of those letters. Control ids are asked for by name (`control`, `start_id`,
...); `template.render` is the place that puts them around text. `decode` drops them.

A tokenizer is a folder: `tokenizer.json` (Hugging Face) or `tokenizer.model`
(sentencepiece), and `tokenizer_config.json`, which names the control tokens and may
hold a chat template. A folder with the config alone, of class `Bytes`, is the byte
tokenizer. What ends a response is known by name, and from `eos_token_id` of
`generation_config.json`, or else of `config.json`.

Left out: normalisation of any kind in tokenizers trained here (text round-trips), and
running code that a folder brings along.
"""

import abc
import io
import json
import pathlib
from collections.abc import Iterable, Sequence

from pxy import config, imports

sentencepiece = imports.later("sentencepiece")  # each of its own files alone
tokenizers = imports.later("tokenizers")

# Names that chat models give to the same three things, most specific first.
_STARTS = ("<|im_start|>",)
_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
_DOCUMENTS = ("<|endoftext|>", "<|end_of_text|>")
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Characters that Unicode will never assign; three bytes, as U+2581 has.
_STAND_INS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_SETTINGS = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}


class Tokenizer(abc.ABC):
  """What every tokenizer offers.

  Attributes:
    controls: id of each control piece.
    pieces: the control piece of each such id.
    settings: the content of tokenizer_config.json.
    end_id: ends a chat message, hence a response.
    document_id: separates documents.
    pad_id: fills rows; may equal end_id, since no mask is made from token values.
    stop_ids: ids that end a response.
    prefix_ids: what goes before a text that has no chat template, mostly nothing.
    vocab_size: one more than the largest id.
  """

  vocab_size: int
  prefix_ids: tuple[int, ...] = ()

  def __init__(self, controls: dict[str, int], settings: dict):
    self.controls, self.settings = controls, settings
    self.pieces = {number: piece for piece, number in controls.items()}
    eos = self._named("eos_token")
    eot = self._named("eot_token")
    end = self._first(_ENDS, eos) if eot is None else eot
    if end is None:
      raise config.Error(
        "tokenizer_config.json: no token ends a response;"
        " set eos_token to one of the control tokens"
      )
    self.end_id = end
    self.document_id = self._first(_DOCUMENTS, end if eos is None else eos)
    pad = self._named("pad_token")
    self.pad_id = end if pad is None else pad
    stops = (end, self.document_id, end if eos is None else eos)
    self.stop_ids = tuple(dict.fromkeys(stops))
    self._dropped = frozenset(controls.values())

  @property
  def start_id(self) -> int:
    """The token that starts a chat message, or a text where there is no such token."""
    start = self._first(_STARTS, self.bos_id)
    if start is None:
      raise config.Error(
        "the tokenizer has neither <|im_start|> nor a bos_token: use context='document'"
      )
    return start

  @property
  def bos_id(self) -> int | None:
    """The bos_token of the settings; None where they name none."""
    return self._named("bos_token")

  @property
  def chat_template(self):
    """Jinja source from the settings; None where the folder has none, and the list
    where it has several by name without a default."""
    template = self.settings.get("chat_template")
    if isinstance(template, list):
      for entry in template:
        if isinstance(entry, dict) and entry.get("name") == "default":
          return entry.get("template")
    return template

  def control(self, piece: str) -> int:
    """Id of a control piece. Raises config.Error for a piece that is none."""
    if piece not in self.controls:
      raise config.Error(
        f"{piece!r} is not a control token; there are {', '.join(self.controls)}"
      )
    return self.controls[piece]

  def encode(self, text: str) -> list[int]:
    """Ids of the text; none is a control token. Lone surrogates become '?'."""
    return self._encode(text.encode("utf-8", "replace").decode("utf-8"))

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids without control tokens and ids outside the vocabulary."""
    kept = (int(i) for i in ids)
    return self._decode(
      [i for i in kept if 0 <= i < self.vocab_size and i not in self._dropped]
    )

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes the files that `load` reads."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    self._save(folder)

  @abc.abstractmethod
  def _encode(self, text: str) -> list[int]: ...

  @abc.abstractmethod
  def _decode(self, ids: list[int]) -> str: ...

  @abc.abstractmethod
  def _save(self, folder: pathlib.Path) -> None: ...

  def _named(self, key: str) -> int | None:
    return self.controls.get(content(self.settings.get(key)))

  def _first(self, pieces: Sequence[str], otherwise: int | None) -> int | None:
    return next((self.controls[p] for p in pieces if p in self.controls), otherwise)


class SentencePiece(Tokenizer):
  """A sentencepiece model; its control symbols are the control tokens."""

  def __init__(self, model: bytes, settings: dict):
    self.model = model
    self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.vocab_size = self._sp.vocab_size()
    controls = {
      self._sp.id_to_piece(i): i
      for i in range(self.vocab_size)
      if self._sp.is_control(i) or self._sp.is_unknown(i)
    }
    super().__init__(controls, settings)
    bos = self._named("bos_token")
    if bos is not None and settings.get("add_bos_token") is True:
      self.prefix_ids = (bos,)

  def _encode(self, text):
    # Sentencepiece writes a space as U+2581, so that the character itself would come
    # back as a space. As bytes it survives. Another character stands in for it; if the
    # parts between were encoded apart, a model that adds a space would add many.
    if "\u2581" not in text:
      return self._sp.encode(text)
    for other in _STAND_INS:
      old, new = self._bytes(other), self._bytes("\u2581")
      if other not in text and self._sp.encode(other)[-3:] == old:
        ids = self._sp.encode(text.replace("\u2581", other))
        for i in range(len(ids) - 2):
          if ids[i : i + 3] == old:
            ids[i : i + 3] = new
        return ids
    return self._sp.encode(text)  # of a model without bytes

  def _bytes(self, character: str) -> list[int]:
    return [self._sp.piece_to_id(f"<0x{byte:02X}>") for byte in character.encode()]

  def _decode(self, ids):
    return self._sp.decode(ids)

  def _save(self, folder):
    (folder / "tokenizer.model").write_bytes(self.model)


class HFTokenizer(Tokenizer):
  """A tokenizer.json; its special tokens, and those the config names, are controls."""

  def __init__(self, source: str, settings: dict):
    self.source = source
    self._hf = tokenizers.Tokenizer.from_str(source)
    self._hf.no_truncation()
    self._hf.no_padding()
    vocab = self._hf.get_vocab(with_added_tokens=True)
    self.vocab_size = max(vocab.values()) + 1
    named = (content(settings[key]) for key in settings if key.endswith("_token"))
    added = self._hf.get_added_tokens_decoder().values()
    pieces = dict.fromkeys(
      [token.content for token in added if token.special]
      + [piece for piece in named if piece in vocab]
    )
    prefix = self._hf.encode("", add_special_tokens=True).ids
    # Only tokens marked special are left alone by encode_special_tokens.
    self._hf.add_special_tokens(
      [tokenizers.AddedToken(piece, special=True, normalized=False) for piece in pieces]
    )
    self._hf.encode_special_tokens = True
    super().__init__({piece: vocab[piece] for piece in pieces}, settings)
    bos = self.bos_id
    self.prefix_ids = (bos,) if bos is not None and prefix[:1] == [bos] else ()

  def _encode(self, text):
    return self._hf.encode(text, add_special_tokens=False).ids

  def _decode(self, ids):
    return self._hf.decode(ids, skip_special_tokens=False)

  def _save(self, folder):
    (folder / "tokenizer.json").write_text(self.source, encoding="utf-8")


class Bytes(Tokenizer):
  """The 256 bytes of UTF-8, then <pad> and the three chat controls: 260 ids."""

  vocab_size = 260

  def __init__(self, settings: dict | None = None):
    controls = {piece: 256 + i for i, piece in enumerate(("<pad>", *_CONTROLS))}
    super().__init__(controls, settings or {"tokenizer_class": "Bytes", **_SETTINGS})

  def _encode(self, text):
    return list(text.encode("utf-8"))

  def _decode(self, ids):
    return bytes(ids).decode("utf-8", "replace")

  def _save(self, folder):
    pass  # the config says it all


def load(folder: str | pathlib.Path) -> Tokenizer:
  """The tokenizer of a folder. Raises config.Error: none is there, or it is broken."""
  folder = pathlib.Path(folder)
  settings = _settings(folder)
  kinds = {"tokenizer.json": HFTokenizer, "tokenizer.model": SentencePiece}
  for name, kind in kinds.items():
    path = folder / name
    if path.is_file():
      try:
        source = path.read_bytes()
        found = kind(source if kind is SentencePiece else source.decode(), settings)
      except config.Error as error:
        raise config.Error(f"{folder}: {error}") from None
      except Exception as error:  # `tokenizers` raises bare Exception
        raise config.Error(f"{path}: not a tokenizer ({_line(error)})") from None
      break
  else:
    found = _bytes(folder, settings)
  more = [i for i in _eos_ids(folder) if i in found.controls.values()]
  found.stop_ids = tuple(dict.fromkeys((*found.stop_ids, *more)))
  return found


def _bytes(folder, settings) -> Bytes:
  if settings.get("tokenizer_class") == "Bytes":
    return Bytes(settings)
  raise config.Error(
    f"{folder}: no tokenizer; expected tokenizer.json or tokenizer.model there"
  )


def train(
  texts: Iterable[str], vocab_size: int, folder: str | pathlib.Path
) -> Tokenizer:
  """A byte-pair sentencepiece tokenizer of at most vocab_size pieces, saved to folder.

  Deterministic. Bytes stand in for unseen characters and nothing is normalised, so
  every text round-trips; digits stay single; one and two newlines are one piece each.
  There are fewer pieces than asked for when the texts have no more pairs to merge.

  Raises:
    config.Error: vocab_size is too small for bytes, controls and the texts' characters.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      model_type="bpe",
      vocab_size=vocab_size,
      hard_vocab_limit=False,
      byte_fallback=True,
      character_coverage=1.0,
      split_digits=True,
      split_by_whitespace=False,
      split_by_unicode_script=False,
      normalization_rule_name="identity",
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      pad_id=0,
      unk_id=1,
      bos_id=-1,
      eos_id=-1,
      unk_surface="",
      control_symbols=list(_CONTROLS),
      user_defined_symbols=["\n\n", "\n"],
      num_threads=1,
      minloglevel=3,
    )
  except RuntimeError as error:
    raise config.Error(
      f"no tokenizer of {vocab_size} pieces: raise the vocabulary size ({_line(error)})"
    ) from None
  tokenizer = SentencePiece(model.getvalue(), dict(_SETTINGS))
  tokenizer.save(folder)
  return tokenizer


def _eos_ids(folder: pathlib.Path) -> list:
  """What the model's files say ends a response: ids, or whatever stands there.

  Those that are no control tokens are to be left alone: a config.json often has the
  default of its family, which may be any letter of this vocabulary.
  """
  for name in ("generation_config.json", "config.json"):
    ids = _json(folder / name).get("eos_token_id")
    if ids is not None:
      return [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int]
  return []


def _json(path: pathlib.Path) -> dict:
  """The object in a file; empty where there is no file."""
  if not path.is_file():
    return {}
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise config.Error(f"{path}: not JSON ({_line(error)})") from None
  if not isinstance(values, dict):
    raise config.Error(f"{path}: expected an object, found {type(values).__name__}")
  return values


def _settings(folder: pathlib.Path) -> dict:
  settings = _json(folder / "tokenizer_config.json")
  template = folder / "chat_template.jinja"
  if template.is_file():
    try:
      settings["chat_template"] = template.read_text(encoding="utf-8")
    except UnicodeDecodeError:
      raise config.Error(f"{template}: not UTF-8 text; convert it") from None
  others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
  if others and settings.get("chat_template") is None:  # by name, without a default
    settings["chat_template"] = [{"name": path.stem} for path in others]
  return settings


def content(token) -> str | None:
  """A token's text: configs hold a string, null, or an object with `content`."""
  return token.get("content") if isinstance(token, dict) else token


def _line(error: Exception) -> str:
  return " ".join(str(error).split())[:200]
