"""What the documents say is there: paths, make targets, modules and code.

The README's own example of the losses runs in test_readme.py.
"""

import ast
import importlib
import importlib.util
import pathlib
import re
import subprocess

import conftest
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
_DOCS = ("architecture", "data", "doctor", "gates", "measures", "own_models", "samples")
PAGES = (
  "README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in _DOCS)
)  # fmt: skip
FOLDERS = "pxy|docs|tests|experiments|colabs|benchmarks|.ci"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*[\w/*]")
"""A path from the root, wherever it stands; a `*` is one as in a shell."""
MADE = ("pxy/experiments/",)
"""Of a wheel, not of a checkout."""
LINK = re.compile(r"\]\(([^)#:]+)\)")
FILE = re.compile(r"(?<![\w./])[\w/]+\.py\b")


def paths(text: str) -> set[str]:
  """Paths from the root that a text names."""
  return {name for name in PATH.findall(text) if not name.startswith(MADE)}


def lacking(text: str, folder: pathlib.Path = ROOT) -> list[str]:
  """Paths and links of a page in `folder` that lead nowhere."""
  named = {name for name in paths(text) if not any(ROOT.glob(name))}
  return sorted(named | {x for x in LINK.findall(text) if not (folder / x).exists()})


def targets(text: str) -> set[str]:
  """Targets of make that a text names as code: indented, or between backquotes."""
  code = re.findall(r"^ {4}make ([\w-]+)|`make ([\w-]+)`", text, re.MULTILINE)
  return {a or b for a, b in code}


def code(text: str) -> list[str]:
  """The Python of a page: fenced blocks."""
  return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def unresolved(names: list[str]) -> list[str]:
  """Dotted names that are neither modules nor something in one."""
  out = []
  for name in names:
    module, _, last = name.rpartition(".")
    if importlib.util.find_spec(name.split(".")[0]) is None:
      out.append(name)
      continue
    try:
      importlib.import_module(name)
    except ModuleNotFoundError:
      try:
        found = hasattr(importlib.import_module(module), last)
      except ModuleNotFoundError:
        found = False
      out += [] if found else [name]
  return out


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_link_leads_somewhere(page):
  path = ROOT / page
  text = path.read_text(encoding="utf-8")
  if page == "CHANGELOG.md":  # its first column is what is gone
    text = re.sub(r"^  \|[^|]*\|", "  |", text, flags=re.MULTILINE)
  assert not lacking(text, path.parent), (
    f"{page} names what is not there: mend the page, or bring the file back"
  )


def test_every_target_is_one_of_make():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  known = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
  asked = targets("\n".join((ROOT / page).read_text("utf-8") for page in PAGES))
  assert len(asked) > 5
  assert asked <= known, f"the Makefile has no {', '.join(sorted(asked - known))}"


def test_every_recipe_is_one_that_a_shell_reads():
  """A comma inside $(call ...) ends an argument, and a quote with it."""
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  targets = re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)
  assert len(targets) > 10, "the Makefile's targets are no longer found"
  for target in targets:
    asked = subprocess.run(
      ["make", "-C", str(ROOT), "--no-print-directory", "-nB", target],
      capture_output=True, text=True, check=True,
    )  # fmt: skip
    read = subprocess.run(
      ["sh", "-n"], input=asked.stdout, capture_output=True, text=True
    )
    assert read.returncode == 0, f"make {target}: {read.stderr}\n{asked.stdout}"


def test_what_the_code_of_a_page_imports_is_there():
  names = []
  for block in code("\n".join((ROOT / page).read_text("utf-8") for page in PAGES)):
    for node in ast.walk(ast.parse(block)):
      if isinstance(node, ast.Import):
        names += [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names += [f"{node.module}.{alias.name}" for alias in node.names]
  assert names and not unresolved(names)


def test_moved_modules_are_where_the_changelog_says():
  text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
  rows = re.findall(r"^  \| .*? \| (`.*) \|$", text, re.MULTILINE)
  names = re.findall(r"`(pxy\.[\w.]+)`", " ".join(rows))
  assert len(names) > 10 and not unresolved(names)


def test_the_readme_has_every_folder_and_the_drawing_every_file():
  text = (ROOT / "README.md").read_text(encoding="utf-8")
  folders = {f"pxy/{p.parent.name}/" for p in ROOT.glob("pxy/*/__init__.py")}
  assert folders <= paths(text), (
    f"the map of README.md lacks {', '.join(sorted(folders - paths(text)))}"
  )
  drawn = FILE.findall((ROOT / "docs/step.svg").read_text(encoding="utf-8"))
  assert len(drawn) > 6
  gone = [n for n in drawn if not (ROOT / "pxy" / n.removeprefix("pxy/")).is_file()]
  assert not gone, f"docs/step.svg names {', '.join(gone)}"


def test_slow_txt_names_tests_that_there_are():
  for name in sorted(conftest.slow_tests()):
    file, _, test = name.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"def {test.partition('[')[0]}(" in text, f"tests/slow.txt: no {name}"


def test_a_wrong_word_is_seen():
  text = """See `pxy/run/sesion.py`, [this](docs/architectur.md), tests/test_*.py and

    make demmo

or `make test`. make it so.
"""
  assert lacking(text) == ["docs/architectur.md", "pxy/run/sesion.py"]
  assert targets(text) == {"demmo", "test"}
  gone = ["pxy.run.sesion", "pxy.rl.view.vieww", "pxyz"]
  assert unresolved([*gone, "pxy.rl.view", "pxy.rl.view.View"]) == gone
