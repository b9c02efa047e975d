r"""Equality of mathematical answers as strings, after a normalisation.

The usual rules for the MATH data set as one table of substitutions: what only changes
the looks (\left, \,, \dfrac, $, spaces) goes, and shorthands get one form (\frac12,
1/2, .5, 1,000). The order matters, and every pattern is linear in the text. No algebra:
2/4 is not 1/2, and x+1 is not 1+x; that takes an evaluator, thus a grader of one's own.
"""

import re

from pxy.rewards import answer as answer_lib

_WORD_ENDS = r"(?![a-zA-Z])"
_RULES = tuple(
  (re.compile(pattern), to)
  for pattern, to in (
    (r"[\u2212\u2013]", "-"),
    (r"\\[()\[\]]", ""),  # \( \) \[ \]
    (r"\\\$|\$", ""),
    (r"\\?%", ""),
    (r"\\(?:left|right|displaystyle|quad|qquad|limits)" + _WORD_ENDS, ""),
    (r"(?<!\\)\\[!,;: ]|~", ""),  # thin spaces; the lookbehind spares a row's end, \\
    (r"\{,\}", ","),
    (r"\^\{?\\circ\}?|\\degree" + _WORD_ENDS, ""),
    (r"\\[tdc]frac" + _WORD_ENDS, r"\\frac"),
    (r"\\le" + _WORD_ENDS, r"\\leq"),
    (r"\\ge" + _WORD_ENDS, r"\\geq"),
    (r"\\ne" + _WORD_ENDS, r"\\neq"),
    (r"\\(?:text|mbox|mathrm|textbf|mathbf)\{([^{}]*)\}", r"\1"),
    (r"\s+", ""),
    (r"[.;]$", ""),
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
_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_UNIT = re.compile(
  r"(?<=[0-9}\s])\s{0,8}\\(?:text|mbox|mathrm)\{[^{}]*[a-zA-Z][^{}]*\}(?:\^\{?[23]\}?)?[\s.$]{0,8}$"
)


def normalise(text: str) -> str:
  r"""The one spelling of an answer: `normalise(r"\dfrac 12") == r"\frac{1}{2}"`."""
  for pattern, to in _RULES:
    text = pattern.sub(to, text)
  return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


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
