"""Experiment files: a Python file whose `config()` returns a Train or a Pretrain."""

import importlib.util
import pathlib
import sys

from pxy import config, fields


def load(path: pathlib.Path, kind):
  """The config of an experiment file: the value of its `config()`, of type `kind`."""
  if not path.is_file():
    near = (
      sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    )
    raise config.Error(
      f"experiment {path}: no such file"
      + (f"; {path.parent} has {', '.join(near)}" if near else "")
    )
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise config.Error(f"experiment {path}: not a Python file (NAME.py with config())")
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(path.parent.resolve()))
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, "config") or not callable(module.config):
      raise config.Error("it defines no function config()")
    value = module.config()
    if isinstance(value, kind):
      # As config.json gives it back: tuples for lists, 1.0 for 1, or an Error.
      value = fields.from_dict(kind, fields.to_dict(value))
  except config.Error as error:
    raise config.Error(f"experiment {path}: {error}") from None
  except Exception as error:
    raise config.Error(
      f"experiment {path}: {type(error).__name__}: {error}; run it with python to debug"
    ) from error
  finally:
    sys.path.remove(str(path.parent.resolve()))
  if not isinstance(value, kind):
    raise config.Error(
      f"experiment {path}: config() returned {type(value).__name__}, this command needs"
      f" a {kind.__name__} (`pxy pretrain` takes Pretrain, `pxy train` takes Train)"
    )
  return value
