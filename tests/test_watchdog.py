"""A hang ends the process, and says where."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import pytest

from pxy import config
from pxy.safety import watchdog

ROOT = pathlib.Path(__file__).resolve().parent.parent
HANG = """
import sys, threading, time, pathlib
from pxy import config
from pxy.safety import watchdog

def stuck():
  time.sleep(60)

with watchdog.Watchdog(pathlib.Path(sys.argv[1]), config.Waits(update=1.0)) as watch:
  with watch("update"):
    stuck()
"""


def test_a_hang_ends_the_run_with_all_stacks_and_one_line(tmp_path):
  env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    [sys.executable, "-c", HANG, str(tmp_path)],
    env=env, capture_output=True, text=True, timeout=100,
  )  # fmt: skip
  assert done.returncode == 1, done.stderr
  assert "update took more than waits.update 1 s" in done.stderr.splitlines()[-1]
  assert "in stuck" in (tmp_path / "stacks.txt").read_text()
  assert "in stuck" in done.stderr


@pytest.fixture
def ended(monkeypatch):
  """Names of the waits that would have ended the process."""
  found = []
  monkeypatch.setattr(watchdog.Watchdog, "_end", lambda self, name: found.append(name))
  return found


def test_the_innermost_wait_counts_and_a_beat_renews_it(tmp_path, ended):
  limits = config.Waits(host=1.0, update=1.0, sample=1.0)
  with watchdog.Watchdog(tmp_path, limits) as watch:
    for _ in range(4):
      time.sleep(0.4)
      with watch("update"):
        time.sleep(0.4)
    with watch("sample"):
      for _ in range(4):
        time.sleep(0.4)
        watch.beat("sample")
    assert not ended, "each was in time"
    with watch("sample"):
      for _ in range(5):
        time.sleep(0.4)
        watch.beat("grade")
    assert set(ended) == {"sample"}, "a beat of another name renews nothing"


def test_compiling_has_a_deadline_of_its_own(tmp_path):
  def at():
    return watch._waits[-1][0]

  with watchdog.Watchdog(tmp_path) as watch, watch("update"):
    jax.monitoring.record_event_duration_secs(watchdog._LOWERED, 0.1)
    assert at() == "compile", "what comes after lowering"
    jax.jit(lambda x: x * 3 + 1)(2.0)
    assert at() == "update", "compiled: back to what it belongs to"


def test_a_program_that_is_read_and_not_compiled_leaves_no_wait_behind(tmp_path):
  seen = []
  jax.monitoring.register_event_listener(hits := lambda event, **_: seen.append(event))
  with watchdog.Watchdog(tmp_path) as watch, watch("update"):
    for _ in range(2):  # the second time it is in the cache that conftest.py sets up
      jax.clear_caches()
      jax.jit(lambda x: x * 5 + 2)(2.0)
      assert [name for name, _ in watch._waits] == ["host", "update"]
  jax.monitoring.unregister_event_listener(hits)
  assert "/jax/compilation_cache/cache_hits" in seen


def test_without_being_entered_it_sleeps():
  watch = watchdog.Watchdog()
  with watch("sample"):
    watch.beat("sample")
