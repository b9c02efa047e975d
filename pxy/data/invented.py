"""Names of places that are none: letters in the order of real names, not a real name.

A chain of letters (two give the third) is counted on real names and walked by hashed
numbers, so a name is a function of the seed and its number. It is dropped if it is any
name of a country or a city of 15,000 people, in any language and spelling of Latin
letters, or one letter from the name of a country or a city that a task asks about: a
response to that would be about the real one. GeoNames' list of places of 500 people
takes 10 s to read, so what it has of these names stands here; `make test-slow` looks.
"""

import functools

import numpy as np

from pxy.data import mix, places
from pxy.rewards import short

SIZE = 600
_SEED, _OF_LETTERS = 0, 40
_SYLLABLES = ("CN", "JP", "KP", "KR", "TW", "VN")  # any two may be a real place
_SHORTEST, _LONGEST = 7, 10
_TRIED = 3000
_VILLAGES = ("maihama", "mettara")
_END = "."


@functools.cache
def names() -> tuple[str, ...]:
  """SIZE invented names, all different when folded."""
  models = [(c.code, c.name.removeprefix("the ")) for c in places.countries()]
  models += [(city.country, city.name) for city in places.cities()]
  near = {form for _, name in models for form in _forms("".join(short.words(name)))}
  models = [name for code, name in models if code not in _SYLLABLES]
  chain = _chain([name.lower() for name in models if name.isascii() and name.isalpha()])
  found: dict[str, None] = {}
  for i in range(_TRIED):
    name = _walk(chain, i)
    if _SHORTEST <= len(name) <= _LONGEST and near.isdisjoint(_forms(name)):
      found[name] = None
  kept = [name for name in found if not places.is_name(name)]
  return tuple(name.capitalize() for name in kept if name not in _VILLAGES)[:SIZE]


def _forms(name: str) -> set[str]:
  """A name, and with each letter left out: names a letter apart share one of these."""
  return {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}


def _chain(models: list[str]) -> dict[str, list[str]]:
  """Two letters -> all that have followed them, as often as they have, in order."""
  found: dict[str, list[str]] = {}
  for name in models:
    text = f"{_END}{_END}{name}{_END}"
    for i in range(len(text) - 2):
      found.setdefault(text[i : i + 2], []).append(text[i + 2])
  return {pair: sorted(letters) for pair, letters in found.items()}


def _walk(chain: dict[str, list[str]], number: int) -> str:
  """One name, or what it is when it is too long."""
  drawn = mix.stream(_SEED, _OF_LETTERS, number * 16 + np.arange(_LONGEST + 1))
  text = _END * 2
  for bits in drawn.tolist():
    letters = chain[text[-2:]]
    letter = letters[bits % len(letters)]
    if letter == _END:
      break
    text += letter
  return text.removeprefix(_END * 2)
