r"""1,316 answers to competition problems, written in other ways, and made wrong.

`tests/data/math_answers.jsonl` holds the distinct reference answers of rows in the
format of MATH: facts, without their problems. Whoever collected them had taken out all
spaces (\sinb) and every \text, and halved the backslashes at the ends of matrix rows.

  python tests/answers.py [EVERY]     # rates over all answers, or every EVERYth
"""

import collections
import json
import pathlib
import re
import sys

from pxy import config
from pxy.rewards import equal, pool
from pxy.show import progress

FILE = pathlib.Path(__file__).parent / "data" / "math_answers.jsonl"
LEAST = 0.99
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_INTEGER = re.compile(r"(?<![0-9.])[0-9]{4,}(?![0-9.])")
_WORD = re.compile(r"[({]*[A-Za-z]{2,}|.*\\text|.*\{[A-Za-z]+\}|[0-9]+:")
_LETTER = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
_COMMA = re.compile(r",(?![0-9]{3}(?![0-9]))")


def load() -> list[str]:
  answers = [json.loads(line)["answer"] for line in FILE.read_text().splitlines()]
  return [answer for answer in answers if answer]


def _plain_number(a):
  return equal.rational(a) is not None


def _decimal(a):
  def of(match):
    top, bottom = int(match[1]), int(match[2])
    for digits in range(1, 7):
      if top * 10**digits % bottom == 0:
        return f"{top / bottom:.{digits}f}"
    return match[0]

  return re.sub(r"(?<![0-9])\\frac\{([0-9]{1,3})\}\{([0-9]{1,3})\}", of, a)


def _thousands(mark):
  def write(a):
    if "," in a or "_" in a or "matrix" in a or ":" in a:
      return a
    return _INTEGER.sub(lambda m: f"{int(m[0]):,}".replace(",", mark), a)

  return write


def _unit(text):
  def write(a):
    number = _plain_number(a) or re.fullmatch(rf"{_NUMBER}(\\pi|\\sqrt\{{\d+\}})", a)
    return a + text if number and "circ" not in a else a

  return write


def _spaced(a):
  a = re.sub(r"(?<=[0-9a-z})])([+=-])(?=[0-9a-z\\(])", r" \1 ", a)
  a = re.sub(r"(\\cup|\\cap|\\cdot|\\leq?(?!q))(?=[\[({0-9\\-])", r" \1 ", a)
  return _COMMA.sub(r", ", a)


def _left_right(a):
  if "matrix" in a or "\\left" in a:
    return a
  for mark in "([":
    a = a.replace(mark, r"\left" + mark)
  for mark in ")]":
    a = a.replace(mark, r"\right" + mark)
  return a


def _text(command):
  def write(a):
    return a if "\\" in a or "{" in a else f"\\{command}{{{a}}}"

  return write


REWRITES = {
  "as it is": lambda a: a + " ",
  "dfrac": lambda a: a.replace(r"\frac", r"\dfrac"),
  "tfrac": lambda a: a.replace(r"\frac", r"\tfrac"),
  "frac12": lambda a: re.sub(r"\\frac\{([0-9])\}\{([0-9])\}", r"\\frac\1\2", a),
  "a/b": lambda a: re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", a),
  "0.5": _decimal,
  "spaces": _spaced,
  "left right": _left_right,
  "dollars": lambda a: f"${a}$",
  "full stop": lambda a: a + ".",
  "unit": _unit(r"\text{ cm}"),
  "unit squared": _unit(r"\,\mathrm{cm}^2"),
  "unit in words": _unit(" square inches"),
  "degrees": _unit(r"^\circ"),
  "degrees in braces": _unit(r"^{\circ}"),
  "1,000": _thousands(","),
  "1{,}000": _thousands("{,}"),
  r"1\,000": _thousands(r"\,"),
  "1000": lambda a: a.replace("{,}", "").replace(",", "") if _plain_number(a) else a,
  "text": _text("text"),
  "mathrm": _text("mathrm"),
  "x =": lambda a: f"x = {a}" if _plain_number(a) else a,
}


