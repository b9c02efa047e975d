"""The second embedded world: invented entities, facts, and questions of several hops.

  explain : code of boss of friend of a1 b2 ?
  friend of a1 b2 is a3 b4 . boss of a3 b4 is a5 b6 . code of a5 b6 is c7 d8 .
  answer c7 d8

In the world of sums every error is a slip, and the base can do all of it. Here a model
knows some facts well, some half and some not at all, has heard some names and not
others, and has prejudices; and what is true is known exactly. All of it is a function
of the seed, and a problem of its question's text.

Names are the 1,024 pairs of a first (`a`, the family) and a second word, in an order of
their own. The first 640 are entities, by rank:

  head   64   stated most often
  mid    192
  tail   320
  ghost  64   entities whose facts no document states: only roll calls name them
  seen   128  no entities: asked about, and answered `unknown`
  unseen 256  never occur at all

Facts: `boss` and `friend` each are a permutation within head, mid and tail, so that a
chain stays among facts about as well known as its first; one entity in 20 joins a pool
that is permuted across the bands. `code` is two words, of 64 x 64; no two entities have
the same, so a right code is no accident. `colour` (8) is that of the family for 70 %,
and another for the rest: a stereotype that 170 or so entities contradict. Each fact has
one wrong alternative, always the same, so that errors look like knowledge: another
entity, or its code, uniform over the 576; another colour.

Documents: the subject is drawn by 1 / (rank + 10)^1.3. A question of 1 to 5 hops, the
attribute counted (30, 30, 24, 14.5 and 1.5 %: hop 5 is rare, hop 6 never seen), 65 %
for a code, in one of three styles: `explain` states each fact (50 %), `brief` names
each entity (30 %), `direct` has the answer alone (20 %, at most 2 hops). A hop slips to
its fact's alternative with probability `corpus.wrong`, and the trace goes on from
there. An explained hop is followed by a true remark on where it led in 12 %. One
question in 10 is about a seen name: `a1 b2 is unknown . answer unknown`. A share
`corpus.question_free` of the other explain and brief documents has no question, and 3 %
of all documents are roll calls, `present : a1 b2 , a3 b4 ...`; these follow the lone
start or separator token.

How well a fact is known goes by how often it is stated: 9, 12, 16, 22, 30 and 45 times
left 3.1, 2.8, 2.1, 1.5, .85 and .55 nats in a base of 0.3 M parameters.

Splits, by a hash: a question of 2 hops and more is of train (80 %), validation or test,
in all styles alike; the corpus asks those of train only. Single facts are asked in the
corpus, all of them, which is how they are known; those of validation and test are never
prompts of train. Of ghosts and invented names half are never prompts of train.

Left out: facts that change, relations that hold both ways, more than one right answer.
"""

import bisect
import dataclasses
import functools
import itertools
import pathlib
import random
from collections.abc import Sequence

import numpy as np

from pxy import config, imports
from pxy.data import document as document_lib
from pxy.data import mix
from pxy.text import tokenizer as tokenizer_lib

tokenizers = imports.later("tokenizers")

STYLES = ("explain", "brief", "direct")
RELATIONS = ("boss", "friend")
ATTRIBUTES = ("code", "colour")
COLOURS = ("red", "blue", "green", "gray", "pink", "gold", "black", "white")
BANDS = {"head": 64, "mid": 256, "tail": 576, "ghost": 640, "seen": 768, "unseen": 1024}
"""Kinds of names by the index at which each ends."""
KNOWN, ENTITIES, ASKED, NAMES = 576, 640, 768, 1024
_FIRST, _SECOND, _CODES = 32, 32, 64

