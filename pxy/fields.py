"""Records of data: what their fields may be, and how they become JSON and come back.

A record is a frozen dataclass. A field's annotation holds its type and, for numbers,
its range (`Count`, `Share`, ...); what does not fit is an Error that names the field,
what was found and what is expected.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from typing import Annotated, Literal


class Error(ValueError):
  """Something the user can mend. The text is one line: what is wrong, and the cure."""


_RANGES = {
  ">= 0": lambda x: x >= 0,
  "0 to 2147483647": lambda x: 0 <= x < 2**31,
  "1 to 2147483647": lambda x: 1 <= x < 2**31,
  "0 to 16": lambda x: 0 <= x <= 16,
  "0, or 0.01 to 100": lambda x: x == 0 or 0.01 <= x <= 100,
  "> 0": lambda x: x > 0,
  "0 to 1": lambda x: 0 <= x <= 1,
  "0 to below 1": lambda x: 0 <= x < 1,
  "above 0, at most 1": lambda x: 0 < x <= 1,
  "0 to 4294967295": lambda x: 0 <= x < 2**32,
}
Count = Annotated[int, "1 to 2147483647"]
Natural = Annotated[int, "0 to 2147483647"]
Few = Annotated[int, "0 to 16"]
Seed = Annotated[int, "0 to 4294967295"]
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Share = Annotated[float, "0 to 1"]
Temperature = Annotated[float, "0, or 0.01 to 100"]
Decay = Annotated[float, "0 to below 1"]
Nucleus = Annotated[float, "above 0, at most 1"]


def to_dict(cfg) -> dict:
  """A config as plain JSON values, as config.json gives it back."""
  return json.loads(json.dumps(dataclasses.asdict(cfg)))


def changed(record) -> dict:
  """The fields of a record that are not as a new one has them, as plain JSON values: a
  field that a later pxy adds is none of them until it is used."""
  new = type(record)()
  return {
    field.name: _changed(value)
    for field in dataclasses.fields(record)
    if (value := getattr(record, field.name)) != getattr(new, field.name)
  }


def _changed(value):
  if dataclasses.is_dataclass(value):
    return changed(value)
  return [_changed(one) for one in value] if isinstance(value, tuple) else value


def from_dict(kind, values, path=""):
  """The dataclass `kind` from JSON values; an unknown, ill-typed or impossible value is
  an Error."""
  if not isinstance(values, dict):
    raise Error(f"{path or 'config'}: expected an object, found {values!r}")
  hints = typing.get_type_hints(kind, include_extras=True)
  unknown = sorted(set(values) - set(hints))
  if unknown:
    near = difflib.get_close_matches(unknown[0], hints, 1) or sorted(hints)
    raise Error(
      f"{path or 'config'}: unknown field {unknown[0]!r}; is it {', '.join(near)}?"
    )
  given = {k: _value(hints[k], v, f"{path}.{k}".lstrip(".")) for k, v in values.items()}
  try:
    return kind(**given)
  except Error as error:  # of Term, which checks itself
    raise Error(f"{path}: {error}" if path else str(error)) from None


def check_fields(record) -> None:
  """Refuses a record whose fields are not of their types and ranges."""
  for name, hint in typing.get_type_hints(type(record), include_extras=True).items():
    _value(hint, getattr(record, name), name)


def _value(hint, value, path):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if dataclasses.is_dataclass(hint):
    return from_dict(hint, value, path)
  if origin is Annotated:
    value = _value(args[0], value, path)
    if not _RANGES[args[1]](value):
      raise Error(f"{path} {value}: must be {args[1]}")
    return value
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      raise Error(f"{path}: expected a list, found {value!r}")
    return tuple(_value(args[0], v, f"{path}.{i}") for i, v in enumerate(value))
  if origin is Literal:
    if value not in args:
      raise Error(f"{path} {value!r}: must be one of {', '.join(map(str, args))}")
    return value
  if origin in (types.UnionType, typing.Union):
    if value is None and type(None) in args:
      return None
    *others, last = (a for a in args if a is not type(None))
    for member in others:
      try:
        return _value(member, value, path)
      except Error:
        pass
    return _value(last, value, path)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise Error(f"{path}: expected {hint.__name__}, found {value!r}")
  if hint is float and not math.isfinite(value):
    raise Error(f"{path} {value}: must be a finite number")
  return value


def need(true, text: str) -> None:
  """Raises an Error unless it is true."""
  if not true:
    raise Error(text)


def line(error: BaseException) -> str:
  """What an exception says, on one line of at most 300 characters."""
  return " ".join(str(error).split())[:300]
