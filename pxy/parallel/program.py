"""A jitted program, described: lowered from shapes alone, no weights, no devices.

Who dispatches a program describes it (sampling/programs.py, train/step.py), so that
what is compiled ahead of time is what will run.
"""

import dataclasses
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True)
class Program:
  """One program, not lowered yet.

  Attributes:
    name: what it does.
    lower: -> jax.stages.Lowered.
    model_flops: of all devices together, by model/flops.py; 0 where nothing is
      multiplied.
    resident: bytes on each device of what lives there besides the arguments.
    trips: turns of the loops whose count only the data knows.
    turns: what is said of it is one of so many parts, so that what is done once for
      all of them counts as its share.
    cache_flops: of all devices together, in one such part, of kernels that read of a
      cache what rows hold; its text does not tell.
    cache_bytes: that they read on each device.
  """

  name: str
  lower: Callable[[], jax.stages.Lowered]
  model_flops: int = 0
  resident: int = 0
  trips: int = 1
  turns: int = 1
  cache_flops: int = 0
  cache_bytes: int = 0
