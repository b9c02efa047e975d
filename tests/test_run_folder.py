"""The folder of a run: whose it is, whether it is whole, and what else is refused."""

import dataclasses
import json
import os
import pathlib
import shutil

import pytest

from pxy import config, fields, files, loop
from pxy.report import page
from pxy.run import folder as folder_lib
from pxy.run import same
from pxy.run import step as step_lib
from pxy.show import log as log_lib
from pxy.train import checkpoint, manifest

import worlds


def held(tmp_path, cfg, step=None):
  files.write_json(tmp_path / "config.json", fields.to_dict(cfg))
  if step is not None:
    folder = tmp_path / "checkpoints" / f"{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
  return tmp_path


def refused(path, cfg, resume="auto", accept=()):
  with pytest.raises(config.Error) as error:
    folder_lib.RunFolder(path, cfg, resume, accept)
  return str(error.value)


def test_the_same_config_goes_on_and_steps_may_grow(tmp_path):
  cfg = config.Train(steps=10)
  path = held(tmp_path, cfg, 10)
  for more in ({}, {"steps": 20}, {"save_every": 3}, {"eval_every": 5}):
    folder = folder_lib.RunFolder(path, dataclasses.replace(cfg, **more), "must")
    assert folder.keep(10) == 10
  assert "step 10 already" in refused(path, config.Train(steps=5))


def test_another_config_is_refused_by_field(tmp_path):
  path = held(tmp_path, config.Train(), 10)
  other = config.Train(seed=3, phases=(config.Phase(lr=1e-3),))
  text = refused(path, other)
  assert "(phases.0.lr, seed differ)" in text
  assert text.endswith(
    "or go on with what is there: --accept phases.0.lr --accept seed"
  )
  assert "corpus" in refused(path, config.Pretrain())


def test_each_difference_is_accepted_by_its_own_name(tmp_path, capsys):
  path = held(tmp_path, config.Train(), 10)
  other = config.Train(seed=3, phases=(config.Phase(lr=1e-3),))
  text = refused(path, other, accept=["seed", "data"])
  assert "(phases.0.lr differ)" in text and text.endswith(": --accept phases.0.lr")
  folder_lib.RunFolder(path, other, "auto", ["seed", "phases.0.lr"])
  assert (
    "another config (phases.0.lr, seed differ): going on" in capsys.readouterr().err
  )
  text = refused(path, other, accept=["sede"])
  assert "--accept sede: no difference is called so" in text


def test_a_field_that_an_older_pxy_did_not_have_is_no_difference(tmp_path):
  path = held(tmp_path, config.Train(), 10)
  old = fields.to_dict(config.Train())
  del old["phases"][0]["schedule"], old["phases"][0]["warmup"], old["waits"]
  files.write_json(path / "config.json", old)
  assert folder_lib.RunFolder(path, config.Train(), "must").keep(10) == 10
  warm = config.Train(phases=(config.Phase(warmup=5),))
  assert "(phases.0.warmup differ)" in refused(path, warm)


@pytest.mark.parametrize(
  "cfg, named",
  [
    (config.Pretrain(), True),
    (config.Train(phases=(config.Phase(schedule="cosine"),)), True),
    (config.Train(phases=(config.Phase(schedule="cosine", steps=60),)), False),
    (config.Train(phases=(config.Phase(warmup=5),)), False),
  ],
)
def test_steps_are_free_unless_they_shape_a_learning_rate(tmp_path, cfg, named):
  path, more = held(tmp_path, cfg), dataclasses.replace(cfg, steps=700)
  if named:
    assert "(steps differ)" in refused(path, more)
  else:
    folder_lib.RunFolder(path, more, "auto")


