"""How does sampling grow? Tokens per second by slots, live length, prompt sharing.

    python -m benchmarks.growth         # a table; --json FILE or - for JSON
    make growth

On a CPU a small model, elsewhere Qwen3-0.6B's shape in bfloat16; `--size` names one.
Tokens are those of all slots together; in parentheses, over the first of the part.

- decode: the sampler's program alone, no host and no prefill, of full slots by how many
  tokens each holds when the call ends (live length);
- engine: a whole run with prefill, admission and the host's part, of the same prompts
  in groups of 1 (each prompt is listed once for each of its responses) and in groups of
  16 (once, with 16 responses). A group's prompt is read once, and each response's slot
  then has a copy of its cache. So what sharing saves is prefill: decoding reads, and
  memory holds, as much as without. A prompt that is listed twice is read twice.

No response stops early. All cells are timed in turn, round after round, and medians are
given, so that a busy machine disturbs all alike; a call before the rounds compiles.
Cells whose cache is larger than half the device's memory, or 1 GiB where the device
does not say, are left out.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import gpu, run
from pxy import config, testing
from pxy.commands import malloc
from pxy.model import arch as arch_lib
from pxy.model import attention, decoder, paged
from pxy.run import folder as folder_lib
from pxy.sampling import engine as engine_lib
from pxy.sampling import step

GROUPS = 1, 16
"""Responses to a prompt, in the engine's part."""


@dataclasses.dataclass(frozen=True)
class Size:
  """A model, and what is varied."""

  arch: arch_lib.Arch
  dtype: str
  slots: tuple[int, ...]
  live: tuple[int, ...]
  """Tokens that a slot holds at the end of a call, in the decode part."""
  tokens: int
  """Drawn for each slot by such a call."""
  prompt: int
  """Tokens of each prompt, and of each response, in the engine's part."""
  new: int


