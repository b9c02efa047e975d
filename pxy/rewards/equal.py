r"""Equality of mathematical answers as strings, after a normalisation.

The usual rules for the MATH data set as one table of substitutions: what only changes
the looks (\left, \,, \dfrac, $, spaces) goes, and shorthands get one form (\frac12,
1/2, .5, 1,000). The order matters, and every pattern is linear in the text. `equal`
does no algebra: 2/4 is not 1/2, and x+1 is not 1+x.

`decide` says more, still without an evaluator: numbers are compared as rationals, and
words, times and numbers of another base differ when their spelling does. What it leaves
open takes algebra (algebra.py).
"""

import fractions
import re

from pxy.rewards import answer as answer_lib
from pxy.rewards import rules, tex, value

_WORD_ENDS = r"(?![a-zA-Z])"
_RULES = tuple(
  (re.compile(pattern), to)
  for pattern, to in (
    (r"[\u2212\u2013]", "-"),
    (r"\\[()\[\]]", ""),  # \( \) \[ \]
    (r"\\[tdc]?frac\s{0,4}([0-9])\s{0,4}([0-9])", r"\\frac\1\2"),
    (r"(?<=[0-9])(?:\\ |\s|~)+(?=[0-9.])", "\u2423"),  # 2 1/2 is no 21/2
    (r"\\\$|\$", ""),
    (r"\\?%", ""),
    (r"\\(?:left|right|displaystyle|quad|qquad|limits)" + _WORD_ENDS, ""),
    (r"(?<!\\)\\[!,;: ]|~", ""),  # thin spaces; the lookbehind spares a row's end, \\
    (r"\{,\}", ","),
    (r"\^\{?\\circ\}?|\\degree" + _WORD_ENDS + "|\u00b0", ""),
    (r"\\[tdc]frac" + _WORD_ENDS, r"\\frac"),
    (r"\\le" + _WORD_ENDS, r"\\leq"),
    (r"\\ge" + _WORD_ENDS, r"\\geq"),
    (r"\\ne" + _WORD_ENDS, r"\\neq"),
    (r"\\(?:text|mbox|mathrm|textbf|mathbf|textit|textrm)\{([^{}]*)\}", r"\1"),
    (r"\s+", ""),
    (r"[.;]$", ""),
    (r"^\{([^{}]*)\}$", r"\1"),
    (r"(?<=[(,])\{([A-Za-z]+)\}(?=[),])", r"\1"),
    (r"^\(([A-Z])\)$", r"\1"),  # a choice
    (r"(?<=[(\[,])\+(?=[0-9.\\])", ""),  # (0, +\infty)
    (r"^[a-zA-Z]=", ""),  # x=5
    (r"\\frac([0-9a-z])([0-9a-z])", r"\\frac{\1}{\2}"),
    (r"\\frac([0-9a-z])\{", r"\\frac{\1}{"),
    (r"(\\frac\{[^{}]*\})([0-9a-z])", r"\1{\2}"),
    (r"\\sqrt([0-9a-z])", r"\\sqrt{\1}"),
    (r"([\^_])\{([0-9a-zA-Z])\}", r"\1\2"),
    (r"^(-?)([0-9]+)/([0-9]+)$", r"\1\\frac{\2}{\3}"),
    (r"\\frac\{-([0-9]+)\}\{([0-9]+)\}", r"-\\frac{\1}{\2}"),
    (r"^\+(?=[0-9.])", ""),
    (r"(?<![0-9])\.(?=[0-9])", "0."),
    (r"^(-?[0-9]+)\.0*$", r"\1"),
    (r"^(-?[0-9]+\.[0-9]*[1-9])0+$", r"\1"),
    (r"^(-?)0\.5$", r"\1\\frac{1}{2}"),
    (r"^-0$", "0"),
  )
)
# No TeX command begins with a digit or a sign: a row's end that lost a backslash.
_ROW_END = re.compile(r"(?<!\\)\\(?=[-0-9.])")
_OR = re.compile(
  r"(?:\\[,;]|\s){0,4}(?:\\(?:text|mbox|mathrm))?\{\s{0,4}(?:or|and)\s{0,4}\}"
  r"(?:\\[,;]){0,4}"
  r"|\s(?:or|and)\s"
)
_ABOUT = re.compile(r"^[\s$]{0,8}\\approx(?![a-zA-Z])")
_SEPARATOR = re.compile(r"(?<=[0-9])(?:\\!)?(?:\{,\}|\\,|,\\!)(?=[0-9]{3}(?![0-9]))")
_COMMA = re.compile(r"(?<![0-9,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9])")
_LIST = re.compile(r"[(\[]|\\\{|,(?![0-9])|(?<![0-9]),")
_MATHS = re.compile(r"\\[()\[\]]")  # \( \) \[ \]
_IN_BRACES = re.compile(r"(?<=\{)[0-9]{1,3}(?:,[0-9]{3})+(?=\})")
_NAMES = (
  "units?|degrees?|percent|dollars?|cents?|inch(?:es)?|feet|foot|ft|yards?|miles?"
  "|[mck]?m|met(?:er|re)s?|centimet(?:er|re)s?|kilomet(?:er|re)s?|k?g|grams?|kilograms?"
  "|pounds?|ounces?|lit(?:er|re)s?|seconds?|minutes?|hours?|days?|weeks?|years?|mph"
)
_UNIT = re.compile(
  r"(?:(?<=[\w})\]!,;\s])\s{0,8}\\(?:text|mbox|mathrm)\{[^{}]*[a-zA-Z][^{}]*\}"
  rf"|(?<=[0-9}}])\s{{1,8}}(?:(?:square|sq\.?|cubic)\s)?(?:{_NAMES})"
  r"|(?<=[0-9])_\{?[0-9]{1,2}\}?"  # of another base
  r")(?:\^\{?[23]\}?)?[\s.$]{0,8}$"
)
_INTEGER = r"([0-9]{1,400})"
_RATIONALS = tuple(
  (re.compile(rf"([+-]?){pattern}"), of)
  for pattern, of in (
    (rf"{_INTEGER}(?:\.([0-9]{{0,400}}))?", lambda i, d: _decimal(i, d or "")),
    (
      rf"(?:\\frac\{{{_INTEGER}\}}\{{{_INTEGER}\}}|{_INTEGER}/{_INTEGER})",
      lambda a, b, c, d: fractions.Fraction(int(a or c), int(b or d)),
    ),
    (
      rf"{_INTEGER}\\frac\{{{_INTEGER}\}}\{{{_INTEGER}\}}",
      lambda i, a, b: int(i) + fractions.Fraction(int(a), int(b)),
    ),
  )
)
_SPELLED = re.compile(  # words and their lists, times and ratios, numbers with a base
  r"[({]*[A-Za-z]{3,}(?:,[A-Za-z]+)*[)}]*|[A-Z](?:,[A-Z])*"
  r"|[0-9]+(?::[0-9]+)+[A-Za-z.]*|[0-9A-F]+_\{?[0-9]+\}?"
)


