"""A session keeps any run alive: here what is trained is one number."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from pxy import config, testing
from pxy.run import session as session_lib
from pxy.safety import interrupt
from pxy.show import log as log_lib
from pxy.train import checkpoint, manifest

CFG = config.Train(steps=6, save_every=2, eval_every=3, guard=config.Guard(bad_steps=2))
TREE = {"x": jax.ShapeDtypeStruct((), jnp.float32)}


@dataclasses.dataclass(frozen=True)
class Counter:
  """What a session keeps of a model."""

  arch = testing.arch()
  tokenizer = testing.tokenizer()


def evaluate(state, place):
  score = {"value": float(state["x"]), "se": None}
  return session_lib.Examined(scores={"avg@1": score}, phase="count", tokens=10)


def run(out, cfg=CFG, resume="auto", body=lambda step: None, bad=(), lengths=None):
  """Counts the steps; `body(step)` may raise, steps in `bad` are not finite; `lengths`
  are those of a sampler."""
  with session_lib.opened(cfg, out, resume) as session:
    session.lengths = {} if lengths is None else {"train": lengths}
    session.begin(Counter(), TREE, lambda: {"x": jnp.zeros((), jnp.float32)})
    for step, state in session.steps(evaluate):
      body(step)
      wrong = step in bad and not session.returns
      state = {"x": state["x"] + 1}
      line = {"phase": "count", **session.clock.take()}
      session.record(state, session_lib.Done(line, updates=not wrong, bad=wrong))
    session.finish()
  return session


def kept(out):
  with checkpoint.Checkpointer(out / "checkpoints", 2, "") as found:
    state, meta = found.restore(None, TREE)
  return float(state["x"]), meta


def trained(out):
  return [r["step"] for r in log_lib.metrics(out) if "eval" not in r]


def test_steps_evaluations_and_checkpoints_come_when_they_are_due(tmp_path):
  summary = run(tmp_path).summary
  assert (summary["steps"], summary["tokens"]) == (6, 30)
  assert summary["before"]["avg@1"]["value"] == 0
  assert summary["after"]["avg@1"]["value"] == 6
  assert trained(tmp_path) == [1, 2, 3, 4, 5, 6]
  evals = [r["step"] for r in log_lib.metrics(tmp_path) if "eval" in r]
  assert evals == [0, 3, 6]
  x, meta = kept(tmp_path)
  assert x == 6 and meta["updates"] == 6 and meta["evaluated"] == 6


def test_a_stop_saves_and_the_run_goes_on_from_there(tmp_path):
  def stop(step):
    if step == 3:
      raise interrupt.Stopped

  assert run(tmp_path, body=stop).summary is None
  assert kept(tmp_path)[0] == 3
  last = json.loads((tmp_path / "attempts.jsonl").read_text().splitlines()[-1])
  assert (last["end"], last["how"]) == (3, "stopped")
  seen = []
  assert run(tmp_path, body=seen.append).summary["steps"] == 6
  assert seen == [3, 4, 5] and trained(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_an_error_saves_the_good_steps_and_is_the_news(tmp_path):
  def fail(step):
    if step == 3:
      raise config.Error("no such service")

  with pytest.raises(config.Error, match="no such service"):
    run(tmp_path, body=fail)
  assert kept(tmp_path)[0] == 3


def test_a_step_whose_record_the_disk_refuses_is_not_saved_without_it(
  tmp_path, monkeypatch
):
  write = log_lib.Log.write

  def full(log, record, rows=()):
    if record["step"] == 4:
      raise config.Error("metrics.jsonl: No space left on device")
    write(log, record, rows)

  monkeypatch.setattr(log_lib.Log, "write", full)
  with pytest.raises(config.Error, match="No space left"):
    run(tmp_path)
  assert kept(tmp_path)[0] == 2, "the last checkpoint whose records are whole"
  monkeypatch.undo()
  run(tmp_path)
  assert trained(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_bad_steps_go_back_to_the_last_good_checkpoint_and_on(tmp_path):
  back = dataclasses.replace(CFG.guard, on_bad="rollback")
  session = run(tmp_path, dataclasses.replace(CFG, guard=back), bad=(2, 3))
  assert session.returns == 1 and session.summary["steps"] == 6
  assert json.loads((tmp_path / "returns.json").read_text()) == [{"from": 4, "to": 2}]
  assert trained(tmp_path) == [1, 2, 3, 4, 5, 6]
  with pytest.raises(config.Error, match="step 4: 2 steps in a row"):
    run(tmp_path / "stops", bad=(2, 3))


def test_what_samplers_know_of_lengths_goes_back_and_on_with_the_run(tmp_path):
  back = dataclasses.replace(CFG.guard, on_bad="rollback")
  known, seen = {}, []

  def body(step):
    seen.append((step, dict(known)))
    known[step] = step + 0.1  # a step has sampled

  run(
    tmp_path, dataclasses.replace(CFG, guard=back), body=body, bad=(2, 3), lengths=known
  )
  want = [
    (step, {n: n + 0.1 for n in range(step)}) for step in (0, 1, 2, 3, 2, 3, 4, 5)
  ]
  assert seen == want
  later = {9: 9.0}  # of another process, in which the run goes on
  run(tmp_path, dataclasses.replace(CFG, guard=back), lengths=later)
  assert later == {n: n + 0.1 for n in range(6)}


def test_a_checkpoint_of_before_goes_on_and_one_of_another_version_is_refused(tmp_path):
  run(tmp_path, dataclasses.replace(CFG, steps=2))
  file = tmp_path / "checkpoints" / "00000002" / "meta.json"
  about = json.loads(file.read_text())

  def rewrite(meta):
    file.write_text(json.dumps(about | {"meta": meta}))
    (file.parent / manifest.NAME).unlink()
    manifest.seal(file.parent)

  rewrite({"step": 2})  # of pre-training once
  assert run(tmp_path, dataclasses.replace(CFG, steps=2)).place.step == 2
  rewrite(about["meta"] | {"mood": 1})
  with pytest.raises(config.Error, match=r"mood in meta\.json: of another version"):
    run(tmp_path)


def test_a_rescue_counts_the_records_of_its_own_step(tmp_path):
  """It saves step 3 while the main thread has already written step 4."""
  with pytest.raises(RuntimeError, match="the machine is gone"):
    with session_lib.opened(CFG, tmp_path, "auto") as session:
      session.begin(Counter(), TREE, lambda: {"x": jnp.zeros((), jnp.float32)})
      for step, state in session.steps(evaluate):
        line = {"phase": "count", **session.clock.take()}
        session.record({"x": state["x"] + 1}, session_lib.Done(line))
        if step == 3:
          said = session._rescue(time.monotonic() + 5)
          raise RuntimeError("the machine is gone")
  assert said == "stopped at step 3; continue with --resume auto"
  seen = []
  assert run(tmp_path, body=seen.append).summary["steps"] == 6
  assert seen == [3, 4, 5] and trained(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_step_whose_gradient_is_of_something_else_is_not_saved(monkeypatch, tmp_path):
  def refuse(cfg, line):
    if line["step"] == 4:
      raise config.Error("they differ")

  monkeypatch.setattr(session_lib.guard, "refuse_drift", refuse)
  cfg = dataclasses.replace(CFG, save_every=3)
  with pytest.raises(config.Error, match="they differ"):
    run(tmp_path, cfg)
  assert checkpoint.steps(tmp_path / "checkpoints") == [3]


ENDING = """
import sys, time
from pxy.safety import interrupt
stop = interrupt.start(grace=1.0)
with stop.rescued(lambda until: "saved"):
  pass
print("over", flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize(
  ("seconds", "code", "says"),
  [
    (0.3, 0, "finishing, then exit"),
    (60, 1, "its last files are not written"),
  ],
)
def test_a_signal_after_the_last_checkpoint_lets_the_run_finish(seconds, code, says):
  """The report and an upload are still to come: it is not that all is lost."""
  child = subprocess.Popen(
    [sys.executable, "-c", ENDING, str(seconds)],
    cwd=pathlib.Path(__file__).resolve().parent.parent,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert child.stdout.readline() == "over\n"
  child.send_signal(signal.SIGTERM)
  _, err = child.communicate(timeout=60)
  assert child.returncode == code and says in err, err
