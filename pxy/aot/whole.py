"""The bound of one whole step: each program as often as the step runs it.

What the sampler dispatches is replayed from the lengths of the responses
(sampling/replay.py). A decode program is measured at the shortest and the longest cache
that each number of slots meets, and in between it takes what lies in between; where
rows are read as far as they are filled, what a turn reads is counted from what they
hold, on the device where they hold most. Prefill, admit and move take as much less as
their arrays are smaller. Scoring and updating loop over as many micro-batches as the
lengths fill. The host, and what the devices wait for it, are left out.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pxy import config
from pxy.aot import chips, measure
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.rl import context, pack
from pxy.run import batch as batch_lib
from pxy.sampling import engine as engine_lib
from pxy.sampling import replay, schedule


@dataclasses.dataclass(frozen=True)
class Part:
  """What a kind of program costs in a step: how often it runs, and seconds at least."""

  name: str
  runs: int
  seconds: float
  bytes: float = 0.0
  """Moved through each device's HBM, of decode alone."""


def smaller(calls: Sequence[replay.Call], sizes: schedule.Sizes) -> list:
  """(rows, live) of the decode programs to measure besides the largest."""
  ends = set()
  for rows in {one.rows for one in calls if one.kind == "decode"}:
    live = [x.width for x in calls if x.kind == "decode" and x.rows == rows]
    ends |= {(rows, min(live)), (rows, max(live))}
  return sorted(ends - {(sizes.rows, sizes.room)}, reverse=True)


def parts(
  cfg: config.Train,
  engine: engine_lib.Engine,
  row_shards: int,
  chip: chips.Chip,
  calls: Sequence[replay.Call],
  prompt_P: np.ndarray,
  length_PR: np.ndarray,
  found: Sequence[measure.Measured],
) -> list[Part]:
  """The parts of a step, of the run's last phase, in their order."""
  bound = {one.name: one.seconds_bound for one in found}
  sizes = engine.largest(cfg.data.prompts, cfg.data.responses)
  out = [Part("reshard", 1, bound["reshard"])] if "reshard" in bound else []
  whole = sizes.prompts * sizes.width
  out.append(_scaled("prefill", calls, bound["prefill"] / whole))
  out.append(_scaled("admit", calls, bound["admit"] / (sizes.lanes * sizes.width)))
  turns = [one for one in calls if one.kind == "decode"]
  costs = [(one.turns, *_turn(engine, found, sizes, one, chip)) for one in turns]
  seconds, moved = (sum(x[0] * x[i] for x in costs) for i in (1, 2))
  out.append(Part("decode", sum(one.turns for one in turns), seconds, moved))
  if "carry" in bound:
    carried = sum(one.kind == "carry" for one in calls)
    out.append(Part("carry", carried, carried * bound["carry"]))
  if not sizes.pool:
    few = engine.few(cfg.data.prompts, cfg.data.responses)
    # Without a program to fewer slots there may be one to more room: read and written.
    each = 2 * engine.token_bytes(sizes.rows) / chip.hbm_rate
    if few:
      each = bound["move"] / (few * sizes.room)
    out.append(_scaled("move", calls, each))
  shape = batch_lib.shape(cfg, row_shards)
  phase = cfg.phases[-1]
  passes = len(config.passes(cfg, phase))
  for name, times in (("score", passes), (f"update {phase.name}", 1)):
    used = _micro_batches(cfg, phase, shape, prompt_P, length_PR, name == "score")
    share = used / (cfg.updates * shape.micro_max)
    if times:
      runs = times * cfg.updates
      out.append(Part(name.split()[0], runs, runs * share * bound[name]))
  return out


def _scaled(kind: str, calls, each: float) -> Part:
  """Seconds of all calls of a kind, by the tokens of their arrays."""
  there = [one for one in calls if one.kind == kind]
  return Part(kind, len(there), sum(one.rows * one.width for one in there) * each)


def _turn(engine, found, sizes, call, chip) -> tuple[float, float]:
  """(seconds at least, bytes moved) of a turn of a dispatch, on a device."""
  at = {}
  for one in found:
    if one.name == "decode":
      rows, live = sizes.rows, sizes.room
    elif one.name.startswith("decode "):
      rows, live = map(int, one.name.removeprefix("decode ").split(" x "))
    else:
      continue
    if rows == call.rows:
      at[live] = one
  if (full := at.get(call.width)) is not None and full.cache_bytes:
    held = engine.full(call.rows, call.width, sizes.pool)
    most = engine.read(np.full(call.rows, held), call.width)
    share = call.read / (call.turns * most)
    seconds = full.seconds(chip, share, call.turns)
    return max(seconds.values()), full.bytes_moved(share, call.turns)

  def between(name):
    pairs = [(live, getattr(at[live], name)) for live in sorted(at)]
    return float(np.interp(call.width, *zip(*pairs, strict=True)))

  return between("seconds_bound"), between("hbm_bytes_moved")


def _micro_batches(cfg, phase, shape, prompt_P, length_PR, conditional) -> int:
  """Micro-batches that hold something, over all updates."""
  used, size = 0, cfg.data.prompts // cfg.updates
  terms = (config.Term(),) if conditional else phase.terms
  for i in range(cfg.updates):
    groups = slice(i * size, (i + 1) * size)
    tokens = [
      context.of(term).tokens(term, context.ids(term, {}), int(prompt), int(length))
      for term in terms
      for prompt, row in zip(prompt_P[groups], length_PR[groups], strict=True)
      for length in row
    ]
    places = pack.first_fit(sorted(tokens, reverse=True), shape.row_tokens)
    used += -(-(1 + max(row for row, *_ in places)) // shape.micro_rows)
  return used


def to_json(
  engine: engine_lib.Engine, parts: Sequence[Part], calls: Sequence[replay.Call]
) -> dict:
  """What `pxy compile --json` has as `step`.

  decode_bytes are those that all turns move through a device's HBM, and
  decode_bytes_least would be if each read the weights once, and of the cache what the
  rows that draw hold.
  """
  turns = [one for one in calls if one.kind == "decode"]
  out = {"seconds_bound": sum(part.seconds for part in parts)}
  out |= {f"{part.name}_seconds_bound": part.seconds for part in parts}
  made = sum(one.turns for one in turns)
  return out | {
    "decode_turns": made,
    "decode_dispatches": len(turns),
    "slots_busy": sum(one.busy for one in turns)
    / max(1, sum(one.turns * one.rows for one in turns)),
    "cache_held": sum(one.held for one in turns)
    / max(1, sum(one.read for one in turns)),
    "decode_bytes": sum(part.bytes for part in parts if part.name == "decode"),
    "decode_bytes_least": made * weights(engine)
    + sum(one.held * engine.token_bytes(one.rows) for one in turns),
  }


def weights(engine: engine_lib.Engine) -> float:
  """Bytes of the sampler's weights on each device."""
  split = 1 if engine.mesh is None else engine.mesh.shape["tensor"]
  return decoder.size(engine.arch) * np.dtype(engine.dtype).itemsize / split


def row_shards(cfg: config.Train, devices) -> int:
  """Devices that the trainer's rows are split over."""
  return mesh_lib.row_shards(mesh_lib.make(cfg.mesh, devices))
