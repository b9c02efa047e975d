r"""Traces: sums solved aloud, column by column, right or with slips.

Thoughts are separated by blank lines; the first restates the sum, so that a trace makes
sense without its question:

  347 + 285 / 7 + 5 + 0 = 12 / 4 + 8 + 1 = 13 / 3 + 2 + 1 = 6 / \boxed{632}

Addition carries the last term on; subtraction writes a borrowed ten into the first
(`14 - 8 - 1 = 5`); multiplication by one digit carries like addition, by more digits it
adds up the partial products. Every expression is made of the digits found so far, so a
slip goes on into the answer, unless the trace notices it and does the step again.
"""

from collections.abc import Callable

WAIT, ANOTHER = "Wait, ", "Alternatively, another way: "

# (right value, largest value that fits) -> (value written, WAIT or ANOTHER or "").
# Words say that the trace notices the slip.
Slip = Callable[[int, int], tuple[int, str]]


def clean(right: int, high: int) -> tuple[int, str]:
  """No slip."""
  del high
  return right, ""


def solve(operator: str, a: int, b: int, slip: Slip) -> tuple[list[str], str]:
  """The thoughts of a trace, and the answer that they arrive at, as decimal digits.

  Args:
    operator: `+`, `-` or `*`.
    a, b: natural numbers, a >= b for subtraction.
    slip: asked at every step for the value to write.
  """
  lines = [f"{a} {operator} {b}"]
  if operator == "+":
    total = _add(str(a), str(b), lines, slip)
  elif operator == "-":
    total = _subtract(str(a), str(b), lines, slip)
  elif b < 10:
    total = _times(str(a), b, lines, slip)
  else:
    total = ""
    for place, digit in enumerate(reversed(str(b))):
      lines.append(f"{a} * {digit}")
      partial = _times(str(a), int(digit), lines, slip) + "0" * place
      if total:
        lines.append(f"{total} + {partial}")
        total = _add(total, partial, lines, slip)
      else:
        total = partial
  lines.append(f"\\boxed{{{total}}}")
  return lines, total


def _add(a: str, b: str, lines: list[str], slip: Slip) -> str:
  width = max(len(a), len(b))
  carry, digits = 0, ""
  for x, y in zip(reversed(a.zfill(width)), reversed(b.zfill(width)), strict=True):
    ways = f"{x} + {y} + {carry}", f"{y} + {x} + {carry}"
    total = _step(ways, int(x) + int(y) + carry, 19, lines, slip)
    carry, digits = total // 10, f"{total % 10}{digits}"
  return _number(f"{carry}{digits}")


def _subtract(a: str, b: str, lines: list[str], slip: Slip) -> str:
  borrow, digits = 0, ""
  for x, y in zip(reversed(a), reversed(b.zfill(len(a))), strict=True):
    below = int(y) + borrow
    lent = int(x) < below
    top = int(x) + 10 * lent
    ways = f"{top} - {y} - {borrow}", f"{top} - {borrow} - {y}"
    digit = _step(ways, top - below, 9, lines, slip)
    borrow, digits = int(lent), f"{digit}{digits}"
  return _number(digits)


def _times(a: str, digit: int, lines: list[str], slip: Slip) -> str:
  carry, digits = 0, ""
  for x in reversed(a):
    ways = f"{x} * {digit} + {carry}", f"{digit} * {x} + {carry}"
    total = _step(ways, int(x) * digit + carry, 99, lines, slip)
    carry, digits = total // 10, f"{total % 10}{digits}"
  return _number(f"{carry}{digits}")


def _step(
  ways: tuple[str, str], right: int, high: int, lines: list[str], slip: Slip
) -> int:
  """Writes a step, maybe wrong and maybe noticed; returns the value to go on with."""
  first, other = ways
  written, notice = slip(right, high)
  lines.append(f"{first} = {written}")
  if not notice:
    return written
  lines.append(f"{notice}{other if notice == ANOTHER else first} = {right}")
  return right


def _number(digits: str) -> str:
  return digits.lstrip("0") or "0"
