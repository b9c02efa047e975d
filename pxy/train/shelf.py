"""Where a run's checkpoints stand, and how one gets there whole: a disk, or a bucket.

On a disk a folder with a number for a name is complete: one is made under a hidden name
and renamed. A bucket has no rename, and needs none: the arrays go to their place, and
manifest.json is the last object to be written and the first to be removed, so what has
one is complete. It holds the digests that the store computed (bucket/objects.py), which
a listing compares; on a disk every byte is read again.

Both have one folder of checkpoints here; of one in a bucket it holds what is said of it
(bucket/mirror.py).
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
from collections.abc import Callable

from pxy import files
from pxy.bucket import mirror, objects
from pxy.train import manifest

ABOUT = "meta.json"
AT_ONCE = 16
"""Requests to a bucket."""


def at(
  folder: pathlib.Path, permitted: Callable[[], object] = lambda: None
) -> "Disk | Bucket":
  """The shelf that a folder of checkpoints is.

  permitted: raises where this process may publish in a bucket no more; asked last.
  """
  url = folder / pathlib.Path(mirror.URL).name
  if not url.is_file():
    return Disk(folder)
  return Bucket(folder, url.read_text(encoding="utf-8").strip(), permitted)


class Disk:
  """Checkpoints in a folder.

  Attributes:
    name: of the place. failures: what Orbax raises where that lets it not do its work.
  """

  failures: tuple = (OSError, ValueError)

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self.name = str(folder)

  def told(self, error: Exception) -> str:
    """What of an exception's text a person needs; empty: all of it."""
    return ""

  def sweep(self) -> None:
    """Removes what a process that died has left."""
    if self._folder.is_dir():
      for left in self._folder.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)

  def refresh(self) -> None:
    """Has here what other processes have published."""

  def make(self, step: str, size: int) -> None:
    """Makes room for a checkpoint of `size` bytes; OSError where there is none."""
    partial = self._partial(step)
    partial.parent.mkdir(exist_ok=True)
    total, _, free = shutil.disk_usage(partial.parent)
    if total and free < size:  # some file systems do not say
      raise OSError(f"it takes {size / 1e6:.0f} MB, the disk has {free / 1e6:.0f} left")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()

  def saving(self, step: str):
    """Where Orbax writes the arrays of a checkpoint to come."""
    return self._partial(step) / "state"

  def state(self, step: str):
    """Where the arrays of a complete checkpoint are."""
    return self._folder / step / "state"

  def publish(self, step: str, about: dict) -> None:
    """Completes a checkpoint whose arrays are written."""
    partial, final = self._partial(step), self._folder / step
    files.write_json(partial / ABOUT, about)
    manifest.seal(partial)
    self.remove(step)  # one that was damaged, or of a future that was given up
    os.rename(partial, final)
    manifest.sync(self._folder)

  def remove(self, step: str) -> None:
    """It is gone from the list at once, whenever the process dies."""
    path = self._folder / step
    if path.is_symlink() or path.is_file():
      path.unlink()
    elif path.exists():
      hidden = path.with_name(f".{path.name}.old")
      shutil.rmtree(hidden, ignore_errors=True)
      os.rename(path, hidden)
      shutil.rmtree(hidden)

  def damage(self, step: str) -> str:
    """What is wrong with a complete checkpoint; empty if nothing is."""
    return manifest.damage(self._folder / step)

  def _partial(self, step: str) -> pathlib.Path:
    return self._folder / f".{step}.partial"


class Bucket:
  """The same in a bucket; what the folder holds is what is said of each."""

  failures: tuple = (Exception,)

  def __init__(self, folder: pathlib.Path, url: str, permitted: Callable[[], object]):
    self._permitted = permitted
    self._here, self._there = Disk(folder), objects.Bucket(url)
    self._folder = folder
    self.name = self._there.url

  def told(self, error: Exception) -> str:
    return self._there.told(error)

  def sweep(self) -> None:
    self._here.sweep()
    listed = self._there.listed()
    for step in {name.partition("/")[0] for name in listed}:
      if f"{step}/{manifest.NAME}" not in listed:
        self._clear(step, listed)

  def refresh(self) -> None:
    listed = self._there.listed()
    held = {path.name for path in self._folder.iterdir() if path.is_dir()}
    there = {x.partition("/")[0] for x in listed if x.endswith(f"/{manifest.NAME}")}
    for step in held - there:
      self._here.remove(step)
    for step in there - held:
      for name in mirror.SAID:
        self._there.download(f"{step}/{name}", self._folder / f".{step}.new" / name)
      os.rename(self._folder / f".{step}.new", self._folder / step)

  def make(self, step: str, size: int) -> None:
    self.remove(step)

  def saving(self, step: str):
    return objects.epath(f"{self._there.url}/{step}/state")

  state = saving

  def publish(self, step: str, about: dict) -> None:
    said = self._folder / f".{step}.partial"
    files.write_json(said / ABOUT, about)
    self._there.upload(f"{step}/{ABOUT}", said / ABOUT)
    sealed = {
      name.removeprefix(f"{step}/"): [one.size, one.digest]
      for name, one in self._there.listed(f"{step}/").items()
    }
    files.write_json(said / manifest.NAME, sealed)
    self._permitted()
    self._there.upload(f"{step}/{manifest.NAME}", said / manifest.NAME)
    self._here.remove(step)
    os.rename(said, self._folder / step)

  def remove(self, step: str) -> None:
    self._here.remove(step)
    self._clear(step, self._there.listed(f"{step}/"))

  def damage(self, step: str) -> str:
    try:
      text = (self._folder / step / manifest.NAME).read_text(encoding="utf-8")
      sealed = {name: tuple(said) for name, said in json.loads(text).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
      return f"{manifest.NAME}: {error}"
    listed = self._there.listed(f"{step}/")
    if not sealed:
      return f"{manifest.NAME} names no object"
    for name, said in sealed.items():
      found = listed.get(f"{step}/{name}")
      if found is None:
        return f"{name} is missing"
      if (found.size, found.digest) != said:
        return f"{name} has changed"
    return ""

  def _clear(self, step: str, listed) -> None:
    """Removes the objects of a checkpoint; that which tells of the others first."""
    names = [name for name in listed if name.startswith(f"{step}/")]
    first = f"{step}/{manifest.NAME}"
    if first in names:
      self._there.remove(first)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
      list(pool.map(self._there.remove, names))
