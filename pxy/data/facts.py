"""Questions about the real world, for real models: `facts/capitals` and the like.

  capitals    the capital of a country
  countries   the country of a capital, the same facts backwards
  continents  the continent of a country
  cities      the country of a city that is no capital
  invented    the same about places that are none: right is to abstain
  premises    the country of a city as its capital, which it is not: right is to abstain
  choices     the first four with four choices, in their four cyclic orders; of a
              relation and band 100 at most

They are made when they are asked for, from two packages (places.py), and no file is
fetched. Graders are `short` and, of choices, `choice`.

A row's columns: `question` alone, without how to answer it; `relation` (the task's
word; of the last three that of the question); `subject`; `band`, thirds of a relation's
subjects by people: head, mid, tail, or `invented`, or `premise`; `group`, identity of
the question; `answerable`; `accepted`, all that is right. Of choices also `choices`,
the texts of A to D, and `variant`, by how many places they are rotated, 0 to 3. The
distractors are right answers to other questions of the relation and band.

A chat model is asked for the name alone. A base model goes on with a text that other
questions and answers begin: `facts/capitals?shots=3`, with the template `plain`. These
are the same whatever is asked, and one of them abstains, so they do not tell whether
there is an answer; there are none of `choices`. A hash of the fact names its split:
half test, a tenth validation. A fact is in the same split whichever way it is asked,
and in all its orders.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Sequence

from pxy import config
from pxy.data import invented, places, rows
from pxy.rewards import short

SPLITS = ("train", "validation", "test")
BANDS = ("head", "mid", "tail")
_SPLIT_OF_BUCKET = (*["test"] * 5, "validation", *["train"] * 4)
_A_COUNTRY = 15  # cities in a band at most: else a fifth are China's and India's
_CHOICES = 100  # questions of a relation and band among the choices, at most


@dataclasses.dataclass(frozen=True)
class Fact:
  """A question with its answers.

  Attributes:
    relation: one of RELATIONS.
    subject: what is asked about.
    answer: the name as it is shown.
    accepted: all that is right.
    people: of the subject, by which the bands are made.
    key: the fact's identity: of a country's its code, of a city's its name.
    never: answers that are no distractors, since they may be right as well.
  """

  relation: str
  subject: str
  answer: str
  accepted: tuple[str, ...]
  people: int
  key: str
  never: tuple[str, ...] = ()


def _capitals() -> list[Fact]:
  return [
    Fact("capitals", c.name, c.capital, c.capitals, c.people, c.code)
    for c in places.countries()
    if c.capital and not _hints(c.name, c.capital)
  ]


def _countries() -> list[Fact]:
  return [
    Fact("countries", c.capital, c.name, c.names, c.people, c.code)
    for c in places.countries()
    if c.capital and not _hints(c.name, c.capital)
  ]


def _continents() -> list[Fact]:
  return [
    Fact("continents", c.name, c.continent, c.continents, c.people, c.code)
    for c in places.countries()
    if c.continent and not _hints(c.name, c.continent)
  ]


def _cities() -> list[Fact]:
  of = {c.code: c for c in places.countries()}
  return [
    Fact(
      "cities",
      city.name,
      of[city.country].name,
      (*of[city.country].names, *city.parts),
      city.people,
      f"{city.name}, {city.country}",
      tuple(of[code].name for code in city.elsewhere if code in of),
    )
    for city in places.cities()
    if not _hints(city.name, of[city.country].name)
  ]


@dataclasses.dataclass(frozen=True)
class Relation:
  """How facts of one kind are asked for, and where they come from.

  Attributes:
    question: with a place for the subject.
    facts: makes all of them.
    shown: (subject, answer) of the examples; nothing asks about these.
  """

  question: str
  facts: Callable[[], list[Fact]]
  shown: tuple[tuple[str, str], ...]


RELATIONS = {
  "capitals": Relation(
    "What is the capital of {}?",
    _capitals,
    (("Norway", "Oslo"), ("Velmoria", short.UNKNOWN), ("Peru", "Lima")),
  ),
  "countries": Relation(
    "Which country has {} as its capital?",
    _countries,
    (("Oslo", "Norway"), ("Velmor", short.UNKNOWN), ("Lima", "Peru")),
  ),
  "continents": Relation(
    "On which continent is {}?",
    _continents,
    (("Norway", "Europe"), ("Velmoria", short.UNKNOWN), ("Peru", "South America")),
  ),
  "cities": Relation(
    "In which country is the city of {}?",
    _cities,
    (("Bergen", "Norway"), ("Velmorad", short.UNKNOWN), ("Arequipa", "Peru")),
  ),
}
KINDS = (*RELATIONS, "invented", "premises", "choices")
_INVENTED = ("capitals", "cities", "continents")  # relations, in turn
SHOTS = 3
"""Examples before a question, at most."""
_ASKED = "Question: {}"
_HOW = "Answer with the name alone, or unknown."
_CLOSED = "Question: {}\n{}\nAnswer with the letter alone.\nAnswer:"
_TASK = re.compile(r"facts/(?P<kind>[a-z]+)(\?shots=(?P<shots>[0-9]))?", re.ASCII)


def read(task: str, split: str) -> list[tuple[int, rows.Row]]:
  """(number, row) of a split; config.Error for an unknown task or split, or without the
  packages."""
  match = _TASK.fullmatch(task)
  if match is None or match["kind"] not in KINDS:
    raise config.Error(
      f"{task}: no such task; there are facts/KIND and facts/KIND?shots=N with KIND one"
      f" of {', '.join(KINDS)}"
    )
  kind, shots = match["kind"], int(match["shots"] or 0)
  if shots and kind == "choices":
    raise config.Error(f"{task}: it has no examples; leave out ?shots={shots}")
  if shots > SHOTS:
    raise config.Error(f"{task}: shots must be 0 to {SHOTS}")
  if split not in SPLITS:
    raise config.Error(f"{task}: split {split!r} is none of {', '.join(SPLITS)}")
  numbered = enumerate(_all(kind, shots))
  return [
    (uid, dataclasses.replace(row, task=task))
    for uid, row in numbered
    if row.split == split
  ]


@functools.cache
def facts(relation: str) -> dict[str, tuple[Fact, ...]]:
  """The facts of a relation by band, each band in an order of its own.

  Bands are thirds by people, of equals by key; of cities some are left out then.
  """
  shown = {subject for subject, _ in RELATIONS[relation].shown}
  found = [fact for fact in RELATIONS[relation].facts() if fact.subject not in shown]
  found.sort(key=lambda fact: (-fact.people, fact.key))
  cuts = [len(found) * i // len(BANDS) for i in range(len(BANDS) + 1)]
  out = {}
  for band, first, end in zip(BANDS, cuts, cuts[1:], strict=False):
    kept, counts = [], {}
    for fact in sorted(found[first:end], key=lambda f: _hash("order", f.key)):
      counts[fact.answer] = counts.get(fact.answer, 0) + 1
      if relation != "cities" or counts[fact.answer] <= _A_COUNTRY:
        kept.append(fact)
    out[band] = tuple(kept)
  return out


@functools.cache
def _all(kind: str, shots: int = 0) -> tuple[rows.Row, ...]:
  """The rows of all splits, the bands in turn; `read` names their task."""
  if kind == "invented":
    return tuple(
      _open(_INVENTED[i % len(_INVENTED)], "invented", name, None, shots)
      for i, name in enumerate(invented.names())
    )
  if kind == "premises":
    return tuple(
      _open("countries", "premise", fact.subject, None, shots)
      for fact in _no_capitals()
    )
  if kind != "choices":
    return tuple(
      _open(kind, band, fact.subject, fact, shots) for band, fact in _turns(facts(kind))
    )
  found = []
  for relation in RELATIONS:
    bands = {band: some[:_CHOICES] for band, some in facts(relation).items()}
    for turn, (band, fact) in enumerate(_turns(bands)):
      found.append((turn, list(RELATIONS).index(relation), band, fact))
  found.sort(key=lambda one: one[:2])
  return tuple(row for _, _, band, fact in found for row in _orders(band, fact))


def _no_capitals() -> list[Fact]:
  """Cities that are no capital: not called as one is, of a country whose capital is
  agreed upon, and not of Britain, where Edinburgh is the capital of a country too."""
  countries = places.countries()
  called = {tuple(short.words(x)) for c in countries for x in c.capitals}
  odd = {"GB", *(c.code for c in countries if not c.capital)}
  return [
    fact
    for _, fact in _turns(facts("cities"))
    if tuple(short.words(fact.subject)) not in called and fact.key[-2:] not in odd
  ]


def _turns(bands: dict[str, Sequence[Fact]]) -> list[tuple[str, Fact]]:
  """(band, fact), one of each band after the other while there are any."""
  longest = max(map(len, bands.values()))
  return [
    (band, some[i])
    for i in range(longest)
    for band, some in bands.items()
    if i < len(some)
  ]


def _open(
  relation: str, band: str, subject: str, fact: Fact | None, shots: int
) -> rows.Row:
  """A question that is answered by a name; without a fact there is no answer."""
  question = RELATIONS[relation].question.format(subject)
  columns = {
    "question": question,
    "relation": relation,
    "subject": subject,
    "band": band,
    "group": question,
    "answerable": fact is not None,
    "accepted": list(fact.accepted) if fact else [],
  }
  return rows.Row(
    messages=[{"role": "user", "content": _prompt(relation, question, shots)}],
    answer=fact.answer if fact else short.UNKNOWN,
    task=f"facts/{relation}",
    split=_split(fact.key if fact else subject),
    columns=columns,
  )


def _prompt(relation: str, question: str, shots: int) -> str:
  """A question, behind so many of the relation's examples."""
  if not shots:
    return f"{_ASKED.format(question)}\n{_HOW}\nAnswer:"
  text = f"{_HOW}\n\n"
  for subject, answer in RELATIONS[relation].shown[:shots]:
    asked = _ASKED.format(RELATIONS[relation].question.format(subject))
    text += f"{asked}\nAnswer: {answer}\n\n"
  return f"{text}{_ASKED.format(question)}\nAnswer:"


