r"""An answer's text as tokens: TeX, plain text and Unicode mathematics, without dress.

  num   12  3.5  1e-3  0.1(6)    digits; thousands joined, a decimal comma made a point
  cmd   \frac  \pi               a command with a meaning; synonyms have one name
  word  sin  ab                  a run of letters
  text  5\text{ cm}              words set as text
  unit  \$                       a currency's sign
  row   \\                       the end of a row
  op    + ( \{ <= and            anything else, a sign each

Each token knows whether a space stood before it: "2 1/2" is no "21/2". One scan, linear
in the text (possessive patterns); more than MOST tokens are none at all.
"""

import re
from typing import NamedTuple

from pxy.rewards import units

MOST = 600
"""Tokens of an answer. A longer one is not read."""
DIGITS = 1000
"""Digits of a number."""


class Token(NamedTuple):
  kind: str
  text: str
  spaced: bool = False


class Unreadable(ValueError):
  """The text is no mathematics that is read here."""


_SUPER = str.maketrans(
  "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f"
  "\u2071",
  "0123456789+-ni",
)
_SUB = str.maketrans(
  "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208a\u208b\u2099",
  "0123456789+-n",
)
_SUPERS = re.compile("[" + "".join(map(chr, _SUPER)) + "]+")
_SUBS = re.compile("[" + "".join(map(chr, _SUB)) + "]+")
_GREEK = (
  "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi"
  " rho  sigma tau upsilon phi chi psi omega"
).split(" ")
_SIGNS = {
  "\u2212\u2013\u2010\u2011\ufe63": "-",
  "\u00d7\u22c5\u00b7\u2217\u2062": " * ",
  "\u00f7\u2215\u2044": "/",
  "\u221a": r"\surd ",
  "\u221b": r"\sqrt[3]",
  "\u221e": r"\infty ",
  "\u2264\u2a7d\u2266": r"\leq ",
  "\u2265\u2a7e\u2267": r"\geq ",
  "\u2260": r"\neq ",
  "\u2248\u2243\u2245": r"\approx ",
  "\u2261": r"\equiv ",
  "\u2208": r"\in ",
  "\u2209": r"\notin ",
  "\u222a": r"\cup ",
  "\u2229": r"\cap ",
  "\u2205\u00d8": r"\emptyset ",
  "\u2216": r"\setminus ",
  "\u00b1": r"\pm ",
  "\u2213": r"\mp ",
  "\u00b0\u00ba": r"^{\circ}",
  "\u2223\u2502": "|",
  "\u27e8\u2329\u3008": r"\langle ",
  "\u27e9\u232a\u3009": r"\rangle ",
  "\u211d": r"\mathbb{R}",
  "\u2124": r"\mathbb{Z}",
  "\u2115": r"\mathbb{N}",
  "\u211a": r"\mathbb{Q}",
  "\u2102": r"\mathbb{C}",
  "\u2032\u2019": "'",
  "\u2026": "...",
  "\u230a": r"\lfloor ",
  "\u230b": r"\rfloor ",
  "\u2308": r"\lceil ",
  "\u2309": r"\rceil ",
  "\u2192": r"\to ",
  "\u222b": r"\int ",
  "\u2211": r"\sum ",
  "\u220f": r"\prod ",
  "\u2220": r"\angle ",
  "\u00a0\u3000": " ",
  "\u2009\u200a\u202f\u2006": r"\,",
  "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u2061": "",
  "\u201c\u201d": '"',
  "\u3001\uff0c": ",",
  "\u3002": ".",
  "\u2234": "",
}
_CHARS: dict[int, str] = {ord(c): to for chars, to in _SIGNS.items() for c in chars}
_CHARS |= {ord(chr(c)): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F) if c != 0xFF0C}
_CHARS |= {0x3B1 + i: f"\\{name} " for i, name in enumerate(_GREEK) if name}
_CHARS |= {0x393: r"\Gamma ", 0x394: r"\Delta ", 0x398: r"\Theta ", 0x3A3: r"\Sigma "}
_CHARS |= {0x3A9: r"\Omega ", 0x3A6: r"\Phi ", 0x3C2: r"\sigma ", 0x3D5: r"\phi "}
_CHARS |= {
  ord(c): rf"\frac{{{a}}}{{{b}}}"
  for c, a, b in (
    ("\u00bd", 1, 2), ("\u00bc", 1, 4), ("\u00be", 3, 4), ("\u2153", 1, 3),
    ("\u2154", 2, 3), ("\u2155", 1, 5), ("\u2156", 2, 5), ("\u2157", 3, 5),
    ("\u2158", 4, 5), ("\u2159", 1, 6), ("\u215a", 5, 6), ("\u2150", 1, 7),
    ("\u215b", 1, 8), ("\u215c", 3, 8), ("\u215d", 5, 8), ("\u215e", 7, 8),
    ("\u2151", 1, 9), ("\u2152", 1, 10),
  )
}  # fmt: skip

