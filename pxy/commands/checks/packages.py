"""Packages that are not there, or not of the versions that others ask for.

Two sources: pxy/versions.py has the pairs whose metadata asks for less than they need,
and the metadata has the rest, read as pip reads it. Nothing is imported, since that is
what fails: an old flax under a new jax ends every other command. JAX asks for no
version of its plugins unless they are installed by its extras (`jax[tpu]`); those that
are there are held to what the extras say, for JAX leaves another one unused.
"""

import collections
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from pxy import __version__, imports, versions
from pxy.commands.checks import line as line_lib

requirements = imports.later("packaging.requirements")
utils = imports.later("packaging.utils")

ROOT = "pxy-rl"
SHOWN = ("jax", "jaxlib", "flax", "orbax-checkpoint", "libtpu")
PLUGINS = ("libtpu", "jax-")
"""How the names of JAX's plugins begin."""
_WITHOUT = ("jax", "jaxlib", "flax")
"""Of another version than is asked for, these end a run; of others, pip is cautious."""


class Package(NamedTuple):
  """What is installed under a name: its version, and what it asks for (PEP 508)."""

  version: str
  needs: tuple[str, ...] = ()


def check() -> list[line_lib.Line]:
  """The lines of what is installed."""
  return judge(installed(), versions.faults())


def installed() -> dict[str, Package]:
  """By name; of several on the path, the one that Python imports."""
  found = {}
  for one in metadata.distributions():
    if name := one.metadata and one.metadata["Name"]:
      package = Package(one.version, tuple(one.requires or ()))
      found.setdefault(utils.canonicalize_name(name), package)
  return found


def judge(found: dict[str, Package], known: list[str]) -> list[line_lib.Line]:
  """The lines of these packages.

  known: what versions.faults says of them.
  """
  out = []
  for fault in known:
    what, _, cure = fault.partition(": ")
    out.append(line_lib.Line("packages", "fail", what, cure))
  for who, need, version in broken(found):
    asked = f"{who} needs {need.name}{need.specifier}"
    want = f"pip install '{need.name}{need.specifier}'"
    if version is None:
      out.append(line_lib.Line("packages", "fail", f"{asked}: not installed", want))
      continue
    core = need.name in _WITHOUT
    is_there = f"{asked}, and {version} is installed"
    out.append(line_lib.Line("packages", "fail" if core else "warn", is_there, want))
  if not out:
    named = [f"{name} {found[name].version}" for name in SHOWN if name in found]
    python = f"Python {platform.python_version()}"
    whole = ", ".join([f"pxy {__version__}", python, *named])
    out.append(line_lib.Line("packages", "ok", whole))
  return out


def broken(
  found: dict[str, Package], root: str = ROOT
) -> Iterator[tuple[str, "requirements.Requirement", str | None]]:
  """(who asks, for what, the version that is there) of all that does not hold.

  From `root` on, over all that it needs; nothing where it is not installed, as in a
  checkout that is run by its path. Each pair once.
  """
  if root not in found:
    return
  more, seen = collections.deque([(root, frozenset(("",)))]), set()
  told = set()
  while more:
    name, extras = more.popleft()
    if (name, extras) in seen:
      continue
    seen.add((name, extras))
    for need, asked in _needs(found, name, extras):
      other = utils.canonicalize_name(need.name)
      there = found.get(other)
      if there is None or not need.specifier.contains(there.version, prereleases=True):
        if (name, other) not in told:
          told.add((name, other))
          yield name, need, there and there.version
      elif asked:
        more.append((other, frozenset(("", *need.extras))))


def _needs(found, name, extras) -> Iterator[tuple["requirements.Requirement", bool]]:
  """What a package asks for, and whether it is needed; a plugin of JAX's is not, and is
  among these where it is installed."""
  for text in found[name].needs:
    need = requirements.Requirement(text)
    if need.marker is None or any(need.marker.evaluate({"extra": x}) for x in extras):
      yield need, True
    elif name == "jax" and need.name.startswith(PLUGINS) and need.name in found:
      yield need, False
