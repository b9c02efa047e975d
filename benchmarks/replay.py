"""What slots, the pool's size and the order of prompts do to a step's decoding.

  python -m benchmarks.replay [--topology v5e:8x8] [--held 512] [--lengths WORD]

The sampler's schedule is replayed (pxy/sampling/replay.py) for Qwen3-4B's recipe on a
pod that is only described, from lengths alone, and each turn is charged with the bytes
that the device reads whose rows hold most: its weights, and the pages of its rows. No
program is compiled. Two kinds of lengths: drawn for each response, or alike within each
group. In brackets the bytes over those of the weights and of what the rows hold.
Prints the table of docs/pods.md; a minute or two.
"""

import argparse

import numpy as np

from benchmarks import pods
from pxy import config
from pxy.aot import chips, lengths, programs, whole
from pxy.commands import experiment
from pxy.sampling import replay
from pxy.weights import load


def alike(length_PR: np.ndarray) -> np.ndarray:
  """The same lengths, those of a group side by side in their order."""
  groups = np.sort(length_PR.reshape(-1)).reshape(length_PR.shape)
  return np.random.default_rng(0).permutation(groups)


def replayed(topology: str, slots: int, held: int, length_PR: np.ndarray) -> str:
  """Turns, seconds of their bytes, these over the least, and what was drawn twice."""
  cfg = pods.of(
    pods.Row("Qwen/Qwen3-4B", topology, slots, tensor=8, micro_rows=64, held=held)
  )
  _, chip = chips.chip(topology)
  engine = programs.engine(cfg, load.arch(cfg.model), chips.devices(topology))
  prompt_P = np.full(len(length_PR), cfg.data.max_prompt_tokens)
  calls = replay.calls(engine, prompt_P, length_PR)
  turns = [one for one in calls if one.kind == "decode"]
  made = sum(one.turns for one in turns)
  weights = made * whole.weights(engine)
  moved, least = (
    weights + sum(getattr(one, name) * engine.token_bytes(one.rows) for one in turns)
    for name in ("read", "held")
  )
  again = f", {100 * engine.stats.again:.0f} % redone" if engine.stats.redone else ""
  return f"{made:,} turns, {moved / chip.hbm_rate:.1f} s ({moved / least:.2f}){again}"


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--topology", default="v5e:8x8")
  parser.add_argument(
    "--held", type=int, default=512, help="slots that fit at their longest"
  )
  parser.add_argument("--lengths", default="mean=1500,p95=5000,max=8192")
  asked = parser.parse_args()
  data = experiment.load(pods.RECIPE, config.Train).data
  drawn_PR, _ = lengths.of(asked.lengths, data.prompts, data.responses)
  kinds = drawn_PR, alike(drawn_PR)
  print(
    f"| {asked.topology} | lengths that differ within groups | alike within groups |"
  )
  print("|---|---|---|")
  full = asked.held
  sizes = (full, full), (2 * full, full), (2 * full, full // 4), (2 * full, full // 8)
  for slots, held in sizes:
    name = f"{slots:,} slots, a pool for {held} at their longest"
    found = [replayed(asked.topology, slots, held, kind) for kind in kinds]
    print(f"| {name} | {' | '.join(found)} |", flush=True)
    if slots != held:
      continue
    longest = [kind[np.argsort(-kind.mean(1), kind="stable")] for kind in kinds]
    found = [replayed(asked.topology, slots, held, kind) for kind in longest]
    print(
      f"| and prompts that were long begin first | {' | '.join(found)} |", flush=True
    )


if __name__ == "__main__":
  main()
