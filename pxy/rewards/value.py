r"""What an answer's text means, as a tree of tuples: `read(r"\frac12") -> ("div", ...)`.

Numbers and expressions
  ("num", Fraction, digits, places)    digits > 0: a decimal with that many that count
  ("sym", name)  ("const", pi e i inf)
  ("add" | "mul", a, b)  ("neg", a)  ("div" | "pow", a, b)  ("root", a, n)
  ("fact" | "abs" | "floor" | "ceil" | "deg", a)  ("binom", n, k)
  ("fn", name, a, ...)
Answers
  ("tuple" | "angle" | "brackets" | "set" | "list" | "union" | "cap", items)
  ("interval", ends, a, b)             ends such as "[)"; (a, b) alone is a tuple
  ("minus", a, b)                      of sets
  ("matrix", rows)
  ("rel", operators, sides)  ("builder", variable, condition)
  ("named", name, a)                   x = 5
  ("unit", a, unit)  ("base", digits, base)  ("mod", a, n)
  ("word", letters)  ("choice", letter, content or None)

A recursive descent over tokens (tex.py), at most DEEP levels, and nothing is evaluated.
Where a text has no meaning here `read` says None: then only its spelling counts, and
what algebra.py makes of it.
"""

import fractions
import re

from pxy.rewards import tex, units

DEEP = 40
_GREEK_OR_SIGN = frozenset(
  "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho"
  " sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi"
  " Psi Omega ell hbar mathbbR mathbbZ mathbbN mathbbQ mathbbC".split()
)
_ACCENTS = frozenset(
  "overline bar vec hat tilde overrightarrow widehat overleftrightarrow dot angle"
  " triangle mathcal".split()
)
_SETS = {"mathbbR", "mathbbZ", "mathbbN", "mathbbQ", "mathbbC"}
_RELATIONS = {"=", "<", ">", "leq", "geq", "neq", "equiv", "approx", "sim", "in",
  "notin", "subset", "subseteq", "propto", "parallel", "perp"}  # fmt: skip
_WORDS = {"pi": ("const", "pi"), "inf": ("const", "inf"), "infinity": ("const", "inf"),
  "infty": ("const", "inf"), "oo": ("const", "inf"), "theta": ("sym", "theta"),
  "alpha": ("sym", "alpha"), "beta": ("sym", "beta")}  # fmt: skip
_CLOSE = {"(": ")", "[": "]", "\\{": "\\}", "<<": ">>"}
_LABEL = re.compile(r"[A-J]")
NONE = ("set", ())


def read(text: str, commas: bool | None = None):
  """The text's value; None where it has none here."""
  try:
    return _top(tex.tokens(text, commas))
  except (tex.Unreadable, RecursionError):
    return None


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


def _top(tokens: list[tex.Token]):
  tokens = _bare(tokens)
  if not tokens:
    raise tex.Unreadable("empty")
  if (choice := _choice(tokens)) is not None:
    return choice
  if (word := _sentence(tokens)) is not None:
    return word
  items = [_bare(part) for part in _split(tokens)]
  if len(items) > 1 and not items[-1]:
    items.pop()
  if not all(items):
    items = [item for item in items if item]
  found = [value for item in items for value in _signs(item)]
  if len(found) == 1:
    return found[0]
  if not found:
    raise tex.Unreadable("empty")
  return ("list", tuple(found))


def _bare(tokens: list[tex.Token]) -> list[tex.Token]:
  """Without what stands around an answer: =, &, braces, a full stop."""
  while tokens:
    first, last = tokens[0], tokens[-1]
    if first.kind == "row" or (
      first.kind == "op" and first.text in ("=", "&", ":", ",", "and")
    ):
      tokens = tokens[1:]
    elif first.kind == "cmd" and first.text in ("approx", "to", "Rightarrow"):
      tokens = tokens[1:]
    elif last.kind == "row" or (
      last.kind == "op" and last.text in ("&", ".", ";", ",", "and")
    ):
      tokens = tokens[:-1]
    elif (
      first.text == "{" and last.text == "}" and _closing(tokens, 0) == len(tokens) - 1
    ):
      tokens = tokens[1:-1]
    else:
      return tokens
  return tokens


def _closing(tokens, start: int) -> int:
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


