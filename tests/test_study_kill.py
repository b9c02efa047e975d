"""A study that is killed and started again says the same as one that was left alone."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
STUDY = """
from pxy.study.plan import Arm, Claim, Study, World

SIZE = (
  "--steps", "6", "--save-every", "1", "--data.prompts", "4", "--data.responses", "4",
  "--eval.problems", "8", "--eval.samples", "4", "--phases.0.steps", "2",
)


def study():
  return Study(
    (World("sums", "add3", SIZE),),
    (Arm("dsrl"), Arm("random_label")),
    (0,),
    (Claim("end", "it ends higher", "bound/pass@1", "dsrl", "random_label"),),
  )
"""


def start(folder, out):
  return subprocess.Popen(
    [sys.executable, "-m", "pxy", "study", "s.py", "--out", out, "--jobs", "2"],
    cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


def rows(out):
  """Steps that the runs have written down."""
  found = out.glob("*/*/*/run/metrics.jsonl")
  return sum(len(path.read_bytes().splitlines()) for path in found)


def said(out):
  found = json.loads((out / "results.json").read_text())
  for one in found["cells"]:
    del one["seconds"]
  return found


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
  (tmp_path / "s.py").write_text(STUDY)
  left_alone = start(tmp_path, "alone")
  told, _ = left_alone.communicate(timeout=600)
  assert left_alone.returncode == 0, told
  rng = random.Random(17)
  for _ in range(3):
    made = start(tmp_path, "killed")
    wanted = rows(tmp_path / "killed") + rng.randint(1, 3)
    while rows(tmp_path / "killed") < wanted and made.poll() is None:
      time.sleep(0.05)
    made.send_signal(signal.SIGKILL)
    made.communicate(timeout=60)
    assert made.returncode == -signal.SIGKILL, "it had ended: the kill came too late"
  last = start(tmp_path, "killed")
  told, _ = last.communicate(timeout=600)
  assert last.returncode == 0, told
  assert said(tmp_path / "killed") == said(tmp_path / "alone")
