"""The command line as a newcomer meets it: real processes, what they print, exit
codes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from pxy import cli, config

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pxy(*argv, code=0, cwd=ROOT):
  """stdout and stderr of `pxy ARGV`, which must exit with `code`."""
  env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
  done = subprocess.run(
    [sys.executable, "-m", "pxy.cli", *map(str, argv)],
    capture_output=True, text=True, cwd=cwd, env=env, timeout=300,
  )  # fmt: skip
  assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
  return done.stdout, done.stderr


def refused(*argv, **kwargs):
  """The one line with which `pxy ARGV` refuses."""
  out, err = pxy(*argv, code=2, **kwargs)
  assert not out and err.count("\n") == 1, f"one line, please: {out}{err}"
  assert "Traceback" not in err
  return err


def test_help_teaches():
  out, _ = pxy()
  assert all(command in out for command in cli.COMMANDS)
  out, _ = pxy("train", "experiments/dsrl.py", "--help")
  for text in ("--phases.0.lr", "--data.task", "--steps", "--resume", "1e-05"):
    assert text in out


def test_dry_run_prints_config_and_plan_and_writes_nothing(tmp_path):
  out, _ = pxy(
    "train", ROOT / "experiments/dsrl.py", "--dry-run", "--steps", 30, "--seed", 9,
    "--phases.1.lr", 3e-4, "--out", tmp_path / "run",
  )  # fmt: skip
  shown = json.loads(out[: out.index("\nplan")])
  assert (shown["steps"], shown["seed"], shown["phases"][1]["lr"]) == (30, 9, 3e-4)
  assert config.from_dict(config.Train, shown)
  for text in ("parameters", "1-20", "21-30", "tokens", "memory"):
    assert text in out[out.index("\nplan") :]
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.py")))
def test_every_experiment_file_says_how_to_run_it(file):
  text = file.read_text()
  if file.name != "common.py":
    command = "pretrain" if "Pretrain" in text else "train"
    assert f"pxy {command} experiments/{file.name}" in text
    kind = config.Pretrain if command == "pretrain" else config.Train
    cfg = cli.experiment(file, kind)
    if command == "train":
      config.check(cfg)


def test_wrong_words_are_one_line_with_the_cure(tmp_path):
  dsrl = ROOT / "experiments/dsrl.py"
  assert "--data.task" in refused("train", dsrl, "--data.tsk", "x"), "names the nearest"
  assert "train" in refused("trian")
  assert "grpo.py" in refused("train", "experiments/nope.py")
  assert "invalid" in refused("train", dsrl, "--steps", "many")
  assert "no such folder" in refused("eval", "no/model")
  assert "pxy ships tiny" in refused("sample", "builtin:huge", "--prompt", "x")
  assert "divisors" in refused("train", dsrl, "--updates", 5, "--out", tmp_path / "r")
  assert "add3" in refused("eval", "builtin:tiny", "--task", "arithmetic/add99")
  assert (
    "no such file" in refused("eval", "builtin:tiny", "--task", "rows.jsonl").lower()
  )
  assert not (tmp_path / "r").exists(), "nothing half-written"


def test_an_experiment_that_fails_is_one_line(tmp_path):
  file = tmp_path / "bad.py"
  file.write_text("def config():\n  return 1 / 0\n")
  assert "ZeroDivisionError" in refused("train", file)
  file.write_text("x = 1\n")
  assert "no function config()" in refused("train", file)
  file.write_text("def config():\n  return 3\n")
  assert "returned int" in refused("train", file)


def test_data_check_names_row_field_and_cure(tmp_path):
  good = tmp_path / "good.jsonl"
  good.write_text('{"question": "1 + 1?", "answer": "2"}\n')
  out, _ = pxy("data", "check", good)
  assert "1" in out
  bad = tmp_path / "bad.jsonl"
  bad.write_text(
    '{"question": "1 + 1?", "answer": "2"}\n{"question": 7, "answer": "2"}\n'
  )
  out, err = pxy("data", "check", bad, code=2)
  text = out + err
  assert "question" in text and "2" in text and "Traceback" not in text


def test_sample_json_is_one_object_per_response():
  argv = ["sample", "builtin:tiny", "--prompt", "What is 347 + 285?"]
  out, _ = pxy(*argv, "--json", "--n", 3, "--seed", 1)
  rows = [json.loads(line) for line in out.splitlines()]
  assert len(rows) == 3
  for row in rows:
    assert list(row) == ["prompt_ids", "ids", "text", "logps", "stop"]
    assert len(row["ids"]) == len(row["logps"]) and row["stop"] in ("stop", "length")
  again, _ = pxy(*argv, "--json", "--n", 3, "--seed", 1)
  assert again == out, "the same seed gives the same bits"
  text, _ = pxy(*argv, "--greedy")
  assert r"\boxed{" in text


def test_eval_writes_scores(tmp_path):
  file = tmp_path / "scores.json"
  out, _ = pxy(
    "eval", "builtin:tiny", "--task", "arithmetic/add3", "--samples", 4,
    "--problems", 8, "--json", file,
  )  # fmt: skip
  scores = json.loads(file.read_text())["scores"]
  assert {"avg@4", "pass@1", "pass@4", "maj@4", "truncated"} <= set(scores)
  assert "avg@4" in out


def test_help_is_instant():
  # Importing JAX takes a second; help must not.
  code = (
    "import sys; from pxy import cli; cli.main([]); assert 'jax' not in sys.modules"
  )
  subprocess.run(
    [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True
  )
