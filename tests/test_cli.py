"""The command line as a newcomer meets it: real processes, what they print, exit
codes."""

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from pxy import config, fields
from pxy.commands import cli, experiment

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pxy(*argv, code=0, cwd=ROOT):
  """stdout and stderr of `pxy ARGV`, which must exit with `code`."""
  env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
  done = subprocess.run(
    [sys.executable, "-m", "pxy", *map(str, argv)],
    capture_output=True, text=True, cwd=cwd, env=env, timeout=300,
  )  # fmt: skip
  assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
  return done.stdout, done.stderr


def refused(*argv):
  """The one line with which `pxy ARGV` refuses."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    with pytest.raises(SystemExit) as stop:
      cli.main([str(word) for word in argv])
  out, err = out.getvalue(), err.getvalue()
  assert stop.value.code == 2, f"exit {stop.value.code}: {err}"
  assert not out and err.count("\n") == 1, f"one line, please: {out}{err}"
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
  assert fields.from_dict(config.Train, shown)
  for text in ("parameters", "1-20", "21-30", "tokens", "memory"):
    assert text in out[out.index("\nplan") :]
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
  ("argv", "code"), [("--help", 0), ("train dsrl --help", 0), ("trian", 2)]
)
def test_a_closed_stream_is_nobody_who_reads(closed, argv, code):
  out, err = shut(argv, closed, code)
  assert bool(out) == (code == 0 and closed == "2>&-")
  assert err.count("\n") == (code == 2 and closed == ">&-"), err


def test_a_command_does_its_work_without_streams(tmp_path):
  (tmp_path / "rows.jsonl").write_text('{"response": "3", "answer": "3"}\n')
  argv = "score rows.jsonl --task number --out grades.jsonl"
  assert shut(argv, "<&- >&- 2>&-", 0, cwd=tmp_path) == ("", "")
  assert json.loads((tmp_path / "grades.jsonl").read_text())["score"] == 1


@pytest.mark.parametrize("argv", ["--version", "train dsrl --help"])
def test_a_full_disk_under_stdout_is_one_line(argv):
  _, err = shut(argv, "> /dev/full", 2)
  assert err.startswith("pxy: ") and "No space left" in err and err.count("\n") == 1


def shut(argv, closed, code, cwd=ROOT):
  """stdout and stderr of a `pxy ARGV` that was started with closed streams."""
  done = subprocess.run(
    ["bash", "-c", f'exec "$0" -m pxy {argv} {closed}', sys.executable],
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    cwd=cwd, capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert done.returncode == code, done.stderr
  return done.stdout, done.stderr


def test_a_file_does_not_get_what_is_printed(tmp_path):
  # The first file that is opened has the number of a closed stdout.
  code = """
import os, sys
from pxy import __main__ as main
main._open()
with open("checkpoint", "w") as file:
  os.write(1, b"printed by a library")
  print("printed")
  os.system("echo printed by a child")
