"""Expressions compared by their numbers, to hundreds of digits: the judge with algebra.

Two constants are the same if their difference vanishes as the digits grow (60, 240,
480): nothing is compared with an absolute tolerance, and 10^-300 is not 0. Expressions
in variables are the same if that holds at several points, positive and negative ones,
chosen once and for all; so sqrt(x^2) is not x. They may not differ either at points
that are far out, or on the two sides of a number that stands in them, where all of both
is real: so |x - 5| is not 5 - x. mpmath computes, in a fork of a worker
(algebra.py): what has no bound there has a deadline.
"""

import fractions
import math

import mpmath

from pxy.rewards import exact, rules

DIGITS = (60, 240, 480, 960)
_PRIMES = (101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173)
_POINTS = ((1, 1), (3, 1), (1, 2), (-1, 1), (-2, -1), (1, -1))
_OUT = (0.3, 1.6, 2.6, 3.4, 4.6, 5.5, 7.7, 9.2, 13.0, 29.0, 137.0, 1009.0)
"""Sizes of further points, of both signs."""
_BESIDE = fractions.Fraction(1, 7)
_NUMBERS = 12
"""Numbers of both answers on whose sides there are points."""
_EXPONENT = 1 << 26
"""log2 of the largest power that is computed."""
_FUNCTIONS = {
  "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot,
  "sec": mpmath.sec, "csc": mpmath.csc, "sinh": mpmath.sinh, "cosh": mpmath.cosh,
  "tanh": mpmath.tanh, "coth": mpmath.coth, "arcsin": mpmath.asin,
  "arccos": mpmath.acos, "arctan": mpmath.atan, "arccot": mpmath.acot,
  "arcsec": mpmath.asec, "arccsc": mpmath.acsc, "ln": mpmath.log,
}  # fmt: skip


class Unknown(ValueError):
  """A tree that is no expression, such as a sum of tuples."""


def judge(a: tuple, b: tuple, how: str = "equal") -> bool | None:
  """`rules.numbers`, and for all else whether the numbers are the same.

  Raises exact.TooLarge, Unknown.
  """
  if (verdict := rules.numbers(a, b, how)) is not None:
    return verdict
  names = sorted(symbols(a) | symbols(b))
  points = [_point(names, p) for p in _POINTS] if names else [{}]
  if how != "equal":
    return _proportional(a, b, points, names, how == "positive")
  try:
    verdicts = [_same_at(a, b, point) for point in points]
  except exact.TooLarge:
    if _varies(a, symbols(b), points) or _varies(b, symbols(a), points):
      return False
    raise
  known = [v for v in verdicts if v is not None]
  if known and all(known):
    return not _differ_beyond(a, b, names)
  if not names and known == [False]:
    return _rounded(a, b)
  return False


def undefined(value) -> bool:
  """Whether an expression in the answer is no number: 1/0."""
  if not isinstance(value, tuple) or not value:
    return False
  if value[0] == "div":
    try:
      if exact.of(value[2]) == 0:
        return True
    except exact.Undefined:
      return True
    except exact.TooLarge:
      pass
  return any(undefined(part) for part in value[1:] if isinstance(part, tuple)) or (
    isinstance(value[0], tuple) and undefined(value[0])
  )


def symbols(value) -> set[str]:
  """The names of a tree's variables."""
  if not isinstance(value, tuple) or not value:
    return set()
  if value[0] == "sym":
    return {value[1]}
  return set().union(*(symbols(part) for part in value if isinstance(part, tuple)))


