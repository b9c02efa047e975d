"""A hang ends the process, and says where."""

import faulthandler
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import jax
import pytest

from pxy import config
from pxy.safety import compiles, watchdog

ROOT = pathlib.Path(__file__).resolve().parent.parent
HANG = """
import ctypes, sys, threading, time, pathlib
from pxy import config
from pxy.safety import compiles, watchdog

def stuck():
  HANGS

watchdog.MARGIN = 1.0
with watchdog.Watchdog(pathlib.Path(sys.argv[1]), config.Waits(update=1.0)) as watch:
  with watch("update"):
    stuck()
"""


def hang(folder, how, before=()):
  """A process that hangs in `stuck` until it is ended."""
  env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    [*before, sys.executable, "-c", HANG.replace("HANGS", how), str(folder)],
    env=env, capture_output=True, text=True, timeout=100,
  )  # fmt: skip


def test_a_hang_ends_the_run_with_all_stacks_and_one_line(tmp_path):
  done = hang(tmp_path, "time.sleep(60)")
  assert done.returncode == 1, done.stderr
  assert "update took more than waits.update 1 s" in done.stderr.splitlines()[-1]
  assert "in stuck" in (tmp_path / "stacks.txt").read_text()
  assert "in stuck" in done.stderr


LOCKED = "ctypes.PyDLL(None).pause()  # PyDLL keeps the global lock"


def test_a_hang_in_c_that_holds_the_global_lock_ends_too(tmp_path):
  done = hang(tmp_path, LOCKED)
  assert done.returncode == 1, done.stderr
  first, *stacks = done.stderr.splitlines()[-20:]
  at = re.fullmatch(r"Timeout \(0:00:0(\d)\)!", first)
  assert at and int(at[1]) >= 2, "update's 1 s and the margin: " + done.stderr
  assert any("in stuck" in line for line in stacks), done.stderr


def test_it_ends_without_anybody_to_tell(tmp_path):
  done = hang(tmp_path, LOCKED, before=("sh", "-c", 'exec "$@" 2>&-', "sh"))
  assert done.returncode == 1


def test_the_last_words_do_not_wait_for_a_disk_that_hangs(tmp_path):
  os.mkfifo(tmp_path / "stacks.txt")  # to open it waits for a reader
  done = hang(tmp_path, "time.sleep(60)")
  assert done.returncode == 1 and "in _end" in done.stderr, done.stderr


def test_a_closed_watchdog_leaves_no_timer(tmp_path, monkeypatch):
  left = []
  later, cancel = "dump_traceback_later", "cancel_dump_traceback_later"
  monkeypatch.setattr(faulthandler, later, lambda t, **_: left.append(t))
  monkeypatch.setattr(faulthandler, cancel, left.clear)
  watch = watchdog.Watchdog(tmp_path, config.Waits(host=1e300, save=5.0))
  with watch:
    assert left == [math.ceil(threading.TIMEOUT_MAX / 2)], "a time that C can take"
    with watch("save"):
      assert 5.0 < left[-1] <= 6.0 + watchdog.MARGIN
    assert left[-1] > 1e9, "back to what the save belongs to"
  with watch("save"):
    pass
  assert not left, "it would end a process that nobody watches any more"


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
    jax.monitoring.record_event_duration_secs(compiles.LOWERED, 0.1)
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
