"""Compiles a run's programs for a topology, and says what each would need and take.

  seconds = max(FLOPs / peak, bytes / HBM rate, bytes sent / two links)

of each program, a bound from below: nothing is waited for, everything overlaps. The one
that is largest is what the program is bound by. Memory is the compiler's own account:
arguments, results that do not take their place, temporaries and code.

What the compiler said is kept in $PXY_CACHE (or ~/.cache/pxy)/compile, by the program's
text, the topology and the versions, so that asking again costs the tracing alone.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from importlib import metadata

import jax
from jax.experimental.compilation_cache import compilation_cache

from pxy import config, files
from pxy.aot import chips, hlo, programs

_NEEDED = re.compile(r"(?:Used |memory required[^(]*\()([\d.]+)([KMGT])")


@dataclasses.dataclass(frozen=True)
class Measured:
  """One program on one device; FLOPs, bytes and collectives are of one run of it."""

  name: str
  peak_bytes: int
  argument_bytes: int
  resident_bytes: int
  """What else lives on the device meanwhile."""
  model_flops: float
  compiled_flops: float
  hbm_bytes_moved: float
  cache_flops: float
  """Of these, what depends on how much of the cache is filled: it is full."""
  cache_bytes: float
  once_bytes: float
  """Of hbm_bytes_moved times `turns`, what is moved once whatever their number."""
  turns: int
  """Of which one is described."""
  wire_bytes: float
  """That each device sends."""
  collectives: dict[str, dict[str, float]]
  seconds_bound: float
  bound: str
  """`compute`, `memory` or `links`; `too big` where the compiler gave up."""
  largest: list[str]
  """Shapes of the largest results in HBM."""
  moved: list[str]
  """Collectives, as KIND RESULT."""
  outside: list[str]
  """Those outside of all loops."""

  @property
  def needed_bytes(self) -> int:
    """All that a device has to hold."""
    return self.peak_bytes + self.resident_bytes

  @property
  def ratio(self) -> float | None:
    """Compiled FLOPs over the model's; None where it has none."""
    return self.compiled_flops / self.model_flops if self.model_flops else None

  @property
  def sent_bytes(self) -> float:
    """Results of all collectives."""
    return sum(what["bytes"] for what in self.collectives.values())

  def bytes_moved(self, held: float = 1.0, turns: int = 0) -> float:
    """hbm_bytes_moved with that share of the cache filled, as one of so many turns."""
    once = self.once_bytes * (1 / (turns or self.turns) - 1 / self.turns)
    return self.hbm_bytes_moved - (1 - held) * self.cache_bytes + once

  def seconds(
    self, chip: chips.Chip, held: float = 1.0, turns: int = 0
  ) -> dict[str, float]:
    """Of each resource; arguments as of bytes_moved."""
    return {
      "compute": (self.compiled_flops - (1 - held) * self.cache_flops) / chip.flops,
      "memory": self.bytes_moved(held, turns) / chip.hbm_rate,
      "links": self.wire_bytes / (2 * chip.link_rate),
    }

  def spare(self, chip: chips.Chip) -> int:
    """Bytes of the chip that are left; negative if it does not fit."""
    return chip.hbm_bytes - self.needed_bytes


def all_of(cfg: config.Train, arch, topology: str, say=lambda text: None, smaller=()):
  """Measures each program of a run; yields Measured.

  say: is told what is being done, for it can take minutes.
  smaller: see programs.of.
  """
  _, chip = chips.chip(topology)
  devices = chips.devices(topology)
  for program in programs.of(cfg, arch, devices, smaller):
    say(f"{program.name}: lowering")
    lowered = program.lower()
    place = _place(lowered, topology)
    if place.is_file():
      said = json.loads(gzip.decompress(place.read_bytes()))
    else:
      say(f"{program.name}: compiling for {topology}")
      said = _compiled(lowered)
      files.write_bytes(place, gzip.compress(json.dumps(said).encode()))
    yield _measured(program, said, chip, len(devices))


def _compiled(lowered) -> dict:
  try:
    with _unkept():
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = _NEEDED.search(str(error))
    if "RESOURCE_EXHAUSTED" not in str(error) or needed is None:
      raise
    power = "KMGT".index(needed[2]) + 1
    return {"needed": int(float(needed[1]) * 1024**power)}
  memory = compiled.memory_analysis()
  own = memory.output_size_in_bytes - memory.alias_size_in_bytes
  whole = memory.argument_size_in_bytes + own + memory.temp_size_in_bytes
  return {
    "argument_bytes": memory.argument_size_in_bytes,
    "peak_bytes": whole + memory.generated_code_size_in_bytes,
    "text": compiled.as_text(),
  }


@contextlib.contextmanager
def _unkept() -> Iterator[None]:
  """Without JAX's cache of programs: one for a chip that is only described is written
  there, but a second process that meets it warns that it cannot be read."""
  name = "jax_enable_compilation_cache"
  before = getattr(jax.config, name)
  jax.config.update(name, False)
  compilation_cache.reset_cache()  # it looks at the setting once
  try:
    yield
  finally:
    jax.config.update(name, before)
    compilation_cache.reset_cache()


def _measured(program, said, chip, devices) -> Measured:
  model = program.model_flops / devices
  if "needed" in said:
    return Measured(
      program.name, said["needed"], 0, program.resident, model, 0.0, 0.0, 0.0, 0.0,
      0.0, 1, 0.0, {}, 0.0, "too big", [], [], [],
    )  # fmt: skip
  counts = hlo.Counts()
  counts.add(hlo.count(said["text"], program.trips), 1 / program.turns)
  once = 0.0
  if program.turns > 1:
    single, all_of_them = hlo.count(said["text"], 1).bytes, counts.bytes * program.turns
    once = single - (all_of_them - single) / (program.trips - 1)
  cache_flops, cache_bytes = program.cache_flops / devices, program.cache_bytes
  found = Measured(
    name=program.name,
    peak_bytes=said["peak_bytes"],
    argument_bytes=said["argument_bytes"],
    resident_bytes=program.resident,
    model_flops=model,
    compiled_flops=counts.flops + cache_flops,
    hbm_bytes_moved=counts.bytes + cache_bytes,
    cache_flops=cache_flops,
    cache_bytes=cache_bytes,
    once_bytes=once,
    turns=program.turns,
    wire_bytes=counts.wire,
    collectives={
      kind: {"count": count, "bytes": size}
      for kind, (count, size) in sorted(counts.collectives.items())
    },
    seconds_bound=0.0,
    bound="",
    largest=[shape for _, shape in counts.largest],
    moved=sorted({f"{kind} {shape}" for kind, shape, _ in counts.moved}),
    outside=sorted(
      {
        f"{kind} {shape}"
        for kind, shape, n in counts.moved
        if round(n * program.turns) == 1
      }
    ),
  )
  seconds = found.seconds(chip)
  bound = max(seconds, key=seconds.get)
  return dataclasses.replace(found, seconds_bound=seconds[bound], bound=bound)


def _place(lowered, topology) -> pathlib.Path:
  """The file that keeps what the compiler says of this program."""
  versions = [metadata.version(name) for name in ("jax", "jaxlib", "libtpu")]
  key = hashlib.sha256("\0".join([lowered.as_text(), topology, *versions]).encode())
  return files.cache() / "compile" / f"{key.hexdigest()}.json.gz"
