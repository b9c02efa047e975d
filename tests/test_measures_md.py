"""The tables of docs/measures.md are those of the code, and each measure is made.

`python tests/test_measures_md.py` writes them.
"""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from pxy.evaluate import by_problem
from pxy.measures import names

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "measures.md"
FIGURES = ROOT / "docs" / "figures"
PARTS = list(dict.fromkeys(name.split("/")[0] for name in names.NAMES))


def written(part: str) -> str:
  """A table between its two marks."""
  lines = [f"<!-- {part} -->", "| name | meaning |", "|---|---|"]
  for name, meaning in names.NAMES.items():
    if name.startswith(f"{part}/"):
      lines.append(f"| `{name}` | {meaning} |")
  return "\n".join([*lines, "<!-- end -->"])


def test_the_docs_have_the_kinds_of_what_is_kept_by_problem():
  block = re.search(r"<!-- by problem -->(.*?)<!-- end -->", DOCS.read_text(), re.S)[1]
  first = [line.split("|")[1] for line in block.strip().splitlines()[2:]]
  told = re.findall(r"`(.*?)`", " ".join(first))
  assert tuple(told) == by_problem.KINDS


@pytest.mark.parametrize("part", PARTS)
def test_the_docs_say_what_the_code_says(part):
  assert written(part) in DOCS.read_text(encoding="utf-8"), (
    f"the table {part!r} of {DOCS.name} is not that of pxy/measures/names.py: run"
    " python tests/test_measures_md.py"
  )


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_its_picture(part):
  size = (FIGURES / f"{part}.svg").stat().st_size
  assert f"](figures/{part}.svg)" in DOCS.read_text(encoding="utf-8")
  assert 1_000 < size < 60_000


def test_pictures_are_drawn_of_what_a_probe_writes(tmp_path):
  spec = importlib.util.spec_from_file_location("figures", FIGURES / "measures.py")
  figures = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(figures)
  panels = [rows for part in PARTS for rows in figures.FIGURES[part].values()]
  asked = [name for rows in panels for name in rows.values()]
  for name in asked:
    names.sentence(name)
  span = {"value": 0.5, "low": 0.25, "high": 0.75}
  measures = {n: span | {"null": i % 2 and span, "n": 30} for i, n in enumerate(asked)}
  fewer = {name: one for name, one in measures.items() if not name.endswith("2")}
  models = [
    {"model": "base", "measures": fewer},
    {"model": "run", "measures": measures},
  ]
  path = tmp_path / "probe.json"
  path.write_text(json.dumps(models), encoding="utf-8")
  figures.main(str(path), tmp_path)
  for part in PARTS:
    text = (tmp_path / f"{part}.svg").read_text(encoding="utf-8")
    assert ">run<" in text and ">base<" in text, part
    assert "30 problems" in text or "(30)" in text, part


def test_a_name_means_one_thing():
  for name in names.NAMES:
    example = re.sub(r"[\[\]]", "", re.sub(r"\{\w+\}", "9", name))
    matching = [n for n in names.NAMES if re.fullmatch(names._regex(n), example)]
    assert matching == [name], f"{example} could be each of {matching}"


def test_measures_need_no_jax():
  files = [p.stem for p in (ROOT / "pxy" / "measures").glob("[!_]*.py")]
  code = f"from pxy.measures import {', '.join(sorted(files))}; import sys"
  code += "; print(*({'jax', 'scipy', 'pyarrow'} & sys.modules.keys()))"
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, timeout=60, stdout=-1, text=True
  )
  assert done.stdout.strip() == "", f"measures import {done.stdout.strip()}"


if __name__ == "__main__":
  text = DOCS.read_text(encoding="utf-8")
  for part in PARTS:
    block = rf"<!-- {part} -->.*?<!-- end -->"
    text = re.sub(block, lambda _, part=part: written(part), text, flags=re.DOTALL)
  DOCS.write_text(text, encoding="utf-8")
