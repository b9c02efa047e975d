"""What a reward worker may not do, by means of the Linux kernel alone, without root.

A worker enters new namespaces, in which it is process 1:

  user   it is nobody outside: it cannot trace, or read the environment of, the trainer
  pid    it sees no other process, and when it dies the kernel ends all it has started
  net    no interface, not even loopback
  mount  all file systems read-only; /dev/shm is an empty one of its own, with a limit
  ipc    no shared memory with others

then gives up every capability, and cannot regain one by executing a set-uid program.
Where a kernel or a container forbids namespaces, what is left is: resource limits, no
new privileges, death with the trainer, and a sweep of the processes it has adopted.
`Jail` says which layers are in force. Left out: hiding files that the user may read
(they cannot leave by a network), seccomp filters, cgroups (both need rights or tools
that a laptop does not give).
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import resource
import signal
import sys
import time

TEMP = "/dev/shm"
_TEMP_BYTES = 64 << 20
_FILE_BYTES = 64 << 20
_TEMP_FILES = 512
_OPEN_FILES = 1024  # more than _TEMP_FILES: `_empty` holds one per level
PROCESSES = 64
"""Processes that one sample may have at a time."""

_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_MS_NOSUID_NODEV_NOEXEC, _MS_PRIVATE_REC = 2 | 4 | 8, (1 << 18) | (1 << 14)
_NAMESPACES = {
  "user": 0x10000000,
  "pid": 0x20000000,
  "net": 0x40000000,
  "mount": 0x00020000,
  "ipc": 0x08000000,
}
_PAGE = resource.getpagesize()


@dataclasses.dataclass(frozen=True)
class Jail:
  """The layers in force; `private`: bytes of memory that a fork shares with us."""

  layers: tuple[str, ...]
  private: int = 0

  def overrun(self, memory_bytes: int) -> str:
    """Why the processes of the current sample must end; empty if they need not."""
    if "proc" not in self.layers:
      return ""
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and p != "1"]
    if len(pids) > PROCESSES:
      return f"started more than {PROCESSES} processes"
    if sum(max(0, _private(p) - self.private) for p in pids) > memory_bytes:
      return f"took more than {memory_bytes >> 20} MB in all"
    return ""

  def sweep(self, child: int) -> int:
    """Ends the child and undoes what it has started and written; its wait status."""
    status = self._end_all(child)
    if "temp" in self.layers:
      _empty(TEMP)
    return status

  def _end_all(self, child: int) -> int:
    if "pid" in self.layers:
      assert os.getpid() == 1, "kill(-1) would reach processes of others"
      _kill(-1)
    else:
      _best_effort(os.killpg, child, signal.SIGKILL)
      _kill(child)
    status, reaped = 0, False
    while True:
      try:
        pid, got = os.waitpid(-1, 0 if "pid" in self.layers else os.WNOHANG)
      except ChildProcessError:
        return status
      if pid == child:
        status, reaped = got, True
      if pid == 0:  # adopted processes, whose own children come to us in their turn
        orphans = _children()
        if reaped and not orphans:
          return status
        for orphan in orphans:
          _kill(orphan)
        time.sleep(0.001)


def enter(parent: int, close: tuple[int, ...]) -> Jail:
  """Moves this process, which has one thread, into the jail.

  It returns in a fork, process 1 of the new namespaces. The caller itself stays outside
  with the descriptors `close` closed, waits, and exits with the fork's status.

  Args:
    parent: process id of the trainer, with which the worker has to die.
    close: descriptors that only the fork may hold, so that its death is seen.
  """
  die_with_parent()
  if os.getppid() != parent:
    os._exit(1)
  _best_effort(_write, "/proc/self/oom_score_adj", "1000")
  layers = _unshare()
  pid = os.fork()
  if pid:
    for fd in close:
      os.close(fd)
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
  die_with_parent()
  _best_effort(_prctl, _PR_SET_CHILD_SUBREAPER, 1)
  if "mount" in layers:
    layers += _mounts("pid" in layers)
  for limit, value in (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, _FILE_BYTES),
    (resource.RLIMIT_NOFILE, _OPEN_FILES),
  ):
    _lower(limit, value)
  if "user" in layers:  # outside a user namespace it would count all of the user's
    _lower(resource.RLIMIT_NPROC, PROCESSES)
  # Not dumpable: a sample can neither trace us nor open our descriptors under /proc.
  _best_effort(_prctl, _PR_SET_DUMPABLE, 0)
  if _best_effort(_prctl, _PR_SET_NO_NEW_PRIVS, 1) and _best_effort(_drop_capabilities):
    layers += ("privileges",)
  return Jail(layers)


def baseline(jail: Jail) -> Jail:
  """The jail, knowing how much memory a fork of this process shares with it."""
  return dataclasses.replace(jail, private=_private("self"))


def limit_memory(extra_bytes: int) -> None:
  """From now on this process, and each it starts, may have that much more (Linux)."""
  with contextlib.suppress(OSError), open("/proc/self/statm") as f:
    size = int(f.read().split()[0]) * _PAGE
    _lower(resource.RLIMIT_AS, size + extra_bytes)


def die_with_parent() -> None:
  """SIGKILL for this process when the one that started it ends (Linux)."""
  _best_effort(_prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)


def _unshare() -> tuple[str, ...]:
  """Enters as many namespaces as one may; their names."""
  if sys.platform != "linux":
    return ()
  uid, gid = os.getuid(), os.getgid()
  for names in (tuple(_NAMESPACES), tuple(_NAMESPACES)[1:], ("user", "net")):
    if not _best_effort(_call, "unshare", sum(_NAMESPACES[n] for n in names)):
      continue
    if "user" in names:
      _best_effort(_write, "/proc/self/setgroups", "deny")
      _best_effort(_write, "/proc/self/uid_map", f"{uid} {uid} 1")
      _best_effort(_write, "/proc/self/gid_map", f"{gid} {gid} 1")
    return names
  return ()


def _mounts(own_pids: bool) -> tuple[str, ...]:
  """Everything read-only, an own /proc and an own folder for temporary files."""
  layers = ()
  flags = ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC)
  _best_effort(_call, "mount", None, b"/", None, ctypes.c_ulong(_MS_PRIVATE_REC), None)
  at_fdcwd, at_recursive = -100, 0x8000
  read_only = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # attr_set = MOUNT_ATTR_RDONLY
  if _best_effort(
    _call,
    "syscall",
    ctypes.c_long(_SYS_MOUNT_SETATTR),
    ctypes.c_int(at_fdcwd),
    b"/",
    ctypes.c_uint(at_recursive),
    ctypes.byref(read_only),
    ctypes.c_size_t(ctypes.sizeof(read_only)),
  ):
    layers += ("read-only",)
  if own_pids and _best_effort(_call, "mount", b"proc", b"/proc", b"proc", flags, None):
    layers += ("proc",)
  options = f"size={_TEMP_BYTES},nr_inodes={_TEMP_FILES},mode=0700".encode()
  if _best_effort(_call, "mount", b"tmpfs", TEMP.encode(), b"tmpfs", flags, options):
    os.environ["TMPDIR"] = TEMP
    layers += ("temp",)
  return layers


def _drop_capabilities() -> None:
  header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, self
  _call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _private(pid) -> int:
  """Resident bytes of a process that no file backs; 0 if it has gone."""
  try:
    with open(f"/proc/{pid}/statm") as f:
      _, resident, shared = f.read().split()[:3]
  except OSError:
    return 0
  return (int(resident) - int(shared)) * _PAGE


def _children() -> list[int]:
  try:
    with open(f"/proc/self/task/{os.getpid()}/children") as f:
      return [int(p) for p in f.read().split()]
  except OSError:
    return []


def _empty(folder: str, inside: int | None = None) -> None:
  """Removes all that the folder holds, by descriptors: paths may be made too long."""
  with contextlib.suppress(OSError):
    os.chmod(folder, 0o700, dir_fd=inside)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    try:
      for entry in list(os.scandir(fd)):
        if entry.is_dir(follow_symlinks=False):
          _empty(entry.name, fd)
          os.rmdir(entry.name, dir_fd=fd)
        else:
          os.unlink(entry.name, dir_fd=fd)
    finally:
      os.close(fd)


def _lower(limit: int, value: int) -> None:
  _, hard = resource.getrlimit(limit)
  if hard != resource.RLIM_INFINITY:
    value = min(value, hard)
  _best_effort(resource.setrlimit, limit, (value, value))


def _kill(pid: int) -> None:
  _best_effort(os.kill, pid, signal.SIGKILL)


def _write(path: str, text: str) -> None:
  with open(path, "w") as f:
    f.write(text)


def _prctl(option: int, value: int) -> None:
  _call("prctl", option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)


def _call(name: str, *args) -> None:
  function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
  if function is None:
    raise OSError(errno.ENOSYS, name)
  if function(*args) == -1:
    raise OSError(ctypes.get_errno(), name)


def _best_effort(function, *args) -> bool:
  """Whether the call was allowed. What is not is missing from `Jail.layers`."""
  try:
    function(*args)
  except (OSError, ValueError):
    return False
  return True
