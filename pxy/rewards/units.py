"""Units of measure that answers carry: one name for each, however it is spelled.

No unit is turned into another: 5 m is not 500 cm, for a question names its unit. What
is not in the table ("apples") is a unit by its own spelling, without the plural's s.
"""

import re

_TABLE = """
mm: millimeter millimetre
cm: centimeter centimetre
dm: decimeter decimetre
m: meter metre
km: kilometer kilometre
in: inch inches
ft: foot feet
yd: yard yds
mi: mile
mg: milligram
g: gram gm
kg: kilogram kilo kgs
lb: lbs pound
oz: ounce
t: ton tonne
ms: millisecond
s: sec secs second
min: mins minute
h: hr hrs hour
day: days
week: weeks
month: months
year: years yr yrs
ml: milliliter millilitre mL
l: L liter litre
gal: gallon
mph:
rad: radian
$: dollar dollars usd USD
\u00a2: cent cents
\u20ac: euro euros EUR eur
\u00a3: GBP gbp
\u00a5: yen yuan
\u20b9: rupee rupees
%: percent percents pct
deg: degree degrees \u00b0
point: points pts
unit: units
N: newton
J: joule
kJ: kilojoule
W: watt
kW: kilowatt
Pa: pascal
Hz: hertz
V: volt
A: ampere amp
K: kelvin
mol: mole
"""
NAMES = {}
for _line in _TABLE.strip().splitlines():
  _name, _, _others = _line.partition(":")
  for _word in (_name, *_others.split()):
    NAMES[_word] = _name
    if len(_word) > 3:
      NAMES[_word + "s"] = _name
CURRENCY = {"$", "\u20ac", "\u00a3", "\u00a5", "\u20b9", "\u00a2"}
GENERIC = "unit"
"""A unit that says nothing; it is as good as none."""

_POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3"}
_WORD = re.compile(r"[A-Za-z]+|[^\sA-Za-z.,;]", re.ASCII)
_NO_UNIT = frozenset(
  "than less more times if where when for except not mod modulo over divided plus"
  " minus and or is are to with approximately about but at equals equal such"
  " solution solutions pi sqrt infinity x y z e i".split()
)


def name(text: str) -> str | None:
  """The one spelling of a unit ("cm^2" of "square centimeters"); None for no unit."""
  words = _WORD.findall(text.replace("\\", " ").replace("{", "").replace("}", ""))
  if not words or len(words) > 8 or any(w.lower() in _NO_UNIT for w in words):
    return None
  out, power = [], ""
  for word in words:
    if word in ("/", "*", "^", "-") or word.isdigit():
      out.append(word)
    elif word in NAMES or word.lower() in NAMES:
      out.append(NAMES.get(word) or NAMES[word.lower()])
    elif word.lower() in _POWERS:
      power = _POWERS[word.lower()]
    elif word == "per":
      out.append("/")
    elif word.isalpha():
      low = word.lower()
      out.append(low[:-1] if len(low) > 3 and low.endswith("s") else low)
    else:
      return None
  return "".join(out) + power if any(o.isalnum() or o in NAMES for o in out) else None


def known(text: str) -> bool:
  """Whether a word is in the table."""
  return text in NAMES or (len(text) > 2 and text.lower() in NAMES)
