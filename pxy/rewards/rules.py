r"""When two values (value.py) are the same answer: the table of docs/graders.md.

`same` walks over what answers are made of: names, units, choices, tuples, sets,
intervals, matrices, relations. Where it comes to two expressions it asks a judge.
`numbers` is the judge that needs no algebra: exact numbers are the same only if they
are identical, and a decimal besides is the number that it is the rounding of. Verdicts
are True, False, and None for "that takes algebra".
"""

import fractions
from collections.abc import Callable

from pxy.rewards import exact, units

ENOUGH = 6
"""Digits that a decimal must have to stand for a number that it is the rounding of."""
FLOAT = 15
"""Digits from which on a decimal is taken for a floating value, whose last is noise."""
_MOST = 200
"""Elements of a set or list that are matched."""
_SETS = frozenset(
  ("interval", "tuple", "union", "cap", "minus", "builder", "rel", "set")
)
Judge = Callable[[tuple, tuple, str], bool | None]
"""(a, b, how) -> verdict: whether they are "equal", "proportional", or that with a
"positive" factor."""


def numbers(a: tuple, b: tuple, how: str = "equal") -> bool | None:
  """The judge without algebra: of exact numbers alone."""
  if how != "equal":
    return None
  try:
    first, second = exact.of(a), exact.of(b)
  except exact.TooLarge:
    return False if exact.apart(a, b) else None
  except exact.Undefined:
    return None
  if first is None or second is None:
    infinite = [_infinite(x) for x in (a, b)]
    if any(infinite) and (all(infinite) or first is not None or second is not None):
      return infinite[0] == infinite[1]
    return None
  if first == second:
    return True
  return rounds(a, first, b, second)


def rounds(a, first, b, second) -> bool:
  """Whether one is a decimal of enough digits, and the other a number it rounds.

  first, second: the values of a and b, as Fractions or anything else that is exact
    enough.
  """
  one, other = decimal(a), decimal(b)
  if one is None and other is None:
    return False
  if one is not None and other is not None:
    if max(one[0], other[0]) < FLOAT:
      return False  # both are exact
    digits, half = min(one, other)
  else:
    digits, half = one or other
  if digits >= FLOAT:
    half = max(half, abs(second) / 10 ** (FLOAT - 1))
  return digits >= ENOUGH and abs(first - second) <= half


def decimal(a) -> tuple | None:
  """(digits that count, half a unit of the last) of a decimal; None of all else."""
  if a[0] == "neg":
    return decimal(a[1])
  if a[0] == "num":
    return (a[2], fractions.Fraction(10) ** -a[3] / 2) if a[2] else None
  if a[0] == "mul" and a[1][0] == "num" and a[2][0] == "pow" and a[1][2]:
    base, power = a[2][1:]
    sign = -1 if power[0] == "neg" else 1
    power = power[1] if power[0] == "neg" else power
    if base[0] == "num" and base[1] == 10 and power[0] == "num":
      if power[1].denominator == 1 and power[1] <= 400:
        return a[1][2], fractions.Fraction(10) ** (int(sign * power[1]) - a[1][3]) / 2
  return None


def _infinite(a) -> int:
  """1 and -1 for the infinities, else 0."""
  if a[0] == "neg":
    return -_infinite(a[1])
  return int(a == ("const", "inf"))


def same(a: tuple, b: tuple, judge: Judge = numbers) -> bool | None:
  """Whether two values are the same answer; None where that takes algebra."""
  if a == b:
    return True
  for kind, rule in _RULES:
    if kind in (a[0], b[0]):
      return rule(a, b, judge)
  return judge(a, b, "equal")


def _both(*verdicts) -> bool | None:
  if False in verdicts:
    return False
  return None if None in verdicts else True


def _either(*verdicts) -> bool | None:
  if True in verdicts:
    return True
  return None if None in verdicts else False


def _flip(rule):
  """Makes the value of the rule's kind the first."""

  def flipped(kind):
    def of(a, b, judge):
      return rule(a, b, judge) if a[0] == kind else rule(b, a, judge)

    return of

  return flipped


def _named(a, b, judge):
  """x = 5 is 5, and no y = 5; an equation stays one."""
  if b[0] == "named":
    if a[1] != b[1] and len(a[1]) == len(b[1]) == 1:
      return False
    return same(a[2], b[2], judge)
  if b[0] == "rel":
    if len(a[1]) != 1:
      return False
    letter = ("const" if a[1] in "ei" else "sym", a[1])
    return same(("rel", ("=",), (letter, a[2])), b, judge)
  return same(a[2], b, judge)


