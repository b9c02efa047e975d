"""`make pods`: the gates of real runs on real topologies, by the real TPU compiler.

  python -m benchmarks.pods [--only TEXT]

For each row the programs of experiments/qwen3_4b_math.py (1,024 responses a step, 1,024
+ 8,192 tokens, both phases of DSRL) are compiled for a pod that is only described, and
checked: memory to spare; compiled over model FLOPs; no array of tokens x vocabulary; no
weight of all layers gathered outside of their loop; a decoded token moves no weights
between chips, and little more through HBM than weights and cache. Prints the
table of docs/pods.md. A quarter of an hour on two cores, seconds when asked again.
"""

import argparse
import dataclasses
import math
import sys

from pxy import config
from pxy.aot import chips, measure
from pxy.commands import experiment
from pxy.model import decoder
from pxy.weights import load

RECIPE = "qwen3_4b_math"
SPARE, FLOPS, DECODE = 2e9, 1.45, 1.15


@dataclasses.dataclass(frozen=True)
class Row:
  """One run: what differs from the recipe."""

  model: str
  topology: str
  slots: int
  tensor: int
  """Of the sampler."""
  micro_rows: int
  held: int
  """Slots that the cache has room for at their longest."""
  remat: str = "full"


ROWS = (
  Row("Qwen/Qwen3-4B", "v5e:8x8", slots=1024, tensor=8, micro_rows=64, held=512),
  Row("Qwen/Qwen3-4B", "v5p:2x2x4", slots=1024, tensor=4, micro_rows=288, held=512),
  Row("Qwen/Qwen3-4B", "v6e:4x4", slots=512, tensor=8, micro_rows=64, held=256),
  Row("Qwen/Qwen3-8B", "v5e:8x8", slots=768, tensor=8, micro_rows=64, held=384),
  Row("Qwen/Qwen3-8B", "v5p:4x4x4", slots=1024, tensor=4, micro_rows=256, held=1024),
  # Attention is half of a model that small, and would be formed twice.
  Row(
    "Qwen/Qwen3-0.6B",
    "v5e:2x2",
    slots=64,
    tensor=1,
    micro_rows=4,
    held=32,
    remat="attention",
  ),
)


def of(row: Row) -> config.Train:
  """The recipe with the row's changes."""
  cfg = experiment.load(RECIPE, config.Train)
  longest = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens
  return dataclasses.replace(
    cfg,
    model=f"hf://{row.model}",
    sampling=dataclasses.replace(
      cfg.sampling,
      slots=row.slots,
      tensor=row.tensor,
      cache_tokens=row.held * longest,
    ),
    compute=dataclasses.replace(
      cfg.compute, micro_rows=row.micro_rows, remat=row.remat
    ),
  )


def failures(row: Row, cfg, arch, found: list[measure.Measured]) -> list[str]:
  """What a row does not keep, a line each."""
  _, chip = chips.chip(row.topology)
  count = math.prod(int(n) for n in row.topology.split(":")[1].split("x"))
  tokens = row.micro_rows // count * cfg.compute.row_tokens
  out = []
  for one in found:
    if one.spare(chip) < SPARE:
      out.append(f"{one.name}: {one.spare(chip) / 1e9:.2f} GB to spare, not 2")
    if one.name.startswith("update"):
      if one.ratio > FLOPS:
        out.append(f"{one.name}: {one.ratio:.2f} x the model's FLOPs, not {FLOPS}")
      for shape in one.largest:
        if math.prod(_dims(shape)) >= tokens * arch.vocab_size:
          out.append(f"{one.name}: {shape} is as large as tokens x vocabulary")
      for text in one.outside:
        kind, shape = text.split(" ")
        if kind == "all-gather" and _dims(shape)[:1] == [arch.layers]:
          out.append(f"{one.name}: {text} gathers a weight of all layers")
    if one.name in ("decode", "evaluate"):
      rows, held = (n // (count // row.tensor) for n in (row.slots, row.held))
      for text in one.moved:
        shape = _dims(text.split(" ")[1])
        if arch.d_model in shape and math.prod(shape) > rows * arch.d_model:
          out.append(f"{one.name}: {text} moves a weight")
      least = _least(cfg, arch, held, row.tensor)
      if one.hbm_bytes_moved > DECODE * least:
        ratio = one.hbm_bytes_moved / least
        out.append(f"{one.name}: {ratio:.2f} x weights and cache, not {DECODE}")
  return out


def _least(cfg, arch, rows, tensor) -> float:
  """Bytes a decoded token has to read on each device."""
  room = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens
  cache = 2 * arch.layers * arch.kv_heads * arch.head_dim * rows * room
  return 2.0 * (decoder.size(arch) + cache) / tensor


def _dims(shape: str) -> list[int]:
  return [int(n) for n in shape.split("[")[1].rstrip("]").split(",") if n]


def main() -> None:
  """Measures, prints, and exits 1 if a gate is not kept."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="rows whose model or topology has it")
  only = parser.parse_args().only
  broken = []
  print(
    "| model | topology | slots / sampler's tensor / rows | program | GB needed"
    " | GB left | FLOPs / model's | GB moved | GB sent | s at least, bound |\n"
    + "|---" * 10
    + "|"
  )
  for row in ROWS:
    if only not in f"{row.model} {row.topology}":
      continue
    cfg = of(row)
    arch = load.arch(cfg.model)
    _, chip = chips.chip(row.topology)
    found = []
    for one in measure.all_of(cfg, arch, row.topology):
      found.append(one)
      print(f"  {row.model} {row.topology} {one.name}", file=sys.stderr, flush=True)
      print(
        f"| {row.model} | {row.topology}"
        f" | {row.slots} / {row.tensor} / {row.micro_rows}"
        f" | {one.name} | {one.needed_bytes / 1e9:.2f}"
        f" | {one.spare(chip) / 1e9:.2f} | {f'{one.ratio:.2f}' if one.ratio else ''}"
        f" | {one.hbm_bytes_moved / 1e9:.4g} | {one.sent_bytes / 1e9:.3g}"
        f" | {one.seconds_bound:.3g}, {one.bound} |",
        flush=True,
      )
    broken += [
      f"{row.model} {row.topology}: {x}" for x in failures(row, cfg, arch, found)
    ]
  print("\n".join(broken) or "every gate is kept", file=sys.stderr)
  raise SystemExit(bool(broken))


if __name__ == "__main__":
  main()
