"""Real processes, ended by real signals wherever they are, and continued.

PXY_KILLS=100 ends a run so often; the default is one signal for each thing that a run
does, at a moment that chance chooses.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from pxy.show import log as log_lib
from pxy.train import checkpoint
from pxy.weights import load

pytestmark = pytest.mark.slow
TESTS = pathlib.Path(__file__).resolve().parent
GRACE = 8.0  # of kill_child.py
PLACES = "start compile sample grade update evaluate save publish report".split()
KILLS = int(os.environ.get("PXY_KILLS", 0)) or len(PLACES)


class Child:
  """A run of kill_child.py."""

  def __init__(self, cache, out, every, hang=-1):
    flags = {
      "PYTHONPATH": str(TESTS.parent),
      "XLA_FLAGS": "",
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    self.out = out
    with open(out.with_suffix(".err"), "a") as err:
      self.process = subprocess.Popen(
        [sys.executable, TESTS / "kill_child.py", out, str(every), str(hang)],
        env=os.environ | flags, stdout=subprocess.PIPE, stderr=err, text=True,
      )  # fmt: skip

  def until(self, place, count=1) -> bool:
    """Whether it has come to a place so often; False: it has ended before."""
    for line in self.process.stdout:
      count -= line.strip() == place
      if not count:
        return True
    return False

  def kill(self, number) -> float:
    """Seconds from the signal to the end."""
    start = time.monotonic()
    self.process.send_signal(number)
    self.wait()
    return time.monotonic() - start

  def wait(self) -> int:
    self.process.communicate(timeout=300)
    return self.process.returncode

  @property
  def err(self) -> str:
    return self.out.with_suffix(".err").read_text()[-3000:]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
  """A run that was never ended; it fills the cache of compiled programs."""
  child = Child(cache, tmp_path_factory.mktemp("whole") / "run", 1)
  assert child.wait() == 0, child.err
  return child.out


def same(a, b):
  """Whether two runs have the same weights and records."""
  leaves = [jax.tree.leaves(jax.device_get(load.load(str(x)).params)) for x in (a, b)]
  for x, y in zip(*leaves, strict=True):
    np.testing.assert_array_equal(x, y, "the weights differ from an unbroken run's")
  found = [[(r["step"], "eval" in r) for r in log_lib.metrics(x)] for x in (a, b)]
  assert found[0] == found[1], "a step is missing or stands twice"
  columns = ["step", "split", "uid", "response", "completion", "reward"]
  tables = [
    pq.read_table(x / "completions.parquet", columns=columns).to_pylist()
    for x in (a, b)
  ]
  assert tables[0] == tables[1], "completions differ from an unbroken run's"


def newest(out):
  return max(checkpoint.steps(out / "checkpoints"), default=0)


def trained(out):
  """Steps that metrics.jsonl holds."""
  if not (out / "metrics.jsonl").exists():
    return 0
  return max((r["step"] for r in log_lib.metrics(out) if "eval" not in r), default=0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_anywhere_comes_to_the_same_end(
  number, whole, cache, tmp_path
):
  dice, hits = random.Random(number), 0
  for i in range(KILLS):
    out = tmp_path / f"run{i // len(PLACES)}"
    place = PLACES[i % len(PLACES)] if i < len(PLACES) else dice.choice(PLACES)
    child = Child(cache, out, dice.choice([0, 1, 2]))
    there = child.until(place)
    time.sleep(dice.uniform(0.0, 0.3))
    before = trained(out)
    seconds = child.kill(number)
    hits += there
    if number == signal.SIGTERM:
      code = child.process.returncode
      assert code == 0, f"{place}: exit {code}: {child.err}"
      assert seconds < GRACE + 2, f"{place}: {seconds:.1f} s: {child.err}"
      assert newest(out) >= before, f"{place}: steps were lost: {child.err}"
    if (i + 1) % len(PLACES) == 0 or i + 1 == KILLS:
      last = Child(cache, out, 1)
      assert last.wait() == 0, last.err
      same(out, whole)
  print(f"survived {hits} of {KILLS} times {signal.Signals(number).name}")


def test_what_never_returns_is_not_waited_for(whole, cache, tmp_path):
  child = Child(cache, tmp_path / "run", 0, hang=1)
  assert child.until("draw", 2), child.err
  assert child.kill(signal.SIGTERM) < GRACE
  assert child.process.returncode == 0, child.err
  assert newest(child.out) == 1, f"the step before should be saved: {child.err}"
  last = Child(cache, child.out, 1)
  assert last.wait() == 0, last.err
  same(child.out, whole)
  shown = (child.out / "report.md").read_text()
  assert "stopped at step 1, on from step 1" in shown


def test_a_second_signal_ends_at_once(cache, tmp_path):
  child = Child(cache, tmp_path / "run", 0, hang=0)
  assert child.until("draw"), child.err
  child.process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  assert child.kill(signal.SIGTERM) < 1
  assert child.process.returncode == 128 + signal.SIGTERM


def test_before_there_is_a_run_the_end_is_at_once(cache, tmp_path):
  child = Child(cache, tmp_path / "run", 0)
  assert child.until("imports")
  assert child.kill(signal.SIGTERM) < 1
  assert child.process.returncode == 0


def test_another_process_on_the_same_folder_is_refused(whole, cache, tmp_path):
  first = Child(cache, tmp_path / "run", 1, hang=1)
  assert first.until("draw", 2), first.err
  second = Child(cache, tmp_path / "run", 1)
  assert second.wait() != 0
  assert "another process works on this run" in second.err
  first.kill(signal.SIGKILL)
  last = Child(cache, tmp_path / "run", 1)
  assert last.wait() == 0, last.err
  same(tmp_path / "run", whole)


PRETRAIN = """
from pxy import config as c

def config():
  return c.Pretrain(
    corpus=c.Corpus(documents=400),
    width=c.Width(layers=1, d_model=32, heads=2, head_dim=16, d_ff=32),
    steps=60, rows=8, row_tokens=128, warmup=5, save_every=10,
    data=c.Data(max_prompt_tokens=32), sampling=c.Sampling(max_new_tokens=8),
    eval=c.Eval(problems=2, samples=2),
  )
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pretraining_goes_on_to_the_same_weights(number, cache, tmp_path):
  experiment = tmp_path / "small.py"
  experiment.write_text(PRETRAIN)
  dice = random.Random(number)

  def child(out):
    command = [sys.executable, "-m", "pxy", "pretrain", experiment, "--out", out]
    env = os.environ | {"PYTHONPATH": str(TESTS.parent), "XLA_FLAGS": ""}
    env["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    return subprocess.Popen(
      command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

  def ended(process):
    _, err = process.communicate(timeout=300)
    return process.returncode, err

  code, err = ended(child(tmp_path / "whole"))
  assert code == 0, err
  for _ in range(3):
    process = child(tmp_path / "run")
    time.sleep(dice.uniform(0.5, 6.0))  # Python itself takes a moment to listen
    process.send_signal(number)
    code, err = ended(process)
    assert number == signal.SIGKILL or code == 0, err
  code, err = ended(child(tmp_path / "run"))
  assert code == 0, err
  files = [tmp_path / x / "model" / "model.safetensors" for x in ("whole", "run")]
  assert files[0].read_bytes() == files[1].read_bytes(), "the weights differ"
  steps = [r["step"] for r in log_lib.metrics(tmp_path / "run") if "eval" not in r]
  assert steps == list(range(1, 61)), "a step is missing or stands twice"
