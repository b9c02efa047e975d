"""What README and docs/related.md say of the evidence, written anew from its JSON.

  python tests/told.py

`<!-- ours NAME -->...<!-- -->` holds a claim's differences, or the accuracy that a
method ends with; `<!-- told NAME -->...<!-- -->` a claim's differences and verdicts,
`<!-- told real/NAME -->` those of the real model; `<!-- told twice -->` what came of
the cells that were trained on two processors (twice.json: their accuracy there, and
here). tests/test_evidence.py fails where one of them is not what the JSON says.
"""

import functools
import json
import math
import pathlib
import re
import statistics

from pxy.study import page

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
PAGES = ROOT / "README.md", ROOT / "docs" / "related.md", ROOT / "docs" / "study.md"
TAG = re.compile(r"<!-- (ours|told) (?:(real)/)?(\S+) -->(.*?)<!-- -->")


@functools.cache
def numbers(folder: pathlib.Path) -> dict:
  """A study's results.json."""
  return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def twice() -> str:
  """How far apart the same cells are on two processors."""
  pairs = json.loads((EVIDENCE / "twice.json").read_text(encoding="utf-8"))
  said = []
  for world in ("world", "add3"):
    apart = [now - then for x, (then, now) in pairs.items() if x.startswith(world)]
    same, size = sum(x == 0 for x in apart), len(apart)
    rms = math.sqrt(statistics.mean(x * x for x in apart))
    said.append(f"{same} of {size} of {world} end alike, the difference is {rms:.4f}")
  means = [
    [
      statistics.mean(
        pair[i] for x, pair in pairs.items() if x.startswith(f"add3/{arm}/")
      )
      for arm in ("dsrl", "grpo")
    ]
    for i in range(2)
  ]
  then, now = (dsrl - grpo for dsrl, grpo in means)
  said.append(f"add3's DSRL less GRPO was {then:+.3f} there and is {now:+.3f} here")
  return "; ".join(said)


def anew(text: str) -> str:
  """The text with what its tags should hold. KeyError: a study has no such name."""

  def one(found: re.Match) -> str:
    kind, real, name, _ = found.groups()
    if name == "twice":
      return f"<!-- told twice -->{twice()}<!-- -->"
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
