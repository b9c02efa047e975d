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
    newest: the step of the newest checkpoint, 0 if there is none.
    save: saves (arrays on the host, place).
    ended: called with the step from which the run is to go on.
  """

  def __init__(
    self,
    newest: Callable[[], int],
    save: Callable[[object, object], None],
    ended: Callable[[int], None],
  ):
    self._newest, self._save, self._ended = newest, save, ended
    self._held = None

  def keep(self, state, place) -> None:
    """The state and place (its `step` and `bad`) of a run, when a step or an evaluation
    is whole.

    A state after a bad step (guard.py) is no place to go on from, and not held.
    """
    self._held = None if place.bad else state, place

  def __call__(self, until: float) -> str:
    """Saves what is newer than the newest checkpoint; how the run ends, in a line."""
    if self._held is None:
      return "nothing to save yet"
    if process.count() > 1:
      return "given up; the newest checkpoint stands, continue with --resume auto"
    text, step = self._rescued(until), self._newest()
    self._ended(step)
    return f"{text} at step {step}; continue with --resume auto"

  def _rescued(self, until: float) -> str:
    while True:
      state, place = self._held
      if self._newest() >= place.step:
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
    self._save(arrays, place)
    return "stopped"
