"""Experiments: Python files whose `config()` returns a Train or a Pretrain.

  my.py, experiments/dsrl.py    a file
  dsrl                          the one of that name that came with pxy, from any folder
  my.py:grpo, add3:nsr_rl       config("grpo"): a base takes a method's name

The word is all there is: no file is searched for, and a name without `.py` is pxy's. An
experiment may import what lies in its own folder.
"""

import contextlib
import difflib
import importlib.util
import inspect
import pathlib
import re
import sys
from collections.abc import Iterator

from pxy import config, fields
from pxy.measures import gate

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def load(word: str | pathlib.Path, kind):
  """The config that a word names, of type `kind`; config.Error, one line, or that."""
  path, method = find(str(word))
  with _told(f"experiment {word}"), _module(path) as module:
    value = module.config(*_arguments(module, method))
    if isinstance(value, kind):
      # As config.json gives it back: tuples for lists, 1.0 for 1, or an Error.
      value = fields.from_dict(kind, fields.to_dict(value))
  if not isinstance(value, kind):
    raise config.Error(
      f"experiment {word}: config() returned {type(value).__name__}, this command needs"
      f" a {kind.__name__} (`pxy pretrain` takes Pretrain, `pxy train` takes Train)"
    )
  return value


def find(word: str) -> tuple[pathlib.Path, str | None]:
  """(file, method or None) of a word; config.Error names what is near a wrong one."""
  parts = re.fullmatch(r"(?P<file>.*?)(:(?P<method>[\w-]*))?", word, re.DOTALL)
  file, method = parts["file"], parts["method"]
  path = pathlib.Path(file)
  if path.suffix or "/" in file:
    _there(path, word)
    return path, method
  if file not in own():
    raise config.Error(f"experiment {word}: {_unknown(file)}")
  return own()[file], method


def own() -> dict[str, pathlib.Path]:
  """The experiments that came with pxy, by name: a wheel holds them inside the package,
  a checkout beside it."""
  inside, beside = PACKAGE / "experiments", PACKAGE.parent / "experiments"
  folder = inside if inside.is_dir() else beside
  return {path.stem: path for path in sorted(folder.glob("*.py"))}


def bases() -> list[str]:
  """Those of pxy's own that take any method."""
  found = []
  for name, path in own().items():
    with _module(path) as module:
      found += [name] if inspect.signature(module.config).parameters else []
  return found


def _there(path: pathlib.Path, word: str) -> None:
  if path.is_file():
    if path.suffix != ".py":
      raise config.Error(
        f"experiment {word}: not a Python file (NAME.py with config())"
      )
    return
  near = sorted(p.name for p in path.parent.glob("*.py"))
  hint = f"; {path.parent} has {', '.join(near)}" if near else ""
  if path.stem in own():
    hint += f"; `{path.stem}`, without folder and .py, is the one that came with pxy"
  raise config.Error(f"experiment {word}: no such file{hint}")


def _unknown(name: str) -> str:
  if pathlib.Path(f"{name}.py").is_file():
    return f"pxy has none of that name; for the file here write {name}.py"
  near = difflib.get_close_matches(name, own(), 1)
  hint = f"is it {near[0]!r}? " if near else ""
  return f"pxy has none of that name; {hint}there are {', '.join(own())}"


def study(word: str | pathlib.Path, kind):
  """What `study()` of a file returns, a `kind`; a name without .py is one of pxy's own.

  Raises config.Error, one line.
  """
  return _data(word, "study", "studies", kind)


def gates(word: str | pathlib.Path) -> tuple[gate.Gate, ...]:
  """What `gates()` of a file returns; a name without .py is one of pxy's own.

  Raises config.Error, one line.
  """
  found = _data(word, "gates", "gates", (tuple, list))
  with _told(f"gates {word}"):
    return gate.check(found)


def _data(word, what: str, folder: str, kind):
  """What the function `what` of a file returns, or of pxy's own in experiments/."""
  path, known = pathlib.Path(word), _shipped(folder)
  if not path.suffix and path.name == str(word):
    if path.name not in known:
      raise config.Error(
        f"{what} {word}: pxy has none of that name, only {', '.join(known)}; a file is"
        f" written {word}.py"
      )
    path = known[path.name]
  if not path.is_file():
    raise config.Error(f"{what} {word}: no such file")
  if path.suffix != ".py":
    raise config.Error(f"{what} {word}: not a Python file (NAME.py with {what}())")
  with _told(f"{what} {word}"), _module(path, what) as module:
    value = getattr(module, what)()
  if not isinstance(value, kind):
    wanted = kind if isinstance(kind, tuple) else (kind,)
    raise config.Error(
      f"{what} {word}: {what}() returned {type(value).__name__}, not a"
      f" {' or '.join(one.__name__ for one in wanted)}"
    )
  return value


def _shipped(folder: str) -> dict[str, pathlib.Path]:
  """The files of a folder of experiments/, by name."""
  place = next(iter(own().values())).parent / folder
  return {path.stem: path for path in sorted(place.glob("*.py"))}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
  """What goes wrong in a user's file becomes a config.Error that names it."""
  try:
    yield
  except config.Error as error:
    raise config.Error(f"{what}: {error}") from None
  except Exception as error:
    raise config.Error(
      f"{what}: {type(error).__name__}: {error}; run it with python to debug"
    ) from error


@contextlib.contextmanager
def _module(path: pathlib.Path, function: str = "config") -> Iterator:
  """An experiment, with its folder first in sys.path. The files it imports from there
  are forgotten again: another experiment's `common` is another module."""
  folder = path.parent.resolve()
  before = set(sys.modules)
  sys.path.insert(0, str(folder))
  try:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
      raise config.Error(f"it defines no function {function}()")
    yield module
  finally:
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
      file = getattr(sys.modules[name], "__file__", None)
      if file and pathlib.Path(file).resolve().parent == folder:
        del sys.modules[name]


def _arguments(module, method: str | None) -> list[str]:
  if method is None:
    return []
  if not inspect.signature(module.config).parameters:
    raise config.Error(
      "its config() takes no method; write config(method), as in"
      f" {', '.join(bases())}, or leave :{method} out"
    )
  return [method]
