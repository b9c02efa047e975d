"""Short answers: a name, a letter, or that there is no telling.

  `Paris`, `**Paris**`, `The capital of France is Paris.`   Paris
  `Paris or Rome`, `not Paris`                              neither
  `I don't know.`, `There is no such place.`                abstained

Only the first sentence of the first line counts, since a base model runs on after its
answer, and what is added behind a comma (`Paris, a city that ...`) is left off. A box
or <answer> tag goes before it, and what stands in <think> never counts. Case, accents,
punctuation and articles do not matter. A sentence names an answer if what else it says
is words of the question and of `_CARRIERS`: thus it names no second one. No pattern is
taken from a response; the work is linear in its length.
"""

import re
import unicodedata
from collections.abc import Iterable

from pxy.rewards import answer

LONGEST = 300
"""Characters of a sentence; a longer one is no short answer."""
UNKNOWN = "unknown"
_LETTERS = str.maketrans(
  {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "ħ": "h", "&": " and "}
  | {"æ": "ae", "œ": "oe", "þ": "th"}
  | dict.fromkeys("'’‘ʻʼʿʾ`´.", "")
)
_ARTICLES = ("the", "a", "an")
_SPELLED = {"saint": "st"}
_CARRIERS = frozenset(
  "is was are it its in of on to this that answer name named called located situated"
  " lies city country town place".split()
)
_ABSTAINED = tuple(
  f" {phrase} "
  for phrase in (
    "unknown", "unsure", "not sure", "not certain", "no idea", "no answer",
    "do not know", "dont know", "cannot answer", "cant answer",
    "unable to answer", "cannot be answered", "cannot be determined", "not known",
    "no such", "does not exist", "doesnt exist", "not exist", "not aware of",
    "not familiar with", "not real", "not recognized", "not recognised", "fictional",
    "fictitious", "no information", "not enough information", "could not find",
    "couldnt find", "cannot find", "cant find", "no record", "sorry", "apologize",
  )
)  # fmt: skip
_OTHER = re.compile(r"[\W_]+")
_END = re.compile(
  r"(?<=\w{3})[.!?](?=[\s*_\"')]|$)"
  r"|,\s(?=(?:a|an|the|which|where|located|situated|known)\s)"
)
_TEX = re.compile(r"\\[a-z]{1,10}\{|[{}$]")
_LETTER = re.compile(
  r"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? ?)?"
  r"[(\[]?([a-z])(?:[)\]]|[.:])?[.]?(?= |$)",
  re.IGNORECASE,
)


def fold(text: str) -> str:
  """Lower case without accents, apostrophes and full stops."""
  if text.isascii():
    return text.lower().translate(_LETTERS)
  text = unicodedata.normalize("NFKD", text).casefold()
  return "".join(c for c in text if not unicodedata.combining(c)).translate(_LETTERS)


def words(text: str) -> list[str]:
  """Folded words, without articles unless there is nothing else."""
  found = _OTHER.sub(" ", fold(text)).split()
  kept = [_SPELLED.get(word, word) for word in found if word not in _ARTICLES]
  return kept or found


def sentence(response: str) -> str:
  """The part of a response that counts; empty where there is none, or it is long."""
  said = answer.said(response)
  found = answer.marked(said)
  text = said if found is answer.NOWHERE else _TEX.sub(" ", found or "")
  line = next((line.strip() for line in text.splitlines() if line.strip()), "")
  end = _END.search(line)
  line = line[: end.start()] if end else line
  return line if len(line) <= LONGEST else ""


def names(text: str, accepted: Iterable[str], question: str) -> bool:
  """Whether a sentence gives one of the accepted answers, and no other thing."""
  found, asked = words(text), words(question)
  for name in accepted:
    target = words(name)
    if not target:
      continue
    if "".join(found) == "".join(target):
      return True
    echo = set(target) <= set(asked)  # to repeat the question is no answer then
    free = _CARRIERS if echo else _CARRIERS.union(asked)
    n = len(target)
    for i in range(len(found) - n + 1):
      if found[i : i + n] == target and free.issuperset(found[:i] + found[i + n :]):
        return True
  return False


def abstains(text: str) -> bool:
  """Whether a sentence says that it does not answer."""
  said = f" {' '.join(words(text))} "
  return any(phrase in said for phrase in _ABSTAINED)


def letter(text: str, choices: Iterable[str] = ()) -> str:
  """The letter that a sentence chooses, alone or with the text of its choice; or empty.

  choices: the texts of A, B, ...; without them, or with the text of another choice
  behind it, only a letter alone is one.
  """
  text = " ".join(text.replace("*", " ").split())
  match = _LETTER.match(text)
  if match is None:
    return ""
  chosen, rest = match[1].upper(), words(text[match.end() :])
  texts = list(choices)
  place = ord(chosen) - ord("A")
  if rest and not (place < len(texts) and rest == words(texts[place])):
    return ""
  return chosen
