"""Packages that are installed together and do not work together, said in one line.

Their own metadata asks for less than they need, or an installer left an old one in its
place: what follows is an ImportError deep in one of them. The versions are read from
the names of folders, as pip writes them: importlib.metadata takes forty times as long
to import, and importing the packages a second. What is not found is not judged.
"""

import os
import sys
from collections.abc import Iterable, Iterator

NEEDS = (
  ("pxy", "0", "jax", "0.7"),
  ("pxy", "0", "flax", "0.11.2"),
  ("jax", "0.11", "flax", "0.12.9"),  # which itself asks for jax >= 0.11.1
  ("flax", "0.12.9", "jax", "0.11.1"),
  ("sentencepiece", "0.2.3", "protobuf", "7.36.1"),
  ("tensorflow_metadata", "1.18", "protobuf", "6.31.1"),
)
"""A package, from this version on, needs another, from that one on."""


_tolerated = False


def tolerate() -> None:
  """From now on `check` refuses nothing in this process: `pxy doctor` must work where
  nothing else does, and imports none of them."""
  global _tolerated
  _tolerated = True


def check(*names: str) -> None:
  """Raises fields.Error where two packages do not go together; of these alone, if any
  are named."""
  if not _tolerated and (line := fault(*names)):
    from pxy import fields  # it takes longer than all of this

    raise fields.Error(line)


def fault(*names: str) -> str | None:
  """What is wrong with what is installed, and the cure; None: nothing."""
  return next(iter(faults(*names)), None)


def faults(*names: str) -> list[str]:
  """All that is wrong with it, a line each."""
  found = {"pxy": "0"} | installed({x for row in NEEDS for x in row[::2]})
  return list(_wrong(found, names))


def wrong(found: dict[str, str], names: Iterable[str] = ()) -> str | None:
  """What is wrong with these versions, as `fault`."""
  return next(_wrong(found, names), None)


def _wrong(found: dict[str, str], names: Iterable[str]) -> Iterator[str]:
  for name, since, other, least in NEEDS:
    if (names and other not in names) or not {name, other} <= found.keys():
      continue
    if _key(found[name]) >= _key(since) and _key(found[other]) < _key(least):
      who = name if name == "pxy" else f"{name} {found[name]}"
      yield (
        f"{who} needs {other} >= {least}, and {found[other]} is installed:"
        f" pip install -U '{other}>={least}'{_or_back(name, since)}"
      )


def _or_back(name: str, since: str) -> str:
  return "" if name == "pxy" else f" (or '{name}<{since}')"


def installed(names: set[str], path: list[str] | None = None) -> dict[str, str]:
  """Their versions; of several on the path (sys.path), the one that Python imports."""
  found = {}
  for folder in sys.path if path is None else path:
    try:
      entries = os.listdir(folder or ".")
    except OSError:  # no folder, a zip
      continue
    for entry in entries:
      stem, _, kind = entry.rpartition(".")
      name, _, version = stem.rpartition("-")
      name = name.lower().replace("-", "_")
      if kind == "dist-info" and name in names:
        found.setdefault(name, version)
  return found


def _key(version: str) -> tuple[int, ...]:
  """Its leading numbers: 0.12.0.1 of "0.12.0.1", 0.11 of "0.11.dev2"; no zeros last."""
  numbers = []
  for part in version.split("."):
    digits = part[: len(part) - len(part.lstrip("0123456789"))]
    if digits:
      numbers.append(int(digits))
    if digits != part:
      break
  while numbers and not numbers[-1]:
    numbers.pop()
  return tuple(numbers)
