"""What slots, the pool's size and the order of prompts do to a step's decoding.

  python -m benchmarks.replay [--topology v5e:8x8] [--held 512] [--lengths WORD]

The sampler's schedule is replayed (pxy/sampling/replay.py) for Qwen3-4B's recipe on a
pod that is only described, from lengths alone, and each turn is charged with the bytes
that the device reads whose rows hold most: its weights, and the pages of its rows. No
program is compiled. Two kinds of lengths: drawn for each response, or alike within each
group. In brackets the bytes over those of the weights and of what the rows hold; then
the seconds as a share of the first row's. That is what the sampler did at first: each
turn reads every slot as far as the longest response, to the next of 32, 64, 96, 128,
192, ... tokens, and the last responses move to a quarter of the slots, and again.
Exits with 1 where another row reads LIMIT times what it must. Prints the table of
docs/pods.md; a minute or two.
"""

import argparse
import dataclasses

import numpy as np

from benchmarks import pods
from pxy import config
from pxy.aot import chips, lengths, programs, whole
from pxy.commands import experiment
from pxy.sampling import engine as engine_lib
from pxy.sampling import replay
from pxy.weights import load


def alike(length_PR: np.ndarray) -> np.ndarray:
  """The same lengths, those of a group side by side in their order."""
  groups = np.sort(length_PR.reshape(-1)).reshape(length_PR.shape)
  return np.random.default_rng(0).permutation(groups)


LIMIT = 1.15


class First(engine_lib.Engine):
  """Slots that are read alike, as far as the longest of them."""

  def _limits(self, prompts, n):
    limits = super()._limits(prompts, n)
    return dataclasses.replace(limits, one=False, large=False, pool=None)

  def read(self, length_B, live):
    return float(len(length_B) * live)

  def schedule(self, *given):
    made = super().schedule(*given)
    made._cut = lambda length: None  # it never fell
    return made


@dataclasses.dataclass(frozen=True)
class Found:
  """Of a step's decoding."""

  turns: int
  seconds: float
  ratio: float
  """Bytes over those of the weights and of what the rows hold."""
  redone: float

  def __str__(self):
    again = f", {100 * self.redone:.0f} % redone" if self.redone else ""
    return f"{self.turns:,} turns, {self.seconds:.1f} s ({self.ratio:.2f}){again}"


def replayed(
  topology: str, slots: int, held: int, length_PR: np.ndarray, kind=engine_lib.Engine
) -> Found:
  """What `slots` do to a step's decoding, with a pool for `held` at their longest."""
  cfg = pods.of(
    pods.Row("Qwen/Qwen3-4B", topology, slots, tensor=8, micro_rows=64, held=held)
  )
  _, chip = chips.chip(topology)
  made = programs.engine(cfg, load.arch(cfg.model), chips.devices(topology))
  engine = kind(
    made.arch, sampling=made.sampling, stop_ids=(0,), mesh=made.mesh, dtype=made.dtype,
    max_prompt_tokens=made.max_prompt_tokens,
  )  # fmt: skip
  prompt_P = np.full(len(length_PR), cfg.data.max_prompt_tokens)
  calls = replay.calls(engine, prompt_P, length_PR)
  turns = [one for one in calls if one.kind == "decode"]
  made = sum(one.turns for one in turns)
  weights = made * whole.weights(engine)
  moved, least = (
    weights + sum(getattr(one, name) * engine.token_bytes(one.rows) for one in turns)
    for name in ("read", "held")
  )
  return Found(made, moved / chip.hbm_rate, moved / least, engine.stats.again)


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
  alike_ = [replayed(asked.topology, full, full, kind, First) for kind in kinds]
  print(f"| {full:,} slots, read alike | {alike_[0]} | {alike_[1]} |", flush=True)
  over = []

  def row(name, slots, held, kinds):
    found = [replayed(asked.topology, slots, held, kind) for kind in kinds]
    over.extend(one.ratio for one in found if one.ratio > LIMIT)
    said = (
      f"{one}, {100 * one.seconds / old.seconds:.0f} %"
      for one, old in zip(found, alike_, strict=True)
    )
    print(f"| {name} | {' | '.join(said)} |", flush=True)

  for slots, held in (
    (full, full), (2 * full, full), (2 * full, full // 4), (2 * full, full // 8)
  ):  # fmt: skip
    row(f"{slots:,} slots, a pool for {held} at their longest", slots, held, kinds)
    if slots == held:
      first = [kind[np.argsort(-kind.mean(1), kind="stable")] for kind in kinds]
      row("and prompts that were long begin first", slots, held, first)
  if over:
    raise SystemExit(f"{max(over):.2f} times what must be read, not {LIMIT}")


if __name__ == "__main__":
  main()
