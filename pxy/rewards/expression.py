"""Expressions out of tokens: numbers, signs, powers, roots, functions, brackets.

A recursive descent, at most DEEP levels; nothing is evaluated. The trees are described
in value.py, which reads what answers are made of besides.
"""

import fractions

from pxy.rewards import tex

DEEP = 40
LETTERS = frozenset(
  "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho"
  " sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon"
  " Phi Psi Omega ell hbar mathbbR mathbbZ mathbbN mathbbQ mathbbC".split()
)
ACCENTS = frozenset(
  "overline bar vec hat tilde overrightarrow widehat overleftrightarrow dot angle"
  " triangle mathcal".split()
)
RELATIONS = {"=", "<", ">", "leq", "geq", "neq", "equiv", "approx", "sim", "in",
  "notin", "subset", "subseteq", "propto", "parallel", "perp"}  # fmt: skip
_WORDS = {"pi": ("const", "pi"), "inf": ("const", "inf"), "infinity": ("const", "inf"),
  "infty": ("const", "inf"), "oo": ("const", "inf"), "theta": ("sym", "theta"),
  "alpha": ("sym", "alpha"), "beta": ("sym", "beta")}  # fmt: skip
_CLOSE = {"(": ")", "[": "]", "\\{": "\\}", "<<": ">>"}
FORMAL = frozenset("sqrt pi inf infinity infty oo and or theta alpha beta".split())


NONE = ("set", ())
REALS = ("tuple", (("neg", ("const", "inf")), ("const", "inf")))


def number(text: str) -> tuple:
  """("num", ...) of digits: `0.1(6)` repeats, `1e-3` has an exponent."""
  digits, _, exponent = text.lower().partition("e")
  if len(exponent) > 6:
    raise tex.Unreadable("an exponent is too long")
  shift = int(exponent or 0)
  if abs(shift) > tex.DIGITS:
    raise tex.Unreadable("an exponent is too large")
  if digits.endswith(")"):
    front, _, repeat = digits[:-1].partition("(")
    whole, _, places = front.partition(".")
    once = int(whole + places or "0")
    all_ = int(whole + places + repeat)
    return _num(
      fractions.Fraction(all_ - once, 10 ** len(places) * (10 ** len(repeat) - 1))
    )
  whole, point, places = digits.partition(".")
  value = fractions.Fraction(int(whole + places or "0"), 10 ** len(places))
  value *= fractions.Fraction(10) ** shift
  if not point and not exponent:
    return _num(value)
  return ("num", value, len((whole + places).lstrip("0")), len(places) - shift)


def _num(value) -> tuple:
  return ("num", fractions.Fraction(value), 0, 0)


def closing(tokens, start: int) -> int:
  """Where the bracket at `start` closes, whatever its kind; -1 if it does not."""
  depth = 0
  for i in range(start, len(tokens)):
    if tokens[i].kind == "begin":
      depth += 1
    elif tokens[i].kind == "end":
      depth -= 1
    elif tokens[i].kind == "op":
      depth += tokens[i].text in ("(", "[", "{", "\\{", "<<")
      depth -= tokens[i].text in (")", "]", "}", "\\}", ">>")
    if depth == 0:
      return i
  return -1


