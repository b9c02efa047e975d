"""The public surface says its types; mypy, in `make lint`, says whether they are true.

tests/typed_calls.py holds the calls that it must let pass, and those that it must not.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = sorted(path.name for path in (ROOT / "pxy/rl").glob("*.py"))


def untyped(text: str) -> list[str]:
  """Public functions and methods of a file with a parameter or result of no type."""

  def public(body):
    for node in body:
      if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        yield from public(node.body)
      elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
        yield node

  found = []
  for node in public(ast.parse(text).body):
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    named = [x.arg for x in every if x.annotation is None and x.arg != "self"]
    found += [f"{node.name}: {', '.join(named)}"] if named else []
    found += [f"{node.name}: its result"] if node.returns is None else []
  return found


@pytest.mark.parametrize("name", FILES)
def test_public_functions_say_the_types_of_all_they_take_and_give(name):
  found = untyped((ROOT / "pxy/rl" / name).read_text("utf-8"))
  assert not found, (
    f"pxy/rl/{name}: {'; '.join(found)}: an array is `Array` of pxy/rl/arrays.py"
  )


def test_what_says_no_type_is_seen():
  text = """
def one(a, b: int) -> int: ...
def _two(a): ...
class Three:
  def four(self, *, c): ...
"""
  assert untyped(text) == ["one: a", "four: c", "four: its result"]
