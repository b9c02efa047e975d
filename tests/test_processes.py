"""`pxy train` as several real processes on loopback: one run, one folder, one end.

Every test goes through the command line. A run may change its number of processes at
each resume, so the tests are the legs of journeys, each compared at its end with a run
of one process that nothing befell. PXY_KILLS=20 kills that in a bucket so often, in
half an hour: with -o faulthandler_timeout=0 --timeout 0.
"""

import contextlib
import math
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pyarrow.parquet as pq
import pytest

from pxy import loop
from pxy.bucket import mirror
from pxy.run import session as session_lib
from pxy.show import log as log_lib
from pxy.train import checkpoint

import processes_experiment
import test_bucket

one, server, url = test_bucket.one, test_bucket.server, test_bucket.url
pytestmark = pytest.mark.slow
TESTS = pathlib.Path(__file__).resolve().parent
EXPERIMENT = TESTS / "processes_experiment.py"
KILLS = int(os.environ.get("PXY_KILLS", 0)) or 2
RTOL, ATOL = 1e-4, 1e-5
"""Sums over devices have another order; the largest difference seen is 2e-6."""
OWN = re.compile(r"timing_s/|perf/|compiles$")
"""Numbers of the machine, not of the run."""


@contextlib.contextmanager
def launched(count, out, *options, devices=1, fate=None, texts=None):
  """`count` processes of `pxy train`; none is left behind. texts: the path that what
  each says stands beside, out's by default."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  env = os.environ | {
    "PYTHONPATH": str(TESTS.parent),
    # Compiling is most of the time; what it makes need not be fast.
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
    " --xla_backend_optimization_level=0",
    "PXY_PROCESSES": str(count),
    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
  }
  env |= {} if fate is None else {"PXY_TEST_FATE": fate}
  command = [sys.executable, "-m", "pxy", "train", EXPERIMENT, "--out", out, *options]
  children, files = [], contextlib.ExitStack()
  with files:
    try:
      for i in range(count):
        file = files.enter_context(open(f"{texts or out}.{i}", "w+"))
        children.append(
          subprocess.Popen(
            command, env=env | {"PXY_PROCESS": str(i)}, stdout=file, stderr=file
          )
        )
      yield children
    finally:
      for child in children:
        child.kill()
        child.wait()


def run(count, out, *options, stopped=(), texts=None, **how):
  """Exit codes and what was said (stdout and stderr), by process; and the seconds from
  the first end to the last. stopped: processes that do not end by themselves."""
  texts = texts or out
  with launched(count, out, *options, texts=texts, **how) as children:
    end, ended = time.monotonic() + 240, {}
    while len(ended) < count - len(stopped):
      for i, child in enumerate(children):
        if child.poll() is not None:
          ended.setdefault(i, time.monotonic())
      if time.monotonic() > end:
        tails = "\n".join(said(texts, i)[-1500:] for i in range(count))
        pytest.fail(f"{count} processes did not end within 240 s:\n{tails}")
      time.sleep(0.05)
    codes = [child.returncode for child in children]
  return (
    codes,
    [said(texts, i) for i in range(count)],
    max(ended.values()) - min(ended.values()),
  )


GLOO = re.compile(
  r"(\[Gloo\] Rank |\d+| is connected to | peer ranks\. "
  r"|Expected number of connected peer ranks is : )*"
)
"""Lines of Gloo alone. It writes one in pieces, and two threads' pieces may alternate:
`[Gloo] Rank [Gloo] Rank 11 is connected to ...`, and an empty line (jaxlib 0.10)."""


def said(out, i):
  """What process i wrote, without Gloo's lines."""
  text = pathlib.Path(f"{out}.{i}").read_text(errors="replace")
  return "\n".join(x for x in text.splitlines() if not GLOO.fullmatch(x))


def alone(out, until=None):
  """The experiment in this process, as if it had one device.

  To name a mesh of one would make it another config, which a resume refuses. until: the
  step at whose checkpoint a signal asks for the end.
  """
  save = session_lib.Session._save

  def saved(session):
    save(session)
    if session.place.step == until:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
    patch.setattr(session_lib.Session, "_save", saved)
    return loop.train(processes_experiment.config(), out)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
  """The run of one process with one device."""
  out = tmp_path_factory.mktemp("unbroken") / "run"
  assert alone(out) is not None
  return out


def same(found, want):
  """Whether two runs have the same records, to the tolerance above."""
  a, b = log_lib.metrics(found), log_lib.metrics(want)
  assert [(x["step"], "eval" in x) for x in a] == [(x["step"], "eval" in x) for x in b]
  for x, y in zip(a, b, strict=True):
    x, y = ({k: v for k, v in r.items() if not OWN.match(k)} for r in (x, y))
    _close(f"step {x['step']}", x, y)
  columns = ["step", "split", "uid", "response", "completion", "reward", "outcome"]
  tables = [
    pq.read_table(x / "completions.parquet", columns=columns).to_pylist()
    for x in (found, want)
  ]
  assert tables[0] == tables[1], "completions differ: keys or data know of processes"


def _close(name, a, b):
  if isinstance(b, dict):
    assert a.keys() == b.keys(), name
    for key in b:
      _close(f"{name}: {key}", a[key], b[key])
  elif isinstance(b, float) and isinstance(a, float):
    assert math.isclose(a, b, rel_tol=RTOL, abs_tol=ATOL), f"{name}: {a}, expected {b}"
  else:
    assert a == b, f"{name}: {a}, expected {b}"


def steps(out):
  return checkpoint.steps(out / "checkpoints")