def _split(tokens, commas: bool = True) -> list[list[tex.Token]]:
  """Parts between commas, semicolons, `and`, `or` and row ends outside brackets."""
  parts, depth = [[]], 0
  for token in tokens:
    separator = token.kind == "row" or (
      token.kind == "op" and token.text in (",", ";", "and", "or")
    ) or (token.kind == "word" and token.text in ("and", "or"))  # fmt: skip
    if token.kind in ("begin", "end"):
      depth += 1 if token.kind == "begin" else -1
    elif token.kind == "op":
      depth += token.text in ("(", "[", "{", "\\{", "<<")
      depth -= token.text in (")", "]", "}", "\\}", ">>")
    if depth == 0 and separator:
      if parts[-1] or token.text in (",", ";"):
        parts.append([])
    else:
      parts[-1].append(token)
  return parts


def _choice(tokens):
  """(B) 12, B) 12, B. 12, B: 12, and (B): a letter with what it stands for."""
  texts = [token.text for token in tokens[:3]]
  if len(texts) >= 3 and texts[0] == "(" and texts[2] == ")" and _letter(tokens[1]):
    rest = tokens[3:]
    while rest and rest[0].text in (".", ":"):
      rest = rest[1:]
    if not rest:
      return ("choice", texts[1], None)
    if len(tokens) > 3 and (rest[0].spaced or rest[0].kind in ("text", "num", "word")):
      return _labelled(texts[1], rest)
    return None
  if len(texts) >= 2 and _letter(tokens[0]) and texts[1] in (")", ".", ":"):
    rest = tokens[2:]
    if not rest:
      return ("choice", texts[0], None)
    if rest[0].spaced or rest[0].kind == "text":
      return _labelled(texts[0], rest)
  return None


def _letter(token) -> bool:
  return token.kind in ("word", "text") and bool(re.fullmatch("[A-Ja-j]", token.text))


def _labelled(letter, rest):
  if rest[0].kind == "op" and rest[0].text in "+-*/^=<>,;)]":
    return None
  try:
    return ("choice", letter, _top(rest))
  except tex.Unreadable:
    return ("choice", letter, ("word", _spell(rest)))


def _spell(tokens) -> str:
  return "".join(re.sub(r"[\s.,;:!?'\"]", "", t.text) for t in tokens).casefold()


_FORMAL = frozenset("sqrt pi inf infinity infty oo and or theta alpha beta".split())


_RATIO = re.compile(r"[0-9.]+(?::[0-9.]+)+(?:[ap]\.?m\.?)?", re.ASCII)


def _sentence(tokens):
  """Words alone: a day, a name, yes or no; a time, a ratio."""
  joined = "".join(token.text for token in tokens)
  if _RATIO.fullmatch(joined.casefold()):
    return ("word", joined.casefold().replace(".m", "m").rstrip("."))
  if not all(t.kind in ("text", "word") or t.text in ("'", "-", ".") for t in tokens):
    return None
  words = [t.text for t in tokens if t.kind == "word"]
  if "and" in words or "or" in words:
    return None
  formal = tex.FUNCTIONS | _FORMAL
  if any(t.kind == "text" and len(t.text) > 1 for t in tokens) or any(
    w not in formal and (len(w) > 2 or w.casefold() == "no") for w in words
  ):
    return ("word", _spell(tokens))
  return None


def _signs(tokens) -> list:
  r"""The values of an element: two where it has a \pm."""
  at = [i for i, t in enumerate(tokens) if t.kind == "cmd" and t.text in ("pm", "mp")]
  if not at:
    return [_element(tokens)]
  found = []
  for plus in ("+", "-"):
    other = "-" if plus == "+" else "+"
    signed = [
      t if t.text not in ("pm", "mp") or t.kind != "cmd"
      else t._replace(kind="op", text=plus if t.text == "pm" else other)
      for t in tokens
    ]  # fmt: skip
    found.append(_element(signed))
  return found


def _sides(tokens):
  """Operators outside brackets, and what stands between them."""
  operators, sides, depth = [], [[]], 0
  for token in tokens:
    if token.kind in ("begin", "end"):
      depth += 1 if token.kind == "begin" else -1
    elif token.kind == "op":
      depth += token.text in ("(", "[", "{", "\\{", "<<")
      depth -= token.text in (")", "]", "}", "\\}", ">>")
    if (
      depth == 0
      and token.kind in ("op", "cmd")
      and token.text in _RELATIONS
    ):  # fmt: skip
      operators.append(token.text)
      sides.append([])
    elif token.text != "&" or depth:
      sides[-1].append(token)
  return operators, sides


