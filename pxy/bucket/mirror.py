"""A run's folder in a bucket as a folder here: what reads and writes files goes on so.

Small things are mirrored whole: records, config, model/, reports. Of a checkpoint only
meta.json and manifest.json are, and checkpoints/url says where its arrays are: each
process reads and writes its own shards in the bucket (train/shelf.py).

The bucket is the truth. `pull` makes the mirror what the bucket holds; `push` brings
what has changed here back, in whole objects, before the checkpoint that relies on it is
published. Whatever comes between two of its uploads leaves records that a resume cuts
back to its checkpoint, as it does those of a run that was killed on a disk (show/log.py
says why any mixture of old and new files gives the same records up to there).

    $PXY_CACHE/buckets/DIGEST/KIND/NAME    KIND: read, write, samples, run, or run-3 of
                                           process 3, study, or study-2 beside another
    $PXY_CACHE/buckets/DIGEST/data/FILE    a data file, fetched alone
    $PXY_CACHE/buckets/DIGEST/made/NAME    a new folder, until it is uploaded
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from pxy import fields, files
from pxy.bucket import lock as lock_lib
from pxy.bucket import objects

URL = "checkpoints/url"
SAID = ("meta.json", "manifest.json")
"""Of a checkpoint, in the order of writing: with the last it is complete."""
_AT_ONCE = 8


class Mirror:
  """The mirror of a URL.

  Attributes:
    url: of the folder in the bucket; bucket: its objects; path: the folder here.
  """

  def __init__(self, url: str, kind: str):
    self.bucket = objects.Bucket(url)
    self.url = self.bucket.url
    root = _root(self.url, kind)
    self.path = root / self.url.rpartition("/")[2]
    self._known: dict[str, tuple] = {}
    self._wanted: Callable[[str], bool] = lambda name: True
    _NAMES[self.path] = self.url

  def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Has here what the bucket has, of the names that are `wanted`; of no others does
    `push` say anything afterwards."""
    with _alone(self.path.parent):
      self.pull_alone(wanted)

  def pull_alone(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """As `pull`, by who sees to it that no other does."""
    self._wanted, listed = wanted, self.bucket.listed()
    names = {name for name in listed if _whole(name) or _said(name, listed)}
    _match(self.bucket, {name: listed[name] for name in names}, self.path, wanted)
    for folder in self.path.glob("checkpoints/*/"):  # a run that goes on removed it
      if not (folder / SAID[-1]).is_file():
        shutil.rmtree(folder)
    if _model(listed):  # nothing of it may look like a run
      shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
    else:
      files.write_text(self.path / URL, f"{self.url}/checkpoints\n")
    self._known = self._states()

  def push(self) -> None:
    """Has in the bucket what is here, and was not when it was pulled or pushed last."""
    now = self._states()
    for name in sorted(now):
      if now[name] != self._known.get(name):
        with contextlib.suppress(FileNotFoundError):  # gone again
          self.bucket.upload(name, self.path / name)
          self._known[name] = now[name]
    for name in sorted(self._known.keys() - now.keys()):
      self.bucket.remove(name)
      del self._known[name]

  def files(self) -> list[str]:
    """Names of what is here."""
    return [name for name in _below(self.path) if name != URL]

  def _states(self) -> dict[str, tuple]:
    """What tells a file from what it was, of each that is mirrored whole."""
    found = {}
    for name in self.files():
      wanted = _whole(name) and self._wanted(name)
      if wanted and not any(x.startswith(".") for x in name.split("/")):
        at = (self.path / name).stat()
        found[name] = (at.st_ino, at.st_mtime_ns, at.st_size)
    return found


def _root(url: str, kind: str) -> pathlib.Path:
  digest = hashlib.sha256(url.encode()).hexdigest()[:16]
  return files.cache().absolute() / "buckets" / digest / kind


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """While open, no other process of this machine fetches what goes there."""
  folder.mkdir(parents=True, exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # a file system without locks
      fcntl.flock(handle, fcntl.LOCK_EX)
    yield
  finally:
    os.close(handle)


def _below(folder: pathlib.Path) -> list[str]:
  """Names of the files below a folder."""
  paths = (path for path in folder.rglob("*") if path.is_file())
  return [path.relative_to(folder).as_posix() for path in paths]


def _match(
  bucket: objects.Bucket,
  listed: dict[str, objects.Object],
  folder: pathlib.Path,
  wanted: Callable[[str], bool],
) -> None:
  """Has in a folder, of the names that are `wanted`, what is listed and no more."""
  listed = {x: listed[x] for x in sorted(listed) if wanted(x) and safe(x)}
  for name in _below(folder):
    if wanted(name) and name not in listed and name != URL:
      (folder / name).unlink()
  _fetch(bucket, listed, folder, gone=True)


def _fetch(
  bucket: objects.Bucket,
  wanted: dict[str, objects.Object],
  folder: pathlib.Path,
  *,
  gone: bool = False,
) -> None:
  """Has objects as files of a folder; those that are there already are not asked for.

  gone: what was removed since it was listed is left out.

  Raises fields.Error: the disk has no room for them.
  """
  folder.mkdir(parents=True, exist_ok=True)
  lacking = [name for name, one in wanted.items() if not one.same(folder / name)]
  size, free = sum(wanted[x].size for x in lacking), shutil.disk_usage(folder).free
  if size > free:
    raise fields.Error(
      f"{bucket.url}: takes {size / 1e6:,.0f} MB, the disk of {files.cache()} has"
      f" {free / 1e6:,.0f} left; make room, or set PXY_CACHE to a folder that has it"
    )

  def fetch(name: str) -> None:
    try:
      bucket.download(name, folder / name)
    except FileNotFoundError as error:
      if gone:
        return
      raise fields.Error(f"{bucket.url}/{name}: was removed just now") from error
    # A file is as old as it is, not as its copy.
    os.utime(folder / name, (wanted[name].updated,) * 2)

  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    list(pool.map(fetch, lacking))


@functools.cache
def data(url: str) -> tuple[pathlib.Path, ...]:
  """The files that a URL or a pattern names (objects.matching), as they are now; once
  in a process, so that all of it reads the same."""
  found = {x.rpartition("/")[2]: one for x, one in objects.matching(url).items()}
  bucket = objects.Bucket(url.rpartition("/")[0], root=True)
  folder = _root(bucket.url, "data")
  with _alone(folder):
    _fetch(bucket, found, folder)
  _NAMES.update({folder / name: f"{bucket.url}/{name}" for name in found})
  return tuple(folder / name for name in found)


_NAMES: dict[pathlib.Path, str] = {}
"""URLs of files of `data`, and of folders that are mirrors."""


def name(path: pathlib.Path) -> str:
  """What a person knows a file of `data` or of a mirror by; of any other, its path."""
  for known in (path, *path.parents):
    if known in _NAMES:
      below = path.relative_to(known).as_posix()
      return _NAMES[known] if known == path else f"{_NAMES[known]}/{below}"
  return str(path)


def read_text(place: str) -> str:
  """The text at a path, or of an object; FileNotFoundError where there is none."""
  if not objects.is_url(place):
    return pathlib.Path(place).read_text(encoding="utf-8")
  folder, _, name = place.rpartition("/")
  found = objects.Bucket(folder).read(name)
  if found is None:
    raise FileNotFoundError(place)
  return found[0].decode()


def write_text(place: str, text: str) -> None:
  """Writes a file, or an object, whole."""
  if not objects.is_url(place):
    files.write_text(pathlib.Path(place), text)
    return
  folder, _, name = place.rpartition("/")
  objects.Bucket(folder).write(name, text.encode())


def safe(name: str) -> bool:
  """Whether an object's name is that of a file below a folder; else it is left."""
  parts = name.split("/")
  return not any(x in ("", ".", "..") or "\0" in x or "\\" in x for x in parts)


def _whole(name: str) -> bool:
  """Whether it is mirrored whole, both ways."""
  locks = name.rpartition("/")[2] == lock_lib.NAME
  return not locks and not name.startswith("checkpoints/")


def _model(listed) -> bool:
  """Whether it is a Hugging Face folder, which has weights beside its config.json."""
  weights = any("/" not in x and x.endswith(".safetensors") for x in listed)
  return weights and "model/config.json" not in listed


def _said(name: str, listed) -> bool:
  """Whether it is what is mirrored of a complete checkpoint."""
  top, _, rest = name.partition("/")
  step, _, file = rest.partition("/")
  complete = f"{top}/{step}/{SAID[-1]}" in listed
  return top == "checkpoints" and file in SAID and complete


@functools.cache
def read(url: str) -> pathlib.Path:
  """The folder of a run or of a model as it is now, without the records of its steps;
  once in a process. Raises fields.Error: there is nothing."""
  return _filled(url, lambda x: not x.startswith(("completions", "tensorboard/"))).path


@functools.cache
def flat(url: str, prefix: str = "") -> pathlib.Path:
  """A folder with the files of it whose names begin so, and of no folder below, as they
  are now; once in a process. Raises fields.Error: there is nothing."""
  return _filled(url, lambda x: "/" not in x and x.startswith(prefix)).path


@contextlib.contextmanager
def shared(place: str, *, new: bool = False) -> Iterator[pathlib.Path]:
  """The folder of a run, to write what is of no step: what is new there when it is left
  goes to the bucket. A folder that is in none is itself.

  new: there need be nothing yet.
  """
  if not objects.is_url(place):
    yield pathlib.Path(place)
    return
  mirror = Mirror(place, "write")
  if mirror.path in _OPEN:
    yield mirror.path  # whoever opened it brings it back
    return
  # Alone until all is back, and apart from readers: what another process pulls here
  # would take away what is not in the bucket yet, and look like a change of ours.
  with _alone(mirror.path.parent):
    mirror.pull_alone()
    if not new:
      _there(mirror)
    _OPEN.add(mirror.path)
    try:
      yield mirror.path
      mirror.push()
    finally:
      _OPEN.remove(mirror.path)


_OPEN: set[pathlib.Path] = set()


@contextlib.contextmanager
def own(place: str, kind: str) -> Iterator[pathlib.Path]:
  """A folder for a place, which no other process of this machine has meanwhile, and in
  which is what `refresh` and `give` are asked for. A folder that is in no bucket is
  itself."""
  if not objects.is_url(place):
    yield pathlib.Path(place)
    return
  for beside in itertools.count(1):
    mirror = Mirror(place, kind if beside == 1 else f"{kind}-{beside}")
    mirror.path.mkdir(parents=True, exist_ok=True)
    handle = os.open(mirror.path.parent, os.O_RDONLY)
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(handle)
      continue
    except OSError:
      pass  # a file system without locks
    try:
      yield mirror.path
    finally:
      os.close(handle)
    return


def refresh(folder: pathlib.Path, wanted: Callable[[str], bool]) -> None:
  """Has below a folder of a mirror what the bucket has there, of the names that are
  `wanted`, and no more of these. Any other folder is as it is."""
  url = name(folder)
  if not objects.is_url(url):
    return
  bucket = objects.Bucket(url)
  _match(bucket, bucket.listed(), folder, wanted)


def give(path: pathlib.Path) -> None:
  """A file of a mirror is in the bucket when this returns; any other, or none, is as it
  is."""
  folder, _, own = name(path).rpartition("/")
  if objects.is_url(folder) and path.is_file():
    objects.Bucket(folder).upload(own, path)


def size(folder: pathlib.Path) -> int:
  """Bytes of all files below a folder; of one in a mirror, of all objects."""
  url = name(folder)
  if not objects.is_url(url):
    return files.size(folder)
  return sum(one.size for one in objects.Bucket(url).listed().values())


@contextlib.contextmanager
def made(place: str, last: str) -> Iterator[pathlib.Path]:
  """A folder that is to be new at a place: of one in a bucket, made here and uploaded
  when it is left, under a lock, `last` as the last object: what has it is complete.

  What fails leaves nothing behind. Raises fields.Error: there is something already,
  another process works there, or the bucket refuses.
  """
  if not objects.is_url(place):
    yield pathlib.Path(place)
    return
  bucket = objects.Bucket(place)
  root = _root(bucket.url, "made")
  folder = root / bucket.url.rpartition("/")[2]
  with lock_lib.Lock(bucket) as lock:
    if held := bucket.listed().keys() - {lock_lib.NAME}:
      half = "" if last in held else f", without {last}, as what did not end leaves it"
      raise fields.Error(
        f"--out {bucket.url}: it is there already{half}; name a new folder, or remove"
        f" that (gcloud storage rm -r {bucket.url})"
      )
    shutil.rmtree(root, ignore_errors=True)  # of a process that died
    try:
      yield folder
      _publish(bucket, lock, folder, last)
    finally:
      shutil.rmtree(root, ignore_errors=True)


def _publish(bucket, lock: lock_lib.Lock, folder: pathlib.Path, last: str) -> None:
  found = (path for path in folder.rglob("*") if path.is_file())
  names = sorted(path.relative_to(folder).as_posix() for path in found)
  names.append(names.pop(names.index(last)))
  begun = []
  try:
    for name in names:
      lock.confirm()
      begun.append(name)
      bucket.upload(name, folder / name)
  except BaseException:
    if lock.fresh:  # else it is another's, or the store would be waited for
      with contextlib.suppress(fields.Error):
        for name in sorted(begun, key=lambda x: x != last):
          bucket.remove(name)
    raise


def _filled(url: str, wanted) -> Mirror:
  mirror = Mirror(url, "read")
  mirror.pull(wanted)
  _there(mirror)
  return mirror


def _there(mirror: Mirror) -> None:
  if not mirror.files():
    raise fields.Error(f"{mirror.url}: there is nothing; see how it is spelled")
