"""Any task's questions in several wordings with one answer: `variants:TASK`.

  plain       as it is
  distractor  a true sentence that has nothing to do with it stands before it
  number      a sentence with a number that has nothing to do with it
  polite      a courteous request stands before it
  space       blank lines stand before it, and one behind

What stands in a question is left alone, since nothing here knows what it means: grids,
code and spaces may matter. So the answer stays, and so do the row's columns, by which
it is graded. `group` tells the question (after the row's own, if it has one), `variant`
the wording. Which sentence and number a question gets is a hash of it.

A chat template may trim messages; `space` is then the same prompt as `plain`. Left out:
paraphrases and other numbers, which take a task that knows what it means (as
`world/robust`), and system prompts, which are `data.system`.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

from pxy.data import rows

PREFIX = "variants:"
VARIANTS = ("plain", "distractor", "number", "polite", "space")
COUNT = len(VARIANTS)
_SENTENCES = (
  "The library on the corner is closed on public holidays.",
  "A cat sleeps for most of the day.",
  "The last bus had already left when the rain began.",
  "My neighbour waters her plants in the evening.",
  "Bread is best on the day on which it is baked.",
  "The lighthouse was painted white again last summer.",
  "Some people prefer tea to coffee.",
  "Old maps often show the sea in blue.",
)
_NUMBERS = (
  "This is page {} of the booklet.",
  "The form has the number {}.",
  "There were {} people in the queue this morning.",
  "The room on the left has the number {}.",
)
_POLITE = (
  "Could you please help me with this?",
  "I would be grateful for your help with the following.",
  "Hello! I hope you are well. Please look at this.",
)


def of(row: rows.Row) -> Iterator[rows.Row]:
  """A row in each of VARIANTS."""
  text = row.messages[-1]["content"]
  drawn = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
  # Rows of one group of the user's own may be several questions, or several forms.
  own = [row.columns[x] for x in ("group", "variant") if x in row.columns]
  group = " ".join([*map(str, own), drawn.hex()[:16]])
  for name in VARIANTS:
    last = row.messages[-1] | {"content": _worded(text, name, drawn)}
    yield dataclasses.replace(
      row,
      messages=[*row.messages[:-1], last],
      columns=row.columns | {"group": group, "variant": name},
    )


def _worded(text: str, name: str, drawn: bytes) -> str:
  """drawn: bytes that are a function of the text."""
  if name == "distractor":
    return f"{_SENTENCES[drawn[0] % len(_SENTENCES)]}\n\n{text}"
  if name == "number":
    number = 10 + int.from_bytes(drawn[1:5], "big") % 990
    return f"{_NUMBERS[drawn[5] % len(_NUMBERS)].format(number)}\n\n{text}"
  if name == "polite":
    return f"{_POLITE[drawn[6] % len(_POLITE)]}\n\n{text}"
  return f"\n\n{text}\n" if name == "space" else text