def _element(tokens):
  """One answer: words, a value, or a relation with its name dropped."""
  if (word := _sentence(tokens)) is not None:
    return word
  operators, sides = _sides(tokens)
  if len(sides) == 1:
    return _value(sides[0])
  if not sides[0]:
    return _element(tokens[1:])
  if operators[0] in ("=", "approx", "in") and _is_name(sides[0]):
    name = _name(sides[0])
    if operators[0] == "in" and len(sides) == 2:
      return ("named", name, _value(sides[1]))
    if operators[0] != "in" and all(o in ("=", "approx") for o in operators):
      return ("named", name, _last(operators[1:], sides[1:]))
  if all(o == "approx" for o in operators):
    return _value(sides[0])
  values = [_value(side) for side in sides]
  if all(o in ("=", "approx") for o in operators) and not any(map(_symbols, values)):
    return values[_exact_at(operators)]
  return ("rel", tuple(operators), tuple(values))


def _last(operators, sides):
  """Of a = b = c the last, and of what is about the same the first."""
  return _value(sides[_exact_at(operators)])


def _exact_at(operators) -> int:
  return operators.index("approx") if "approx" in operators else len(operators)


def _is_name(tokens) -> bool:
  """x, f(x), AB, x_1, Area: letters and brackets, nothing that computes."""
  letters = False
  for i, t in enumerate(tokens):
    if t.kind == "word" or t.kind == "text":
      if t.text in tex.FUNCTIONS or t.text in _FORMAL:
        return False
      letters = True
    elif t.kind == "cmd":
      if t.text not in _GREEK_OR_SIGN and t.text not in _ACCENTS:
        return False
      letters = True
    elif t.kind == "num":
      if i == 0 or not (tokens[i - 1].text in ("_", "(", ",") or (
        i > 1 and tokens[i - 1].text == "{" and tokens[i - 2].text == "_"
      )):  # fmt: skip
        return False
    elif t.text not in ("(", ")", "_", "{", "}", "'", ",", "|", "[", "]"):
      return False
  return letters and tokens[0].text not in ("(", "[")


def _name(tokens) -> str:
  return "".join(t.text for t in tokens if t.text not in "{}")


def _symbols(value) -> bool:
  """Whether a tree has a symbol in it."""
  if not isinstance(value, tuple) or not value:
    return False
  if value[0] == "sym":
    return True
  return any(_symbols(part) for part in value if isinstance(part, tuple))


def _value(tokens):
  """A side of a relation, with its unit."""
  tokens = _bare(tokens)
  if not tokens:
    raise tex.Unreadable("empty")
  if (matrix := _matrix(tokens)) is not None:
    return matrix
  unit = ""
  if tokens[0].kind == "unit" or (
    len(tokens) > 1 and tokens[0].text in "+-" and tokens[1].kind == "unit"
  ):
    at = 0 if tokens[0].kind == "unit" else 1
    unit = tokens[at].text
    tokens = tokens[:at] + tokens[at + 1 :]
  cut, found = _unit(tokens)
  if found:
    if unit and found != unit and found != units.GENERIC:
      found = f"{unit} {found}"
    unit = found
    tokens = _bare(tokens[:cut])
  parser = _Parser(tokens)
  value = parser.whole()
  if value[0] == "deg":
    unit, value = unit or "deg", value[1]
  if value[0] == "neg" and value[1][0] == "deg":
    unit, value = unit or "deg", ("neg", value[1][1])
  return ("unit", value, unit) if unit else value


