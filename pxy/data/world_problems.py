"""Problems of the world of facts, as tasks: `world/chains`, `world/unknown`, ...

  chains    known subjects, 1 to 6 hops (training: to 5), explained or brief; a code
  explain, brief    the same in one style
  direct    1 and 2 hops, the answer alone
  facts     single facts about known subjects, codes and colours, in all styles
  unknown   single facts about invented names, a third of which the corpus asks about
  ghosts    single facts about entities of which no document says any
  robust    chains of 1 to 3 hops, each in six variants with one `group`
  guess     those of `chains`, each asked for the answer alone
  colours   single facts about entities, ghosts among them, that have a `cue`

Chains ask for codes, since a colour is right by chance one time in eight. A row has its
truth beside it (Problem), so that whoever has the row can grade a response to it.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from pxy import config
from pxy.data import mix, table
from pxy.data import world as world_lib

VARIANTS = ("plain", "backwards", "style-last", "mark-first", "distractor", "renamed")
GUESS = "guess"
"""A further variant, in no task but that of its name: the answer alone is asked for."""
_OF_ORDER = 63  # purpose of hashed numbers


@dataclasses.dataclass(frozen=True)
class Kind:
  """Which questions a task asks: all that its parts make together, hop counts in equal
  shares.

  Attributes:
    styles, attributes: of the questions.
    hops: of validation and test; training stops at the most hops of the corpus.
    bands: of the subjects.
    variants: forms in which each question is put.
  """

  styles: tuple[str, ...]
  attributes: tuple[str, ...] = ("code",)
  hops: tuple[int, ...] = (1,)
  bands: tuple[str, ...] = ("head", "mid", "tail")
  variants: tuple[str, ...] = ("plain",)


_CHAINS = (1, 2, 3, 4, 5, 6)
KINDS = {
  "chains": Kind(("explain", "brief"), hops=_CHAINS),
  "explain": Kind(("explain",), hops=_CHAINS),
  "brief": Kind(("brief",), hops=_CHAINS),
  "direct": Kind(("direct",), hops=(1, 2)),
  "facts": Kind(world_lib.STYLES, world_lib.ATTRIBUTES),
  "unknown": Kind(world_lib.STYLES, world_lib.ATTRIBUTES, bands=("seen", "unseen")),
  "ghosts": Kind(world_lib.STYLES, world_lib.ATTRIBUTES, bands=("ghost",)),
  "robust": Kind(("explain", "brief"), hops=(1, 2, 3), variants=VARIANTS),
  "colours": Kind(
    world_lib.STYLES, ("colour",), bands=("head", "mid", "tail", "ghost")
  ),
  "guess": Kind(("explain", "brief"), hops=_CHAINS, variants=(GUESS,)),
}
"""Tasks, as `world/chains`."""
SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}
"""Most problems of a split."""


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question as it is asked, and its truth.

  Attributes:
    question: the prompt.
    answer: `c1 d2`, a colour or `unknown`.
    trace: the right response.
    remarks: true statements about the entities on the way, which a verified response
      may make too.
    group: the plain question: its identity, shared by all variants.
    variant: one of VARIANTS, or GUESS.
    style, attribute, subject: of the question.
    band: of the subject, one of world.BANDS.
    hops: facts that the answer takes.
    cue: the colour that the subject's family mostly has; empty of other attributes.
    answerable: whether there is an answer: of an invented name there is none.
  """

  question: str
  answer: str
  trace: str
  remarks: str
  group: str
  variant: str
  style: str
  attribute: str
  subject: str
  band: str
  hops: int
  cue: str
  answerable: bool


def variant(
  world: world_lib.World, question: world_lib.Question, name: str
) -> tuple[str, world_lib.Question]:
  """(text, question it asks) of a question in one of its VARIANTS, or as a GUESS.

  Paraphrases have the same words in another order; a distractor is a true sentence
  about somebody who is not on the way; a renamed question is about another subject of
  the band, and in the same split.
  """
  if name == GUESS:
    question = dataclasses.replace(question, style="direct")
  plain = world_lib.text(world, question)
  asked = plain.removeprefix(f"{question.style} : ").removesuffix(" ?")
  if name == "backwards":
    way = [world_lib.RELATIONS[r] for r in question.relations]
    path = " of ".join([world.names[question.subject], *way, question.attribute])
    return f"{question.style} : {path} ?", question
  if name == "style-last":
    return f"{asked} ? {question.style} :", question
  if name == "mark-first":
    return f"? {question.style} : {asked}", question
  if name == "distractor":
    other = next(
      e for e in _others(world, question) if e not in world_lib.way_of(world, question)
    )
    said = world_lib.value(world, "colour", other)
    return f"colour of {world.names[other]} is {said} . {plain}", question
  if name == "renamed":
    mine = world_lib.split_of(world, question)
    renamed = (
      dataclasses.replace(question, subject=e) for e in _others(world, question)
    )
    question = next(q for q in renamed if world_lib.split_of(world, q) == mine)
    return world_lib.text(world, question), question
  return plain, question


