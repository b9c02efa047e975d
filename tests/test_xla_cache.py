"""Compiled programs outlive their process, and what goes wrong with that costs none.

Real processes, since JAX reads where to keep programs when it is imported.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from pxy.commands import xla_cache

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHILD = """
import sys
from pxy.commands import xla_cache

xla_cache.keep()
exec(sys.argv[1])
import jax

seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
x = jax.random.normal(jax.random.key(0), (16, 16))
for i in range(3):
  x = jax.jit(lambda x: jax.numpy.tanh(x @ x + i))(x)
made = seen.count("/jax/compilation_cache/cache_misses")
read = seen.count("/jax/compilation_cache/cache_hits")
print(made, read, float(x.sum()).hex())
"""
DAMAGE = """
import os, pathlib
for path in pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*-cache"):
  path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
"""


def begin(folder, between="", **env):
  clean = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
  clean |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  return subprocess.Popen(
    [sys.executable, "-c", CHILD, between],
    env=clean | {"PXY_CACHE": str(folder)} | env,
    stdout=-1,
    stderr=-1,
    text=True,
  )


def end(child):
  """(programs made and kept, programs read, the result's bits, stderr)."""
  out, err = child.communicate(timeout=200)
  assert child.returncode == 0, err
  made, read, bits = out.split()
  return int(made), int(read), bits, err


def run(folder, between="", **env):
  return end(begin(folder, between, **env))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
  """A cache that a first process has filled, and what that process said."""
  folder = tmp_path_factory.mktemp("cache")
  return folder, run(folder)


def entries(folder):
  return {p: p.read_bytes() for p in (folder / "xla").rglob("*-cache")}


def test_a_second_process_compiles_nothing_and_has_the_same_bits(full):
  folder, (made, read, bits, err) = full
  assert made >= 4 and not read and not err, "small programs are to be kept too"
  assert (folder / "xla").stat().st_mode & 0o077 == 0, "others could decide what runs"
  assert run(folder) == (0, made, bits, ""), "a program was compiled again"


def test_what_a_dead_process_left_torn_is_made_again_in_silence(full):
  folder, (made, _, bits, _) = full
  before = entries(folder)
  torn, empty, *_ = sorted(before)
  torn.write_bytes(before[torn][:-20])
  empty.write_bytes(b"")
  assert run(folder) == (2, made - 2, bits, "")
  assert sorted(entries(folder)) == sorted(before)


def test_damage_that_is_met_while_running_costs_a_warning(full):
  folder, (_, _, bits, _) = full
  _, read, found, err = run(folder, DAMAGE)
  assert (read, found) == (0, bits)
  assert "Error reading persistent compilation cache entry" in err
  made, _, found, err = run(folder)
  assert made and (found, err) == (bits, ""), "the next run has mended it"


def test_a_cache_that_cannot_be_written_costs_one_line(tmp_path, full):
  _, (_, _, bits, _) = full
  (tmp_path / "xla").write_text("a file is in the way")
  made, read, found, err = run(tmp_path)
  assert (made, read, found) == (0, 0, bits)
  assert err.startswith("pxy: warning: compiled programs are not kept: "), err
  assert err.count("\n") == 1 and "PXY_CACHE" in err and str(tmp_path) in err, err


def test_two_processes_fill_one_cache(tmp_path, full):
  _, (made, _, bits, _) = full
  for child in [begin(tmp_path) for _ in range(2)]:
    *_, found, err = end(child)
    assert (found, err) == (bits, "")
  assert run(tmp_path) == (0, made, bits, "")


def test_it_can_be_elsewhere_or_off(tmp_path):
  own = tmp_path / "own"
  run(tmp_path / "one", JAX_COMPILATION_CACHE_DIR=str(own))
  assert own.is_dir() and not (tmp_path / "one").exists(), "the user's own place wins"
  made, read, _, err = run(tmp_path / "two", JAX_ENABLE_COMPILATION_CACHE="0")
  assert (made, read, err) == (0, 0, "") and not (tmp_path / "two").exists()


def test_the_least_recently_used_go_first(tmp_path):
  for i, name in enumerate("abcd"):
    (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / name, (1000 + i, 1000 + i))
  os.utime(tmp_path / "b", (2000, 1001))  # read since
  xla_cache.sweep(tmp_path, 200)
  left = {p.name for p in tmp_path.iterdir()} - {".swept"}
  assert left == {"b", "d"}, "used last: b, then d"
  xla_cache.sweep(tmp_path, 200)
  assert {p.name for p in tmp_path.iterdir()} - {".swept"} == left


def test_help_makes_nothing(tmp_path):
  subprocess.run(
    [sys.executable, "-m", "pxy", "train", "--help"],
    env=os.environ | {"PXY_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
    check=True,
    stdout=subprocess.DEVNULL,
  )
  assert not (tmp_path / "cache").exists()