def _orders(band: str, fact: Fact) -> list[rows.Row]:
  """A question with four choices, in each of their cyclic orders."""
  question = RELATIONS[fact.relation].question.format(fact.subject)
  others = {f.answer for some in facts(fact.relation).values() for f in some}
  if fact.relation != "continents":  # of which there are six in all
    others = {f.answer for f in facts(fact.relation)[band]}
  others -= {fact.answer, *fact.never}
  wrong = sorted(others, key=lambda name: _hash("wrong", f"{question} {name}"))[:3]
  order = sorted(
    [fact.answer, *wrong], key=lambda name: _hash("place", question + name)
  )
  found = []
  for turn in range(len(order)):
    choices = order[turn:] + order[:turn]
    listed = "\n".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(choices))
    columns = {
      "question": question,
      "relation": fact.relation,
      "subject": fact.subject,
      "band": band,
      "group": question,
      "variant": turn,
      "answerable": True,
      "choices": choices,
    }
    found.append(
      rows.Row(
        messages=[{"role": "user", "content": _CLOSED.format(question, listed)}],
        answer=chr(65 + choices.index(fact.answer)),
        task="facts/choices",
        split=_split(fact.key),
        columns=columns,
      )
    )
  return found


def _hints(subject: str, answer: str) -> bool:
  """Whether one of the names gives the other away: they share a word, or one is in the
  other."""
  here, there = short.words(subject), short.words(answer)
  one, two = "".join(here), "".join(there)
  return not set(here).isdisjoint(there) or one in two or two in one


def _hash(purpose: str, text: str) -> bytes:
  return hashlib.sha256(f"{purpose} {text}".encode()).digest()


def _split(key: str) -> str:
  return _SPLIT_OF_BUCKET[_hash("split", key)[0] % len(_SPLIT_OF_BUCKET)]
