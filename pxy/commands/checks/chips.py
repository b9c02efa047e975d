"""GPUs and TPUs, as the machine shows them, before JAX is asked.

JAX goes on with the CPU where it cannot use what there is; the run is then a hundred
times slower, and nothing is wrong with it otherwise.
"""

import glob
import importlib.util
import os
import subprocess
from typing import NamedTuple

from pxy.commands import quiet, xla_flags
from pxy.commands.checks import line as line_lib

_SECONDS = 30
_QUERY = "name,driver_version,memory.total,memory.used"
_DRIVER = {"cuda13": 580, "cuda12": 525}
"""The least driver of a CUDA."""
_HELD = 0.1
"""Share of a GPU's memory in use from which on a line says so."""


class Gpu(NamedTuple):
  """One GPU, as nvidia-smi has it; memory in MiB."""

  name: str
  driver: str
  total: float
  used: float


class Facts(NamedTuple):
  """What there is, and what JAX has for it.

  Attributes:
    nvidia, tpu: whether there is such a device.
    gpus: of nvidia-smi; or why it does not say.
    cuda: the CUDA builds of JAX that are installed, of `cuda12` and `cuda13`.
    libtpu: whether it is installed.
    said: JAX_PLATFORMS.
  """

  nvidia: bool = False
  tpu: bool = False
  gpus: tuple[Gpu, ...] | str = ()
  cuda: tuple[str, ...] = ()
  libtpu: bool = False
  said: str = ""


def look() -> Facts:
  """The facts of this machine."""
  nvidia = quiet.nvidia()
  return Facts(
    nvidia, quiet.tpu(), smi() if nvidia else (), xla_flags.builds(),
    importlib.util.find_spec("libtpu") is not None,
    os.environ.get("JAX_PLATFORMS", ""),
  )  # fmt: skip


def count(root: str = "/") -> int:
  """How many GPUs or TPUs there may be, by their devices; 0: the CPU alone."""
  nodes = ("dev/nvidia[0-9]*", "dev/accel[0-9]*", "dev/vfio/[0-9]*")
  return sum(len(glob.glob(os.path.join(root, node))) for node in nodes)


def smi(command: str = "nvidia-smi") -> tuple[Gpu, ...] | str:
  """What nvidia-smi says of each GPU, or why it says nothing."""
  argv = [command, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
  try:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS)
  except FileNotFoundError:
    return ()  # a container without the tool
  except (OSError, subprocess.TimeoutExpired) as error:
    return f"nvidia-smi: {' '.join(str(error).split())[:200]}"
  if done.returncode:
    text = (done.stdout + done.stderr).strip() or f"ended with {done.returncode}"
    return f"nvidia-smi: {' '.join(text.split())[:200]}"
  return read(done.stdout)


def read(text: str) -> tuple[Gpu, ...]:
  """The rows of nvidia-smi; a number that it does not have ([N/A]) is 0."""
  rows = [[cell.strip() for cell in row.split(",")] for row in text.splitlines()]
  return tuple(
    Gpu(row[0], row[1], _number(row[2]), _number(row[3]))
    for row in rows
    if len(row) == 4
  )


def _number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return 0.0


def judge(facts: Facts) -> list[line_lib.Line]:
  """A line for each thing that is wrong with chips and what JAX has for them, or one
  that says what there is."""
  out = [*_of_gpus(facts), *_of_tpus(facts)]
  if out:
    return [line_lib.Line("chips", *rest) for rest in out]
  kinds = []
  if facts.nvidia:
    kinds = sorted({gpu.name for gpu in facts.gpus}) or ["an NVIDIA GPU"]
    kinds = [f"{len(facts.gpus) or ''} {' and '.join(kinds)}".strip()]
    kinds += [f"driver {gpu.driver}" for gpu in facts.gpus[:1]]
  if facts.tpu:
    kinds.append("a TPU")
  found = ", ".join(kinds) or "no GPU and no TPU, so the CPU computes"
  if kinds and _left_out(facts):
    found += f"; left out, as JAX_PLATFORMS={facts.said} says"
  return [line_lib.Line("chips", "ok", found)]


def hoped(facts: Facts) -> str:
  """`gpu` or `tpu` where JAX has a build for what there is; else nothing."""
  if _left_out(facts):
    return ""
  if facts.tpu and facts.libtpu:
    return "tpu"
  return "gpu" if facts.nvidia and facts.cuda else ""


def _left_out(facts: Facts) -> bool:
  kinds = {"tpu"} if facts.tpu else {"cuda", "gpu"}
  return bool(facts.said) and not kinds & set(facts.said.split(","))


def _of_gpus(facts: Facts):
  """(status, what, cure) of each thing that is wrong."""
  if not facts.nvidia or (facts.cuda and _left_out(facts)):
    return  # without a CUDA build it may be quiet.py that leaves it out
  if isinstance(facts.gpus, str):
    cure = "install the driver again, or restart the machine"
    yield "warn", f"there is an NVIDIA GPU, and {facts.gpus}", cure
    return
  driver = int(facts.gpus[0].driver.split(".")[0] or 0) if facts.gpus else 0
  fits = "cuda13" if not driver or driver >= _DRIVER["cuda13"] else "cuda12"
  if not facts.cuda:
    other = "" if driver else " ('jax[cuda12]' with a driver before 580)"
    found = "there is an NVIDIA GPU, and JAX has no CUDA build: it computes on the CPU"
    yield "warn", found, f"pip install 'jax[{fits}]'{other}"
  for build in facts.cuda:
    if driver and driver < _DRIVER[build]:
      found = f"the NVIDIA driver {facts.gpus[0].driver} is older than {build} needs"
      cure = f"a driver of {_DRIVER[build]} or later"
      if fits != build:
        cure = f"pip uninstall jax-{build}-plugin; pip install 'jax[{fits}]'; or {cure}"
      yield "warn", f"{found} ({_DRIVER[build]}): JAX computes on the CPU", cure
  for number, gpu in enumerate(facts.gpus):
    if gpu.used > _HELD * gpu.total:
      held = f"GPU {number}: others hold {gpu.used:,.0f} of {gpu.total:,.0f} MiB"
      cure = "`nvidia-smi` says who: end them, or CUDA_VISIBLE_DEVICES names free ones"
      yield "warn", held, cure


def _of_tpus(facts: Facts):
  if facts.tpu and not facts.libtpu and not _left_out(facts):
    found = "there is a TPU, and no libtpu: JAX computes on the CPU"
    yield "warn", found, "pip install 'jax[tpu]'"
