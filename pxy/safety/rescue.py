"""The last whole state of a run, and how another thread saves it.

When the main thread does not come to a polling point within the grace time
(interrupt.py), its state of the step before is saved in its place. The arrays stay
readable until they are donated to an update; that update is waited for, and what it
makes is saved, or the last checkpoint stands. A copy on the host comes first: an array
donated meanwhile raises, so the copy is of one step or is not made.

Left out: several processes, where a save needs them all; the last checkpoint stands.
"""

import time
from collections.abc import Callable

import jax
import numpy as np

from pxy.parallel import process


class Rescue:
  """What interrupt.Interrupt.rescued calls; `keep` tells it where the run is.

  Args:
    ended: called with the step from which the run is to go on.
  """

  def __init__(self, ended: Callable[[int], None]):
    self._held, self._ended = None, ended

  def keep(self, checkpoints, log, state, meta: dict) -> None:
    """The state and place of a run, when a step or an evaluation is whole.

    A state after a bad step (guard.py) is no place to go on from, and not held.
    """
    self._held = checkpoints, log, None if meta.get("bad") else state, dict(meta)

  def __call__(self, until: float) -> str:
    """Saves what is newer than the newest checkpoint; how the run ends, in a line."""
    if self._held is None:
      return "nothing to save yet"
    if process.count() > 1:
      return "given up; the newest checkpoint stands, continue with --resume auto"
    text = self._save(until)
    checkpoints, *_ = self._held
    step = checkpoints.latest() or 0
    self._ended(step)
    return f"{text} at step {step}; continue with --resume auto"

  def _save(self, until: float) -> str:
    while True:
      checkpoints, log, state, meta = self._held
      if (checkpoints.latest() or 0) >= meta["step"]:
        return "stopped"
      if state is None:
        return "the last step is not finite: stopped"
      try:
        arrays = jax.tree.map(np.array, state)
        break
      except RuntimeError:  # donated to the update that is under way
        if time.monotonic() > until:
          return "an update outlasts the grace time: stopped"
        time.sleep(0.05)
    log.flush()
    checkpoints.save(meta["step"], arrays, meta | {"records": log.mark()})
    return "stopped"
