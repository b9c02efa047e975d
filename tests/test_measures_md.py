"""The tables of docs/measures.md are those of the code, and each measure is made.

`python tests/test_measures_md.py` writes them.
"""

import pathlib
import re
import subprocess
import sys

import pytest

from pxy.measures import names

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "measures.md"
PARTS = list(dict.fromkeys(name.split("/")[0] for name in names.NAMES))


def written(part: str) -> str:
  """A table between its two marks."""
  lines = [f"<!-- {part} -->", "| name | meaning |", "|---|---|"]
  for name, meaning in names.NAMES.items():
    if name.startswith(f"{part}/"):
      lines.append(f"| `{name}` | {meaning} |")
  return "\n".join([*lines, "<!-- end -->"])


@pytest.mark.parametrize("part", PARTS)
def test_the_docs_say_what_the_code_says(part):
  assert written(part) in DOCS.read_text(encoding="utf-8"), (
    f"the table {part!r} of {DOCS.name} is not that of pxy/measures/names.py: run"
    " python tests/test_measures_md.py"
  )


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
