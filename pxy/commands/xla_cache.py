"""Keeps compiled programs from one process to the next.

A second run, a resume, an evaluation: what has been compiled once is read. JAX does it
(its persistent compilation cache), in $PXY_CACHE (or ~/.cache/pxy)/xla, one folder for
each kind of CPU, since a program holds that CPU's own instructions. What goes wrong
there costs a warning and the time to compile. JAX_COMPILATION_CACHE_DIR names another
place, and JAX_ENABLE_COMPILATION_CACHE=0 is without.

Small programs are kept too: there are a hundred for each large one, and together they
take as long.

Left out: jax_compilation_cache_max_size. With it each hit takes a lock and writes a
file, each new entry reads the age of all others, and a process that dies between the
two files of an entry leaves one over which every later write fails (jax 0.10). Here a
command looks once, when it starts.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import stat
import sys
import zlib

from pxy import files

MOST = 2 * 1024**3
"""Bytes that a command leaves there when it starts; the least recently used go."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def keep(root: pathlib.Path | None = None) -> None:
  """To be called before JAX is imported, for what it reads are environment variables.

  Says on stderr why nothing is kept, if so. `root` is $PXY_CACHE/xla if it is None.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules or off():
    return
  try:
    root = files.cache() / "xla" if root is None else root
    folder, _ = ready(root)
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
    why = getattr(error, "strerror", None) or error
    print(
      f"pxy: warning: compiled programs are not kept: {root or '~'} ({why}); set"
      " PXY_CACHE to a folder that can be written",
      file=sys.stderr,
    )
    return
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def off() -> bool:
  """Whether the user wants none."""
  said = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower()
  return said in ("0", "false", "f", "no", "n", "off")


def ready(root: pathlib.Path) -> tuple[pathlib.Path, int]:
  """The folder of this machine's kind of CPU, made and swept, and the bytes that all
  hold. Raises OSError where nothing can be kept."""
  folder = root / _machine()
  folder.mkdir(parents=True, exist_ok=True)
  os.chmod(root, 0o700)  # who writes here decides what runs; and refused if not ours
  _writable(folder)
  return folder, sweep(root)


def sweep(root: pathlib.Path, most: int = MOST) -> int:
  """Removes what is torn, and the least recently used beyond `most` bytes; the bytes
  that are left.

  Torn is what a process was writing when it died: JAX would warn of it for ever and
  never write it again. Only what has come since the last sweep is looked at. Another
  process may read and write meanwhile: at worst it compiles once more.
  """
  stamp = root / ".swept"
  last = stamp.stat().st_mtime - 2.0 if stamp.exists() else 0.0
  stamp.touch()
  found = []
  for path in root.rglob("*"):
    with contextlib.suppress(FileNotFoundError):
      of = path.stat()
      if not stat.S_ISREG(of.st_mode) or path == stamp:
        continue
      if path.name.endswith("-cache") and of.st_mtime >= last and not _whole(path):
        path.unlink()
      else:
        found.append((max(of.st_atime, of.st_mtime), of.st_size, path))
  size = sum(one for _, one, _ in found)
  for _, one, path in sorted(found):
    if size <= most:
      break
    path.unlink(missing_ok=True)
    size -= one
  return size


def _whole(path: pathlib.Path) -> bool:
  """Whether an entry is all there: zlib has a checksum. Of Zstandard JAX asks itself,
  when it reads."""
  data = path.read_bytes()
  if data.startswith(_ZSTD):
    return True
  try:
    zlib.decompress(data)
  except zlib.error:
    return False
  return True


def _machine() -> str:
  """The same for CPUs that have the same instructions."""
  said = [platform.system(), platform.machine(), platform.processor()]
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    said += sorted({x for x in lines if x.startswith(("model name", "flags", "Feat"))})
  return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def _writable(folder: pathlib.Path) -> None:
  """Raises OSError if a file cannot be made there; root may write what is read-only."""
  trial = folder / f".{os.getpid()}"
  trial.write_bytes(b"\0")
  trial.unlink()
