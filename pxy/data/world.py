"""The second embedded world: entities, facts about them, questions of several hops.

(docstring to be written)
"""

import bisect
import dataclasses
import functools
import itertools
import pathlib
import random

import numpy as np
import tokenizers

from pxy import config
from pxy.data import document as document_lib
from pxy.data import mix
from pxy.text import tokenizer as tokenizer_lib

STYLES = ("explain", "brief", "direct")
RELATIONS = ("boss", "friend")
ATTRIBUTES = ("code", "colour")
COLOURS = ("red", "blue", "green", "gray", "pink", "gold", "black", "white")
BANDS = {"head": 64, "mid": 256, "tail": 576, "ghost": 640, "seen": 768, "unseen": 1024}
"""Kinds of names by the index at which each ends."""
KNOWN, ENTITIES, ASKED, NAMES = 576, 640, 768, 1024
_FIRST, _SECOND, _CODES = 32, 32, 64

_WORDS = (
  *STYLES, ":", *ATTRIBUTES, *RELATIONS, "of", "?", "is", ".", ",", "answer", "unknown",
  "present", *COLOURS,
  *(f"a{i}" for i in range(_FIRST)),
  *(f"b{i}" for i in range(_SECOND)),
  *(f"c{i}" for i in range(_CODES)),
  *(f"d{i}" for i in range(_CODES)),
)  # fmt: skip
_CONTROLS = ("<pad>", "<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>")
_TEMPLATE = (
  "<|im_start|>{% for m in messages %}"
  "{{ '<|im_sep|>' if m.role == 'assistant' else ' ' }}{{ m.content }}"
  "{{ '<|im_end|>' if m.role == 'assistant' else ' ' }}{% endfor %}"
  "{{ '<|im_sep|>' if add_generation_prompt else '' }}"
)

_STYLE_SHARES = (0.5, 0.3, 0.2)
_HOP_SHARES = (0.3, 0.3, 0.24, 0.145, 0.015)
_DIRECT_HOPS = 2
_ACROSS = 0.05
_FOLLOWS = 0.7
_CODE = 0.65
_UNKNOWN = 0.1
_ROLL = 0.03
_REMARK = 0.12
_SPLIT_OF_BUCKET = ("test", "validation", *["train"] * 8)  # 10, 10 and 80 %


@dataclasses.dataclass(frozen=True)
class World:
  """All facts. Indices are those of names; entities come first, by rank.

  Attributes:
    seed: all else is a function of it.
    names: of all 1,024.
    family: of each name, its first word.
    target: [relation, entity] -> entity.
    code: [entity, 2].
    colour: of each entity; stereotype: of each family.
    other_target, other_code: what a slip says, an entity's; other_colour.
  """

  seed: int
  names: tuple[str, ...]
  family: np.ndarray
  target: np.ndarray
  code: np.ndarray
  colour: np.ndarray
  stereotype: np.ndarray
  other_target: np.ndarray
  other_code: np.ndarray
  other_colour: np.ndarray