def _point(names, signs) -> dict[str, fractions.Fraction]:
  """A value of each variable between -2 and 2, the same for a name in both answers."""
  found = {}
  for i, name in enumerate(names):
    n = len(_PRIMES)
    top, bottom = _PRIMES[(3 * i + signs[0]) % n], _PRIMES[(5 * i + 7) % n]
    shift = fractions.Fraction(i // n, 17)
    found[name] = (fractions.Fraction(top, bottom) + shift) * signs[i % 2]
  return found


def _found(value) -> list[fractions.Fraction]:
  """The numbers that stand in a tree."""
  if not isinstance(value, tuple) or not value:
    return []
  if value[0] == "num":
    return [fractions.Fraction(value[1])]
  return [number for part in value for number in _found(part)]


def _further(names, numbers) -> list[dict[str, fractions.Fraction]]:
  """Points far out, every variable at another one, and beside the numbers: all
  variables beside the same."""
  sizes = [fractions.Fraction(size).limit_denominator(10) for size in _OUT]
  spots = [size * sign for size in sizes for sign in (1, -1)]
  near = list(dict.fromkeys(x * sign for x in numbers for sign in (1, -1)))[:_NUMBERS]
  out = [
    {name: spots[(k + 7 * i) % len(spots)] for i, name in enumerate(names)}
    for k in range(len(spots))
  ]
  out += [dict.fromkeys(names, x + side) for x in near for side in (_BESIDE, -_BESIDE)]
  for point in out:  # no kink and no pole is where these are
    for i, name in enumerate(names):
      point[name] += fractions.Fraction(
        1, _PRIMES[(5 * i + 7) % len(_PRIMES)] * (i + 1)
      )
  return out


def _differ_beyond(a, b, names, ratio=1) -> bool:
  """Whether a is not b times the ratio at a further point where all of both is real."""
  if not names:
    return False
  with mpmath.workdps(DIGITS[0]):
    for point in _further(names, [*_found(a), *_found(b)]):
      try:
        x, y = _at(a, point), _at(b, point)
        if x is None or y is None or not _differ(x, y * ratio):
          continue
        if _real(a, point) and _real(b, point):
          return True
      except exact.TooLarge:
        continue
  return False


def _real(value, point) -> bool:
  """Whether no part of an expression is complex there."""
  if not isinstance(value, tuple) or value[0] in ("num", "sym"):
    return True
  x = _at(value, point)
  return x is not None and mpmath.im(x) == 0 and all(_real(v, point) for v in value[1:])


def _differ(x, y) -> bool:
  """Far more than rounding may take from 60 digits."""
  return abs(x - y) > max(abs(x), abs(y)) / 10**20 and min(abs(x), abs(y)) > 1e-20


def _same_at(a, b, point) -> bool | None:
  """Whether they agree at a point; None where neither is a number there."""
  with mpmath.workdps(DIGITS[0]):
    x, y = _at_least(a, point), _at_least(b, point)
    if x is None or y is None:
      return None if x is y else False
    if x is HUGE or y is HUGE:
      if x is y or mpmath.mag(y if x is HUGE else x) > _HUGE / 2:
        raise exact.TooLarge
      return False
    if _differ(x, y):
      return False
  middle, last = (_minus(a, b, point, digits) for digits in DIGITS[1:3])
  if middle == 0 and last != 0:
    middle, last = last, _minus(a, b, point, DIGITS[3])
  return last == 0 or abs(last) <= abs(middle) / 10**100


HUGE = object()
"""A number that is not computed, and certainly is far beyond all that are."""
_HUGE = 1 << 25


def _at_least(value, point):
  try:
    return _at(value, point)
  except exact.TooLarge:
    if _is_huge(value, point):
      return HUGE
    raise


def _is_huge(value, point) -> bool:
  """Whether log2 |x| is above _HUGE, give or take a thousandth, by its form."""
  size = exact.size(value)
  if size is not None:
    return size[0] > _HUGE
  kind, parts = value[0], value[1:]
  if kind in ("neg", "abs"):
    return _is_huge(parts[0], point)
  if kind not in ("add", "mul", "div"):
    return False
  for part, other in (parts, parts[::-1]):
    if _is_huge(part, point):
      if kind == "div" and part is parts[1]:
        return False
      try:
        x = _at(other, point)
      except exact.TooLarge:
        return False
      most = _HUGE / 2 if kind == "add" else 40
      return (
        x is not None
        and (kind == "add" or x != 0)
        and (mpmath.mag(x) < most and (kind == "add" or mpmath.mag(x) > -40))
      )
  return False


def _minus(a, b, point, digits):
  with mpmath.workdps(digits):
    x, y = _at(a, point), _at(b, point)
    if x is None or y is None:
      raise Unknown("a number at some precisions only")
    return x - y


def _rounded(a, b) -> bool:
  """Whether a decimal is the rounding of a constant."""
  with mpmath.workdps(DIGITS[0]):
    x, y = _at(a, {}), _at(b, {})
    if x is None or y is None or mpmath.im(x) or mpmath.im(y):
      return False
    return rules.rounds(a, _fraction(x), b, _fraction(y))


def _fraction(x) -> fractions.Fraction:
  x = mpmath.re(x)
  if not mpmath.isfinite(x) or abs(mpmath.mag(x)) > 4000:
    return fractions.Fraction(0)
  return fractions.Fraction(*mpmath.libmp.to_rational(x._mpf_))


def _proportional(a, b, points, names, positive: bool) -> bool:
  """Whether a is b times a constant, and that above 0 where it has to be."""
  with mpmath.workdps(DIGITS[0]):
    ratios = []
    for point in points:
      x, y = _at(a, point), _at(b, point)
      if x is None or y is None or x == 0 or y == 0:
        return False
      ratios.append(x / y)
    if len(ratios) < 2:
      return False
    close = mpmath.mpf(10) ** -45 * abs(ratios[0])
    if any(abs(r - ratios[0]) > close for r in ratios):
      return False
    if _differ_beyond(a, b, names, ratios[0]):
      return False
    if positive:
      return abs(mpmath.im(ratios[0])) <= close and mpmath.re(ratios[0]) > 0
    return True


def _varies(value, others, points) -> bool:
  """Whether an expression takes several values, and the other has no variable."""
  if others or not symbols(value):
    return False
  try:
    with mpmath.workdps(DIGITS[0]):
      found = [_at(value, point) for point in points[:2]]
  except ArithmeticError:
    return False
  return None not in found and abs(found[0] - found[1]) > mpmath.mpf(10) ** -30


def _at(value, point):
  """The number of a tree at a point, in the present precision; None for no number."""
  try:
    x = _number(value, point)
  except (ZeroDivisionError, exact.Undefined, TypeError):
    return None  # the larger of two complex numbers is none either
  except ValueError as error:
    if isinstance(error, Unknown):
      raise
    return None
  return x if mpmath.isfinite(x) else None


def _number(value, point):
  kind, parts = value[0], value[1:]
  if kind == "num":
    return mpmath.mpf(value[1].numerator) / value[1].denominator
  if kind == "sym":
    x = point[value[1]]
    return mpmath.mpf(x.numerator) / x.denominator
  if kind == "const":
    return {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.j, "inf": mpmath.inf}[
      value[1]
    ] * 1
  if kind == "fn":
    return _function(parts[0], parts[1:], point)
  if kind not in _OPERATIONS:
    raise Unknown(kind)
  if kind == "pow" and (root := _odd(parts[1])):
    return _real_root(_number(parts[0], point), root)
  return _OPERATIONS[kind](*(_number(part, point) for part in parts))


def _function(name, parts, point):
  if name in ("gcd", "lcm"):
    found = [exact.of(part) for part in parts]
    if any(x is None or x.denominator != 1 for x in found):
      raise Unknown(name)
    function = math.gcd if name == "gcd" else math.lcm
    return mpmath.mpf(function(*(int(x) for x in found)))
  numbers = [_number(part, point) for part in parts]
  if name in ("max", "min"):
    return {"max": max, "min": min}[name](numbers)
  if name == "log":
    return mpmath.log(numbers[0]) / mpmath.log(numbers[1])
  if mpmath.mag(numbers[0]) > 3000:
    raise exact.TooLarge
  return _FUNCTIONS[name](numbers[0])


def _pow(a, b):
  if mpmath.im(a) == 0 and mpmath.im(b) == 0 and a == 0:
    if mpmath.re(b) <= 0:
      raise exact.Undefined
    return a * 0
  if abs(b) * (abs(mpmath.mag(a)) + 2) > _EXPONENT:
    raise exact.TooLarge
  return mpmath.power(a, b)


def _odd(exponent) -> fractions.Fraction | None:
  """An exponent such as 2/3, whose power of a negative number is real."""
  try:
    found = exact.of(exponent)
  except ArithmeticError:
    return None
  if found is None or found.denominator == 1 or found.denominator % 2 == 0:
    return None
  return found


def _real_root(a, power: fractions.Fraction):
  """a^(p/q) with odd q: of a real number the real one, as in the cube root of -8."""
  b = mpmath.mpf(power.numerator) / power.denominator
  if mpmath.im(a) or mpmath.re(a) >= 0:
    return _pow(a, b)
  return (-1) ** (power.numerator % 2) * _pow(-a, b)


def _root(a, n):
  if n == int(mpmath.re(n)) and int(mpmath.re(n)) % 2 and abs(n) < 1000:
    return _real_root(a, fractions.Fraction(1, int(mpmath.re(n))))
  if n == 2:
    return mpmath.sqrt(a)
  return _pow(a, 1 / n)


def _fact(a):
  if abs(a) > 1e6:
    raise exact.TooLarge
  return mpmath.factorial(a)


def _binom(n, k):
  if max(abs(n), abs(k)) > 1e6:
    raise exact.TooLarge
  return mpmath.binomial(n, k)


_OPERATIONS = {
  "add": lambda a, b: a + b,
  "mul": lambda a, b: a * b,
  "neg": lambda a: -a,
  "div": lambda a, b: a / b,
  "pow": _pow,
  "root": _root,
  "fact": _fact,
  "binom": _binom,
  "abs": abs,
  "floor": mpmath.floor,
  "ceil": mpmath.ceil,
  "deg": lambda a: a * mpmath.pi / 180,
}