_SCAN = re.compile(
  r"""(?P<space>(?:\s|~|\\[ \n]|\\q?quad(?![a-zA-Z]))++)
  |(?P<repeat>\d*+\.\d*+\\(?:overline|bar|dot)(?![a-zA-Z])\s*+(?:\{\s*+\d++\s*+\}|\d))
  |(?P<sci>(?:\d++(?:\.\d*+)?|\.\d++)[eE][+-]?\d++(?![\w.]))
  |(?P<grouped>[1-9]\d{0,2}(?:(?:\{,\}|,\\!|\\[,;:!])\d{3})+(?!\d)(?:\.\d++)?)
  |(?P<comma>[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)(?:\.\d++)?)
  |(?P<decimal>\d++\{,\}\d++)
  |(?P<num>\d++(?:\.\d++)?|\.\d++)
  |(?P<thin>\\[,;:!>/])
  |(?P<cmd>\\[a-zA-Z]++\*?)
  |(?P<esc>\\.)
  |(?P<word>[A-Za-z]++)
  |(?P<op><=|>=|!=|==|\*\*|->|\.\.\.|.)""",
  re.VERBOSE | re.DOTALL | re.ASCII,
)
_LIST = re.compile(r"[(\[]|\\(?:\{|lbrace|begin|langle)|,(?!\d)|(?<!\d),|;", re.ASCII)
_ARGUMENT = re.compile(r"(?<=(?<!\\)\{)[1-9]\d{0,2}(?:,\d{3})+(?=\})", re.ASCII)
_TIMES = re.compile(r"(?<=[0-9])\s?[xX]\s?(?=[0-9])")  # 1.5 x 10^3
_MATHS = re.compile(r"\\[()\[\]]")