sys.stdout.flush()
assert os.path.getsize("checkpoint") == 0, open("checkpoint").read()
"""
  subprocess.run(
    ["bash", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code],
    env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True, timeout=60,
  )  # fmt: skip


@pytest.mark.parametrize("wait", [0.8, 4.0])
def test_ctrl_c_is_one_line_and_code_130(wait):
  command = [sys.executable, "-m", "pxy", "eval", "builtin:tiny"]
  child = subprocess.Popen(
    [*command, "--problems", "4096"], env=os.environ | {"PYTHONPATH": str(ROOT)},
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  time.sleep(wait)
  child.send_signal(signal.SIGINT)
  _, err = child.communicate(timeout=60)
  assert child.returncode == 130, err
  assert "pxy: interrupted" in err and "Traceback" not in err


def test_errors_of_a_process_end_it_with_code_2():
  out, err = pxy("sample", "builtin:huge", "--prompt", "x", code=2)
  assert not out and err == (
    "pxy: model 'builtin:huge': pxy ships builtin:tiny, builtin:world;"
    " make fetches builtin:smollm2-135m, builtin:gemma3-270m\n"
  )


def test_an_advantage_and_a_surrogate_of_ones_own(tmp_path, monkeypatch, capsys):
  dsrl, term = ROOT / "experiments/dsrl.py", "--phases.1.terms.0"
  (tmp_path / "my.py").write_text(
    "def rank(rewards_PR, valid_PR): return rewards_PR.argsort(1)\n"
    "def ratio(logp_BT, old_BT, adv_BT): return (old_BT - logp_BT) * adv_BT\n"
  )
  monkeypatch.chdir(tmp_path)
  own = [f"{term}.advantage", "my.py:rank", f"{term}.clip", "my.py:ratio"]
  cli.main(["train", str(dsrl), *own, "--dry-run"])
  out = capsys.readouterr().out
  shown = fields.from_dict(config.Train, json.loads(out[: out.index("\nplan")]))
  assert shown.phases[1].terms[0].advantage == "my.py:rank"
  assert shown.phases[1].terms[0].clip == "my.py:ratio"
  said = refused("train", dsrl, f"{term}.advantage", "grpoo")
  assert "must be one of grpo, mean" in said and "or a function of your own" in said
  said = refused("train", dsrl, f"{term}.clip", "my.py:rank", "--dry-run")
  assert said.startswith("pxy: phases.1.terms.0.clip 'my.py:rank' takes (rewards_PR,")


def test_wrong_words_are_one_line_with_the_cure(tmp_path):
  dsrl = ROOT / "experiments/dsrl.py"
  assert "--data.task" in refused("train", dsrl, "--data.tsk", "x"), "names the nearest"
  assert "is it 'train'?" in refused("trian")
  assert "grpo.py" in refused("train", ROOT / "experiments/nope.py")
  assert "--steps" in refused("train", dsrl, "--steps", "many")
  assert "add3, all_down, base, dsrl" in refused("train"), "says what there is"
  assert "experiment first" in refused("train", "--seed", 1, "dsrl")
  other = ("--model", ROOT / "experiments/grpo.py")
  assert "before the options" in refused("train", *other, dsrl), "not grpo's config"
  assert "no such folder" in refused("eval", "no/model")
  assert "pxy ships builtin:tiny" in refused("sample", "builtin:huge", "--prompt", "x")
  assert "divisors" in refused("train", dsrl, "--updates", 5, "--out", tmp_path / "r")
  assert "add3" in refused("eval", "builtin:tiny", "--task", "arithmetic/add99")
  assert "no such file" in refused("eval", "builtin:tiny", "--task", "rows.jsonl")
  assert "a folder" in refused("eval", "builtin:tiny", "--json", tmp_path)
  assert not (tmp_path / "r").exists(), "nothing half-written"


@pytest.mark.parametrize(
  "argv, text",
  [
    (["--temperature", "nan"], "finite"),
    (["--temperature", "-1"], "sampling.temperature -1.0: must be 0, or 0.01 to 100"),
    (["--top-p", "0"], "above 0, at most 1"),
    (["--top-k", "-1"], "top_k -1"),
    (["--n", "0"], "--n 0: must be >= 1"),
    (["--seed", "-1"], "seed -1"),
    (["--max-new-tokens", "300"], "give at most"),
    (["--step", "3"], "leave it out"),
    (["--tempratur", "1"], "--temperature"),
    (["--prompt", "", "--template", "plain"], "empty"),
  ],
)
def test_sample_refuses(argv, text):
  err = refused("sample", "builtin:tiny", "--prompt", "x", *argv)
  assert text in err and "----" not in err, err


@pytest.mark.parametrize(
  "change, text",
  [
    ({"steps": "80"}, "steps: expected int, found '80'"),
    ({"steps": True}, "steps: expected int"),
    ({"seed": -1}, "seed -1"),
    ({"phases": ()}, "phases"),
    ({"phases": (config.Phase(lr=float("nan")),)}, "phases.0.lr nan"),
    ({"phases": (config.Phase(lr=0.0),)}, "phases.0.lr 0.0: must be > 0"),
    ({"steps": 10**20}, "steps 100000000000000000000: must be 0 to 2147483647"),
    ({"reward": config.Reward(refill=10**6)}, "reward.refill 1000000: must be 0 to 16"),
    ({"sampling": config.Sampling(temperature=1e-300)}, "must be 0, or 0.01 to 100"),
    ({"mesh": config.Mesh(data=-1)}, "at most one is -1"),
    ({"sampling": config.Sampling(temperature=0.0)}, "--greedy"),
    ({"eval": config.Eval(samples=0)}, "eval.samples 0: must be 1 to 2147483647"),
  ],
)
def test_a_config_that_cannot_work_is_refused_by_field(change, text):
  with pytest.raises(config.Error, match=re.escape(text)):
    config.check(config.Train(**change))


def test_a_config_survives_json_and_lists_become_tuples(tmp_path):
  for cfg in (config.Train(), config.Pretrain()):
    again = fields.from_dict(type(cfg), json.loads(json.dumps(fields.to_dict(cfg))))
    assert again == cfg and fields.to_dict(again) == fields.to_dict(cfg)
  with pytest.raises(config.Error, match="is it steps"):
    fields.from_dict(config.Train, {"step": 3})
  file = tmp_path / "lists.py"
  file.write_text(
    "from pxy.config import *\n"
    "def config(): return Train(phases=[Phase(terms=[Term(coef=1)])])\n"
  )
  cfg = experiment.load(file, config.Train)
  assert cfg.phases == (config.Phase(),), "lists and integers do as well"


@pytest.mark.parametrize("command", ["train", "pretrain", "eval", "sample"])
def test_every_field_is_explained(command, capsys):
  file = {"train": "dsrl.py", "pretrain": "base.py"}.get(command)
  with pytest.raises(SystemExit):
    cli.main([command, *([str(ROOT / "experiments" / file)] if file else []), "--help"])
  text = re.sub(r"[^\x20-\x7e]|\s", " ", capsys.readouterr().out)
  bare = re.findall(r"(--[\w.-]+) +\S+ +\(default", text)
  assert "--seed" in text and not bare, f"no docstring: {', '.join(bare)}"


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
  out, _ = pxy(*argv, "--json", "--n", 3, "--seed", 1, "--max-new-tokens", 16)
  rows = [json.loads(line) for line in out.splitlines()]
  assert len(rows) == 3
  for row in rows:
    assert list(row) == ["prompt_ids", "ids", "text", "logps", "stop"]
    assert len(row["ids"]) == len(row["logps"]) and row["stop"] in ("stop", "length")
  again, _ = pxy(*argv, "--json", "--n", 3, "--seed", 1, "--max-new-tokens", 16)
  assert again == out, "the same seed gives the same bits"
  text, _ = pxy(*argv, "--greedy")
  assert r"\boxed{" in text


def test_eval_writes_scores(tmp_path):
  file = tmp_path / "scores.json"
  out, _ = pxy(
    "eval", "builtin:tiny", "--task", "arithmetic/add3", "--samples", 4,
    "--problems", 8, "--max-new-tokens", 16, "--json", file,
  )  # fmt: skip
  scores = json.loads(file.read_text())["scores"]
  assert {"avg@4", "pass@1", "pass@4", "maj@4", "truncated"} <= set(scores)
  assert "avg@4" in out


def test_help_is_instant():
  # Importing JAX takes a second; help must not.
  code = (
    "import sys; from pxy.commands import cli; cli.main([]);"
    " assert 'jax' not in sys.modules"
  )
  subprocess.run(
    [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True
  )


def test_the_authors_recipe_can_be_planned_without_a_network(monkeypatch, capsys):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  monkeypatch.setenv("HF_HOME", "/nowhere")
  cli.main(["train", "experiments/qwen3_4b_math.py", "--dry-run"])
  told = capsys.readouterr().out
  assert "hf://Qwen/Qwen3-4B: 4,022,468,096 parameters" in told
  assert "nsr-prerl 1-20 at lr 1e-06, grpo 21-348 at lr 1e-06" in told
