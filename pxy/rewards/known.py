"""Which grader the usual data sources take, by their names.

A name is what `data_source` says or a file is called, in any spelling that people use:
`lighteval/MATH`, `math_dapo`, `aime24`, `qwen_amc2023`, `openai/gsm8k`. A source that
is not here has no grader of its own: `auto` then compares boxes by the rules that need
no algebra, and `pxy data check` names it.
"""

import re

# One row a grader: what a name must contain, between anything but letters.
_TABLE = (
  ("gym", r"gym:.*"),
  ("arithmetic", r"arithmetic.*"),
  ("verified", r"world/.*"),
  ("choice", r"facts/choices.*"),
  ("short", r"facts/.*"),
  ("number", r"gsm8k|gsm-?8k|gsm-?plus|gsm-?symbolic|svamp|asdiv|mawps|multiarith"),
  (
    "math",
    r"math|math-?500|math-?lighteval|hendrycks|competition-?math|prm800k|minerva"
    r"|minerva-?math|dapo|dapo-?math|math-?dapo|aime|amc|olympiad|olympiads"
    r"|olympiad-?bench|numina|numina-?math|omni-?math|big-?math|orca-?math|deepmath"
    r"|openr1-?math|open-?math|deepscaler|hmmt|brumo|cmimc|gaokao|college-?math",
  ),
)
_PATTERNS = tuple(
  (grader, re.compile(rf"(?:{names})" if names.endswith(".*") else
                      rf"(?:.*[^a-z])?(?:{names})(?:[^a-z].*)?", re.DOTALL))
  for grader, names in _TABLE
)  # fmt: skip


def grader(source: str) -> str | None:
  """The grader of a source by its name; None where the name says nothing."""
  name = source.lower().replace("_", "-")
  return next((g for g, pattern in _PATTERNS if pattern.fullmatch(name)), None)