_SAME = {
  "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "nicefrac": "frac",
  "sfrac": "frac",
  "dbinom": "binom", "tbinom": "binom", "le": "leq", "leqslant": "leq", "leqq": "leq",
  "ge": "geq", "geqslant": "geq", "geqq": "geq", "ne": "neq", "lt": "<", "gt": ">",
  "varnothing": "emptyset", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[",
  "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "times": "*",
  "cdot": "*", "ast": "*", "bullet": "*", "div": "/", "colon": ":", "land": "and",
  "wedge": "and", "lor": "or", "vee": "or", "ldots": "...", "dots": "...",
  "cdots": "...", "cong": "approx", "simeq": "approx", "thickapprox": "approx",
  "backslash": "setminus", "infin": "infty", "degree": "circdeg", "tg": "tan",
  "ctg": "cot", "arctg": "arctan", "arcctg": "arccot", "langle": "<<", "rangle": ">>",
  "lang": "<<", "rang": ">>", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
  "varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "prime": "'",
  "smallsetminus": "setminus", "bigcup": "cup", "bigcap": "cap", "lg": "lg",
}  # fmt: skip
FUNCTIONS = frozenset(
  "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec"
  " arccsc ln log lg exp gcd lcm max min abs floor ceil".split()
)
_CUT = FUNCTIONS | {"pi", "cdot", "times", "leq", "geq"}
_DROP = frozenset(
  "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm"
  " displaystyle textstyle scriptstyle limits nolimits normalsize large Large LARGE"
  " small huge Huge rm bf it sf tt mathstrut therefore hfill centering nonumber notag"
  " square blacksquare qed Box because strut hline".split()
)
_DROP_ARGUMENT = frozenset(
  "color textcolor colorbox hspace vspace hskip mspace tag label".split()
)
_LOOKS = frozenset(
  "underline boldsymbol bm pmb mathbf mathit mathnormal boxed fbox ensuremath mathop"
  " mathopen mathclose mathord mathbin mathrel smash underbrace uline emph".split()
)
_TEXT = frozenset(
  "text mbox hbox textbf textit textrm textsf texttt textnormal mathrm mathsf textup"
  " operatorname textsc".split()
)
_ENVIRONMENTS = re.compile(
  r"aligned|align|gathered|gather|split|equation|array|displaymath|math|alignedat"
)
_LETTERS = re.compile(r"[A-Za-z]{2}")
_KNOWN = frozenset(
  "frac sqrt pi infty cdot times cup cap pm mp leq geq neq in emptyset circ theta alpha"
  " beta gamma binom equiv approx overline angle triangle".split()
)
_CURRENCY_COMMANDS = {
  "euro": "\u20ac", "pounds": "\u00a3", "textdollar": "$", "textcent": "\u00a2",
  "cent": "\u00a2", "yen": "\u00a5", "EUR": "\u20ac", "texteuro": "\u20ac",
  "dollar": "$",
}  # fmt: skip


def unicode(text: str) -> str:
  r"""Unicode mathematics as TeX: `unicode("√3 ≤ x²")` is r"\surd 3 \leq  x^{2}"."""
  if text.isascii():
    return text
  text = _SUPERS.sub(lambda m: "^{" + m[0].translate(_SUPER) + "}", text)
  text = _SUBS.sub(lambda m: "_{" + m[0].translate(_SUB) + "}", text)
  return text.translate(_CHARS)


def tokens(text: str, commas: bool | None = None) -> list[Token]:
  """The tokens of an answer.

  commas: whether those of 1,234 join thousands; None: unless something else in the text
    shows that commas separate.

  Raises Unreadable where there are too many, or a brace is missing.
  """
  text = undress(unicode(text))
  text = _TIMES.sub("*", text)
  text = _ARGUMENT.sub(lambda m: m[0].replace(",", ""), text)
  if commas is None:
    commas = not _LIST.search(_MATHS.sub("", text))
  scanner = _Scanner(text, commas)
  scanner.scan(text, 0)
  return scanner.out


def ambiguous(text: str) -> bool:
  """Whether commas in it join thousands, but might separate."""
  text = unicode(text)
  return bool(
    re.search(r"[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)", text, re.ASCII)
  ) and not _LIST.search(_MATHS.sub("", text))


_ENDS = (("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'), ("*", "*"))


def undress(text: str) -> str:
  """Without Markdown, quotes and full stops around all of it."""
  text = text.strip()
  for _ in range(4):
    for start, end in _ENDS:
      n = len(start)
      if len(text) > 2 * n and text.startswith(start) and text.endswith(end):
        text = text[n:-n].strip()
    if text.endswith((".", ";", ",", ":")) and not text.endswith(("..", r"\,", r"\;")):
      text = text[:-1].rstrip()
    if text.endswith(r"\\") and not text.endswith("}\\\\"):
      text = text[:-2].rstrip()
  return text


class _Scanner:
  """The tokens found so far, and whether a space came last."""

  def __init__(self, text: str, commas: bool):
    self.out: list[Token] = []
    self.commas = commas
    self.spaced = False
    self.matrices = 0
    dollars = [m.start() for m in re.finditer(r"(?<!\\)\$(?!\$)", text)]
    self.currency = dollars[0] if len(dollars) == 1 else -1

  def add(self, kind: str, text: str) -> None:
    if len(self.out) >= MOST:
      raise Unreadable("too long")
    self.out.append(Token(kind, text, self.spaced))
    self.spaced = False

  def scan(self, text: str, depth: int) -> None:
    at = 0
    while at < len(text):
      match = _SCAN.match(text, at)
      kind, found = match.lastgroup, match[0]
      if kind == "comma" and not self.commas:
        match = re.compile(r"\d+").match(text, at)
        kind, found = "num", match[0]
      at = match.end()
      if kind == "space":
        self.spaced = True
      elif kind == "thin":
        self.spaced = self.spaced or found != r"\!"
      elif kind in ("num", "sci", "grouped", "comma", "decimal", "repeat"):
        self.number(kind, found)
      elif kind == "word":
        self.add("word", found)
      elif kind == "esc":
        at = self.escape(found, text, at)
      elif kind == "cmd":
        at = self.command(found[1:].rstrip("*"), text, at, depth)
      elif found == "$":
        if match.start() == self.currency and depth == 0:
          self.add("unit", "$")
      elif found in units.CURRENCY:
        self.add("unit", found)
      else:
        same = {"**": "^", "!=": "neq", "<=": "leq", ">=": "geq"}
        same |= {"==": "=", "%": "%"}
        self.add("op", same.get(found, found))

  def number(self, kind: str, found: str) -> None:
    if len(found) > DIGITS:
      raise Unreadable("a number is too long")
    if kind == "repeat":
      front, _, back = found.partition("\\")
      found = f"{front}({re.sub('[^0-9]', '', back)})"
    elif kind == "grouped":
      found = re.sub(r"[^0-9.]", "", found)
    elif kind == "comma":
      found = found.replace(",", "")
    elif kind == "decimal":
      found = found.replace("{,}", ".")
    self.add("num", found)

  def escape(self, found: str, text: str, at: int) -> int:
    sign = found[1]
    if sign == "\\":
      self.add("row", "\\\\")
    elif sign in "{}":
      self.add("op", found)
    elif sign == "$":
      self.add("unit", "$")
    elif sign == "%":
      self.add("op", "%")
    elif sign == "|":
      self.add("op", "|")
    elif sign in "()[]":
      self.spaced = True
    elif sign in "-.0123456789":
      self.add("row", "\\\\")  # that lost its second backslash
      return at - 1
    elif sign not in "&#_":
      raise Unreadable(f"\\{sign}")
    return at

  def command(self, name: str, text: str, at: int, depth: int) -> int:
    if name in _DROP:
      if name in ("left", "right", "middle") and text[at : at + 1] == ".":
        return at + 1
    elif name in _DROP_ARGUMENT:
      _, at = argument(text, at)
    elif name in _LOOKS:
      pass
    elif name in _TEXT:
      inside, at = argument(text, at)
      self.set(inside, name, depth)
    elif name in ("begin", "end"):
      environment, at = argument(text, at)
      environment = environment.strip().rstrip("*")
      if environment == "array" and name == "begin" and text[at : at + 1] == "{":
        _, at = argument(text, at)
      if _ENVIRONMENTS.fullmatch(environment) and environment != "array":
        self.spaced = True
      else:
        self.add(name, environment)
    elif name in _CURRENCY_COMMANDS:
      self.add("unit", _CURRENCY_COMMANDS[name])
    elif name == "mathbb":
      inside, at = argument(text, at)
      self.add("cmd", "mathbb" + inside.strip())
    elif name == "pmod":
      inside, at = argument(text, at)
      self.add("op", "mod")
      self.add("op", "(")
      self.scan(inside, depth + 1)
      self.add("op", ")")
    elif name in ("bmod", "mod"):
      self.add("op", "mod")
    else:
      name = _SAME.get(name, name)
      if name.isalpha() and name not in ("and", "or"):
        self.known(name)
      else:
        self.add("op", name)
    return at

  def known(self, name: str) -> None:
    r"""A command; one that ran into letters behind it (\sinb) is cut off from them."""
    if name not in FUNCTIONS and name not in _KNOWN and len(name) > 2:
      for n in range(len(name) - 1, 1, -1):
        if name[:n] in _CUT and len(name) - n <= 2:
          self.add("cmd", name[:n])
          return self.add("word", name[n:])
    self.add("cmd", name)

  def set(self, inside: str, command: str, depth: int) -> None:
    r"""What \text{...} holds: a separator, a function, words, or mathematics."""
    if depth > 20:
      raise Unreadable("nested too deep")
    words = re.sub(r"\\[,;: !]|~|\$", " ", inside).strip()
    bare = words.strip(" ,")
    if bare in ("and", "or"):
      self.add("op", bare)
    elif re.match(r"[-+]?[0-9.]*[0-9]\s", words):
      self.scan(words, depth + 1)  # a number and its unit
    elif bare in FUNCTIONS:
      self.add("cmd", _SAME.get(bare, bare))
    elif bare in _SAME and _SAME[bare] in FUNCTIONS:
      self.add("cmd", _SAME[bare])
    elif _LETTERS.search(re.sub(r"\\[a-zA-Z]+", "", words)):
      self.add("text", words)
    elif command in ("text", "mathrm", "mbox") and _is_unit(words):
      self.add("text", words)
    else:
      self.scan(inside, depth + 1)


def _is_unit(words: str) -> bool:
  """Whether it is one letter (m, or a choice), or units such as m/s."""
  if len(words) == 1:
    return words.isalpha()
  letters = re.findall(r"[A-Za-z]+", words)
  return bool(letters) and "/" in words and all(map(units.known, letters))


def argument(text: str, at: int) -> tuple[str, int]:
  """The argument of a command that ends at `at`: in braces, or one sign."""
  while at < len(text) and text[at].isspace():
    at += 1
  if text[at : at + 1] == "(":  # \pmod(7)
    end = text.find(")", at)
    if end < 0:
      raise Unreadable("an open bracket")
    return text[at + 1 : end], end + 1
  if text[at : at + 1] != "{":
    return text[at : at + 1], at + 1
  depth = 0
  for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at):
    depth += (match[0] == "{") - (match[0] == "}")
    if depth == 0:
      return text[at + 1 : match.start()], match.end()
  raise Unreadable("an open brace")
