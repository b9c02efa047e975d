"""The answer inside a response: the last box, or the last number.

Plain scans of the text, linear in its length: a response may be hostile, so nothing
here evaluates it, recurses on it or backtracks over it. Left out: answers only said in
prose ("so the answer is ..."), and a box whose argument has no braces.
"""

import collections
import re

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
  """The last box's content; where there is no box at all, the final number.

  A box that never closes is a truncated answer, and no reason to look for numbers.
  """
  return final_number(text) if _last(_BOX, text) is None else boxed(text)


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


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
  last = collections.deque(pattern.finditer(text), maxlen=1)
  return last[0] if last else None
