"""One line of `pxy doctor`: what was looked at, how it is, and the cure."""

import dataclasses
from collections.abc import Callable
from typing import Literal

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of the table.

  Attributes:
    name: of the check.
    status: fail: a run would; warn: it would go on with less.
    found: what there is.
    cure: what to do; empty where all is well.
  """

  name: str
  status: Literal["ok", "warn", "fail"]
  found: str
  cure: str = ""


def each(name: str, check: Callable[[], list[Line]]) -> list[Line]:
  """The lines of a check; one that cannot even look is a line that fails."""
  try:
    return check()
  except Exception as error:
    said = " ".join(str(error).split())[:200]
    found = f"cannot be looked at: {type(error).__name__}: {said}"
    return [Line(name, "fail", found, "mend what the other lines name, and try again")]


def size(count: float) -> str:
  """Bytes in words: 3.2 GiB, 512 MiB."""
  return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / 2**20:,.0f} MiB"
