"""pxy and google-tunix in alternation: the ratio holds on a noisy machine as well.

    python -m venv benchmarks/.venv-peers
    benchmarks/.venv-peers/bin/pip install -r benchmarks/peers.txt
    python -m benchmarks.peers --size tiny-qwen

Tunix runs in that environment of its own, as a child that does one part at a time
(tunix_worker.py); in each round each part is done once by either, and what is given are
the medians and the median of the rounds' ratios. Same model, batch, lengths, float32.

What it gave on two cores that were shared with other work is in docs/performance.md;
cores that are all idle may give another ratio.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
from collections.abc import Callable, Iterator

from rich import console
from rich import table as rich_table

from benchmarks import run
from pxy import config
from pxy.commands import malloc
from pxy.model import decoder

HERE = pathlib.Path(__file__).parent
PYTHON = HERE / ".venv-peers" / "bin" / "python"
PARTS = ("sampling", "update")


@contextlib.contextmanager
def tunix(size: run.Size) -> Iterator[Callable[[str], float]]:
  """A function from a part's name to the seconds that it took Tunix."""
  if not PYTHON.exists():
    raise config.Error(f"no {PYTHON}: make it as the head of benchmarks/peers.py says")
  command = [str(PYTHON), str(HERE / "tunix_worker.py")]
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, **pipes) as child:

    def ask(line: str):
      child.stdin.write(line + "\n")
      child.stdin.flush()
      answer = child.stdout.readline()
      if not answer:
        raise config.Error("tunix ended; its reason is above")
      return json.loads(answer)

    try:
      made = ask(json.dumps(dataclasses.asdict(size)))
      shape = [size.prompts * size.responses, size.completion]
      same = {"parameters": decoder.size(size.arch), "shape": shape}
      if made != same:
        raise config.Error(f"not the same work: tunix {made}, pxy {same}")
      yield ask
    finally:
      child.stdin.close()


def compare(size: run.Size, rounds: int) -> dict[str, dict]:
  """Per part: median seconds of either, the median ratio, all rounds."""
  job = run.Job(size)
  found = {name: {"pxy": [], "tunix": []} for name in PARTS}
  with tunix(size) as ask:
    for number in range(-2, rounds):  # two to warm up
      for name in PARTS:
        taken = {"pxy": run.seconds(getattr(job, name)), "tunix": ask(name)}
        if number >= 0:
          for who, value in taken.items():
            found[name][who].append(value)
  return {
    name: {
      "pxy": statistics.median(taken["pxy"]),
      "tunix": statistics.median(taken["tunix"]),
      "ratio": statistics.median(
        a / b for a, b in zip(taken["pxy"], taken["tunix"], strict=True)
      ),
      "rounds": taken,
    }
    for name, taken in found.items()
  }


def main() -> None:
  """Compares and shows."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--size", choices=sorted(run.SIZES), default="tiny-qwen")
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--json", action="store_true", help="JSON in place of a table")
  given = parser.parse_args()
  malloc.reuse()
  try:
    parts = compare(run.SIZES[given.size], given.rounds)
  except config.Error as error:
    raise SystemExit(f"error: {error}") from None
  if given.json:
    print(json.dumps({"size": given.size, "parts": parts}, indent=2))
    return
  out = rich_table.Table("part", "pxy s", "tunix s", "pxy / tunix", title=given.size)
  for name, part in parts.items():
    out.add_row(name, *(f"{part[key]:.3f}" for key in ("pxy", "tunix", "ratio")))
  console.Console().print(out)


if __name__ == "__main__":
  main()
