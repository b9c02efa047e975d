"""Any task's questions with what an answer is worth: `thresholds:TASK`.

    right 1, unknown 0, wrong -t / (1 - t)          t = .5, .75, .9, in turn

Where a right answer has the chance p, to answer pays if p > t (2509.04664). So a model
that knows what it knows answers less as t rises, and is right more often where it still
does. The rule stands before the question; the answer, the columns and the grader stay,
and `threshold` tells t. Where there is no answer, each that is given is a wrong one.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

from pxy.data import rows

PREFIX = "thresholds:"
LEVELS = (0.5, 0.75, 0.9)
COUNT = len(LEVELS)
_RULE = (
  "Answer only if you are more than {:.0%} sure. A right answer gives 1 point, a wrong"
  " one takes away {:.0f}, and 'unknown' gives 0."
)


def of(row: rows.Row) -> Iterator[rows.Row]:
  """A row under each of LEVELS."""
  text = row.messages[-1]["content"]
  own = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
  for level in LEVELS:
    rule = _RULE.format(level, level / (1 - level))
    last = row.messages[-1] | {"content": f"{rule}\n\n{text}"}
    yield dataclasses.replace(
      row,
      messages=[*row.messages[:-1], last],
      columns={"group": own} | row.columns | {"threshold": level},
    )
