"""The tables of docs/objectives.md are the tables of the code.

`python tests/test_objectives_md.py` writes them.
"""

import pathlib
import re
import textwrap

import pytest

from pxy import config
from pxy.rl import advantage, context, reduction, surrogate

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "objectives.md"


def first_lines(table):
  """A line for each function: the first of its docstring, its equation."""
  return {name: f.__doc__.splitlines()[0].rstrip(".") for name, f in table.items()}


TABLES = {
  "context": {name: record.what for name, record in context.CONTEXTS.items()},
  "advantage": first_lines(advantage.ADVANTAGES),
  "control": advantage.CONTROLS,
  "tis": surrogate.TIS,
  "clip": first_lines(surrogate.SURROGATES),
  "kl": first_lines(surrogate.KLS),
  "reduction": first_lines(reduction.REDUCTIONS),
}


def written(name: str) -> str:
  """A table between its two marks."""
  heads = {
    "context": "before the response",
    "advantage": "A",
    "control": "what it does",
    "tis": "weight of a token",
  }
  lines = [f"| `{name}` | {heads.get(name, 'equation')} |", "|---|---|"]
  for value, text in TABLES[name].items():
    text = text.replace("|", "\\|").replace(" - ", " − ").replace(" pi(", " π(")
    lines.append(f"| `{value}` | {text} |")
  return "\n".join([f"<!-- {name} -->", *lines, "<!-- end -->"])


def named() -> dict[str, config.Term]:
  """The terms of the table of usual names, by what they are called there."""
  block = re.search(
    r"<!-- names -->.*?<!-- end -->", DOCS.read_text("utf-8"), re.DOTALL
  )
  rows = re.findall(r"^\| ([^|]+?) \| `(Term\(.*?\))` \|", block[0], re.MULTILINE)
  return {name: eval(code, {"Term": config.Term}) for name, code in rows}


def test_every_usual_name_is_one_term():
  found = named()
  assert len(found) >= 15 and len(set(found.values())) == len(found), found
  used = {term.advantage for term in found.values()}
  assert used >= set(advantage.ADVANTAGES) - {"sign"}, "an estimator without a name"
  assert {term.clip for term in found.values()} == set(surrogate.SURROGATES)


@pytest.mark.parametrize("name", TABLES)
def test_the_docs_say_what_the_code_says(name):
  assert written(name) in DOCS.read_text(encoding="utf-8"), (
    f"the table {name!r} of {DOCS.name} is not that of pxy/rl/: run"
    " python tests/test_objectives_md.py"
  )


def test_the_functions_shown_are_such_as_a_run_takes(tmp_path, monkeypatch):
  (code,) = re.findall(r"\n( {4}import.*?)\n\n- ", DOCS.read_text("utf-8"), re.DOTALL)
  (tmp_path / "my.py").write_text(textwrap.dedent(code), encoding="utf-8")
  monkeypatch.chdir(tmp_path)
  term = config.Term(advantage="my.py:rank", clip="my.py:ratio")
  config.check(config.Train(phases=(config.Phase(terms=(term,)),)))


if __name__ == "__main__":
  text = DOCS.read_text(encoding="utf-8")
  for name in TABLES:
    block = rf"<!-- {name} -->.*?<!-- end -->"
    text = re.sub(block, lambda _, name=name: written(name), text, flags=re.DOTALL)
  DOCS.write_text(text, encoding="utf-8")