def _others(world: world_lib.World, question: world_lib.Question) -> list[int]:
  """The other names of the subject's band, from one of the question's own on."""
  names = world_lib.members(world_lib.band(question.subject))
  bits = mix.stream(world.seed, _OF_ORDER, np.array([world_lib.key(question)]))
  first = int(mix.below(bits, len(names))[0])
  return [e for e in (*names[first:], *names[:first]) if e != question.subject]


def problem(
  world: world_lib.World, question: world_lib.Question, name: str = "plain"
) -> Problem:
  """A question in a variant, with its truth."""
  asked, found = variant(world, question, name)
  entities = [
    e for e in dict.fromkeys(world_lib.way_of(world, found)) if e < world_lib.ENTITIES
  ]
  remarks = [
    f"{a} of {world.names[e]} is {world_lib.value(world, a, e)}"
    for e in entities
    for a in world_lib.ATTRIBUTES
    if found.style == "explain"
  ]
  colour = found.attribute == "colour" and found.subject < world_lib.ENTITIES
  usual = world.stereotype[world.family[world_lib.way_of(world, found)[-1]]]
  return Problem(
    question=asked,
    answer=world_lib.answer(world, found),
    trace=world_lib.trace(world, found),
    remarks=" . ".join(remarks),
    group=world_lib.text(world, question),
    variant=name,
    style=found.style,
    attribute=found.attribute,
    subject=world.names[found.subject],
    band=world_lib.band(found.subject),
    hops=found.hops,
    cue=world_lib.COLOURS[usual] if colour else "",
    answerable=found.subject < world_lib.ENTITIES,
  )


def generate(config_name: str, split: str) -> Iterator[Problem]:
  """The problems of `KIND` or `KIND-SEED`, in a fixed pseudo-random order.

  Hop counts take turns, and so do styles; a chain comes again, in another style, when
  all have come once.
  """
  name, _, seed = config_name.partition("-")
  world, kind = world_lib.make(int(seed or 0)), KINDS[name]
  most = len(world_lib.HOP_SHARES) if split == "train" else max(kind.hops)
  chains = [_chains(world, kind, n, split) for n in kind.hops if n <= most]
  each = len(chains) * len(kind.styles) * len(kind.variants)
  count = min(*map(len, chains), SIZES[split] // each) if chains else 0
  for turn in range(len(kind.styles)):
    for i in range(count):
      for j, keys in enumerate(chains):
        style = kind.styles[(turn + i + j) % len(kind.styles)]
        for put in kind.variants:
          yield problem(world, world_lib.of_key(style, keys[i]), put)


def _chains(world: world_lib.World, kind: Kind, hops: int, split: str) -> np.ndarray:
  """Keys of all questions of so many hops, in an order of their own."""
  subjects = np.concatenate([world_lib.members(name) for name in kind.bands])
  ways = np.arange(1 << (hops - 1), 1 << hops)
  attributes = np.array([world_lib.ATTRIBUTES.index(name) for name in kind.attributes])
  ways = (ways[:, None] * 2 + attributes[None]).ravel()
  keys = (ways[:, None] * world_lib.NAMES + subjects[None]).ravel()
  keys = keys[world_lib.splits(world, keys) == split]
  return keys[np.argsort(mix.stream(world.seed, _OF_ORDER, keys))]


TABLE = table.Table(
  name="World",
  version="1.2.0",
  description="Questions of several hops about invented entities, with exact truth.",
  record=Problem,
  splits=tuple(SIZES),
  generate=generate,
)
_TASK = re.compile(r"world/(?P<kind>[a-z]+)(\?seed=(?P<seed>[0-9]{1,10}))?", re.ASCII)


def problems(task: str, split: str) -> Sequence[Problem]:
  """All problems of `world/KIND` or `world/KIND?seed=N` in a split; seed 0 is the world
  of `builtin:world`. Raises config.Error for unknown names."""
  match = _TASK.fullmatch(task)
  if match is None or match["kind"] not in KINDS:
    raise config.Error(
      f"{task}: no such task; there are world/KIND and world/KIND?seed=N with KIND one"
      f" of {', '.join(KINDS)}"
    )
  seed = int(match["seed"] or 0)
  if seed >= 2**32:
    raise config.Error(f"{task}: seed must be 0 to {2**32 - 1}")
  if split not in SIZES:
    raise config.Error(f"{task}: split {split!r} is none of {', '.join(SIZES)}")
  return table.read(TABLE, f"{match['kind']}-{seed}" if seed else match["kind"], split)
