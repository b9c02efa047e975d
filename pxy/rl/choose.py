"""A function that a term names: one of a table, or the user's own by import path.

It is called with the arrays of its kind, by position. What else it takes, it gets by
the names of its parameters: fields of the term (`lam`, `clip_high`), and what its kind
has besides (`segments_BT`). So an option that one function needs costs the others
nothing, and a function of a user's own is written like those of pxy.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pxy import fields, imports


def need(field: str, name: str, table: dict[str, Callable]) -> None:
  """Refuses a name that is neither of the table nor an import path; imports nothing."""
  fields.need(
    name in table or imports.is_path(name),
    f"{field} {name!r}: must be one of {', '.join(table)}, or a function of your own,"
    " as path/to/file.py:name or package.module:name",
  )


def function(
  field: str, term: Any, table: dict[str, Callable], arrays: tuple[str, ...], **more
) -> Callable:
  """The function that a field of the term names, with all but its arrays given.

  Args:
    arrays: names of the arrays that it is called with.
    more: what it may take by name besides the fields of the term.

  Raises:
    fields.Error: it cannot be loaded, or takes something else.
  """
  name, found = getattr(term, field), _found(field, term, table)
  signature = inspect.signature(found)
  known = vars(term) | more
  asked = {k: known[k] for k in list(signature.parameters)[len(arrays) :] if k in known}
  try:
    signature.bind(*arrays, **asked)
  except TypeError as error:
    raise fields.Error(
      f"{field} {name!r} takes {signature}, but is called with ({', '.join(arrays)}),"
      f" and by name with any of {', '.join(known)}: {error}"
    ) from None
  return functools.partial(found, **asked)


def parameters(field: str, term: Any, table: dict[str, Callable]) -> frozenset[str]:
  """What the function that a field of the term names calls its parameters."""
  return frozenset(inspect.signature(_found(field, term, table)).parameters)


def _found(field, term, table):
  name = getattr(term, field)
  return table.get(name) or imports.function(name, field)


def alike(
  field: str, term: Any, found: Any, like: Any, kinds: tuple[str, ...] = ("float",)
) -> None:
  """Refuses a result that is no array of the shape of `like` and of such numbers."""
  said = f"{field} {getattr(term, field)!r} gave"
  shape, dtype = (getattr(found, name, None) for name in ("shape", "dtype"))
  fields.need(
    shape is not None, f"{said} {type(found).__name__}, not an array {like.shape}"
  )
  fields.need(
    shape == like.shape, f"{said} an array {shape}, where {like.shape} is wanted"
  )
  fields.need(
    any(kind in str(dtype) for kind in kinds),
    f"{said} numbers of type {dtype}, where {' or '.join(kinds)} is wanted",
  )