@functools.lru_cache(maxsize=8)
def make(seed: int) -> World:
  """The world of a seed."""
  purposes = itertools.count()

  def bits(n):
    return mix.stream(seed, next(purposes), np.arange(n))

  def another(than, n):
    """Uniform over the known entities but the given one."""
    drawn = mix.below(bits(n), KNOWN - 1)
    return drawn + (drawn >= than)

  cells = np.argsort(bits(NAMES))
  family = cells // _SECOND
  targets = []
  for _ in RELATIONS:
    target, key = np.empty(ENTITIES, np.int64), bits(KNOWN)
    for low, high in itertools.pairwise((0, *list(BANDS.values())[:3])):
      order = low + np.argsort(key[low:high])
      target[order] = np.roll(order, 1)
    pool = np.flatnonzero(mix.share(bits(KNOWN)) < _ACROSS)
    target[pool] = target[pool][np.argsort(bits(len(pool)))]
    target[KNOWN:] = mix.below(bits(ENTITIES - KNOWN), KNOWN)
    targets.append(target)
  codes = np.argsort(bits(_CODES**2))[:ENTITIES]
  stereotype = mix.below(bits(_FIRST), len(COLOURS))
  follows = mix.share(bits(ENTITIES)) < _FOLLOWS
  step = 1 + mix.below(bits(ENTITIES), len(COLOURS) - 1)
  usual = stereotype[family[:ENTITIES]]
  colour = np.where(follows, usual, (usual + step) % len(COLOURS))
  step = 1 + mix.below(bits(ENTITIES), len(COLOURS) - 1)
  return World(
    seed=seed,
    names=tuple(f"a{cell // _SECOND} b{cell % _SECOND}" for cell in cells),
    family=family,
    target=np.stack(targets),
    code=np.stack([codes // _CODES, codes % _CODES], 1),
    colour=colour,
    stereotype=stereotype,
    other_target=np.stack([another(target, ENTITIES) for target in targets]),
    other_code=another(np.arange(ENTITIES), ENTITIES),
    other_colour=(colour + step) % len(COLOURS),
  )


def band(index: int) -> str:
  """The kind of a name."""
  return next(name for name, end in BANDS.items() if index < end)


@dataclasses.dataclass(frozen=True)
class Question:
  """`relations` are numbers of RELATIONS in the order in which they are followed."""

  style: str
  attribute: str
  relations: tuple[int, ...]
  subject: int

  @property
  def hops(self) -> int:
    """Facts that an answer takes."""
    return len(self.relations) + 1


def text(world: World, question: Question) -> str:
  """`explain : code of boss of a1 b2 ?`"""
  way = [RELATIONS[r] for r in reversed(question.relations)]
  path = " of ".join([question.attribute, *way, world.names[question.subject]])
  return f"{question.style} : {path} ?"


def split_of(world: World, question: Question) -> str:
  """The split that owns a question, in all styles alike."""
  way = functools.reduce(lambda n, r: 2 * n + r, question.relations, 1)
  key = (way * 2 + ATTRIBUTES.index(question.attribute)) * NAMES + question.subject
  bucket = mix.below(mix.stream(world.seed, 63, np.array([key])), 10)
  return _SPLIT_OF_BUCKET[int(bucket[0])]


def value(world: World, attribute: str, entity: int) -> str:
  """`c1 d2` or `red`."""
  if attribute == "code":
    return "c{} d{}".format(*world.code[entity])
  return COLOURS[world.colour[entity]]


def answer(world: World, question: Question) -> str:
  """The right one; `unknown` of an invented name."""
  if question.subject >= ENTITIES:
    return "unknown"
  entity = question.subject
  for r in question.relations:
    entity = int(world.target[r, entity])
  return value(world, question.attribute, entity)


def trace(world: World, question: Question, slips=None, remarks=None) -> str:
  """A response in the question's style. Without `slips` it is the right one.

  Args:
    slips: () -> whether the next hop goes to its fact's wrong alternative.
    remarks: () -> an attribute to remark on, or None.
  """
  style, attribute, entity = question.style, question.attribute, question.subject
  if entity >= ENTITIES:
    said = [f"{world.names[entity]} is unknown ."] if style == "explain" else []
    return " ".join([*said, "answer unknown"])
  said = []
  for r in question.relations:
    slip = slips is not None and slips()
    goal = int((world.other_target if slip else world.target)[r, entity])
    if style == "explain":
      said.append(f"{RELATIONS[r]} of {world.names[entity]} is {world.names[goal]} .")
    elif style == "brief":
      said.append(f"{world.names[goal]} .")
    entity = goal
    if style == "explain" and remarks is not None and (other := remarks()):
      said.append(f"{other} of {world.names[entity]} is {value(world, other, entity)} .")
  slip = slips is not None and slips()
  if not slip:
    found = value(world, attribute, entity)
  elif attribute == "code":
    found = value(world, attribute, int(world.other_code[entity]))
  else:
    found = COLOURS[world.other_colour[entity]]
  if style == "explain":
    said.append(f"{attribute} of {world.names[entity]} is {found} .")
  return " ".join([*said, f"answer {found}"])


def documents(corpus: config.Corpus, seed: int) -> list[document_lib.Document]:
  """`corpus.documents` documents of the world of this seed."""
  world, rng = make(seed), random.Random(seed)
  weights = 1 / (np.arange(KNOWN) + 10) ** 1.3
  upto = (np.cumsum(weights) / weights.sum()).tolist()
  return [_document(world, rng, corpus, upto) for _ in range(corpus.documents)]


def _document(world, rng, corpus, upto) -> document_lib.Document:
  def one(shares):
    """A place, by shares that add up to 1."""
    return min(bisect.bisect(list(itertools.accumulate(shares)), rng.random()), len(shares) - 1)

  def below(n):
    return int(rng.random() * n)

  def alone():
    return ("start", "document")[below(2)]

  if rng.random() < _ROLL:
    called = " , ".join(world.names[below(ENTITIES)] for _ in range(6))
    return document_lib.Document(alone(), "", f"present : {called} .")
  style, hops = STYLES[one(_STYLE_SHARES)], 1 + one(_HOP_SHARES)
  if style == "direct":
    hops = min(hops, _DIRECT_HOPS)
  unknown = rng.random() < _UNKNOWN
  while True:
    relations = tuple(below(2) for _ in range(hops - 1))
    attribute = ATTRIBUTES[rng.random() >= _CODE]
    if unknown:
      subject = ENTITIES + below(ASKED - ENTITIES)
    else:
      subject = min(bisect.bisect(upto, rng.random()), KNOWN - 1)
    question = Question(style, attribute, relations, subject)
    if unknown or hops == 1 or split_of(world, question) == "train":
      break
  free = not unknown and style != "direct" and rng.random() < corpus.question_free

  def slips():
    return rng.random() < corpus.wrong

  def remarks():
    return ATTRIBUTES[below(2)] if rng.random() < _REMARK else None

  said = trace(world, question, slips, remarks)
  context = alone() if free else "question"
  return document_lib.Document(context, text(world, question), said)


def task(corpus: config.Corpus, seed: int) -> str:
  """By which a model of the corpus is examined."""
  del corpus
  return f"world/chains?seed={seed}" if seed else "world/chains"


def tokenizer(
  documents: list[document_lib.Document], vocab: int, folder: str | pathlib.Path
) -> tokenizer_lib.Tokenizer:
  """The world's words, whatever the documents, saved to folder: any other is <unk>."""
  del documents, vocab
  vocab = {word: i for i, word in enumerate((*_CONTROLS, "<unk>", *_WORDS))}
  hf = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
  hf.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  hf.add_special_tokens(
    [tokenizers.AddedToken(word, special=True, normalized=False) for word in _CONTROLS]
  )
  made = tokenizer_lib.HFTokenizer(
    hf.to_str(pretty=True),
    {
      "eos_token": "<|im_end|>",
      "pad_token": "<pad>",
      "chat_template": _TEMPLATE,
    },
  )
  made.save(folder)
  return made
