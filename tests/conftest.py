"""Strict settings for every test: CPU, 8 devices, no silent rank promotion.

LLVM optimizes nothing, and loops are written by XLA's older emitters: a program
compiles four times as fast, most run once, and what XLA's passes do to it is the same.
benchmarks/ and `make demo` are as users have it. Python's bytecode is kept, also where
the environment forbids it, for there are hundreds of child processes.

What takes long is named in slow.txt, with its seconds: what others guard too, and what
changes seldom (the gates of a shipped model, whole commands). It is for `make
test-slow`, like what kills, soaks or compiles for TPUs, and is marked so in its file.

Compiled programs are kept in .pytest_cache/xla. All workers of `-n` share it: any of
them may get any file, and none compiles what another has. Who meets an entry that is
being written gets JAX's warning, which is no failure (pyproject.toml), and compiles.
"""

import atexit
import gc
import os
import pathlib
import shutil
import signal
import tempfile

import pytest

from pxy import versions
from pxy.commands import xla_cache

OLDER = ["--xla_cpu_use_fusion_emitters=false"]
if versions.installed({"jaxlib"}).get("jaxlib", "").startswith(("0.11", "0.12")):
  OLDER = []  # jaxlib 0.12 ends the process at a flag that it does not know

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
  [
    *os.environ.get("XLA_FLAGS", "").split(),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    *OLDER,
  ]
)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PXY_CACHE" not in os.environ:  # data that tests make is theirs, and goes with them
  os.environ["PXY_CACHE"] = tempfile.mkdtemp(prefix="pxy-test-")
  atexit.register(shutil.rmtree, os.environ["PXY_CACHE"], ignore_errors=True)
xla_cache.keep(pathlib.Path(__file__).resolve().parent.parent / ".pytest_cache/xla")

import jax  # noqa: E402  which now knows where

jax.config.update("jax_numpy_rank_promotion", "raise")


SLOW = pathlib.Path(__file__).parent / "slow.txt"


def slow_tests() -> set[str]:
  """Names in slow.txt: of a test, or of one of its cases."""
  lines = (line.split(maxsplit=1) for line in SLOW.read_text().splitlines())
  return {name for _, name in filter(None, lines) if name.startswith("test_")}


def pytest_collection_modifyitems(items):
  """Marks what slow.txt names."""
  names = slow_tests()
  for item in items:
    here = f"{item.path.name}::"
    if not names.isdisjoint((here + item.name, here + item.originalname)):
      item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def programs():
  """Forgets the compiled programs of a file when it is done.

  Each is a few pieces of mapped memory, and Linux allows a process 65,530 of them:
  beyond, XLA (jaxlib 0.10.2) crashes where it compiles the next.
  """
  yield
  jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def environment():
  """Puts the environment back when a file is done: what compiles for a TPU tells libtpu
  of one, and the processes that another file starts would look for it."""
  before = dict(os.environ)
  yield
  for name in os.environ.keys() - before.keys():
    del os.environ[name]
  for name in {name for name, _ in before.items() - os.environ.items()}:
    os.environ[name] = before[name]
  gc.collect()


@pytest.fixture(autouse=True)
def signals():
  """No test may leave a listener for signals behind: the next that sends one to its own
  process, files later, would end the worker without a word."""
  before = heard()
  yield
  left = heard()
  assert left == before, (
    f"SIGINT, SIGTERM, the wakeup descriptor: {before} before, {left} after: give them"
    " back, or run what takes them in a process of its own"
  )


def heard() -> tuple:
  """Who is told of a signal that comes to this process; None: Python itself, whichever
  of its ways asyncio has left (of a SIGINT that was ignored before)."""
  own = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
  fd = signal.set_wakeup_fd(-1)
  signal.set_wakeup_fd(fd)
  both = map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))
  return *(None if one in own else one for one in both), fd


@pytest.fixture
def key():
  return jax.random.key(0)