def _choice(a, b, judge):
  """(B) 12 is B, and 12 is it too; a label and its content must not disagree."""
  if b[0] == "choice":
    if a[1].upper() != b[1].upper():
      return False
    if a[2] is None or b[2] is None:
      return True
    return same(a[2], b[2], judge)
  letter = b[1] if b[0] in ("sym", "const", "word") else ""
  if len(letter) == 1:
    return a[1].upper() == letter.upper()
  return False if a[2] is None else same(a[2], b, judge)


def _unit(a, b, judge):
  """A unit may be missing, not exchanged. 50% is 50, and 0.5."""
  value, unit = a[1:]
  if b[0] == "unit":
    if units.GENERIC not in (unit, b[2]) and unit != b[2]:
      return False
    return same(value, b[1], judge)
  verdict = same(value, b, judge)
  if unit == "%" and b[0] not in ("list", "tuple", "set", "word"):
    hundredth = ("div", value, ("num", fractions.Fraction(100), 0, 0))
    verdict = _either(verdict, judge(hundredth, b, "equal"))
  return verdict


def _word(a, b, judge):
  return a[0] == b[0] == "word" and a[1] == b[1]


def _base(a, b, judge):
  if b[0] == "base":
    return a[1:] == b[1:]
  return b[0] == "num" and b[2] == 0 and b[1] == int(a[1])


def _mod(a, b, judge):
  if b[0] == "mod":
    return _both(same(a[1], b[1], judge), same(a[2], b[2], judge))
  if b[0] == "rel" and b[1] == ("equiv",) and b[2][0][0] == "sym":
    return same(a, b[2][1], judge)
  return False


def _matrix(a, b, judge):
  if a[0] != b[0] or [len(r) for r in a[1]] != [len(r) for r in b[1]]:
    return False
  return _ordered(sum(a[1], ()), sum(b[1], ()), judge)


def _ordered(items, others, judge):
  if len(items) != len(others):
    return False
  verdicts = []
  for x, y in zip(items, others, strict=True):
    verdicts.append(same(x, y, judge))
    if verdicts[-1] is False:
      return False
  return _both(*verdicts)


def _unordered(items, others, judge):
  """Each has its own match in the other, in whatever order."""
  if len(items) != len(others):
    return False
  if len(items) > _MOST:
    return _ordered(items, others, judge)
  left, unknown = list(others), False
  for x in items:
    verdicts = []
    for i, y in enumerate(left):
      verdicts.append(same(x, y, judge))
      if verdicts[-1]:
        del left[i]
        break
    else:
      if None not in verdicts:
        return False
      unknown = True
  return None if unknown else True


def _distinct(items, judge):
  out = []
  for x in items[:_MOST]:
    if not any(same(x, y, judge) for y in out):
      out.append(x)
  return tuple(out) + items[_MOST:]


def _set(a, b, judge):
  r"""{2, 1} is {1, 2} and 2, 1 without braces; of one element, also that itself."""
  if b[0] in ("set", "list"):
    return _unordered(_distinct(a[1], judge), _distinct(b[1], judge), judge)
  if b[0] in _SETS:
    return None if b[0] in ("minus", "cap", "builder") else False
  return len(a[1]) == 1 and same(a[1][0], b, judge)


def _list(a, b, judge):
  """2, 1 is 1, 2; and as coordinates, in order, (2, 1)."""
  if b[0] == "list":
    return _unordered(a[1], b[1], judge)
  if b[0] in ("tuple", "angle"):
    return _ordered(a[1], b[1], judge)
  if b[0] in ("union", "interval", "builder") and (region := _region(a)):
    return same(region, b, judge)
  one = _distinct(a[1], judge)
  return len(one) == 1 and same(one[0], b, judge)


def _tuple(a, b, judge):
  if b[0] in ("tuple", "angle"):
    return _ordered(a[1], b[1], judge)
  if b[0] == "rel" and len(a[1]) == 2:
    region = _region(b)
    ends = ("interval", "()", *a[1])
    return same(ends, region, judge) if region else False
  return None if b[0] in ("cap", "minus", "builder") else False


def _interval(a, b, judge):
  if b[0] == "interval":
    if a[1] != b[1]:
      return False
    return _ordered(a[2:], b[2:], judge)
  if b[0] == "rel":
    region = _region(b)
    return same(a, region, judge) if region else False
  return None if b[0] in ("cap", "minus", "union") else False


