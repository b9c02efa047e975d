"""The reward pool with real processes: right grades, whatever a grader does."""

import concurrent.futures
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pxy import config
from pxy.rewards import pool

REWARD = config.Reward(workers=2, deadline=0.6, memory_mb=256)

GRADER = """
import ctypes, os, socket, subprocess, sys, threading, time
print("printed at import")
seen = []

def f(solution_str, ground_truth):
  seen.append(1)
  exec(solution_str, globals())
  return {"score": float(ground_truth), "seen": len(seen)}

def strange(solution_str, ground_truth):
  return eval(solution_str)
"""


def item(code, answer="1"):
  return pool.Item(response=code, answer=answer)


def problem(a, b, answer):
  return pool.Item(
    response=f"steps... \\boxed{{{a + b}}}", answer=str(answer), task="arithmetic/add3"
  )


def wait(condition, seconds=5.0):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.01)
  return condition()


def all_ready(p):
  return wait(lambda: all(w.ready for w in p._workers))


def descendants(pid):
  """Process ids of everything below a process, by parent ids in /proc."""
  parents = {}
  for entry in pathlib.Path("/proc").iterdir():
    if entry.name.isdigit():
      try:
        stat = (entry / "stat").read_text()
      except OSError:
        continue
      parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
  found, new = set(), {pid}
  while new:
    new = {p for p, parent in parents.items() if parent in new} - found
    found |= new
  return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("graders")
  (folder / "hostile.py").write_text(GRADER)
  return folder


@pytest.fixture(scope="module")
def own():
  with pool.Pool(REWARD, "auto") as p:
    yield p


@pytest.fixture(scope="module")
def hostile(folder):
  os.environ["PXY_TEST_TOKEN"] = "secret"
  try:
    with pool.Pool(REWARD, "hostile.py:f", [folder]) as p:
      yield p
  finally:
    del os.environ["PXY_TEST_TOKEN"]


def test_each_future_has_the_outcome_of_its_item(own):
  items = [problem(i, i, 2 * i + (i % 3 == 0)) for i in range(200)]
  outcomes = [f.result(10) for f in [own.submit(i) for i in items]]
  assert [o.score for o in outcomes] == [float(i % 3 != 0) for i in range(200)]
  assert all(o.status == "scored" and o.seconds >= 0 for o in outcomes)


def test_many_threads_may_submit(own):
  def work(k):
    futures = [own.submit(problem(k, i, k + i + i % 2)) for i in range(50)]
    return [f.result(10).score for f in futures]

  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    for scores in threads.map(work, range(8)):
      assert scores == [float(i % 2 == 0) for i in range(50)]


def test_a_batch_of_256_takes_less_than_a_fifth_of_a_second(own):
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    futures = [own.submit(problem(i, 1, i + 1)) for i in range(256)]
    assert all(f.result(10).score == 1 for f in futures)
    seconds.append(time.perf_counter() - start)
  assert min(seconds) < 0.2, seconds


def test_ten_megabytes_cost_nobody_their_grade(own):
  hostile = ["(" * 10**7, "\\boxed{" * 10**6, "9" * 10**7, "\\boxed{9**9**9}"]
  futures = [own.submit(pool.Item(t, "1", task="arithmetic/x")) for t in hostile]
  good = own.submit(problem(1, 1, 2))
  assert good.result(10).score == 1
  for future in futures:
    outcome = future.result(20)
    assert outcome.status == "failed" or outcome.score == 0, outcome


def test_a_sample_that_is_too_large_to_send_has_failed(own):
  outcome = own.submit(pool.Item("x" * (65 << 20), "1")).result(1)
  assert outcome.status == "failed" and "MB" in outcome.why


def test_text_and_columns_arrive_as_they_are(folder):
  text = "\u00e9\U0001f600\ud800\x00\n\\boxed{1}"
  code = "columns = kwargs"
  (folder / "echo.py").write_text(
    "def f(completions, x, y, **kwargs):\n"
    f"  return [float(completions == [{text!r}] and x == [[1, 2]] and y == [0.5])]"
  )
  with pool.Pool(REWARD, "echo.py:f", [folder]) as p:
    columns = {"x": np.array([1, 2]), "y": np.float32(0.5)}
    assert p.submit(pool.Item(text, "", columns=columns)).result(10).score == 1, code