def test_never_and_must(tmp_path):
  cfg = config.Train()
  assert "no checkpoint" in refused(tmp_path, cfg, "must")
  assert folder_lib.RunFolder(tmp_path, cfg, "never").keep(0) is None
  held(tmp_path, cfg)
  assert "--resume auto" in refused(tmp_path, cfg, "never")
  assert "no checkpoint" in refused(tmp_path, cfg, "must"), "none was saved"
  (tmp_path / "checkpoints" / "00000010").mkdir(parents=True)
  (tmp_path / "config.json").unlink()
  assert "no config.json" in refused(tmp_path, cfg)


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  for out in (tmp_path / "file", tmp_path / "file" / "run", "/proc/nowhere/run"):
    assert f"--out {out}" in refused(out, config.Train())
  with pytest.raises(config.Error, match="a folder is in the way"):
    files.writable(tmp_path, "--json")
  files.writable(tmp_path / "a" / "b.json", "--json")
  assert not (tmp_path / "a").exists(), "looking makes nothing"


def test_an_empty_folder_is_no_checkpoint_of_a_later_step(tmp_path):
  cfg = config.Train(steps=10)
  path = held(tmp_path, cfg, 10)
  (path / "checkpoints" / "00000020").mkdir()
  assert folder_lib.RunFolder(path, cfg, "must").keep(10) == 10


def test_files_and_folders_in_the_way(tmp_path):
  assert "name a folder" in refused(pathlib.Path(""), config.Train())
  (tmp_path / "checkpoints").write_text("")
  assert "checkpoints: a file is in the way" in refused(tmp_path, config.Train())


def test_two_at_once_are_refused_and_the_lock_goes_with_the_first(tmp_path):
  first, second = (folder_lib.RunFolder(tmp_path, config.Train(), "auto") for _ in "ab")
  with first, pytest.raises(config.Error, match="another process works on this run"):
    second.__enter__()
  with second:
    pass


def test_what_moves_under_a_run_is_noticed(tmp_path):
  with folder_lib.RunFolder(tmp_path / "run", config.Train(), "auto") as folder:
    folder.present()
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(config.Error, match="moved or removed"):
      folder.present()
    (tmp_path / "run").mkdir()
    with pytest.raises(config.Error, match="moved or removed"):
      folder.present()


CFG = config.Train(
  steps=4,
  save_every=2,
  data=config.Data(task=worlds.SUMS, prompts=2, responses=2, max_prompt_tokens=32),
  sampling=config.Sampling(max_new_tokens=8, slots=4),
  eval=config.Eval(problems=1, samples=2),
  mesh=config.Mesh(data=1, fsdp=1, tensor=1),
)
MORE = dataclasses.replace(CFG, steps=5)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """A finished run of four steps."""
  out = tmp_path_factory.mktemp("done") / "run"
  loop.train(CFG, out)
  return out


@pytest.fixture
def run(done, tmp_path):
  return pathlib.Path(shutil.copytree(done, tmp_path / "run"))


def edit(change):
  """Changes the lines of metrics.jsonl."""

  def of(run):
    file = run / "metrics.jsonl"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

  return of


