"""The machine under a run: memory, disk, shared memory, open files, kept programs.

What is low is measured where it could be: `make demo`'s run takes 1.4 GB of memory,
4 MB of disk a step saved, and 27 open files.
"""

import contextlib
import os
import pathlib
import resource
import shutil
import sys
import tempfile

from pxy import files, imports
from pxy.commands import xla_cache
from pxy.commands.checks import line as line_lib

psutil = imports.later("psutil")  # where it lacks, that is a line of the table

GIB = line_lib.GIB
MEMORY = (1.5 * GIB, 4 * GIB)
"""Bytes under which a run fails, and under which a line warns."""
OUT = (0.1 * GIB, 10 * GIB)
CACHE = (0.1 * GIB, 3 * GIB)
SHARED = GIB
FILES = (64, 1024)
"""A run of the embedded model fails with 24 and ends well with 32."""
_TRIAL = bytes(2**20)


def memory(root: str = "/") -> list[line_lib.Line]:
  """The host's, or what a container or a job may have of it."""
  host = psutil.virtual_memory()
  total, free, whose = host.total, host.available, "the machine"
  for most, left in _limits(pathlib.Path(root)):
    if left < free:
      total, free, whose = most, left, "this container or job (cgroup)"
  return [judge_memory(total, free, whose)]


def judge_memory(total: float, free: float, whose: str) -> line_lib.Line:
  """Of so many bytes, so many to be had."""
  found = f"{line_lib.size(free)} of {line_lib.size(total)} free on {whose}"
  if free >= MEMORY[1]:
    return line_lib.Line("memory", "ok", found)
  bad = free < MEMORY[0]
  return line_lib.Line(
    "memory", "fail" if bad else "warn", found,
    "end other processes, or take more memory; the embedded model's run takes 1.4 GB,"
    " `pxy train EXPERIMENT --dry-run` says what a model takes",
  )  # fmt: skip


def _limits(root: pathlib.Path):
  """(bytes, bytes left) of each cgroup that this process is in, where it has a limit.

  Pages that only hold files are left: the kernel gives them back.
  """
  try:
    rows = (root / "proc/self/cgroup").read_text().splitlines()
  except OSError:
    return
  for row in rows:
    _, kinds, path = row.split(":", 2)
    if kinds not in ("", "memory"):
      continue
    base = root / "sys/fs/cgroup" / kinds
    names = ("memory.max", "memory.current", "inactive_file")
    if kinds:
      names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    place = base / path.lstrip("/")
    for folder in dict.fromkeys((place, *place.parents)):  # a container sees its own
      if not folder.is_relative_to(base):
        break
      with contextlib.suppress(OSError, ValueError, KeyError):
        most = int((folder / names[0]).read_text())  # "max" is no number
        used = int((folder / names[1]).read_text())
        stat = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
        yield most, most - used + int(stat[names[2]])


def folder(name: str, place: pathlib.Path, least, cure: str) -> list[line_lib.Line]:
  """Whether a folder, there or not yet, can be written, and has room."""
  place = pathlib.Path(place).absolute()
  above = next(p for p in (place, *place.parents) if p.exists() or p.is_symlink())
  trouble = write(above)
  free = 0
  with contextlib.suppress(OSError):
    free = shutil.disk_usage(above).free
  return [judge_folder(name, str(place), trouble, free, least, cure)]


def write(folder: pathlib.Path) -> str:
  """Writes a file, syncs it, moves its folder, as a checkpoint does, and removes all;
  what went wrong, or nothing."""
  if not folder.is_dir():
    return f"{folder} is no folder"
  try:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pxy-doctor-") as own:
      made, moved = pathlib.Path(own, "a"), pathlib.Path(own, "b")
      made.mkdir()
      with open(made / "file", "wb") as file:
        file.write(_TRIAL)
        file.flush()
        os.fsync(file.fileno())
      made.rename(moved)
      if (moved / "file").read_bytes() != _TRIAL:
        return f"{folder} gives back other bytes than were written"
  except OSError as error:
    return f"{folder}: {error.strerror or error}"
  return ""