HOSTILE = {
  "sleeps": ("time.sleep(60)", "longer than 0.6 s"),
  "computes": ("9**9**9", "longer than 0.6 s"),
  "regex bomb": ("import re; re.match('(a+)+$', 'a' * 50 + 'b')", "longer"),
  "ignores signals": (
    "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass",
    "longer",
  ),
  "closes its pipe and sleeps": (
    "for d in range(3, 99):\n"
    "  try: os.close(d)\n"
    "  except OSError: pass\n"
    "time.sleep(60)",
    "longer",
  ),
  "raises": ("1 / 0", "ZeroDivisionError"),
  "sys.exit": ("sys.exit(0)", "SystemExit"),
  "os._exit": ("os._exit(0)", "exited with status 0"),
  "segfaults": ("ctypes.string_at(0)", "SIGSEGV"),
  "aborts": ("os.abort()", "SIGABRT"),
  "recursion": ("def g(): g()\ng()", "RecursionError"),
  "deep nesting": ("(" * 100_000 + ")" * 100_000, "Error"),
  "stack overflow": ("sys.setrecursionlimit(10**9)\ndef g(): g()\ng()", "grader"),
  "memory": ("x = bytearray(2**30)", "MemoryError"),
  "garbage on every pipe": (
    "for d in range(1, 99):\n"
    "  try: os.write(d, b'\\0\\0\\0\\5[1,2]garbage' * 99)\n"
    "  except OSError: pass",
    "malformed",
  ),
  "a huge message": (
    "for d in range(3, 99):\n  try: os.write(d, b'\\xff' * 4)\n  except OSError: pass",
    "malformed",
  ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sample_costs_its_deadline_and_itself(hostile, name):
  code, says = HOSTILE[name]
  start = time.monotonic()
  bad = hostile.submit(item(code))
  good = [hostile.submit(item("", str(i))) for i in range(4)]
  outcome = bad.result(10)
  assert outcome.status == "failed" and math.isnan(outcome.score), outcome
  assert says in outcome.why, outcome.why
  assert time.monotonic() - start < 5
  for i, future in enumerate(good):
    other = future.result(10)
    assert other.score == i and other.metrics == {"seen": 1.0}, other
  assert hostile.replaced == 0, "a sample reached the process that grades the others"


def needs(p, *layers):
  if missing := [layer for layer in layers if layer not in p.layers]:
    pytest.skip(f"this machine does not allow: {', '.join(missing)}")


FORBIDDEN = {
  "network": ("net", "socket.create_connection(('127.0.0.1', 9), 1)", "unreachable"),
  "write": ("read-only", "open({folder!r} + '/written', 'w')", "Read-only"),
  "remount": (
    "privileges",
    "subprocess.run(['mount', '-o', 'remount,rw,bind', '/'], check=True)",
    "CalledProcessError",
  ),
  "remount as root of another namespace": (
    "read-only",
    "subprocess.run(['unshare', '-Urm', 'mount', '-o', 'remount,rw,bind', '/'],"
    " check=True)",
    "CalledProcessError",
  ),
  "memory of process 1": ("proc", "open('/proc/1/mem', 'r+b')", "PermissionError"),
  "pipes of process 1": (
    "proc",
    "for d in range(3, 50):\n"
    "  try: os.close(os.open(f'/proc/1/fd/{{d}}', os.O_WRONLY))\n"
    "  except FileNotFoundError: pass",
    "PermissionError",
  ),
  "environment of the trainer": (
    "user",
    "open('/proc/{pid}/environ', 'rb').read()",
    "Error",
  ),
  "fork bomb": ("proc", "while True: os.fork()", ""),
  "large file": (
    "temp",
    "with open(os.environ['TMPDIR'] + '/x', 'wb') as g:\n"
    "  for _ in range(99): g.write(b'x' * 2**20)",
    "OSError",
  ),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_sample_may_not_do(hostile, folder, name):
  layer, code, says = FORBIDDEN[name]
  needs(hostile, layer)
  code = code.format(folder=str(folder), pid=os.getpid())
  outcome = hostile.submit(item(code)).result(10)
  assert outcome.status == "failed" and says in outcome.why, outcome
  assert not (folder / "written").exists()
  assert hostile.submit(item("", "3")).result(10).score == 3
  assert hostile.replaced == 0


def test_memory_is_counted_over_all_processes_of_a_sample(folder):
  code = """
for _ in range(4):
  if os.fork() == 0:
    x = bytearray(100 << 20)
    x[::4096] = b"1" * len(x[::4096])
    time.sleep(60)
time.sleep(60)
"""
  reward = config.Reward(workers=1, deadline=30, memory_mb=256)
  with pool.Pool(reward, "hostile.py:f", [folder]) as p:
    needs(p, "proc")
    outcome = p.submit(item(code)).result(40)
    assert "more than 256 MB in all" in outcome.why
    assert p.submit(item("", "3")).result(10).score == 3


def test_the_environment_has_no_secrets(hostile):
  code = "assert 'PXY_TEST_TOKEN' not in os.environ and 'HOME' not in os.environ"
  assert hostile.submit(item(code)).result(10).status == "scored"


def test_no_file_of_a_sample_outlives_it(hostile):
  needs(hostile, "temp", "privileges")
  leave = (
    "os.chdir(os.environ['TMPDIR'])\n"
    "open('left', 'w').write('x')\n"
    "for _ in range(300): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
    "os.chmod('.', 0)"
  )
  look = "assert not os.listdir(os.environ['TMPDIR']), os.listdir(os.environ['TMPDIR'])"
  for _ in range(2):  # both workers, most likely
    futures = [hostile.submit(item(c)) for c in (leave, leave, look, look)]
    assert [f.result(10).why for f in futures] == [""] * 4


def test_no_process_of_a_sample_outlives_it(hostile):
  needs(hostile, "pid")
  assert all_ready(hostile)
  before = descendants(os.getpid())
  code = (
    "subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    "if os.fork() == 0:\n"
    "  os.setsid()\n"
    "  if os.fork() == 0: time.sleep(60)\n"
    "  os._exit(0)"
  )
  assert hostile.submit(item(code)).result(10).score == 1
  assert wait(lambda: descendants(os.getpid()) <= before)


@pytest.mark.parametrize(
  "value",
  ["'1'", "float('nan')", "10**400", "{'score': 1, 'm': [1] * 10**6}", "{'acc': 1}"],
)
def test_strange_returns_are_no_scores(folder, value):
  with pool.Pool(REWARD, "hostile.py:strange", [folder]) as p:
    outcome = p.submit(item(value)).result(10)
    good = p.submit(item("{'score': 0.5, 'm': 2, 'n': float('nan')}")).result(10)
  if "10**6" in value:
    assert outcome.score == 1 and outcome.metrics == {}
  else:
    assert outcome.status == "failed", outcome
  assert good.score == 0.5 and good.metrics == {"m": 2.0}


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_frozen_worker_is_replaced(monkeypatch, which):
  """Its sample has failed; the others of its round are graded elsewhere."""
  monkeypatch.setattr(pool, "_GRACE", 0.2)
  with pool.Pool(config.Reward(workers=2, deadline=0.3), "auto") as p:
    assert p.submit(problem(1, 1, 2)).result(10).score == 1
    assert all_ready(p)
    victim = p._workers[0].process.pid
    targets = [victim] if which == signal.SIGKILL else descendants(victim)
    for pid in targets:
      os.kill(pid, which)
    futures = [p.submit(problem(i, 1, i + 1)) for i in range(64)]
    outcomes = [f.result(10) for f in futures]
    assert sum(o.status == "failed" for o in outcomes) <= 1, outcomes
    assert all(o.score == 1 for o in outcomes if o.status == "scored")
    assert wait(lambda: p.replaced == 1)
    again = [p.submit(problem(i, 1, i + 1)).result(10).score for i in range(8)]
    assert again == [1.0] * 8


def test_without_namespaces_the_rest_still_holds(folder, tmp_path, monkeypatch):
  """Containers may forbid them: limits, deadlines and the sweep do without."""
  (tmp_path / "sitecustomize.py").write_text(
    "from pxy.rewards import jail\njail._unshare = lambda: ()"
  )
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  with pool.Pool(REWARD, "hostile.py:f", [folder]) as p:
    assert "pid" not in p.layers and "read-only" not in p.layers
    assert all_ready(p)
    before = descendants(os.getpid())
    for code, says in (
      HOSTILE["sleeps"],
      HOSTILE["segfaults"],
      HOSTILE["memory"],
      HOSTILE["garbage on every pipe"],
      ("subprocess.Popen(['sleep', '60'], start_new_session=True)", ""),
    ):
      outcome = p.submit(item(code)).result(10)
      assert says in outcome.why and (outcome.status == "failed") == bool(says)
      assert p.submit(item("", "3")).result(10).score == 3
    assert wait(lambda: descendants(os.getpid()) <= before)
    assert p.replaced == 0


def test_a_grader_that_cannot_be_loaded_is_an_error_at_the_start(folder):
  (folder / "broken.py").write_text("import no_such_module")
  with pytest.raises(config.Error, match=r"cannot load 'broken.py:f'.*no_such_module"):
    with pool.Pool(REWARD, "broken.py:f", [folder]):
      pass
  with pytest.raises(config.Error, match="none of auto"):
    pool.Pool(REWARD, "arithmetics")
  with pytest.raises(config.Error, match=r"positive"):
    pool.Pool(config.Reward(workers=0), "auto")


def test_a_grader_that_dies_at_import_is_an_error_at_the_start(folder):
  (folder / "dies.py").write_text("import os; os._exit(1)")
  with pytest.raises(config.Error, match=r"no worker starts with 'dies.py:f'"):
    with pool.Pool(REWARD, "dies.py:f", [folder]):
      pass


def test_leaving_is_prompt_and_leaves_nothing(folder):
  before_fds = len(os.listdir("/proc/self/fd"))
  before_threads = threading.active_count()
  before = descendants(os.getpid())
  with pool.Pool(config.Reward(deadline=60), "hostile.py:f", [folder]) as p:
    futures = [p.submit(item("time.sleep(60)")) for _ in range(6)]
    time.sleep(0.1)
    start = time.monotonic()
  assert time.monotonic() - start < 1
  assert {f.result(0).status for f in futures} == {"failed"}
  assert "closed" in futures[0].result(0).why
  assert wait(lambda: descendants(os.getpid()) <= before), "a process was left"
  assert len(os.listdir("/proc/self/fd")) == before_fds, "a descriptor was left"
  assert threading.active_count() == before_threads
  with pytest.raises(RuntimeError, match="not open"):
    p.submit(item(""))


def test_replacing_workers_leaks_no_descriptors(monkeypatch):
  with pool.Pool(config.Reward(workers=1), "auto") as p:
    assert p.submit(problem(1, 1, 2)).result(10).score == 1
    before = len(os.listdir("/proc/self/fd"))
    for i in range(3):
      os.killpg(p._workers[0].process.pid, signal.SIGKILL)
      assert wait(lambda i=i: p.replaced == i + 1)
      assert p.submit(problem(1, 1, 2)).result(10).score == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_workers_die_with_the_trainer(folder):
  code = """
import json, sys, time
from pxy import config
from pxy.rewards import pool
with pool.Pool(config.Reward(deadline=60), "hostile.py:f", [sys.argv[1]]) as p:
  p.submit(pool.Item("time.sleep(60)", "1"))
  time.sleep(0.3)
  print("ready", flush=True)
  time.sleep(60)
"""
  trainer = subprocess.Popen(
    [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
  )
  assert trainer.stdout.readline() == "ready\n"
  below = descendants(trainer.pid)
  assert len(below) >= 3, "workers and the sample at work"
  trainer.kill()
  trainer.wait()
  trainer.stdout.close()

  def alive(pid):
    try:
      return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] != "Z"
    except OSError:
      return False

  assert wait(lambda: not any(map(alive, below))), "a worker outlived the trainer"


def test_a_future_may_be_cancelled_or_called_back(own):
  called = threading.Event()
  future = own.submit(problem(1, 1, 2))
  future.add_done_callback(lambda f: called.set())
  assert called.wait(5)
  own.submit(problem(1, 1, 2)).cancel()
  assert own.submit(problem(1, 1, 2)).result(10).score == 1


def test_outcomes_are_plain_data(own):
  outcome = own.submit(problem(1, 1, 2)).result(10)
  assert json.loads(json.dumps(vars(outcome)))["status"] == "scored"