class Parser:
  """One expression. Every method leaves `at` behind what it has read.

  Args:
    tokens: of the expression.
    braces, matrix: what reads the tokens inside set braces, and of an environment.
  """

  def __init__(self, tokens: list[tex.Token], braces, matrix):
    self.tokens = tokens
    self.braces = braces
    self.matrix = matrix
    self.at = 0
    self.depth = 0
    self.bars = 0

  def peek(self, ahead: int = 0) -> tex.Token:
    i = self.at + ahead
    return self.tokens[i] if i < len(self.tokens) else tex.Token("end of text", "")

  def sees(self, *texts: str) -> bool:
    token = self.peek()
    return token.kind in ("op", "cmd") and token.text in texts

  def take(self, text: str) -> None:
    if not self.sees(text):
      raise tex.Unreadable(f"no {text}")
    self.at += 1

  def whole(self):
    value = self.sets()
    if self.at < len(self.tokens):
      raise tex.Unreadable(f"{self.peek().text!r} in the way")
    return value

  def sets(self):
    r"""a \cup b \cap c \setminus d"""
    value = self.sum()
    while self.sees("cup", "cap", "setminus"):
      name = self.peek().text
      self.at += 1
      other = self.sum()
      if name == "setminus":
        value = ("minus", value, other)
      else:
        kind = "union" if name == "cup" else "cap"
        items = value[1] if value[0] == kind else (value,)
        value = (kind, (*items, other))
    if self.sees("mod"):
      self.at += 1
      value = ("mod", value, self.sum())
    return value

  def sum(self):
    self.depth += 1
    if self.depth > DEEP:
      raise tex.Unreadable("nested too deep")
    value = self.product()
    while self.sees("+", "-"):
      sign = self.peek().text
      self.at += 1
      other = self.product()
      value = ("add", value, other if sign == "+" else ("neg", other))
    self.depth -= 1
    return value

  def product(self, tight: bool = False):
    """Factors; `tight`: as the argument of a function takes them, without * and /."""
    value = self.signed()
    while True:
      if not tight and self.sees("*", "/"):
        sign = self.peek().text
        self.at += 1
        other = self.signed()
        value = ("mul", value, other) if sign == "*" else ("div", value, other)
      elif self.begins(tight):
        value = ("mul", value, self.power())
      else:
        return value

  def begins(self, tight: bool) -> bool:
    """Whether a factor follows without a sign."""
    token = self.peek()
    if token.kind == "num":
      raise tex.Unreadable("a number behind a factor")
    if token.kind == "word" or token.kind == "text":
      return not (tight and token.text in tex.FUNCTIONS)
    if token.kind == "begin":
      return True
    if token.text == "|" and token.kind == "op":
      return not self.bars
    if token.kind == "cmd":
      if tight and token.text in tex.FUNCTIONS:
        return False
      return token.text not in ("cup", "cap", "setminus", *RELATIONS)
    return token.kind == "op" and token.text in ("(", "[", "{", "\\{", "<<")

  def signed(self):
    negative = False
    while self.sees("+", "-"):
      negative ^= self.peek().text == "-"
      self.at += 1
    value = self.power()
    return ("neg", value) if negative else value

  def power(self):
    value = self.postfix(self.atom())
    while self.sees("^"):
      self.at += 1
      if self.sees("circ", "circdeg") or (
        self.sees("{") and self.peek(1).text == "circ" and self.peek(2).text == "}"
      ):
        self.at += 3 if self.sees("{") else 1
        value = ("deg", value)
      else:
        value = ("pow", value, self.exponent())
      value = self.postfix(value)
    return value

  def exponent(self):
    negative = False
    while self.sees("+", "-"):
      negative ^= self.peek().text == "-"
      self.at += 1
    if self.sees("{", "("):
      value = self.atom()
    else:
      value = self.atom(single=True)
    if self.sees("^") and not negative:
      self.depth += 1
      if self.depth > DEEP:
        raise tex.Unreadable("nested too deep")
      self.at += 1
      value = ("pow", value, self.exponent())
      self.depth -= 1
    return ("neg", value) if negative else value

  def postfix(self, value):
    while True:
      if self.sees("!"):
        if self.peek(1).text == "!":
          raise tex.Unreadable("!!")
        self.at += 1
        value = ("fact", value)
      elif self.sees("circdeg"):
        self.at += 1
        value = ("deg", value)
      elif self.sees("%"):
        self.at += 1
        value = ("div", value, _num(100))
      else:
        return value

  def atom(self, single: bool = False):
    token = self.peek()
    self.at += 1
    if token.kind == "num":
      return self.numeral(number(token.text), single)
    if token.kind == "word":
      return self.word(token, single)
    if token.kind == "text":
      if len(token.text) == 1:
        return self.subscript(_letter_value(token.text))
      raise tex.Unreadable("words")
    if token.kind == "cmd":
      return self.command(token.text)
    if token.kind == "begin":
      self.at -= 1
      end = closing(self.tokens, self.at)
      if end < 0:
        raise tex.Unreadable("an open environment")
      matrix = self.matrix(self.tokens[self.at : end + 1])
      self.at = end + 1
      return matrix
    if token.text == "|":
      self.bars += 1
      inside = self.sum()
      self.bars -= 1
      self.take("|")
      return ("abs", inside)
    if token.text in ("(", "[", "{", "\\{", "<<"):
      return self.group(token.text)
    raise tex.Unreadable(f"{token.text!r} where a value should be")

  def numeral(self, value, single: bool):
    """A number, with what may belong to it: a fraction behind it, or a base."""
    if self.sees("_") and not single:
      self.at += 1
      base = self.argument()
      if base[0] != "num" or value[1].denominator != 1:
        raise tex.Unreadable("a base")
      return ("base", str(value[1]), int(base[1]))
    whole = value[2] == 0 and value[1].denominator == 1
    if not whole or single:
      return value
    if self.peek().kind == "cmd" and self.peek().text == "frac":
      start = self.at
      self.at += 1
      part = ("div", self.argument(), self.argument())
      if all(p[0] == "num" and p[2] == 0 and p[1].denominator == 1 for p in part[1:]):
        if self.sees("^", "!"):
          raise tex.Unreadable("a power of a mixed number")
        return ("add", value, part)
      self.at = start
      return value
    top, slash, bottom = self.peek(), self.peek(1), self.peek(2)
    if (
      top.kind == "num" and top.spaced and top.text.isdigit()
      and slash.text == "/" and bottom.kind == "num" and bottom.text.isdigit()
    ):  # fmt: skip
      self.at += 3
      return ("add", value, ("div", number(top.text), number(bottom.text)))
    return value

  def word(self, token, single: bool):
    """A name, a function, or letters one by one."""
    text = token.text
    if text in _WORDS:
      return _WORDS[text]
    if text in tex.FUNCTIONS:
      return self.function(text)
    if text == "sqrt":
      return ("root", self.argument(), _num(2))
    for name in ("sqrt", "pi"):  # 2sqrt(3) is 2 and a word; xpi is not split
      if text.endswith(name) and len(text) == len(name) + 1:
        rest = self.word(tex.Token("word", name), single)
        return ("mul", _letter_value(text[0]), rest)
    if len(text) > 4:
      raise tex.Unreadable("words")
    if single and len(text) > 1:  # e^xy is e^x y
      self.at -= 1
      self.tokens = list(self.tokens)
      self.tokens[self.at] = token._replace(text=text[1:])
      return _letter_value(text[0])
    value = _letter_value(text[0])
    for i, letter in enumerate(text[1:], 1):
      other = _letter_value(letter)
      if i == len(text) - 1:
        other = self.subscript(other)
        if self.sees("^") or self.sees("!"):
          other = self.tail(other)
      value = ("mul", value, other)
    return value if len(text) > 1 else self.subscript(value)

  def tail(self, value):
    """ab^2 is a times b^2."""
    value = self.postfix(value)
    while self.sees("^"):
      self.at += 1
      if self.sees("circ", "circdeg"):
        raise tex.Unreadable("degrees")
      value = self.postfix(("pow", value, self.exponent()))
    return value

  def subscript(self, value):
    if not self.sees("_"):
      return value
    self.at += 1
    start = self.at
    if self.sees("{"):
      end = closing(self.tokens, self.at)
      if end < 0:
        raise tex.Unreadable("an open brace")
      self.at = end + 1
    else:
      self.at += 1
    index = "".join(t.text for t in self.tokens[start : self.at])
    if not index or value[0] not in ("sym", "const"):
      raise tex.Unreadable("a subscript")
    return ("sym", f"{value[1]}_{index.strip('{}')}")

  def argument(self):
    r"""What a command takes: a group, or in \frac12 a single digit or sign."""
    if self.sees("{", "("):
      return self.atom()
    token = self.peek()
    if token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
      self.tokens = list(self.tokens)
      self.tokens[self.at] = token._replace(text=token.text[1:], spaced=False)
      return number(token.text[0])
    if token.kind == "word" and len(token.text) > 1 and token.text not in _WORDS:
      self.tokens = list(self.tokens)
      self.tokens[self.at] = token._replace(text=token.text[1:], spaced=False)
      return _letter_value(token.text[0])
    if token.kind == "cmd" and token.text in ("frac", "sqrt"):
      self.depth += 1
      if self.depth > DEEP:
        raise tex.Unreadable("nested too deep")
      value = self.atom(single=True)
      self.depth -= 1
      return value
    return self.atom(single=True)

  def command(self, name: str):
    if name == "frac":
      return ("div", self.argument(), self.argument())
    if name == "binom":
      return ("binom", self.argument(), self.argument())
    if name == "sqrt":
      index = _num(2)
      if self.sees("["):
        self.at += 1
        index = self.sum()
        self.take("]")
      return ("root", self.argument(), index)
    if name == "surd":
      if self.peek().kind == "num":
        self.at += 1
        return ("root", number(self.tokens[self.at - 1].text), _num(2))
      return ("root", self.argument(), _num(2))
    if name in tex.FUNCTIONS:
      return self.function(name)
    if name == "pi":
      return ("const", "pi")
    if name == "infty":
      return ("const", "inf")
    if name == "emptyset":
      return NONE
    if name == "mathbbR":
      return REALS
    if name in LETTERS:
      return self.subscript(("sym", name))
    if name in ACCENTS:
      start = self.at
      self.argument() if not self.sees("{") else self.skip()
      inside = "".join(t.text for t in self.tokens[start : self.at])
      return self.subscript(("sym", f"{name} {inside.strip('{}')}"))
    for left, right in (("lfloor", "rfloor"), ("lceil", "rceil")):
      if name == left:
        inside = self.sum()
        self.take(right)
        return ("floor" if left == "lfloor" else "ceil", inside)
    raise tex.Unreadable(f"\\{name}")

  def skip(self) -> None:
    end = closing(self.tokens, self.at)
    if end < 0:
      raise tex.Unreadable("an open brace")
    self.at = end + 1

  def function(self, name: str):
    self.depth += 1
    if self.depth > DEEP:
      raise tex.Unreadable("nested too deep")
    base, power = None, None
    for _ in range(2):
      if self.sees("_") and base is None:
        self.at += 1
        base = self.argument()
      elif self.sees("^") and power is None:
        self.at += 1
        power = self.exponent()
    if self.sees("("):
      inside = self.group("(", start=1)
      inside = inside[1] if inside[0] == "tuple" else (inside,)
    elif name in ("gcd", "lcm", "max", "min"):
      raise tex.Unreadable(name)
    else:
      inside = (self.product(tight=True),)
    self.depth -= 1
    if base is not None and name != "log":
      raise tex.Unreadable("a subscript")
    if name in ("abs", "floor", "ceil"):
      value = (name, inside[0])
    elif name == "log" and base is not None:
      value = ("fn", "log", inside[0], base)
    elif name == "lg":
      value = ("fn", "log", inside[0], _num(10))
    elif name == "exp":
      value = ("pow", ("const", "e"), inside[0])
    elif name == "log":
      value = ("fn", "ln", *inside)
    else:
      value = ("fn", name, *inside)
    if name not in ("gcd", "lcm", "max", "min") and len(inside) != 1:
      raise tex.Unreadable(f"{name} of several")
    if power is None:
      return value
    if power == ("neg", _num(1)):
      inverse = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name)
      if inverse is None:
        raise tex.Unreadable("an inverse")
      return ("fn", inverse, inside[0])
    return ("pow", value, power)

  def group(self, opening: str, start: int = 0):
    """A bracket: grouping, a tuple, an interval, a set."""
    self.at += start
    self.depth += 1
    if self.depth > DEEP:
      raise tex.Unreadable("nested too deep")
    bars, self.bars = self.bars, 0
    items = []
    if opening == "{":
      value = self.sets()
      if self.sees(","):
        raise tex.Unreadable("a comma in braces")
      self.take("}")
    elif opening == "\\{":
      end = closing(self.tokens, self.at - 1)
      if end < 0:
        raise tex.Unreadable("an open brace")
      value = self.braces(self.tokens[self.at : end])
      self.at = end + 1
    else:
      if not self.sees(_CLOSE[opening]):
        items.append(self.sets())
      while self.sees(",", ";"):
        self.at += 1
        items.append(self.sets())
      last = self.peek()
      if last.kind != "op" or last.text not in (")", "]", ">>"):
        raise tex.Unreadable("an open bracket")
      self.at += 1
      value = _bracket(opening, last.text, tuple(items))
    self.depth -= 1
    self.bars = bars
    return value


def _bracket(opening: str, closing: str, items: tuple):
  if opening == "<<":
    if closing != ">>" or not items:
      raise tex.Unreadable("an angle bracket")
    return ("angle", items)
  if closing == ">>" or not items:
    raise tex.Unreadable("an empty bracket")
  if opening == "(" and closing == ")":
    return items[0] if len(items) == 1 else ("tuple", items)
  if len(items) == 2:
    return ("interval", opening + closing, *items)
  if opening == "[" and closing == "]":
    return items[0] if len(items) == 1 else ("brackets", items)
  raise tex.Unreadable("brackets that do not match")


def _letter_value(letter: str):
  return ("const", letter) if letter in "ei" else ("sym", letter)
