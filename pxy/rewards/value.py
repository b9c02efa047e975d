r"""What an answer's text means, as a tree of tuples: r"\frac12" is ("div", ...).

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

Nothing is evaluated, and nesting is bounded (expression.py, tex.py).
Where a text has no meaning here `read` says None: then only its spelling counts, and
what algebra.py makes of it.
"""

import re

from pxy.rewards import exact, expression, tex, units


def read(text: str, commas: bool | None = None):
  """The text's value; None where it has none here."""
  try:
    return _top(tex.tokens(text, commas))
  except (tex.Unreadable, RecursionError):
    return None


def _top(tokens: list[tex.Token]):
  tokens = _bare(_set_braces(_continued(tokens)))
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


def _continued(tokens: list[tex.Token]) -> list[tex.Token]:
  """Without the ends of rows after which a relation goes on: a row of a derivation."""
  out, depth = [], 0
  for i, token in enumerate(tokens):
    depth += (token.kind == "begin") - (token.kind == "end")
    if token.kind == "row" and not depth:
      after = next((t for t in tokens[i + 1 :] if t.text != "&"), None)
      if after is not None and after.text in expression.RELATIONS:
        continue
    out.append(token)
  return out


def _set_braces(tokens: list[tex.Token]) -> list[tex.Token]:
  """{1, 2} as plain text has it is the set: there are no braces to group a list."""
  if len(tokens) < 3 or tokens[0].text != "{":
    return tokens
  if expression.closing(tokens, 0) != len(tokens) - 1 or len(_split(tokens[1:-1])) < 2:
    return tokens
  first, *inside, last = tokens
  return [first._replace(text="\\{"), *inside, last._replace(text="\\}")]


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
      first.text == "{"
      and last.text == "}"
      and expression.closing(tokens, 0) == len(tokens) - 1
    ):
      tokens = tokens[1:-1]
    else:
      return tokens
  return tokens


def _split(tokens) -> list[list[tex.Token]]:
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


_RATIO = re.compile(r"[0-9.]+(?::[0-9.]+)+(?:[ap]\.?m\.?)?", re.ASCII)


def _sentence(tokens):
  """Words alone: a day, a name, yes or no; a time, a ratio."""
  joined = "".join(token.text for token in tokens)
  if _RATIO.fullmatch(joined.casefold()):
    return ("word", joined.casefold().replace(".m", "m").rstrip("."))
  if len(tokens) > 1 and all(t.kind == "num" for t in tokens):
    return ("word", " ".join(t.text for t in tokens))  # 1 2 3 is not 123
  if not all(t.kind in ("text", "word") or t.text in ("'", "-", ".") for t in tokens):
    return None
  words = [t.text for t in tokens if t.kind == "word"]
  if "and" in words or "or" in words:
    return None
  formal = tex.FUNCTIONS | expression.FORMAL
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
      and token.text in expression.RELATIONS
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
  if not all(sides):
    raise tex.Unreadable("a relation without a side")
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
    if "approx" in operators or not _differ(values):
      return values[_exact_at(operators)]
  return ("rel", tuple(operators), tuple(values))


def _differ(values) -> bool:
  """Whether the sides of an equation are numbers that are not the same: 1 = 2."""
  try:
    found = {exact.of(value) for value in values} - {None}
  except ArithmeticError:
    return False
  return len(found) > 1


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
      if t.text in tex.FUNCTIONS or t.text in expression.FORMAL:
        return False
      letters = True
    elif t.kind == "cmd":
      if t.text not in expression.LETTERS and t.text not in expression.ACCENTS:
        return False
      letters = True
    elif t.kind == "num":
      if i == 0 or not (tokens[i - 1].text in ("_", "(", ",") or (
        i > 1 and tokens[i - 1].text == "{" and tokens[i - 2].text == "_"
      )):  # fmt: skip
        return False
    elif t.text not in ("(", ")", "_", "{", "}", "'", ",", "|", "[", "]"):
      return False
  if tokens[0].text in ("(", "["):  # (x, y), and no product
    return letters and tokens[-1].text == ")" and any(t.text == "," for t in tokens)
  return letters


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
  if not tokens:
    raise tex.Unreadable("a unit alone")
  if tokens[-1].text in ("C", "F") and _degrees(tokens[:-1]) < len(tokens) - 1:
    unit, tokens = f"deg {tokens[-1].text}", tokens[:-1]
  if (cut := _degrees(tokens)) < len(tokens):
    unit, tokens = unit or "deg", tokens[:cut]
  cut, found = _unit(tokens)
  if found:
    if unit and found != unit and found != units.GENERIC:
      found = f"{unit} {found}"
    unit = found
    tokens = _bare(tokens[:cut])
  value = expression.Parser(tokens, _braces, _matrix).whole()
  return ("unit", value, unit) if unit else value


_ORDINALS = ("th", "st", "nd", "rd")


def _degrees(tokens) -> int:
  r"""Where the ^\circ at the end begins, of which all that stands before it is one."""
  texts = [token.text for token in tokens]
  n = next((n for n, end in _DEGREES if texts[-n:] == end), 0)
  inside = texts[: len(texts) - n]
  if "circ" in inside or "circdeg" in inside or not tex.FUNCTIONS.isdisjoint(inside):
    return len(tokens)
  return len(inside)


_DEGREES = ((4, ["^", "{", "circ", "}"]), (2, ["^", "circ"]), (1, ["circdeg"]))


def _unit(tokens) -> tuple[int, str]:
  """(where the unit at the end begins, its name); the name is empty for none."""
  end = len(tokens)
  if end and tokens[-1].kind == "op" and tokens[-1].text == "%":
    return end - 1, "%"
  if end > 1 and tokens[-1].kind == "unit":
    return end - 1, tokens[-1].text
  if end > 1 and tokens[-1].text in _ORDINALS and tokens[-2].kind == "num":
    return end - 1, "th"
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
      elif (
        len(t.text) > 2 and t.spaced and t.text not in expression.FORMAL | tex.FUNCTIONS
      ):
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
    if ordinal in _ORDINALS:
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
  if expression.closing(tokens, 0) != len(tokens) - 1:
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


def _braces(inside: list[tex.Token]):
  r"""What stands in \{1, 2\} and \{x \mid x > 2\}."""
  if not inside:
    return expression.NONE
  bars = [i for i, t in enumerate(inside) if t.kind == "op" and t.text in ("|", ":")]
  if len(bars) == 1 and bars[0] > 0:
    _, sides = _sides(inside[: bars[0]])
    return ("builder", _value(sides[0]), _top(inside[bars[0] + 1 :]))
  found = []
  for part in _split(inside):
    part = _bare(part)
    if not part:
      raise tex.Unreadable("an empty element")
    found += [_strip(value) for value in _signs(part)]
  return ("set", tuple(found))


def _strip(value):
  return value[2] if value[0] == "named" else value
