"""Records stay whole, and the two files in step, wherever a run is cut."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pxy import config
from pxy.show import completions, log, progress


def rows(step, n=3):
  return [{"uid": i, "prompt": "p", "completion": f"c{step}"} for i in range(n)]


def train(writer, steps, save=()):
  for step in steps:
    writer.write({"step": step, "phase": "grpo", "x": step / 2}, rows(step))
    if step in save:
      writer.flush()


def kept(folder):
  """Steps of the training records, and of the completions."""
  lines = [r["step"] for r in log.metrics(folder) if "eval" not in r]
  table = [s for b in completions.read(folder) for s in b["step"].to_pylist()]
  return lines, table


def check(folder, last):
  lines, table = kept(folder)
  assert lines == list(range(1, last + 1)), "steps of metrics.jsonl"
  assert table == [s for s in lines for _ in range(3)], "steps of the completions"


def cut(writer):
  """The process dies: what is buffered is lost, the folder stays as it is."""
  writer._file.close()


def test_a_whole_run(tmp_path):
  with log.Log(tmp_path) as writer:
    train(writer, range(1, 6), save=(2, 4))
  check(tmp_path, 5)
  table = pq.read_table(tmp_path / "completions.parquet")
  assert table.schema.equals(completions.SCHEMA)
  assert table["completion"].to_pylist()[-1] == "c5"
  assert table["split"].to_pylist() == ["train"] * 15
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "completions.parquet",
    "metrics.jsonl",
  ]


@pytest.mark.parametrize("resume", [2, 4])
def test_a_cut_run_goes_on_without_gap_or_repeat(tmp_path, resume):
  first = log.Log(tmp_path)
  train(first, range(1, 6), save=(2, 4))
  cut(first)
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"step": 6, "x"')  # a torn line
  second = log.Log(tmp_path, resume=resume)
  train(second, range(resume + 1, 8), save=(6,))
  cut(second)
  with log.Log(tmp_path, resume=6) as third:
    train(third, range(7, 10))
  check(tmp_path, 9)


def test_a_finished_run_goes_on(tmp_path):
  with log.Log(tmp_path) as writer:
    train(writer, range(1, 5))
  with log.Log(tmp_path, resume=3) as writer:
    train(writer, range(4, 7))
  check(tmp_path, 6)


def test_a_cut_while_closing_doubles_nothing(tmp_path, monkeypatch):
  writer = log.Log(tmp_path)
  train(writer, range(1, 5), save=(2, 4))
  monkeypatch.setattr(completions.shutil, "rmtree", lambda *_, **__: None)
  writer.close()
  assert len(list((tmp_path / "completions").iterdir())) == 2
  check(tmp_path, 4)
  with log.Log(tmp_path, resume=4) as writer:
    train(writer, range(5, 7))
  check(tmp_path, 6)


def test_a_new_run_keeps_nothing(tmp_path):
  with log.Log(tmp_path) as writer:
    train(writer, range(1, 4))
  with log.Log(tmp_path, resume=None) as writer:
    train(writer, range(1, 3))
  check(tmp_path, 2)


def test_a_full_buffer_is_published_between_checkpoints(tmp_path, monkeypatch):
  monkeypatch.setattr(completions, "BUFFER_BYTES", 20)
  writer = log.Log(tmp_path)
  train(writer, range(1, 8))
  assert len(list((tmp_path / "completions").iterdir())) > 1
  cut(writer)
  with log.Log(tmp_path, resume=3) as writer:
    train(writer, range(4, 6))
  check(tmp_path, 5)


def test_an_evaluation_after_the_checkpoint_is_made_again(tmp_path):
  with log.Log(tmp_path) as writer:
    train(writer, range(1, 3))
    writer.write(
      {"step": 2, "eval": {"avg@4": {"value": 0.5, "se": 0.1}}}, [{"uid": 7}]
    )
  with log.Log(tmp_path, resume=2, evaluated=False) as writer:
    assert [r["step"] for r in log.metrics(tmp_path)] == [1, 2], "the steps stay"
    writer.write(
      {"step": 2, "eval": {"avg@4": {"value": 0.5, "se": 0.1}}}, [{"uid": 8}]
    )
  rows = pq.read_table(tmp_path / "completions.parquet").to_pylist()
  assert [r["uid"] for r in rows if r["split"] == "eval"] == [8]
  assert len(log.metrics(tmp_path)) == 3


def test_an_evaluation_is_recorded_once(tmp_path):
  score = {"avg@4": {"value": 0.5, "se": None}}
  with log.Log(tmp_path) as writer:
    for _ in range(2):
      writer.write({"step": 0, "eval": score}, rows(0))
    train(writer, range(1, 3))
  with log.Log(tmp_path, resume=2) as writer:
    writer.write({"step": 2, "eval": score}, rows(2))
    writer.write({"step": 2, "eval": score}, rows(2))
  assert [r["step"] for r in log.metrics(tmp_path) if "eval" in r] == [0, 2]
  splits = pq.read_table(tmp_path / "completions.parquet")["split"].to_pylist()
  assert splits.count("eval") == 6


def test_a_step_twice_is_a_bug(tmp_path):
  with log.Log(tmp_path) as writer:
    train(writer, [1, 2])
    with pytest.raises(ValueError, match="step 2 is recorded already"):
      writer.write({"step": 2})
    with pytest.raises(ValueError, match="no column 'colour'"):
      writer.write({"step": 3}, [{"colour": "red"}])
  check(tmp_path, 2)


def test_records_are_strict_json_and_text_is_utf8(tmp_path):
  with log.Log(tmp_path) as writer:
    writer.write(
      {"step": 1, "nan": np.nan, "inf": np.inf, "f": np.float32(0.5), "i": np.int64(3)},
      [{"completion": "half \ud800 pair", "reward": np.nan}],
    )

  def refuse(text):
    raise AssertionError(f"{text} is no JSON")

  line = (tmp_path / "metrics.jsonl").read_text()
  record = json.loads(line, parse_constant=refuse)
  assert record == {"step": 1, "nan": None, "inf": None, "f": 0.5, "i": 3}
  row = pq.read_table(tmp_path / "completions.parquet").to_pylist()[0]
  assert row["completion"] == "half ? pair" and row["reward"] is None


def test_records_go_to_others_as_well(tmp_path):
  seen = []
  with log.Log(tmp_path, also=[seen.append]) as writer:
    train(writer, [1])
  assert [r["step"] for r in seen] == [1]


def test_no_jax_is_needed():
  code = (
    "import sys; from pxy.show import log, progress; sys.exit('jax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_progress_without_a_terminal_is_plain_lines():
  out = io.StringIO()
  cfg = config.Train(steps=3)
  with progress.Progress(cfg, 0, file=out) as bar:
    with bar.count("evaluate", 8) as count:
      count(4)
    bar.answers(10)
    bar.step(
      {
        "step": 1,
        "phase": "[bold]grpo",
        "critic/score/mean": 0.5,
        "groups/solved": 4,
        "groups/mixed": 26,
        "groups/unsolved": 2,
        "perf/throughput": 18_200.0,
      }
    )
    bar.evaluated({"step": 1, "eval": {"avg@4": {"value": 0.5, "se": 0.01}}})
    bar.step({"step": 3, "phase": "grpo", "critic/score/mean": None})
  first, second, third = out.getvalue().splitlines()
  assert first.startswith("[bold]grpo  1/3  reward 0.50  solved/mixed/unsolved 4/26/2")
  assert "18.2k tok/s" in first and first.endswith("left")
  assert second == "step 1: avg@4 50.0 ± 1.0 %"
  assert third.strip() == "grpo  3/3"
  assert "\x1b" not in out.getvalue()


def test_progress_on_a_terminal(monkeypatch):
  monkeypatch.setenv("FORCE_COLOR", "1")
  monkeypatch.setenv("TTY_COMPATIBLE", "1")
  out = io.StringIO()
  with progress.Progress(config.Train(steps=2), file=out) as bar:
    bar.answers(3)
    bar.step({"step": 1, "phase": "grpo", "critic/score/mean": 0.25})
    bar.say("a line that stays")
    with bar.count("evaluate", 2) as count:
      count(1)
  assert "a line that stays" in out.getvalue()
  assert "reward 0.25" in out.getvalue()


def test_units():
  assert progress.clock(3725) == "1:02:05" and progress.clock(59.6) == "1:00"
  assert progress.amount(1_234_567) == "1.2M" and progress.amount(999) == "999"
