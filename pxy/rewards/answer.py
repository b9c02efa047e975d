r"""The answer inside a response: what the last box, tag, marker or sentence says.

  <think>...</think>   never counts: closed, unfinished, or opened by the template
  <answer>...</answer> what the last one holds
  \boxed{...}          the last; boxes joined by a comma or `and` are one answer
  #### ...             what follows the marker
  the answer is ...    the last that is so stated
  $...$, \(...\)       the last formula, or what "the total is" and the like say later
  ... 3 1/4.           or else the last number with all that belongs to it: of 12:30
                       never the 30, of x+1 never the 1

A box or tag that never closes is a truncated answer, and no reason to look for another.
Plain scans of the text, linear in its length: a response may be hostile, so
nothing here evaluates it, recurses on it or backtracks over it.
"""

import collections
import re

from pxy.rewards import units

LONGEST = 10_000
"""Characters of an answer. A longer one is none: it bounds the work on hostile text."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{")
_TEX_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \\{ is matched as one, thus skipped
_BRACE = re.compile(r"[{}]")
_NUMBER = re.compile(
  r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[+-]?(?<![\w.])\.\d+",
  re.ASCII,
)


def boxed(text: str) -> str | None:
  r"""The content of the last \boxed{...} or \fbox{...}; None if it is missing or open.

  Braces are balanced. Escaped ones (\{) do not count, unless it cannot close without
  them. A last box that never closes, as in a truncated response, hides the earlier
  ones: those were not the final answer.
  """
  box = _last(_BOX, text)
  if box is None:
    return None
  inside = _closed(text, box.end(), _TEX_BRACE)
  return _closed(text, box.end(), _BRACE) if inside is None else inside


def final(text: str) -> str | None:
  """The answer of a response, as it is written there; None if it has none."""
  text = said(text)
  explicit = marked(text)
  return _prose(text) if explicit is NOWHERE else explicit


NOWHERE = object()
"""There is neither a box nor a tag nor a marker."""
_MOST = 20
"""Boxes, or formulas, that are one answer at most."""
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_MARKER = re.compile(r"####([^\n#][^\n]*)")
_HEADING = re.compile(r"\s*(?:[0-9]{1,2}[.):]\s+[A-Za-z]|[A-Za-z]{2})", re.ASCII)
_REMARK = re.compile(r"\s\((?=[A-Za-z ]+)|,?\s(?:because|since)\s", re.ASCII)


_OPENS = re.compile(r"<think(?:ing)?>\s*$", re.IGNORECASE)


def opens(prompt: str) -> bool:
  """Whether what follows the prompt is thought, up to </think>."""
  return bool(_OPENS.search(prompt))


def said(text: str) -> str:
  """The response without what it only thought."""
  outside, start, thinking = [], 0, False
  for tag in _THINK.finditer(text):
    if tag[1]:
      if not thinking:
        outside.clear()  # the template has opened it
      start, thinking = tag.end(), False
    elif not thinking:
      outside.append(text[start : tag.start()])
      thinking = True
  if not thinking:
    outside.append(text[start:])
  return "\n".join(outside)


def marked(text: str):
  """What the last box, <answer> or #### of a text holds; NOWHERE without any."""
  opening = closing = None
  for tag in _TAG.finditer(text):
    if not tag[1]:
      opening, closing = tag.end(), None
    elif opening is not None and closing is None:
      closing = tag.start()
  boxes = _boxes(text)
  if opening is not None and (
    not boxes or closing is None or boxes[-1][0] < closing
  ):  # fmt: skip
    return None if closing is None else _tagged(text[opening:closing][-LONGEST:])
  if boxes:
    return _joined(text, boxes)
  marker = _last(_MARKER, text)
  if marker is None:
    return NOWHERE
  if _HEADING.match(marker[1]) and text[marker.end() :].strip():
    return NOWHERE
  line = marker[1].strip()
  remark = _REMARK.search(line)
  return (line[: remark.start()] if remark else line)[:LONGEST]


def stated(text: str) -> str | None:
  """What follows the last `the answer is`; None if it is not said."""
  found = _stated(text, _ANSWER)
  return None if found is None else found[1]


def _tagged(inside: str) -> str | None:
  found = marked(inside)
  if found is not NOWHERE:
    return found
  found = stated(inside)
  return inside.strip() if found is None else found


_ANY_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s{0,8}")
_UNBRACED = re.compile(
  r"[-+]?(?:[0-9]|\\(?!boxed|fbox)[a-zA-Z]|[a-zA-Z](?![a-zA-Z]))[^\s$]{0,200}"
)
_JOINT = re.compile(
  r"(?:[\s$,;&~]|\\[()\[\],;: ]|\\q?quad|\\(?:text|mbox|mathrm)\{\s*(?:and|or)\s*\}"
  r"|and|or|[a-zA-Z](?:_[0-9])?\s?=){0,60}"
)
_SEPARATES = re.compile(r"[,;&]|and|or")


def _boxes(text: str) -> list[tuple[int, int, str | None]]:
  """(start, end, content) of the last boxes; of one inside another the inner alone.

  content: None where a box never closes.
  """
  last: collections.deque = collections.deque(maxlen=_MOST)
  for box in _ANY_BOX.finditer(text):
    braced = text[box.end() : box.end() + 1] == "{"
    bare = None if braced else _UNBRACED.match(text, box.end())
    if braced or bare:
      last.append((box.start(), box.end() + 1, bare))
  out = []
  for start, inner, bare in last:
    if bare:
      out.append((start, bare.end(), bare[0].rstrip(".,;:!?)")))
      continue
    inside = _closed(text, inner, _TEX_BRACE)
    inside = _closed(text, inner, _BRACE) if inside is None else inside
    if out and start < out[-1][1]:
      out.pop()
    out.append((start, inner + len(inside or "") + 1, inside))
  return out


def _joined(text: str, parts) -> str | None:
  """What the last of the parts holds, with those that a comma or `and` joins to it."""
  *before, (start, _, content) = parts
  if content is None:
    return None
  contents = [content]
  for earlier, end, other in reversed(before):
    if other is None or not _joins(text[end:start][:61]):
      break
    contents.append(other)
    start = earlier
  return content if len(set(contents)) == 1 else ", ".join(reversed(contents))


def _joins(between: str) -> bool:
  return bool(_JOINT.fullmatch(between) and _SEPARATES.search(between))


_IS = r"\b[\s*_]{0,4}(?:(?:is|are|was|equals)(?![a-zA-Z])|=|:)[\s*_:]{0,8}"
_STATED = re.compile(
  r"\b(?:answer|result|solution|total|value|sum|product)s?"
  r"(?:\s(?:of|for|to|in)\s[^.:\n$]{0,60}?)?" + _IS,
  re.IGNORECASE,
)
_ANSWER = re.compile(r"\banswers?" + _IS, re.IGNORECASE)
_FILLER = re.compile(
  r"(?:(?:therefore|thus|then|hence|simply|just|exactly|indeed|now|equal to|given by"
  r"|option|choice|the|number|:|=),?\s{1,4}){1,4}",
  re.IGNORECASE,
)
_SENTENCE = re.compile(
  r"\n|[.!?](?=[\s*_\"')]|$)|,?\s(?:because|since|as|which|so|where|when|for)\s"
)
_FORMULA = re.compile(r"\\[()\[\]]|(?<!\\)\$\$?")
_CLOSES = {"\\(": "\\)", "\\[": "\\]", "$": "$", "$$": "$$"}


def _prose(text: str) -> str | None:
  """What a response without box, tag or marker states."""
  if (found := stated(text)) is not None:
    return found
  weak, formulas = _stated(text, _STATED), _formulas(text)
  if weak is not None and (not formulas or formulas[-1][0] < weak[0]):
    return weak[1]
  return _joined(text, formulas) if formulas else _number_phrase(text)


def _stated(text: str, pattern: re.Pattern) -> tuple[int, str] | None:
  """(where its sentence ends, what is said) of the last `the answer is`."""
  found = _last(pattern, text)
  if found is None:
    return None
  filler = _FILLER.match(text, found.end())
  at = filler.end() if filler else found.end()
  rest = text[at : at + LONGEST]
  formulas = _formulas(rest, first=True)
  if formulas and not rest[: formulas[0][0]].strip(" *\n"):
    n = 1
    while n < len(formulas) and _joins(
      rest[formulas[n - 1][1] : formulas[n][0]][:61]
    ):  # fmt: skip
      n += 1
    end = _SENTENCE.search(rest, formulas[n - 1][1])
    return at + (end.start() if end else len(rest)), _joined(rest, formulas[:n])
  end = _SENTENCE.search(rest)
  until = end.start() if end else len(rest)
  words = rest[:until].strip().strip("*_").strip()
  return (at + until, words) if words else None


def _formulas(text: str, first: bool = False) -> list[tuple[int, int, str]]:
  """(start, end, content) of the last formulas of a text, or the first."""
  found: collections.deque = collections.deque(maxlen=None if first else _MOST)
  opened = None
  for sign in _FORMULA.finditer(text):
    mark = sign[0]
    if opened is not None and mark == _CLOSES[opened[0]] and _ends(text, sign):
      if inside := text[opened.end() : sign.start()].strip():
        found.append((opened.start(), sign.end(), inside[-LONGEST:]))
      if len(found) == _MOST and first:
        break
      opened = None
    elif mark in ("\\(", "\\[", "$$"):
      opened = sign
    elif mark == "$" and (opened is None or opened[0] == "$"):
      opened = sign if not text[sign.end() : sign.end() + 1].isspace() else opened
  return list(found)


def _ends(text: str, sign: re.Match) -> bool:
  """Whether a $ may end a formula: the second of "$5 and $6" does not."""
  if sign[0] != "$":
    return True
  after = text[sign.end() : sign.end() + 1]
  return not text[sign.start() - 1].isspace() and not after.isdigit()


_OPERATORS = frozenset("+ - * / ^ < > \u00d7 \u00f7 \u00b7 \u2212 <= >=".split())
_TAIL, _WORDS = 2000, 40
_NAME = re.compile(r"[A-Za-z]+(?:_[0-9A-Za-z])?", re.ASCII)
_FRACTION = re.compile(r"[0-9]{1,9}/[0-9]", re.ASCII)


def _number_phrase(text: str) -> str | None:
  """The last number with the signs and operands around it; x+1, 12:30, 3 1/4."""
  words = text[-_TAIL:].split()
  places = (i for i in reversed(range(len(words))) if words[i][-1] != ":")
  at = next(
    (i for i in places if _has_digit(words[i]) and not _is_unit(words[i])), None
  )
  if at is None:
    return None
  start, least = at, max(0, at - _WORDS)
  while start > least:
    before = words[start - 1]
    if before in _OPERATORS or (before[-1] == "," and _has_digit(before)):
      start -= 1
    elif words[start] in _OPERATORS or _mixes(before, words[start]):
      start -= 1
    elif start - 1 > least and before == "=" and _NAME.fullmatch(words[start - 2]):
      start -= 2
      if start - 1 > least and words[start - 1] in ("and", "or"):
        start -= 2
    else:
      break
  end = at + 1
  while end + 1 < len(words) and words[end] in _OPERATORS:
    end += 2
  if end < len(words) and _is_unit(words[end]):
    end += 1
  found = " ".join(words[start:end]).strip(_POINTS)
  if found.count("(") != found.count(")"):
    found = found.strip("()").strip(_POINTS)
  return found or None


_POINTS = "*_`\"'!?;:,. "


def _is_unit(word: str) -> bool:
  return units.known(word.strip(_POINTS).partition("^")[0])


def _has_digit(word: str) -> bool:
  return any(c in "0123456789" for c in word)


def _mixes(before: str, word: str) -> bool:
  """Whether the two words are 3 and 1/4."""
  return before.isascii() and before.isdigit() and bool(_FRACTION.match(word))


def _closed(text: str, start: int, brace: re.Pattern) -> str | None:
  """The text from `start`, behind an open brace, up to the one that closes it."""
  depth = 1
  for match in brace.finditer(text, start, start + LONGEST + 1):
    depth += (match[0] == "{") - (match[0] == "}")
    if depth == 0:
      return text[start : match.start()]
  return None


def final_number(text: str) -> str | None:
  """The last number after the last `####`, or of the whole text without one; else None.

  Thousands separators are dropped: "#### 1,024" gives "1024".
  """
  tail = text[text.rfind("####") + 1 :][-LONGEST:]
  number = _last(_NUMBER, tail)
  return number[0].replace(",", "") if number else None


def first_number(text: str) -> str | None:
  """The first number, without its thousands' separators; None if there is none."""
  number = _NUMBER.search(text)
  return number[0].replace(",", "") if number else None


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
  last = collections.deque(pattern.finditer(text), maxlen=1)
  return last[0] if last else None
