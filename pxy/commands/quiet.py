"""Says nothing for libraries that would speak of themselves: stderr is pxy's.

JAX asks every plugin that is installed for its devices. `pip install 'jax[tpu]'`, which
`pxy compile` needs on any machine, installs libtpu; where there is no TPU it puts five
lines of what it has not found on stderr (libtpu_init_utils.cc:327), writes a log to
/tmp/tpu_logs, and takes 0.1 s and 100 MB. So there JAX is told to look at the CPU
alone; where another plugin may have a device, that there is nothing to be found out.

Left alone: what a user says (JAX_PLATFORMS), a machine that may have a TPU, `pxy study`
(it computes nothing, and its cells may run elsewhere), and everything with
PXY_VERBOSE=1. `pxy compile` describes its chips itself (aot/chips.py).
"""

import glob
import importlib.util
import os
import pathlib
import pkgutil
import sys

from pxy.aot import chips
from pxy.bucket import hush
from pxy.commands import xla_flags

ON_DEVICES = (
  "pretrain", "train", "eval", "probe", "bound", "gate", "align", "sample",
)  # fmt: skip
"""Commands that a GPU makes faster."""
_TPU = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
_ANYWHERE = {"TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH"}
"""What JAX and libtpu put into the environment where there is none; children see it."""
_NVIDIA = ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia/version")


def start(command: str, root: str = "/") -> None:
  """To be called before JAX is imported; in a line, a GPU that JAX cannot use.

  root: where /dev, /proc and /sys are looked for.
  """
  if hush.verbose():
    return
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's errors, no warnings
  said = {"JAX_PLATFORMS", "JAX_PLATFORM_NAME"} & os.environ.keys()
  if said or command == "study" or tpu(root):
    return
  if importlib.util.find_spec("libtpu"):
    if plugins():
      chips.describe()
    else:
      os.environ["JAX_PLATFORMS"] = "cpu"
  if command in ON_DEVICES and nvidia(root) and not xla_flags.cuda():
    print(
      "pxy: warning: there is an NVIDIA GPU, and JAX computes on the CPU: pip install"
      " 'jax[cuda13]' ('jax[cuda12]' with a driver before 580)",
      file=sys.stderr,
    )


def tpu(root: str = "/") -> bool:
  """Whether there may be a TPU: named in the environment, as a device, or as hardware
  of Google's (0x1ae0) that is neither disk (class 01) nor network (02)."""
  named = {(x, value) for x, value in os.environ.items() if x.startswith("TPU_")}
  named -= chips.DESCRIBED.items()
  if {x for x, _ in named} - _ANYWHERE or "JAX_FORCE_TPU_INIT" in os.environ:
    return True
  if any(_there(root, pattern) for pattern in _TPU):
    return True
  for vendor in map(pathlib.Path, _there(root, "/sys/bus/pci/devices/*/vendor")):
    kind = vendor.with_name("class")
    if _read(vendor) == "0x1ae0" and not _read(kind).startswith(("0x01", "0x02")):
      return True
  return False


def nvidia(root: str = "/") -> bool:
  """Whether there is an NVIDIA GPU with its driver."""
  return any(_there(root, pattern) for pattern in _NVIDIA)


def plugins() -> set[str]:
  """Plugins of JAX that are installed; libtpu is none of them, JAX knows it by name."""
  from importlib import metadata  # 25 ms, and most machines do not come here

  found = {entry.value for entry in metadata.entry_points(group="jax_plugins")}
  space = importlib.util.find_spec("jax_plugins")
  folders = space.submodule_search_locations if space else ()
  return found | {f"jax_plugins.{x.name}" for x in pkgutil.iter_modules(folders)}


def _there(root: str, pattern: str) -> list[str]:
  return glob.glob(os.path.join(root, pattern.lstrip("/")))


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding="utf-8").strip()
  except OSError:
    return ""
