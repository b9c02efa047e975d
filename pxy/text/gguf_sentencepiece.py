"""A sentencepiece vocabulary of a GGUF file, as the tokenizer.model it was made from.

Such a file (`tokenizer.ggml.model` is `llama`) has the pieces, their types and scores,
and whether a space goes before the text. There are no merges: of all neighbours the two
join whose union is the piece of the highest score, the leftmost first, and characters
that no piece covers become bytes. This is all that a byte-pair model of sentencepiece
holds besides its normaliser, and that does nothing in the models that are kept so
(Llama 1 and 2, Mistral, Gemma). So the model is written anew, and ids are
sentencepiece's own.

llama.cpp's converter changes pieces, which is undone: it writes the spaces of
user-defined ones as spaces, not as U+2581, and fills up the embedding with unused ones
called [PAD1234]; in 2024 their type was unknown, and that of <unk> control. It also
changes scores, but only of pieces that are never merged.

Sources: llama.cpp's convert_hf_to_gguf.py, sentencepiece_model.proto. Left out:
normalisers (`precompiled_charsmap`), vocabularies without bytes, in which text becomes
the unknown token.
"""

from collections.abc import Sequence

from sentencepiece import sentencepiece_model_pb2 as proto

from pxy import config

_UNKNOWN, _CONTROL, _USER, _UNUSED = (
  proto.ModelProto.SentencePiece.Type.Value(name)
  for name in ("UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED")
)


def model(
  pieces: Sequence[str],
  types: Sequence[int],
  scores: Sequence[float],
  space_prefix: bool,
  unknown: int | None,
) -> bytes:
  """A serialized ModelProto.

  Args:
    pieces: by id, as the GGUF file has them.
    types: as many, 1 (normal) to 6 (byte), which GGUF has from sentencepiece.
    scores: as many, finite.
    space_prefix: a space goes before each text.
    unknown: id of the unknown token; None: the one of that type.

  Raises:
    config.Error: there is no unknown token, or more than one. Other faults show when
      sentencepiece loads the model.
  """
  count = len(pieces)
  while (
    count - 1 not in (-1, unknown)
    and types[count - 1] in (_UNUSED, _UNKNOWN)
    and pieces[count - 1] == f"[PAD{count - 1}]"
  ):
    count -= 1
  if unknown is None:
    found = [i for i in range(count) if types[i] == _UNKNOWN]
    if len(found) != 1:
      raise config.Error(
        f"tokenizer.ggml.token_type: {len(found)} unknown tokens, expected one"
      )
    [unknown] = found
  out = proto.ModelProto()
  for i in range(count):
    piece, kind = pieces[i], types[i]
    if kind == _USER:
      piece = piece.replace(" ", "\u2581")
    if i == unknown:
      kind = _UNKNOWN
    elif kind == _UNKNOWN:
      kind = _CONTROL
    out.pieces.add(piece=piece, type=kind, score=scores[i])
  trainer, normalizer = out.trainer_spec, out.normalizer_spec
  trainer.model_type = proto.TrainerSpec.BPE
  trainer.byte_fallback = True
  trainer.vocab_size = count
  trainer.unk_id, trainer.unk_piece = unknown, pieces[unknown]
  trainer.bos_id = trainer.eos_id = trainer.pad_id = -1  # tokenizer_config.json says
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = space_prefix
  normalizer.remove_extra_whitespaces = False
  return out.SerializeToString()