def _unit(tokens) -> tuple[int, str]:
  """(where the unit at the end begins, its name); the name is empty for none."""
  end = len(tokens)
  if end and tokens[-1].kind == "op" and tokens[-1].text == "%":
    return end - 1, "%"
  if end > 1 and tokens[-1].kind == "unit":
    return end - 1, tokens[-1].text
  at = end
  named = False
  while at > 0:
    t = tokens[at - 1]
    if t.kind == "text":
      named = True
    elif t.kind == "word" and (len(t.text) > 1 or t.spaced):
      first = at - 1 == 0 or tokens[at - 2].kind not in ("word", "text")
      before = tokens[at - 2] if at > 1 else None
      if units.known(t.text) and (
        t.spaced or (before and before.kind == "num" and len(t.text) > 1)
        or (before and before.text == "/")
      ):  # fmt: skip
        named = True
      elif len(t.text) > 2 and t.spaced and t.text not in _FORMAL | tex.FUNCTIONS:
        named = True
      elif first or not t.spaced:
        break
    elif t.kind == "num" and at > 1 and tokens[at - 2].text in ("^", "{"):
      pass
    elif t.text in ("^", "{", "}", "/", "*", ".", "-", "circ"):
      if t.text == "." and not named:
        break
    else:
      break
    at -= 1
  while at < end and tokens[at].kind not in ("text", "word"):
    at += 1
  if at == 0 or at == end or not named:
    return end, ""
  before = tokens[at - 1]
  if before.kind == "op" and before.text in ("^", "{", "*", "/", "+", "-", "("):
    braced = at > 2 and before.text == "{" and tokens[at - 2].text == "^"
    if not braced:
      return end, ""
    ordinal = "".join(t.text for t in tokens[at:] if t.text != "}")
    if ordinal in ("th", "st", "nd", "rd"):
      return at - 2, "th"
    return end, ""
  text = " ".join(t.text for t in tokens[at:])
  if tokens[at].kind == "text" and len(tokens[at].text) == 1:
    if not units.known(tokens[at].text):
      return end, ""
  name = units.name(text)
  return (at, name) if name else (end, "")


def _matrix(tokens):
  """An environment of cells, if the tokens are one and nothing else."""
  if tokens[0].kind != "begin" or tokens[-1].kind != "end":
    return None
  if _closing(tokens, 0) != len(tokens) - 1:
    return None
  name = tokens[0].text
  if "matrix" not in name and name != "array":
    raise tex.Unreadable(name)
  rows, cells = [], [[]]
  depth = 0
  for token in tokens[1:-1]:
    depth += (token.text in ("{", "(")) - (token.text in ("}", ")"))
    if depth == 0 and token.kind == "row":
      rows.append(cells)
      cells = [[]]
    elif depth == 0 and token.text == "&":
      cells.append([])
    else:
      cells[-1].append(token)
  if cells != [[]]:
    rows.append(cells)
  kind = "matrix" if name != "vmatrix" else "det"
  return (kind, tuple(tuple(_value(cell) for cell in row) for row in rows))


class _Parser:
  """One expression. Every method leaves `at` behind what it has read."""

  def __init__(self, tokens):
    self.tokens = tokens
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
      return token.text not in ("cup", "cap", "setminus", *_RELATIONS)
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
      end = _closing(self.tokens, self.at)
      if end < 0:
        raise tex.Unreadable("an open environment")
      matrix = _matrix(self.tokens[self.at : end + 1])
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
      end = _closing(self.tokens, self.at)
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
    if name in _GREEK_OR_SIGN:
      return self.subscript(("sym", name))
    if name in _ACCENTS:
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
    end = _closing(self.tokens, self.at)
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
      value = self.braces()
    else:
      if not self.sees(_CLOSE[opening]):
        items.append(self.sets())
      while self.sees(",", ";"):
        self.at += 1
        items.append(self.sets())
      closing = self.peek()
      if closing.kind != "op" or closing.text not in (")", "]", ">>"):
        raise tex.Unreadable("an open bracket")
      self.at += 1
      value = _bracket(opening, closing.text, tuple(items))
    self.depth -= 1
    self.bars = bars
    return value

  def braces(self):
    r"""\{1, 2\} and \{x \mid x > 2\}"""
    end = _closing(self.tokens, self.at - 1)
    if end < 0:
      raise tex.Unreadable("an open brace")
    inside = self.tokens[self.at : end]
    self.at = end + 1
    if not inside:
      return NONE
    bars = [i for i, t in enumerate(inside) if t.kind == "op" and t.text in ("|", ":")]
    if len(bars) == 1 and bars[0] > 0:
      operators, sides = _sides(inside[: bars[0]])
      variable = _value(sides[0])
      condition = _top(inside[bars[0] + 1 :])
      return ("builder", variable, condition)
    found = []
    for part in _split(inside):
      part = _bare(part)
      if not part:
        raise tex.Unreadable("an empty element")
      found += [_strip(value) for value in _signs(part)]
    return ("set", tuple(found))


def _strip(value):
  return value[2] if value[0] == "named" else value


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
