"""Checks a response of the second world: the answer, and every hop that it states.

  friend of a1 b2 is a3 b4 . code of a3 b4 is c5 d6 . answer c5 d6

A statement ends with " . ", and the last one is the answer. The right trace of a
question is one sequence of statements, so a response is verified if it consists of
them, in their order, and otherwise only of `remarks`: true statements beside the way.
A hop left out, made up, or said of another entity is none of these. No expression is
evaluated and nothing is searched for by a pattern: linear in the text.
"""

LONGEST = 10_000
"""Characters of a response; a longer one is wrong, which bounds the work."""
UNKNOWN = "unknown"


def said(response: str) -> str:
  """What stands behind the last word `answer`; empty where there is none."""
  if len(response) > LONGEST:
    return ""
  words = response.split()
  if "answer" not in words:
    return ""
  return " ".join(words[len(words) - words[::-1].index("answer") :])


def verified(response: str, trace: str, remarks: str) -> bool:
  """Whether a response is the trace, but for remarks between its statements.

  Args:
    trace: the right one.
    remarks: true statements, of which any number may stand anywhere before the answer.
  """
  if len(response) > LONGEST:
    return False
  wanted, allowed = trace.split(" . "), set(remarks.split(" . ")) - {""}
  found = 0
  for statement in " ".join(response.split()).split(" . "):
    if found < len(wanted) and statement == wanted[found]:
      found += 1
    elif statement not in allowed or found == len(wanted):
      return False
  return found == len(wanted)
