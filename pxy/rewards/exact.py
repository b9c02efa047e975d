"""Exact numbers out of a tree (value.py), within bounds that are checked beforehand.

`of` gives the Fraction that integers, fractions, finite decimals and expressions in
them are; None for what is none (a symbol, an irrational root). What would have more
than BITS bits raises TooLarge before it is computed; `size` then says between which
powers of two it lies, which tells most of such numbers apart: 10^(10^10) is not 5.
"""

import fractions
import math

BITS = 1 << 16
_FACTORIAL = 3000


class TooLarge(ArithmeticError):
  """A number with more bits than anybody writes."""

  def __str__(self) -> str:
    return "a number is too large to be computed"


class Undefined(ArithmeticError):
  """No number: 1/0."""


def of(value) -> fractions.Fraction | None:
  """The exact number of a tree; None where it is none.

  Raises TooLarge, Undefined.
  """
  kind = value[0]
  if kind == "num":
    return value[1]
  if kind in ("sym", "const", "fn", "word", "deg"):
    return None
  function = _OF.get(kind)
  if function is None:
    return None
  parts = []
  for part in value[1:]:
    found = of(part)
    if found is None:
      return None
    parts.append(found)
  return function(*parts)


def _bits(x: fractions.Fraction) -> int:
  return max(x.numerator.bit_length(), x.denominator.bit_length())


def _bounded(x: fractions.Fraction) -> fractions.Fraction:
  if _bits(x) > BITS:
    raise TooLarge
  return x


def _div(a, b):
  if b == 0:
    raise Undefined
  return _bounded(a / b)


def _pow(a, b):
  if b.denominator != 1:
    if b.denominator > 64 or (a < 0 and b.denominator % 2 == 0):
      return None
    root = _root(a, fractions.Fraction(b.denominator))
    return None if root is None else _pow(root, fractions.Fraction(b.numerator))
  if a == 0 and b <= 0:
    raise Undefined  # 0^0 too: nobody asks for it
  if a in (0, 1):
    return a
  if a == -1:
    return a if b.numerator % 2 else -a
  if abs(b) > BITS or (_bits(a) - 1) * abs(b) > BITS:
    raise TooLarge
  return a ** int(b)


def _root(a, n):
  if n.denominator != 1 or not 2 <= n <= 64:
    return None
  if a < 0:
    if n % 2 == 0:
      return None
    root = _root(-a, n)
    return None if root is None else -root
  tops = [_integer_root(part, int(n)) for part in (a.numerator, a.denominator)]
  return None if None in tops else fractions.Fraction(*tops)


def _integer_root(a: int, n: int) -> int | None:
  if n == 2:
    root = math.isqrt(a)
  else:
    low, high = 0, 1 << (a.bit_length() // n + 1)
    while low < high:
      middle = (low + high + 1) // 2
      if middle**n <= a:
        low = middle
      else:
        high = middle - 1
    root = low
  return root if root**n == a else None


def _fact(a):
  if a.denominator != 1 or a < 0:
    return None
  if a > _FACTORIAL:
    raise TooLarge
  return fractions.Fraction(math.factorial(int(a)))


def _binom(n, k):
  if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
    return None
  if k > n:
    return fractions.Fraction(0)
  if n > _FACTORIAL and min(k, n - k) > 50:
    raise TooLarge
  return _bounded(fractions.Fraction(math.comb(int(n), int(k))))


_OF = {
  "add": lambda a, b: _bounded(a + b),
  "mul": lambda a, b: _bounded(a * b),
  "neg": lambda a: -a,
  "div": _div,
  "pow": _pow,
  "root": _root,
  "fact": _fact,
  "binom": _binom,
  "abs": abs,
  "floor": lambda a: fractions.Fraction(math.floor(a)),
  "ceil": lambda a: fractions.Fraction(math.ceil(a)),
}


def size(value) -> tuple[float, float] | None:
  """Bounds of log2 |x|, for a number that is not 0; None where none are known.

  They are as wide as rounding may make them wrong, and infinite beyond floats.
  """
  try:
    found = of(value)
  except Undefined:
    return None
  except TooLarge:
    found = None
  if found is not None:
    if found == 0:
      return None
    log = math.log2(abs(found.numerator)) - math.log2(found.denominator)
    return _wide(log, log)
  kind, parts = value[0], value[1:]
  if kind in ("neg", "abs"):
    return size(parts[0])
  if kind == "fact":
    return _fact_size(parts[0])
  if kind not in ("mul", "div", "pow"):
    return None
  a = size(parts[0])
  if kind == "pow":
    return _pow_size(a, parts[1])
  b = size(parts[1])
  if a is None or b is None:
    return None
  if kind == "div":
    b = -b[1], -b[0]
  low, high = a[0] + b[0], a[1] + b[1]
  return None if math.isnan(low) or math.isnan(high) else _wide(low, high)


def _pow_size(a, exponent) -> tuple[float, float] | None:
  negative = exponent[0] == "neg"
  by = size(exponent[1] if negative else exponent)
  if a is None or by is None or a[0] <= 0 or not _is_positive(exponent):
    return None  # a base of 1 or less, or an exponent whose sign is unknown
  factor = [2.0**x if x < 1000 else math.inf for x in by]
  low, high = _wide(a[0] * factor[0], a[1] * factor[1])
  return (-high, -low) if negative else (low, high)


def _is_positive(value) -> bool:
  """Whether it is known by its form that the number, or its negative, is above 0."""
  if value[0] == "neg":
    value = value[1]
  if value[0] == "num":
    return value[1] > 0
  if value[0] in ("pow", "mul", "div", "fact"):
    parts = value[1:2] if value[0] == "pow" else value[1:]
    return all(p[0] != "neg" and _is_positive(p) for p in parts)
  return False


def _fact_size(n) -> tuple[float, float] | None:
  by = size(n)
  if by is None or by[0] < 4 or not _is_positive(n) or n[0] == "neg":
    return None
  ends = [2.0**x if x < 1000 else math.inf for x in by]
  return _wide(ends[0] * (by[0] - 1.5), ends[1] * by[1])


def _wide(low: float, high: float) -> tuple[float, float]:
  def out(x, sign):
    return x if math.isinf(x) else x + sign * (abs(x) * 1e-9 + 1e-9)

  return out(low, -1), out(high, 1)


def apart(a, b) -> bool:
  """Whether two numbers, at least one too large to be computed, certainly differ."""
  first, second = size(a), size(b)
  if first is None or second is None:
    zero = [_is_zero(x) for x in (a, b)]
    return any(zero) and not all(zero) and (first or second) is not None
  return first[0] > second[1] or second[0] > first[1]


def _is_zero(value) -> bool:
  try:
    return of(value) == 0
  except ArithmeticError:
    return False
