"""SIGTERM and SIGINT ask for an end; the second one ends at once.

The first signal sets a flag that the loop polls between dispatches and phases: it saves
a checkpoint and exits with code 0, so that a preempted run goes on with `--resume
auto`.
"""

import os
import signal
import sys
import threading


class Interrupt:
  """Context manager; calling it tells whether an end was asked for."""

  def __init__(self):
    self._asked = False
    self._previous = {}

  def __call__(self) -> bool:
    return self._asked

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    if self._asked:
      os._exit(128 + number)
    self._asked = True
    name = signal.Signals(number).name
    print(f"pxy: {name}: saving, then exit (again: at once)", file=sys.stderr)