DAMAGE = {
  "a torn last line": edit(lambda lines: [*lines[:-1], lines[-1][:50]]),
  "a line less": edit(lambda lines: lines[:2] + lines[3:]),
  "a line twice": edit(lambda lines: lines[:2] + lines[1:]),
  "no evaluation at the start": edit(lambda lines: lines[1:]),
  "no metrics": lambda run: (run / "metrics.jsonl").unlink(),
  "no completions": lambda run: (run / "completions.parquet").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_records_that_are_not_those_of_the_checkpoint_are_noticed(run, damage, capsys):
  damage(run)
  with pytest.raises(config.Error, match=r"records up to the checkpoint: bring"):
    loop.train(MORE, run)
  capsys.readouterr()
  loop.train(MORE, run, accept=same.RECORDS)
  assert "records up to the checkpoint: going on" in capsys.readouterr().err
  noted = json.loads((run / "used.json").read_text())["accepted"]
  assert noted and {note["name"] for note in noted} <= {*same.RECORDS}
  assert log_lib.metrics(run)[-1]["step"] == 5


def test_a_whole_run_goes_on_from_every_checkpoint_without_a_word(run, capsys):
  for step in (4, 2):
    kept = pathlib.Path(shutil.copytree(run, run.with_name(f"from{step}")))
    if step == 2:
      shutil.rmtree(kept / "checkpoints" / "00000004")
    loop.train(MORE, kept)
    assert "records up to" not in capsys.readouterr().err
    steps = [r["step"] for r in log_lib.metrics(kept) if "eval" not in r]
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
  "name, text, words",
  [
    ("metrics.jsonl", b"{]\n", "metrics.jsonl, line 1: no record of a step"),
    ("metrics.jsonl", b"\x00\xff\x00\n", "metrics.jsonl, line 1"),
    ("metrics.jsonl", b"[1]\n", "metrics.jsonl, line 1"),
    ("metrics.jsonl", b"{}\n", "metrics.jsonl, line 1"),
    ("completions.parquet", b"no parquet", "completions.parquet: "),
    ("completions.parquet", b"", "completions.parquet: "),
    ("returns.json", b"null", "returns.json: no list"),
    ("returns.json", b"{}", "returns.json: no list"),
    ("returns.json", b"{]", "returns.json: "),
  ],
)
def test_files_that_cannot_be_read_are_named_in_one_line(run, name, text, words):
  (run / name).write_bytes(text)
  with pytest.raises(config.Error) as error:
    loop.train(MORE, run)
  assert words in str(error.value) and "\n" not in str(error.value)


def test_odd_notes_of_attempts_and_odd_checkpoints_are_no_obstacle(run):
  with open(run / "attempts.jsonl", "ab") as file:
    file.write(b"5\n[1]\n\xff\xfe\n{\n")
  checkpoints = run / "checkpoints"
  (checkpoints / "²").mkdir()
  (checkpoints / "7").mkdir()
  os.symlink("00000004", checkpoints / "00000005")
  loop.train(MORE, run)
  assert checkpoint.steps(checkpoints)[-1] == 5
  assert not (checkpoints / "00000005").is_symlink()
  page.write([run], run)


def test_a_folder_that_is_taken_away_ends_the_run_and_is_not_made_again(
  monkeypatch, run
):
  real = step_lib.keys

  def keys(seed, step, returns):
    if step == 4:
      run.rename(run.with_name("moved"))
    return real(seed, step, returns)

  monkeypatch.setattr(step_lib, "keys", keys)
  with pytest.raises(config.Error, match="moved or removed"):
    loop.train(dataclasses.replace(CFG, steps=7), run)
  assert not run.exists(), "half a run was left where the folder had been"
  moved = run.with_name("moved")
  monkeypatch.setattr(step_lib, "keys", real)
  loop.train(dataclasses.replace(CFG, steps=7), moved)
  assert log_lib.metrics(moved)[-1]["step"] == 7


def test_a_run_whose_last_checkpoint_fails_is_not_finished(monkeypatch, run):
  def full(folder):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(manifest, "seal", full)
  (run / "summary.json").unlink()
  with pytest.raises(config.Error, match="step 5 could not be saved"):
    loop.train(MORE, run)
  last = json.loads((run / "attempts.jsonl").read_text().splitlines()[-1])
  assert "could not be saved" in last["how"]
  assert not (run / "summary.json").exists()
  monkeypatch.undo()
  loop.train(MORE, run)
  assert "could not be saved" in (run / "report.md").read_text()


def test_a_disk_that_is_full_when_records_are_written_is_named(monkeypatch, run):
  real = step_lib.keys

  def full(handle):
    raise OSError(28, "No space left on device")

  def keys(*args):
    monkeypatch.setattr(os, "fsync", full)
    return real(*args)

  monkeypatch.setattr(step_lib, "keys", keys)
  with pytest.raises(config.Error, match=r"metrics\.jsonl: No space left on device"):
    loop.train(MORE, run)
  monkeypatch.undo()
  assert checkpoint.steps(run / "checkpoints") == [2, 4]
  loop.train(MORE, run)
