"""All that a checkpoint needs besides the config's digest and the place in the run."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """What an update changes."""

  params: Any
  """Nested dict of float32 master weights."""
  opt_state: Any
  """Moments of the optimizer, see optim.py."""
  step: jax.Array
  """int32 scalar: updates made so far."""
