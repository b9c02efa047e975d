"""Code that comes late: modules that are dear to import, and functions that users name.

A config, a command's help and a grading process must not wait for jax (half a second)
or numpy (a tenth). A file that needs them only where its functions are called takes
them from `later`, and can be read by those.

A function of a user's own is named `package.module:name` or `path/to/file.py:name`, the
file as seen from the current folder, or else from the folders of sys.path.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import pathlib
import sys
import types
from collections.abc import Callable

from pxy import fields


class _Later(types.ModuleType):
  def __getattr__(self, attribute: str):
    return getattr(importlib.import_module(self.__name__), attribute)


def later(name: str) -> types.ModuleType:
  """The module of that name, which is imported when it is first used."""
  return _Later(name)


def is_path(text: str) -> bool:
  """Whether the text names a function of the user's own. Imports nothing."""
  module, _, function = text.rpartition(":")
  return bool(module) and function.isidentifier()


def function(path: str, what: str) -> Callable:
  """The function that an import path names; its module runs once, and again when its
  file has changed.

  Raises:
    fields.Error: it cannot be had; the text begins with `what`.
  """
  module, _, name = path.rpartition(":")
  try:
    found = getattr(_module(module), name)
    inspect.signature(found)  # refuses what is no function
  except (Exception, SystemExit) as e:
    raise fields.Error(
      f"{what}: cannot load {path!r}: {type(e).__name__}: {fields.line(e)}"
    ) from e
  return found


def sources(path: str) -> list[pathlib.Path]:
  """The files of a user's function: the one that it stands in, and what that imports
  from beside it, from its own package or from the current folder, and so on.

  Runs none of them. Other installed packages, and pxy, are left out; a function that
  stands in no file of Python's has none.
  """
  module = path.rpartition(":")[0]
  top = module.partition(".")[0]
  if module.endswith(".py"):
    more, roots = [_file(module)], [pathlib.Path.cwd()]
  else:
    roots = [pathlib.Path.cwd(), *_root(top)]
    more = next((files for root in roots if (files := _under(root, module))), [])
  found: dict[pathlib.Path, None] = {}
  while more:
    file = more.pop()
    if file is None or file in found:
      continue
    found[file] = None
    for name, level in _imported(file):
      places = [file.parents[level - 1]] if level else [file.parent, *roots]
      files = next((files for root in places if (files := _under(root, name))), [])
      own = level or name.partition(".")[0] == top
      more += [one for one in files if own or not _apart(one)]
  return list(found)


def _root(top: str) -> list[pathlib.Path]:
  """The folder that a module or package stands in. Runs nothing of it."""
  with contextlib.suppress(ImportError, ValueError):
    spec = importlib.util.find_spec(top)
    inside = list(spec.submodule_search_locations or []) if spec else []
    place = inside[0] if inside else spec and spec.origin
    return [pathlib.Path(place).parent] if place else []
  return []


def _under(root: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Files of a dotted name in a folder, those of the packages on the way first."""
  parts = name.split(".")
  bases = [root.joinpath(*parts[: n + 1]) for n in range(len(parts))]
  each = (path for base in bases for path in (base / "__init__.py", f"{base}.py"))
  return [path for path in map(pathlib.Path, each) if path.is_file()]


def _imported(file: pathlib.Path) -> list[tuple[str, int]]:
  """(dotted name, number of leading dots) of all that a file imports, anywhere."""
  out = []
  try:
    tree = ast.parse(file.read_bytes())
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return out  # whoever runs it will say so
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      out += [(alias.name, 0) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      stem = f"{node.module}." if node.module else ""
      out += [(stem + alias.name, node.level) for alias in node.names]
  return out


def _apart(file: pathlib.Path) -> bool:
  """Whether a file is of an installed package, or pxy's."""
  ours = pathlib.Path(__file__).parent
  return bool({"site-packages", "dist-packages"} & set(file.parts)) or (
    ours in file.resolve().parents
  )


def _file(name: str) -> pathlib.Path | None:
  places = [pathlib.Path(folder) / name for folder in ("", *sys.path)]
  return next((p.resolve() for p in places if p.is_file()), None)


def _module(name: str) -> types.ModuleType:
  if not name.endswith(".py"):
    return importlib.import_module(name)
  path = _file(name)
  if path is None:
    raise FileNotFoundError(f"no file {name!r}")
  return _run(path, path.stat().st_mtime_ns)


@functools.cache
def _run(path: pathlib.Path, changed: int) -> types.ModuleType:
  name = f"pxy_own_{path.stem}"  # json.py must not become `json`
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module
