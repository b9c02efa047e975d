"""Where a run works: the folder that --out names, or the mirror of one in a bucket.

A bucket's folder is locked first (bucket/lock.py), then mirrored, and what is written
here goes there when it counts: as the run begins, before each checkpoint, and at the
end. So a kill loses what is newer than the last checkpoint, which a resume would make
again anyway. Of several processes the main one does all this; each of the others has a
mirror of its own, for what it has to know of the checkpoints.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from pxy import config
from pxy.bucket import lock as lock_lib
from pxy.bucket import mirror as mirror_lib
from pxy.bucket import objects
from pxy.parallel import process


class Folder:
  """A folder of this machine's.

  Attributes:
    path: to work in. name: as a person knows it.
  """

  def __init__(self, path: pathlib.Path):
    self.path, self.name = pathlib.Path(path), str(path)

  def check(self) -> None:
    """Refuses to go on when the folder is another run's by now."""

  def permitted(self) -> None:
    """The same, certain; before a checkpoint is published."""

  def share(self) -> None:
    """What is written here is where it belongs when this returns; main process."""


class Mirrored(Folder):
  """A folder of a bucket, in its mirror, under its lock."""

  def __init__(self, mirror: mirror_lib.Mirror, lock: lock_lib.Lock | None):
    self.path, self.name = mirror.path, mirror.url
    self._mirror, self._lock = mirror, lock

  def check(self) -> None:
    if self._lock is not None:
      self._lock.check()

  def permitted(self) -> None:
    if self._lock is not None:
      self._lock.confirm()

  def share(self) -> None:
    self.permitted()
    self._mirror.push()


@contextlib.contextmanager
def opened(out: str | pathlib.Path) -> Iterator[Folder]:
  """The place that `out` names; a bucket's is locked while this is open.

  Raises config.Error: another process works there, or the bucket refuses.
  """
  if not objects.is_url(out):
    yield Folder(pathlib.Path(out))
    return
  url = str(out)
  mirror = mirror_lib.Mirror(url, process.own("run.").rstrip("."))
  with contextlib.ExitStack() as stack:
    lock = lock_lib.Lock(mirror.bucket)
    process.on_main(lambda: stack.enter_context(lock))
    place = Mirrored(mirror, lock if process.main() else None)
    _pull(mirror)
    try:
      yield place
    except BaseException:
      if process.main() and lock.fresh:  # else the store would be waited for
        with contextlib.suppress(config.Error):  # what ends the run is the news
          place.share()
      raise
    process.on_main(place.share)


def _pull(mirror: mirror_lib.Mirror) -> None:
  """Every process has its mirror, or none goes on."""
  failure = None
  try:
    if process.main():
      mirror.pull()
    else:
      mirror.pull(lambda name: name.startswith("checkpoints/"))
  except config.Error as error:
    failure = error
  process.together(failure)
