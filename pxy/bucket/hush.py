"""What a library writes to file descriptor 2 by itself, held back for one call.

tensorstore 0.1 names the credentials that it has found on stderr (INFO,
google_auth_provider.cc), through a log of its own that nothing outside can tell to be
still, when it is first asked for something in a bucket: in a run, beneath its first
checkpoint. So it is asked before, here, and once.
"""

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Iterator

FOREIGN = (b"google_auth_provider.cc", b"before absl::InitializeLog()")
"""What lines of tensorstore's log about credentials have."""
_SECONDS = 20.0


def verbose() -> bool:
  """Whether what libraries say is to be shown."""
  return os.environ.get("PXY_VERBOSE", "0") not in ("", "0")


@functools.cache
def credentials(bucket: str) -> None:
  """Lets tensorstore find its credentials, whether or not it may use them."""
  import tensorstore  # not for --help

  with contextlib.nullcontext() if verbose() else without(FOREIGN):
    with contextlib.suppress(Exception):  # what matters comes again, and is told then
      spec = {"driver": "gcs", "bucket": bucket}
      store = tensorstore.KvStore.open(spec).result(_SECONDS)
      store.read("pxy").result(_SECONDS)


@contextlib.contextmanager
def without(foreign: tuple[bytes, ...]) -> Iterator[None]:
  """While open, nothing reaches stderr; what has, but for lines that have one of
  `foreign`, is there when it is left."""
  if sys.stderr is None:  # closed: descriptor 2 may be some file's by now
    yield
    return
  sys.stderr.flush()
  try:
    kept = tempfile.TemporaryFile()
  except OSError:  # no room: better a line too many
    yield
    return
  place = os.dup(2)
  with kept:
    os.dup2(kept.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(place, 2)
      os.close(place)
      kept.seek(0)
      for line in kept:
        if not any(words in line for words in foreign):
          os.write(2, line)
