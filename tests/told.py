"""What README and docs/related.md say of the evidence, written anew from its JSON.

  python tests/told.py

`<!-- ours NAME -->...<!-- -->` holds a claim's differences, or the accuracy that a
method ends with; `<!-- told NAME -->...<!-- -->` a claim's differences and verdicts,
`<!-- told real/NAME -->` those of the real model. tests/test_evidence.py fails where
one of them is not what the JSON says.
"""

import functools
import json
import pathlib
import re

from pxy.study import page

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
PAGES = ROOT / "README.md", ROOT / "docs" / "related.md"
TAG = re.compile(r"<!-- (ours|told) (?:(real)/)?(\S+) -->(.*?)<!-- -->")


@functools.cache
def numbers(folder: pathlib.Path) -> dict:
  """A study's results.json."""
  return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def anew(text: str) -> str:
  """The text with what its tags should hold. KeyError: a study has no such name."""

  def one(found: re.Match) -> str:
    kind, real, name, _ = found.groups()
    results = numbers(EVIDENCE / "real" if real else EVIDENCE)
    known = {one["claim"] for one in results["claims"]}
    known |= {one["method"] for one in results["cells"]} if kind == "ours" else set()
    if name not in known:
      raise KeyError(f"{kind} {name}: the study has none")
    said = {"ours": page.ours, "told": page.told}[kind](results, name)
    return f"<!-- {found[0].split(' ', 1)[1].split(' -->')[0]} -->{said}<!-- -->"

  return TAG.sub(one, text)


if __name__ == "__main__":
  for path in PAGES:
    text = path.read_text(encoding="utf-8")
    path.write_text(anew(text), encoding="utf-8")
