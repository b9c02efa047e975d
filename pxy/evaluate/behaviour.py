"""What the responses look like: thoughts, lengths, truncation.

A response is split into thoughts at its blank lines. A thought is, in this order,

  reflection  if it starts with "wait", or contains one of: verify, make sure, hold on,
              think again, 's correct, 's incorrect, let me check, seems right;
  transition  if it starts with "alternatively", or contains "another" before way,
              approach, method, solution, strategy or technique;
  execution   otherwise.

The rule is SEAL's (2504.07986), and case does not matter. It is a count of phrases, not
of insight: a long response has more of everything, so counts per response and rates per
thought are both reported.
"""

import re
from collections.abc import Sequence

import numpy as np

from pxy.measures import passk

KINDS = ("reflection", "transition", "execution")

_BLANK = re.compile(r"\n[^\S\n]*\n")
_REFLECTION = re.compile(
  r"^wait|verify|make sure|hold on|think again|['’]s (in)?correct|let me check"
  r"|seems right"
)
_TRANSITION = re.compile(
  r"^alternatively|another (way|approach|method|solution|strategy|technique)"
)


def thoughts(text: str) -> list[str]:
  """The thoughts of a response: its stretches between blank lines."""
  return [part.strip() for part in _BLANK.split(text) if part.strip()]


def kind(thought: str) -> str:
  """Which of KINDS a thought is."""
  thought = thought.strip().lower()
  if _REFLECTION.search(thought):
    return "reflection"
  return "transition" if _TRANSITION.search(thought) else "execution"


def count(text: str) -> dict[str, int]:
  """How many thoughts of each kind a response has."""
  kinds = [kind(thought) for thought in thoughts(text)]
  return {name: kinds.count(name) for name in KINDS}


def thought_scores(texts: Sequence[Sequence[str]]) -> dict[str, passk.Score]:
  """`thoughts/KIND`, per response, and `thoughts/KIND_rate`, per thought.

  texts[p][r] is response r to problem p.
  """
  counts = [[count(text) for text in group] for group in texts]
  of_P = {name: np.array([sum(c[name] for c in g) for g in counts]) for name in KINDS}
  sums = thought_sums(of_P, np.array([len(group) for group in counts]))
  return {name: passk.ratio(*above_below) for name, above_below in sums.items()}


def thought_sums(
  of_P: dict[str, np.ndarray], responses_P: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The same as what is summed of each problem, above and below.

  Args:
    of_P: thoughts of each kind in all responses to a problem. responses_P: these.
  """
  all_P, out = sum(of_P.values()), {}
  for name in KINDS:
    out[f"thoughts/{name}"] = of_P[name], responses_P
    out[f"thoughts/{name}_rate"] = of_P[name], all_P
  return out


def length_scores(
  length_PR: np.ndarray, truncated_PR: np.ndarray
) -> dict[str, passk.Score]:
  """`length/mean`, in tokens with the stop token, and `truncated`, a share."""
  return {
    "length/mean": passk.mean_PR(length_PR),
    "truncated": passk.mean_PR(truncated_PR),
  }
