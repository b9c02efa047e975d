"""What reading a hostile file may take."""

import contextlib
import tracemalloc
import zlib


@contextlib.contextmanager
def bounded(most: int, raw: bytes, one_in: int = 1):
  """Fails where Python and numpy take more than `most` bytes for a file, at once.

  one_in: so many files, of which one is looked at, by its content; tracing takes two
  thirds of the time.
  """
  if zlib.crc32(raw) % one_in:
    yield
    return
  tracemalloc.start()
  try:
    yield
  finally:
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most, f"{peak:,} bytes for {len(raw):,}"