def test_a_run_on_two_then_four_then_one_process_is_one_run(unbroken, tmp_path):
  out = tmp_path / "run"
  # Process 1 of 2 dies in its third step.
  codes, texts, seconds = run(2, out, fate="update:2:1:SIGKILL")
  assert codes == [1, -9], texts
  assert re.search(
    r"^pxy: process 1 of 2 \(\S+:\d+\) is gone: .*--resume auto$", texts[0], re.M
  ), texts[0]
  assert seconds < 60, f"process 0 went on for {seconds:.0f} s"
  assert "Traceback" not in texts[0], texts[0]
  assert texts[1] == "", "only process 0 speaks"
  assert steps(out)[-1] in (1, 2)  # that of step 2 was being written meanwhile
  # Four go on; one is asked to end, and all do, at the same step.
  codes, texts, _ = run(4, out, fate="step:2:3:SIGTERM")
  assert codes == [0] * 4, texts
  assert "stopped at step 2; continue with --resume auto" in texts[0], texts[0]
  assert texts[1:] == ["", "", "pxy: SIGTERM: saving, then exit (again: at once)"]
  alone(out)
  same(out, unbroken)
  attempts = (out / "attempts.jsonl").read_text().count('"begin"')
  assert attempts == 3, "one line for each start, whatever the number of processes"


def ended(texts, process, why, seconds):
  """Whether each of them ends with one line, which names the process and says why."""
  line = rf"^pxy: process {process} of \d \(\S+:\d+\) {why}.*--resume auto$"
  for text in texts:
    assert re.search(line, text, re.M), text
    assert "Traceback" not in text, text
  assert seconds < 60, f"the last went on for {seconds:.0f} s"


def test_what_befalls_one_host_ends_all_and_a_resume_goes_on(unbroken, tmp_path):
  out = tmp_path / "run"
  # The disk of process 1 is full when it saves, and process 0 waits for its part.
  codes, texts, seconds = run(2, out, fate="update:1:1:FULL")
  assert (codes, steps(out)) == ([1, 1], [1]), texts
  ended(texts, 1, r"ended: .*step 2 could not be saved \(.*too large", seconds)
  # The disk of process 0 is: it writes the records, and nobody waits for it.
  codes, texts, _ = run(2, out, fate="update:1:0:FULL")
  assert (codes, steps(out)) == ([2, 2], [1]), texts
  for text in texts:
    assert re.search(r"^pxy: .*metrics\.jsonl: File too large; .*$", text, re.M), text
  # Process 2 of 4 is silent, and so are the others until they miss it.
  codes, texts, seconds = run(4, out, fate="update:1:2:SIGSTOP", stopped=[2])
  assert [code for code in codes if code is not None] == [1, 1, 1], texts
  ended([*texts[:2], texts[3]], 2, "is gone: not heard of for 3. s", seconds)
  # Process 1 of 2 hangs, and with it the other: each says where it was.
  codes, texts, seconds = run(2, out, "--waits.update", "8", fate="update:2:1:HANG")
  assert codes == [1, 1], texts
  why = r"ended: update took more than waits\.update 8 s; where each thread was"
  ended(texts, "[01]", why, seconds)
  alone(out)
  same(out, unbroken)


def test_a_run_on_one_then_two_processes_with_two_devices_each(unbroken, tmp_path):
  out = tmp_path / "run"
  assert alone(out, until=1) is None
  assert steps(out)[-1] < 3
  # Process 0, which runs the coordinator, dies while a checkpoint is being written.
  codes, texts, seconds = run(2, out, devices=2, fate="save:3:0:SIGKILL")
  assert codes == [-9, 1], texts
  assert re.search(
    r"^pxy: process 0 of 2 \(\S+:\d+\) is gone: .*--resume auto$", texts[1], re.M
  ), texts[1]
  assert seconds < 60, f"process 1 went on for {seconds:.0f} s"
  assert steps(out)[-1] == 2, "what was being written is not a checkpoint"
  codes, texts, _ = run(2, out, devices=2)
  assert codes == [0, 0], texts
  assert texts[1] == "", "only process 0 speaks"
  assert "report: " in texts[0]
  same(out, unbroken)


def in_bucket(url):
  """The run's folder as the bucket has it."""
  there = mirror.Mirror(url, "read")
  there.pull()
  return there.path


def test_kills_of_processes_that_write_to_a_bucket_lose_no_saved_step(
  unbroken, url, tmp_path
):
  """One of two or four dies at a moment that chance chooses, again and again."""
  dice, slowest, lost = random.Random(KILLS), 0.0, 0
  to, kept = f"{url}0", 0  # steps that a checkpoint in the bucket holds
  for i in range(KILLS):
    count, place = dice.choice([2, 4]), dice.choice(["step", "update", "save"])
    process, step = dice.randrange(count), min(kept + dice.choice([0, 1]), 3)
    at = step + 1 if place == "save" else step
    fate = f"{place}:{at}:{process}:SIGKILL@{dice.uniform(0, 0.5):.2f}"
    codes, texts, seconds = run(count, to, fate=fate, texts=tmp_path / f"kill{i}")
    about = f"kill {i}, {fate}: {codes} {texts}"
    if codes[process] == -signal.SIGKILL:  # or the run was done before
      assert codes == [1 - 10 * (j == process) for j in range(count)], about
      gone = [text for j, text in enumerate(texts) if j != process]
      ended(gone, process, "is gone: ", seconds)
    found = in_bucket(to)
    now = steps(found)[-1] if steps(found) else 0
    assert now >= max(kept, step - 1), f"{now} of {kept} saved steps are left: {about}"
    slowest, lost, kept = max(slowest, seconds), lost + step - now, now
    if kept == 4 or i + 1 == KILLS:
      alone(to)
      same(in_bucket(to), unbroken)
      to, kept = f"{url}{i + 1}", 0
  print(f"{KILLS} kills: all ended within {slowest:.1f} s, {lost} steps made again")