def tidy(text: str) -> str:
  r"""The text with thousands in one piece, a comma for `or`, \\ after matrix rows.

  It is still LaTeX. Commas between digits stay where they may separate elements, as in
  (1,200) and 1,200,x.
  """
  text = _ROW_END.sub(r"\\\\", text)
  text = _OR.sub(",", _ABOUT.sub("", text))
  text = _SEPARATOR.sub("", text)
  text = _IN_BRACES.sub(lambda match: match[0].replace(",", ""), text)
  if "," in text and not _LIST.search(_MATHS.sub("", text)):
    text = _COMMA.sub(lambda match: match[0].replace(",", ""), text)
  return text


def normalise(text: str) -> str:
  r"""The one spelling of an answer: `normalise(r"\dfrac 12") == r"\frac{1}{2}"`."""
  text = tidy(text)
  for pattern, to in _RULES:
    text = pattern.sub(to, text)
  return tidy(text)


def equal(a: str, b: str) -> bool:
  r"""Whether two answers are spelled the same after normalisation.

  A trailing unit (`5\text{ cm}`) may be left out by one of the two, not exchanged.
  """
  if a == b:
    return True
  if max(len(a), len(b)) > answer_lib.LONGEST:
    return False
  if normalise(a) == normalise(b):
    return True
  bare_a, bare_b = _UNIT.sub("", a), _UNIT.sub("", b)
  if (bare_a == a) == (bare_b == b):
    return False
  return normalise(bare_a) == normalise(bare_b)


def rational(text: str) -> fractions.Fraction | None:
  r"""The number that is written as an integer, decimal, fraction or mixed number.

  `rational(r"1\frac12")` is 3/2. None for all else, and from 400 digits on.
  """
  if len(text) > answer_lib.LONGEST:
    return None
  text = normalise(text)
  for pattern, of in _RATIONALS:
    if match := pattern.fullmatch(text):
      sign, *parts = match.groups()
      try:
        value = of(*parts)
      except ZeroDivisionError:
        return None
      return -value if sign == "-" else value
  return None


def plain(reference: str) -> bool:
  """Whether it is a rational number, or something compared by its spelling alone."""
  return rational(reference) is not None or _is_spelled(reference)


def _is_spelled(text: str) -> bool:
  return len(text) <= answer_lib.LONGEST and bool(_SPELLED.fullmatch(normalise(text)))


def decide(found: str, reference: str) -> bool | None:
  """Whether the answers are the same, by the rules (rules.py); None when that takes
  algebra."""
  if found.strip() == reference.strip():
    return True
  if max(len(found), len(reference)) > answer_lib.LONGEST:
    return False
  return same(found, reference, rules.numbers)


def same(found: str, reference: str, judge: rules.Judge) -> bool | None:
  """`rules.same` of what the texts mean; of what means nothing here, its spelling.

  Commas as in 1,200 separate where the other answer shows that they do.
  """
  a, b = value.read(found), value.read(reference)
  if a is None or b is None:
    return _spelled(found, reference, a, b)
  verdict = rules.same(a, b, judge)
  if verdict is False and {a[0], b[0]} & {"list", "set"}:
    again = [value.read(x, False) for x in (found, reference) if tex.ambiguous(x)]
    if len(again) == 1 and again[0] is not None:
      return rules.same(again[0], b if tex.ambiguous(found) else a, judge)
  return verdict


def _spelled(found, reference, a, b) -> bool | None:
  if equal(found, reference):
    return True
  if _is_spelled(reference) or _is_spelled(found):
    return False
  if any(x is not None and x[0] in ("word", "choice") for x in (a, b)):
    return False
  return None


def _decimal(integer: str, digits: str) -> fractions.Fraction:
  return fractions.Fraction(int(integer + digits), 10 ** len(digits))
