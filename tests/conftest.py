"""Strict settings for every test: CPU, 8 devices, no silent rank promotion.

Compiled programs are kept in .pytest_cache/xla. All workers of `-n` share it: any of
them may get any file, and none compiles what another has. Who meets an entry that is
being written gets JAX's warning, which is no failure (pyproject.toml), and compiles.
"""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile

import pytest

from pxy.commands import xla_cache

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
if "PXY_CACHE" not in os.environ:  # data that tests make is theirs, and goes with them
  os.environ["PXY_CACHE"] = tempfile.mkdtemp(prefix="pxy-test-")
  atexit.register(shutil.rmtree, os.environ["PXY_CACHE"], ignore_errors=True)
xla_cache.keep(pathlib.Path(__file__).resolve().parent.parent / ".pytest_cache/xla")

import jax  # noqa: E402  which now knows where

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def programs():
  """Forgets the compiled programs of a file when it is done.

  Each is a few pieces of mapped memory, and Linux allows a process 65,530 of them:
  beyond, XLA (jaxlib 0.10.2) crashes where it compiles the next.
  """
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture
def key():
  return jax.random.key(0)
