"""What asks a runner to end: SIGINT and SIGTERM."""

import signal


class Signals:
  """SIGINT and SIGTERM, kept for who looks; a context manager.

  What they ask for is not done inside a handler: that could come between the start of a
  process and the note of it.
  """

  def __init__(self):
    self.number = 0
    """The last that has come, or 0."""
    self._new = False

  def __enter__(self) -> "Signals":
    self._old = {
      number: signal.signal(number, self._heard)
      for number in (signal.SIGINT, signal.SIGTERM)
    }
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def new(self) -> bool:
    """Whether one has come since this was asked."""
    new, self._new = self._new, False
    return new

  def _heard(self, number, _) -> None:
    self.number, self._new = number, True