def _union(a, b, judge):
  if b[0] == "union":
    return _unordered(_open(a[1]), _open(b[1]), judge)
  if b[0] == "rel" and (region := _region(b)):
    return same(a, region, judge)
  return None if b[0] in ("cap", "minus", "sym", "interval") else False


def _open(items):
  return tuple(
    ("interval", "()", *x[1]) if x[0] == "tuple" and len(x[1]) == 2 else x
    for x in items
  )


def _builder(a, b, judge):
  """{x : x > 2} is the interval that the condition says, whatever the variable."""
  region = _region(a[2]) if a[1][0] == "sym" else None
  if b[0] == "builder":
    if a[1] == b[1] and (verdict := same(a[2], b[2], judge)) is not False:
      return verdict
    b = _region(b[2]) if b[1][0] == "sym" else None
  if region is None or b is None:
    return None
  if b[0] == "tuple" and len(b[1]) == 2:
    b = ("interval", "()", *b[1])
  return same(region, b, judge)


_INF = ("const", "inf")
_TURNED = {">": "<", "geq": "leq"}


def _rising(operators, sides):
  if all(o in _TURNED for o in operators):
    return tuple(_TURNED[o] for o in operators[::-1]), sides[::-1]
  return operators, sides


def _region(rel) -> tuple | None:
  """The interval, or the union of some, that a relation of a variable says."""
  if rel[0] == "list":
    parts = [_region(part) for part in rel[1]]
    return None if None in parts else ("union", tuple(parts))
  if rel[0] == "named":
    return rel[2] if rel[2][0] in ("interval", "union") else None
  if rel[0] != "rel":
    return None
  operators, sides = _rising(rel[1], rel[2])
  variables = [i for i, side in enumerate(sides) if side[0] == "sym"]
  if len(variables) != 1:
    return None
  at = variables[0]
  if operators == ("neq",):
    c = sides[1 - at]
    low, high = ("interval", "()", ("neg", _INF), c), ("interval", "()", c, _INF)
    return ("union", (low, high))
  if any(o not in ("<", "leq") for o in operators):
    return None
  if len(sides) == 3 and at == 1:
    ends = ("(" if operators[0] == "<" else "[") + (")" if operators[1] == "<" else "]")
    return ("interval", ends, sides[0], sides[2])
  if len(sides) != 2:
    return None
  if at == 0:
    end = ")" if operators[0] == "<" else "]"
    return ("interval", "(" + end, ("neg", _INF), sides[1])
  return ("interval", ("(" if operators[0] == "<" else "[") + ")", sides[0], _INF)


def _rel(a, b, judge):
  """An equation or inequality, turned round or multiplied; never a single value."""
  if b[0] != "rel":
    return False
  (ops, sides), (others, ends) = _rising(*a[1:]), _rising(*b[1:])
  if ops != others or len(sides) != len(ends):
    return False
  verdict = _ordered(sides, ends, judge)
  if verdict or len(sides) != 2:
    return verdict
  if ops[0] in ("=", "neq", "equiv", "parallel", "perp", "approx", "sim"):
    verdict = _either(verdict, _ordered(sides[::-1], ends, judge))
  if verdict or ops[0] not in ("=", "neq", "<", "leq"):
    return verdict
  kinds = {side[0] for side in (*sides, *ends)}
  if kinds & (_SETS | {"mod", "word", "unit", "matrix", "list"}):
    return verdict
  differences = [("add", x, ("neg", y)) for x, y in (sides, ends)]
  how = "proportional" if ops[0] in ("=", "neq") else "positive"
  return _either(verdict, judge(*differences, how))


def _never(a, b, judge):
  return _ordered(a[1], b[1], judge) if a[0] == b[0] else False


def _unknown(a, b, judge):
  return None


_RULES = tuple(
  (kind, _flip(rule)(kind))
  for kind, rule in (
    ("named", _named),
    ("choice", _choice),
    ("unit", _unit),
    ("word", _word),
    ("base", _base),
    ("mod", _mod),
    ("builder", _builder),
    ("set", _set),
    ("list", _list),
    ("tuple", _tuple),
    ("interval", _interval),
    ("union", _union),
    ("matrix", _matrix),
    ("angle", _never),
    ("brackets", _never),
    ("cap", _unknown),
    ("minus", _unknown),
    ("det", _unknown),
    ("rel", _rel),
  )
)