def judge_folder(
  name: str, place: str, trouble: str, free: float, least, cure: str
) -> line_lib.Line:
  """Of a folder in which a trial of writing met `trouble` or none.

  least: bytes under which it fails, and under which it warns.
  """
  if trouble:
    return line_lib.Line(name, "fail", f"{place}: {trouble}", cure)
  found = f"{place}: can be written, {line_lib.size(free)} free"
  if not free or free >= least[1]:  # some file systems do not say
    return line_lib.Line(name, "ok", found.replace(", 0 MiB free", ""))
  low = "make room there (a checkpoint takes 12 bytes a parameter), or"
  status = "fail" if free < least[0] else "warn"
  return line_lib.Line(name, status, found, f"{low} {cure}")


def shared(chips: int, place: str = "/dev/shm") -> list[line_lib.Line]:
  """Memory that processes share, of a machine with so many GPUs or TPUs."""
  if sys.platform != "linux":
    return [line_lib.Line("shared memory", "ok", f"{sys.platform} has another kind")]
  trouble, free = write(pathlib.Path(place)), 0
  with contextlib.suppress(OSError):
    free = shutil.disk_usage(place).free
  return [judge_shared(place, trouble, free, chips)]


def judge_shared(place: str, trouble: str, free: float, chips: int) -> line_lib.Line:
  """A container has 64 MiB unless it is told otherwise: enough for graders, whose
  temporary files are there, but not for several chips."""
  cure = "start the container with --shm-size=16g (Kubernetes: an emptyDir of medium"
  cure += f" Memory on {place}), or mount -o remount,size=16g {place}"
  if trouble:
    return line_lib.Line("shared memory", "warn", trouble, cure)
  found = f"{place}: {line_lib.size(free)} free"
  if chips > 1 and free < SHARED:
    return line_lib.Line("shared memory", "warn", f"{found}, for {chips} chips", cure)
  return line_lib.Line("shared memory", "ok", found)


def open_files() -> list[line_lib.Line]:
  """Files that a process may have open."""
  return [judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))]


def judge_open_files(soft: int, hard: int) -> line_lib.Line:
  """A limit, and how far it may be raised; -1 is without."""
  if soft == resource.RLIM_INFINITY or soft >= FILES[1]:
    few = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at a time"
    return line_lib.Line("open files", "ok", few)
  asked = 4 * FILES[1]
  cure = f"ulimit -n {asked}"
  if hard != resource.RLIM_INFINITY and hard < asked:
    cure = f"raise the hard limit, {hard}: nofile {asked} in /etc/security/limits.conf,"
    cure += f" or docker run --ulimit nofile={asked}"
  status = "fail" if soft < FILES[0] else "warn"
  return line_lib.Line("open files", status, f"{soft} at a time", cure)


def programs() -> list[line_lib.Line]:
  """Where compiled programs are kept, and how many; a run goes on without."""
  name = "compiled programs"
  if xla_cache.off():
    said = "not kept, as JAX_ENABLE_COMPILATION_CACHE says"
    return [line_lib.Line(name, "ok", said)]
  if own := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    trouble = "" if "://" in own else write(_there(own))
    return [judge_programs(own, trouble, None, "JAX_COMPILATION_CACHE_DIR")]
  try:
    root = files.cache() / "xla"
    _, size = xla_cache.ready(root)
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
    why = getattr(error, "strerror", None) or str(error)
    return [judge_programs(str(files.cache()), why, None, "PXY_CACHE")]
  return [judge_programs(str(root), "", size, "PXY_CACHE")]


def judge_programs(
  place: str, trouble: str, size: int | None, variable: str
) -> line_lib.Line:
  """Of a folder that a variable names; size: None where it is the user's own."""
  name = "compiled programs"
  if trouble:
    cure = f"set {variable} to a folder that can be written; until then each command"
    found = f"not kept in {place}: {trouble}"
    return line_lib.Line(name, "warn", found, f"{cure} compiles anew")
  most = line_lib.size(xla_cache.MOST)
  held = "" if size is None else f": {line_lib.size(size)} of at most {most}"
  return line_lib.Line(name, "ok", f"kept in {place}{held}")


def _there(place: str) -> pathlib.Path:
  path = pathlib.Path(place).absolute()
  return next(p for p in (path, *path.parents) if p.exists())