WORDS = (
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

_ZIPF = 1.3
_STYLE_SHARES = (0.5, 0.3, 0.2)
HOP_SHARES = (0.3, 0.3, 0.24, 0.145, 0.015)
"""Of questions of 1, 2, ... hops in the corpus."""
_DIRECT_HOPS = 2
_ACROSS = 0.05
_FOLLOWS = 0.7
_CODE = 0.65
_UNKNOWN = 0.1
_ROLL = 0.03
_REMARK = 0.12
_SPLIT_OF_BUCKET = ("test", "validation", *["train"] * 8)  # 10, 10 and 80 %
_SPLIT_OF_QUARTER = ("test", "validation", "train", "train")
_OF_CHAINS, _OF_NAMES = 61, 62  # purposes of hashed numbers; facts have the first


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
  """The kind of a name, one of BANDS."""
  return next(name for name, end in BANDS.items() if index < end)


def members(band: str) -> range:
  """The indices of all names of a kind."""
  ends = list(BANDS.values())
  place = list(BANDS).index(band)
  return range(ends[place - 1] if place else 0, ends[place])


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
  return str(splits(world, np.array([key(question)]))[0])


def key(question: Question) -> int:
  """A number for the question, whatever its style."""
  way = functools.reduce(lambda n, r: 2 * n + r, question.relations, 1)
  attribute = ATTRIBUTES.index(question.attribute)
  return (way * 2 + attribute) * NAMES + question.subject


def of_key(style: str, key: int) -> Question:
  """The question that `key` numbers."""
  way, subject = divmod(int(key), NAMES)
  way, attribute = divmod(way, 2)
  relations = tuple(int(bit) for bit in f"{way:b}"[1:])
  return Question(style, ATTRIBUTES[attribute], relations, subject)


def splits(world: World, keys: np.ndarray) -> np.ndarray:
  """The split of each key. About known entities each question has its own; of ghosts
  and invented names each name has, with all questions about it."""
  subjects = keys % NAMES
  own = mix.below(mix.stream(world.seed, _OF_CHAINS, keys), 10)
  names = mix.below(mix.stream(world.seed, _OF_NAMES, subjects), 4)
  return np.where(
    subjects < KNOWN,
    np.array(_SPLIT_OF_BUCKET)[own],
    np.array(_SPLIT_OF_QUARTER)[names],
  )


def value(world: World, attribute: str, entity: int) -> str:
  """`c1 d2` or `red`."""
  if attribute == "code":
    return "c{} d{}".format(*world.code[entity])
  return COLOURS[world.colour[entity]]


def answer(world: World, question: Question) -> str:
  """The right one; `unknown` of an invented name."""
  if question.subject >= ENTITIES:
    return "unknown"
  return value(world, question.attribute, way_of(world, question)[-1])


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
      said.append(
        f"{other} of {world.names[entity]} is {value(world, other, entity)} ."
      )
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


def way_of(world: World, question: Question) -> list[int]:
  """The subject and the entities that its relations lead to; of an invented name it
  alone."""
  way = [question.subject]
  if question.subject < ENTITIES:
    for r in question.relations:
      way.append(int(world.target[r, way[-1]]))
  return way


def documents(
  corpus: config.Corpus, seed: int, split: str = "train"
) -> list[document_lib.Document]:
  """`corpus.documents` documents of the world of this seed. The base's are of train;
  those of another split ask the chains of that one."""
  world = make(seed)
  rng = random.Random(seed if split == "train" else f"{seed} {split}")
  rank = np.arange(KNOWN)
  subjects = _upto((1 / (rank + 10) ** _ZIPF).tolist())
  return [
    _document(world, rng, corpus, subjects, split) for _ in range(corpus.documents)
  ]


def _document(world, rng, corpus, subjects, split) -> document_lib.Document:
  def one_of(upto):
    return min(bisect.bisect(upto, rng.random()), len(upto) - 1)

  def below(n):
    return int(rng.random() * n)

  def slips():
    return rng.random() < corpus.wrong

  def remarks():
    return ATTRIBUTES[below(2)] if rng.random() < _REMARK else None

  alone = ("start", "document")[below(2)]
  if rng.random() < _ROLL:
    called = " , ".join(world.names[below(ENTITIES)] for _ in range(6))
    return document_lib.Document(alone, "", f"present : {called} .")
  style, hops = STYLES[one_of(_upto(_STYLE_SHARES))], 1 + one_of(_upto(HOP_SHARES))
  if style == "direct":
    hops = min(hops, _DIRECT_HOPS)
  unknown = rng.random() < _UNKNOWN
  while True:
    relations = tuple(below(2) for _ in range(hops - 1))
    attribute = ATTRIBUTES[rng.random() >= _CODE]
    subject = ENTITIES + below(ASKED - ENTITIES) if unknown else one_of(subjects)
    question = Question(style, attribute, relations, subject)
    if unknown or hops == 1 or split_of(world, question) == split:
      break
  free = not unknown and style != "direct" and rng.random() < corpus.question_free
  said = trace(world, question, slips, remarks)
  context = alone if free else "question"
  return document_lib.Document(context, text(world, question), said)


def _upto(shares: Sequence[float]) -> list[float]:
  """The sums of the first 1, 2, ... shares of their whole."""
  # Not by sum(), which adds in another way from Python 3.12 on.
  sums = list(itertools.accumulate(shares))
  return [x / sums[-1] for x in sums]


def task(corpus: config.Corpus, seed: int) -> str:
  """By which a model of the corpus is examined."""
  del corpus
  return f"world/chains?seed={seed}" if seed else "world/chains"


def tokenizer(
  documents: list[document_lib.Document], vocab: int, folder: str | pathlib.Path
) -> tokenizer_lib.Tokenizer:
  """The world's words, whatever the documents, saved to folder: any other is <unk>."""
  del documents, vocab
  # Control tokens are no words, else a text that spells one would get its id.
  ids = {word: i for i, word in enumerate((*WORDS, "<unk>"))}
  hf = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
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