SIZES = {
  # Qwen3's layer, 525,056 parameters and 1 KB of cache a token: for two cores.
  "small": Size(
    arch_lib.Arch(
      vocab_size=1024, layers=2, d_model=128, heads=4, kv_heads=2, head_dim=32,
      d_ff=384, context=1024, qk_norm=True,
    ),
    "float32", slots=(1, 8, 64, 512), live=(64, 256, 1024), tokens=16,
    prompt=64, new=32,
  ),
  "qwen3-0.6b": Size(
    arch_lib.Arch(**gpu.SIZES["qwen3-0.6b"].arch),
    "bfloat16", slots=(1, 8, 64, 512), live=(256, 1024, 4096), tokens=32,
    prompt=256, new=128,
  ),
  # Only to see that the benchmark itself works.
  "test": Size(
    testing.arch(), "float32", slots=(16,), live=(32,), tokens=4, prompt=8, new=4
  ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
  """One number of the table."""

  part: str
  """`decode` or `engine`."""
  slots: int
  across: int
  """Live length, or responses to a prompt."""

  def tokens(self, size: Size) -> int:
    """Drawn by a call."""
    if self.part == "decode":
      return self.slots * size.tokens
    return responses(self.slots) * size.new

  def cache_bytes(self, size: Size) -> int:
    """Of its slots, at their longest."""
    live = self.across if self.part == "decode" else size.prompt + size.new
    return step.cache_bytes(size.arch, self.slots, live, dtype=size.dtype)


def responses(slots: int) -> int:
  """Of a run of the engine: as many as there are slots, or the largest group."""
  return max(slots, *GROUPS)


def cells(size: Size, most: float) -> list[Cell]:
  """Of the table; without those whose cache has more than `most` bytes."""
  ways = {"decode": size.live, "engine": GROUPS}
  every = [
    Cell(part, slots, across)
    for part, columns in ways.items()
    for slots in size.slots
    for across in columns
  ]
  return [cell for cell in every if cell.cache_bytes(size) <= most]


def room() -> float:
  """Bytes that a cell's cache may have on this device."""
  found = jax.devices()[0].memory_stats() or {}
  return found.get("bytes_limit", 2**31) / 2


def decode(size: Size, weights, cell: Cell) -> float:
  """Seconds of a dispatch of full slots; they are made before the clock starts."""
  arch, rows, live = size.arch, cell.slots, cell.across
  pages, pool = None, None
  if attention.pages(arch, size.dtype, None):
    each = -(-live // paged.PAGE)
    pool = paged.Size(rows * each, paged.PAGE, parts=1)
    page_BP = np.arange(rows * each, dtype=np.int32).reshape(rows, each)
    pages, live = (page_BP, np.ones(rows, bool)), each * paged.PAGE
  slots = step.empty(arch, rows=rows, length=live, pool=pool, dtype=size.dtype)
  length_B = jnp.full(rows, cell.across - size.tokens, jnp.int32)
  cache = dataclasses.replace(slots.cache, length_B=length_B)
  slots = dataclasses.replace(slots, cache=cache, idle_B=jnp.zeros(rows, bool))
  rule = step.Rule(1.0, 0, 1.0, (), 1 << 20)
  jax.block_until_ready(slots)
  start = time.perf_counter()
  _, drawn = step.decode(
    arch, weights, slots, np.int32(rows + 1), np.int32(size.tokens), pages, rule=rule,
    tokens=size.tokens, live=live, dtype=size.dtype,
  )  # fmt: skip
  jax.device_get(drawn)
  return time.perf_counter() - start


def prompts(size: Size, cell: Cell) -> list[np.ndarray]:
  """Of a run of the engine, each listed once for each of its groups."""
  distinct = responses(cell.slots) // max(GROUPS)
  rng = np.random.default_rng(0)
  ids = rng.integers(0, size.arch.vocab_size, (distinct, size.prompt), np.int32)
  return list(np.repeat(ids, max(GROUPS) // cell.across, 0))


def engine(size: Size, params, cell: Cell) -> float:
  """Seconds of a run of the engine."""
  made = engine_lib.Engine(
    size.arch, sampling=config.Sampling(max_new_tokens=size.new, slots=cell.slots),
    stop_ids=(), max_prompt_tokens=size.prompt, dtype=size.dtype,
  )  # fmt: skip
  given, key = prompts(size, cell), jax.random.key(0)
  return run.seconds(lambda: made.run(params, given, cell.across, key=key))


def measure(size: Size, rounds: int) -> list[dict]:
  """Per cell: tokens per second, by the median of its rounds, and these in seconds."""
  params = jax.device_put(testing.params(size.arch, spread=0.02))
  weights = step.weights(size.arch, params, dtype=size.dtype)
  parts = {"decode": (decode, weights), "engine": (engine, params)}
  calls = {}
  for cell in cells(size, room()):
    part, given = parts[cell.part]
    calls[cell] = functools.partial(part, size, given, cell)
  first = {cell: run.seconds(call) for cell, call in calls.items()}
  taken = {cell: [] for cell in calls}
  for _ in range(rounds):
    for cell, call in calls.items():
      taken[cell].append(call())
  found = []
  for cell, seconds in taken.items():
    rate = cell.tokens(size) / statistics.median(seconds)
    more = {"first_call_seconds": first[cell], "rounds": seconds}
    found.append(dataclasses.asdict(cell) | {"tokens_per_second": rate} | more)
  return found


def table(rows: Sequence[dict]) -> str:
  """The parts in Markdown: slots down, live length or group across."""
  lines = []
  for part, name in {"decode": "{:,} live", "engine": "groups of {}"}.items():
    rates = {
      (x["slots"], x["across"]): x["tokens_per_second"]
      for x in rows
      if x["part"] == part
    }
    if not rates:
      continue
    across, one = sorted({a for _, a in rates}), next(iter(rates.values()))
    lines.append(f"| {part}, tokens/s | {' | '.join(map(name.format, across))} |")
    lines.append("|---" * (1 + len(across)) + "|")
    for slots in sorted({s for s, _ in rates}):
      row = [rates.get((slots, a)) for a in across]
      shown = [f"{x:,.0f} ({x / one:.2f})" if x else "" for x in row]
      plural = "slot" if slots == 1 else "slots"
      lines.append(f"| {slots} {plural} | {' | '.join(shown)} |")
    lines.append("")
  return "\n".join(lines).rstrip()


def main(args: list[str] | None = None) -> None:
  """Measures and shows."""
  name = "python -m benchmarks.growth"
  parser = argparse.ArgumentParser(prog=name, description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument("--size", choices=sorted(SIZES), help="default: by the device")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--json", metavar="FILE", help="write JSON there; -: to stdout")
  given = parser.parse_args(args)
  malloc.reuse()  # as the command line does
  cpu = jax.default_backend() == "cpu"
  chosen = given.size or ("small" if cpu else "qwen3-0.6b")
  size = SIZES[chosen]
  report = {
    "size": chosen,
    "parameters": decoder.size(size.arch),
    "device": jax.devices()[0].device_kind,
    "cores": os.cpu_count(),
    "versions": folder_lib.versions(),
    "cells": measure(size, given.rounds),
  }
  if given.json == "-":
    print(json.dumps(report, indent=2))
    return
  if given.json:
    pathlib.Path(given.json).write_text(json.dumps(report, indent=2) + "\n")
  print(
    f"{chosen}: {report['parameters']:,} parameters, {report['device']},"
    f" {report['cores']} cores, medians of {given.rounds} rounds\n"
  )
  print(table(report["cells"]))


if __name__ == "__main__":
  main()
