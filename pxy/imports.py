"""Code that comes late: modules that are dear to import, and functions that users name.

A config, a command's help and a grading process must not wait for jax (half a second)
or numpy (a tenth). A file that needs them only where its functions are called takes
them from `later`, and can be read by those.

A function of a user's own is named `package.module:name` or `path/to/file.py:name`, the
file as seen from the current folder, or else from the folders of sys.path.
"""

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


def _module(name: str) -> types.ModuleType:
  if not name.endswith(".py"):
    return importlib.import_module(name)
  places = [pathlib.Path(folder) / name for folder in ("", *sys.path)]
  path = next((p.resolve() for p in places if p.is_file()), None)
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