def _sign(a):
  if _WORD.match(a) or re.search(r"\\pm|begin|^\+|^0$|cos|\|", a):
    return a
  front = re.match(r"[(\[{]|\\\{", a)
  front = front[0] if front and "," in a else ""
  rest = a[len(front) :]
  if rest.startswith("0,"):
    return a
  return front + (rest[1:] if rest.startswith("-") else "-" + rest)


def _off_by_one(a):
  found = list(re.finditer(r"[0-9]+", a.rpartition("_")[0] or a))
  if not found:
    return a
  last = found[-1]
  return a[: last.start()] + str(int(last[0]) + 1) + a[last.end() :]


def _variable(a):
  if _WORD.match(a) or "begin" in a:
    return a
  names = [m[0] for m in _LETTER.finditer(a) if m[0] not in "ie"]
  if not names:
    return a
  return re.sub(rf"(?<![A-Za-z\\]){names[0]}(?![A-Za-z])", "w", a)


def _elements(a):
  return len(_COMMA.findall(a)) + 1 if "matrix" not in a else 0


def _interval_end(a):
  if not re.match(r"[(\[]", a) or not a.endswith((")", "]")) or _elements(a) < 2:
    return a
  if r"\infty" in a.rpartition(",")[2]:
    return {"(": "[", "[": "("}[a[0]] + a[1:] if not a.startswith("(-\\inf") else a
  return a[:-1] + {")": "]", "]": ")"}[a[-1]]


def _dropped(a):
  if r"\cup" in a:
    return a.rpartition(r"\cup")[0]
  if _elements(a) < 2 or _WORD.match(a):
    return a
  *_, last = _COMMA.finditer(a)
  end = re.search(r"(\\\}|[)\]}])?$", a)[0]
  return a[: last.start()] + end


def _order(a):
  inside = re.fullmatch(r"\((.*)\)", a)
  parts = _COMMA.split(inside[1]) if inside and "\\cup" not in a else []
  if len(parts) < 2 or len(set(parts)) < 2:
    return a
  return f"({','.join(reversed(parts))})" if parts != parts[::-1] else a


PERTURBATIONS = {
  "sign": _sign,
  "off by one": _off_by_one,
  "other variable": _variable,
  "swapped interval end": _interval_end,
  "dropped element": _dropped,
  "other order": _order,
}


def grade(p: pool.Pool, pairs: list[tuple[str, str]]) -> list[pool.Outcome]:
  """The outcome of `math` for each (response's box, answer)."""
  futures = [p.submit(pool.Item(f"So \\boxed{{{a}}}.", b)) for a, b in pairs]
  with progress.counting("grade", len(futures)) as count:
    return [(f.result(), count(i))[0] for i, f in enumerate(futures, 1)]


def rates(p, answers: list[str], changes: dict, wanted: float):
  """{change: (right, cases, [(written, answer, outcome) that are not as wanted])}."""
  cases = [
    (name, change(a), a) for name, change in changes.items() for a in answers
    if change(a) != a
  ]  # fmt: skip
  outcomes = grade(p, [(written, a) for _, written, a in cases])
  found = collections.defaultdict(lambda: [0, 0, []])
  for (name, written, a), outcome in zip(cases, outcomes, strict=True):
    entry = found[name]
    entry[0] += outcome.score == wanted
    entry[1] += 1
    if outcome.score != wanted:
      entry[2].append((written, a, outcome))
  return dict(found)


def main(every: int = 1) -> None:
  answers = load()[::every]
  with pool.Pool(config.Reward(), "math") as p:
    for wanted, changes in ((1.0, REWRITES), (0.0, PERTURBATIONS)):
      found = rates(p, answers, changes, wanted)
      for name, (right, cases, wrong) in found.items():
        print(f"{wanted:g}  {name:<22}{right:>6} of {cases:<6}{right / cases:8.2%}")
        for written, a, o in wrong:
          print(f"     {written}   for   {a}   {o.status} {o.score} {o.why}")
      right, cases = (sum(x[i] for x in found.values()) for i in (0, 1))
      print(f"{wanted:g}  {'all':<22}{right:>6} of {cases:<6}{right / cases:8.2%}\n")


if __name__ == "__main__":
  main(*map(int, sys.argv[1:]))
