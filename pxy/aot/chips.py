"""TPU chips and topologies: the makers' numbers, and a compiler without the hardware.

The package libtpu (`pip install 'jax[tpu]'`) holds the compiler of every TPU version;
it compiles on any CPU for chips that are only described.

Sources: FLOPs, HBM and its rate are Google Cloud's pages of each version; what a
program may use of the HBM is what the compiler says when it is asked for too much
(libtpu 0.0.42); rates of links are those of the book "How to Scale Your Model", of one
link in one direction. A collective along one axis of the torus uses both directions.
"""

import dataclasses
import os
import re

from pxy import config

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip."""

  hbm_bytes: int
  """That programs can use."""
  hbm_rate: float
  """Bytes per second."""
  flops: float
  """Dense bfloat16, per second."""
  link_rate: float
  """Bytes per second of one link in one direction."""
  options: tuple[tuple[str, str], ...] = ()
  """Of its topologies, to the compiler."""


CHIPS = {
  "v4": Chip(
    int(30.75 * GIB), 1.228e12, 275e12, 45e9, (("chip_config_name", "megacore"),)
  ),
  "v5e": Chip(int(15.75 * GIB), 0.819e12, 197e12, 45e9),
  "v5p": Chip(int(95.74 * GIB), 2.765e12, 459e12, 90e9),
  "v6e": Chip(int(31.25 * GIB), 1.640e12, 918e12, 90e9),
}

_TOPOLOGY = re.compile(r"(\w+):(\d+x\d+(?:x\d+)?)", re.ASCII)
DESCRIBED = {
  "TPU_SKIP_MDS_QUERY": "1",  # asks no metadata server what machine this is
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any that it knows, or it warns
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # compiles beside a process that does the same
}
"""What describe sets; a child sees it, and it says nothing of the machine."""


def chip(topology: str) -> tuple[str, Chip]:
  """Name and numbers of a topology's chip, `v5e:8x8`; config.Error if unknown."""
  match = _TOPOLOGY.fullmatch(topology)
  if match is None or match[1] not in CHIPS:
    raise config.Error(
      f"--topology {topology!r}: expected CHIP:AxB or CHIP:AxBxC with CHIP one of"
      f" {', '.join(CHIPS)}: v5e:8x8, v5p:2x2x4"
    )
  return match[1], CHIPS[match[1]]


def describe() -> None:
  """Tells libtpu, before it is loaded, what it would ask hardware that is not there."""
  for key, value in DESCRIBED.items():
    os.environ.setdefault(key, value)


def devices(topology: str) -> list:
  """The devices of a topology, to compile for and not to run on.

  Raises config.Error for an unknown topology, and where libtpu is not installed.
  """
  name, known = chip(topology)
  describe()
  import jax
  from jax.experimental import topologies

  try:
    import libtpu  # noqa: F401
  except ImportError:
    raise config.Error(
      "the TPU compiler is not installed: pip install 'jax[tpu]' (any CPU will do)"
    ) from None
  sizes = [int(n) for n in topology.split(":")[1].split("x")]
  sizes += [1] * (3 - len(sizes))
  options = dict(known.options)
  if any(n % m for n, m in zip(sizes, (2, 2, 1), strict=True)):
    options["chips_per_host_bounds"] = [min(n, 2) if n % 2 == 0 else 1 for n in sizes]
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, **options
    )
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    why = str(error).splitlines()[0][:200]
    raise config.Error(f"--topology {topology}: {name} has none such ({why})") from None
  return list(found.devices)
