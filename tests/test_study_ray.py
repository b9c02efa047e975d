"""Cells as tasks of a Ray: a worker that is killed, a cell that fails, a signal.

The Ray is a real one, of two slots on this machine. Cells are processes of a few lines
of Python: a `pxy` that stands before the real one where its children look for it.
What starts a Ray is a process of its own: Ray forks, which threads of JAX may not.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from ray_child import STUDY, WORLD

from pxy import config
from pxy.study import cell as cell_lib
from pxy.study import on_ray
from pxy.study.plan import Arm, Study, World

ROOT = pathlib.Path(__file__).resolve().parent.parent

PACKAGE = f"""
__version__ = "0.1.0"
__path__.append({str(ROOT / "pxy")!r})
"""
MAIN = """
import json, os, pathlib, sys, time
run = pathlib.Path(sys.argv[2] if sys.argv[1] == "probe" else sys.argv[-1])
cell, study = run.parent, run.parents[3]
run.mkdir(exist_ok=True)
with open(cell / "starts", "a") as f:
  f.write(json.dumps([sys.argv[1], os.getpid(), os.getppid()]) + "\\n")
if "dsrl/seed1" in str(cell) and not (study / "mended").exists():
  print("pxy: this one cannot"); sys.exit(2)
if "grpo/seed0" in str(cell) and (study / "slow").exists(): time.sleep(300)
if sys.argv[1] == "train": (run / "summary.json").write_text("{}")
else: (cell / "probe.json").write_text("{}")
"""


@pytest.fixture
def small(monkeypatch, tmp_path):
  """Cells that are a few lines of Python; grpo/seed0 waits, for long."""
  stand_in = tmp_path / "path/pxy"
  stand_in.mkdir(parents=True)
  (stand_in / "__init__.py").write_text(PACKAGE)
  (stand_in / "__main__.py").write_text(MAIN)
  path = [str(stand_in.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
  monkeypatch.chdir(tmp_path)
  (tmp_path / "out").mkdir()
  (tmp_path / "out/slow").touch()
  return STUDY, pathlib.Path("out")


def starts(out, name="sums/grpo/seed0"):
  """[command, its process, the worker] of each process of a cell."""
  try:
    return list(map(json.loads, (out / name / "starts").read_text().splitlines()))
  except FileNotFoundError:
    return []


def begin(address, out, jobs):
  """A process that works on what is left of the study, as `pxy study --ray` does."""
  return subprocess.Popen(
    [sys.executable, ROOT / "tests/ray_child.py", address, out, str(jobs)],
    stderr=subprocess.PIPE,
    text=True,
  )


def first_start(out, run):
  """Waits for grpo/seed0 to start: its process, the worker."""
  for _ in range(1200):
    if found := starts(out):
      return found[0][1:]
    assert run.poll() is None, run.communicate()[1]
    time.sleep(0.1)
  run.kill()
  raise AssertionError(f"grpo/seed0 has not started: {run.communicate()[1]}")


def states(study, out):
  return {cell.name: cell_lib.state(cell, out)["state"] for cell in study.cells()}


@pytest.mark.slow
def test_a_killed_workers_cell_is_started_again_and_one_that_fails_is_a_row(small):
  study, out = small
  run = begin("local", out, 2)
  process, worker = first_start(out, run)
  (out / "slow").unlink()
  os.kill(worker, signal.SIGKILL)
  time.sleep(0.5)
  alive = False
  with contextlib.suppress(OSError):
    alive = pathlib.Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
  said = run.communicate()[1]
  assert run.returncode == 0, said
  assert not alive, "the cell's process has outlived its worker"
  assert [word for word, *_ in starts(out)] == ["train", "train", "probe"]
  found = states(study, out)
  assert found.pop("sums/dsrl/seed1") == "failed", "a cell that fails is a row"
  assert set(found.values()) == {"done"}
  assert len(starts(out, "sums/dsrl/seed1")) == 1, "what fails is not tried again"
  assert "sums/dsrl/seed1: failed: pxy: this one cannot (all of it: out/" in said
  # Which of the four ends last is the workers' race: a failure is counted as well.
  assert "sums/grpo/seed0: done in " in said and "; 4 of 4\n" in said, said


@pytest.fixture
def cluster(request, small, monkeypatch, tmp_path):
  """The address of a Ray that is there already, of two CPUs or of none."""
  cpus = getattr(request, "param", 2)
  # Once a Ray ran on this machine `ray start` asks for its token, and by an address
  # none is sent (Ray 2.60) unless that is asked for here.
  monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
  ray = pathlib.Path(sys.executable).parent / "ray"
  asked = (
    f"--port=0 --num-cpus={cpus} --include-dashboard=false"
    " --object-store-memory=90000000"
  )
  with (tmp_path / "head.log").open("w") as log:
    head = subprocess.Popen(
      [ray, "start", "--head", "--block", *asked.split()], stdout=log, stderr=log
    )
    try:
      yield address_of(head, tmp_path / "head.log")
    finally:
      head.terminate()
      head.wait()


def address_of(head, log):
  """The address that a Ray says when it has started."""
  for _ in range(1200):
    if found := re.search(r"--address='([\d.:]+)'", log.read_text()):
      return found[1]
    assert head.poll() is None, f"Ray did not start: {log.read_text()}"
    time.sleep(0.1)
  raise AssertionError(f"Ray did not start in two minutes: {log.read_text()}")


TRAINED = """
from pxy.study.plan import Arm, Study, World

SIZE = (
  "--steps", "12", "--save-every", "1", "--data.prompts", "4", "--data.responses", "4",
  "--eval.problems", "8", "--eval.samples", "4",
)


def study():
  return Study((World("sums", "add3", SIZE),), (Arm("grpo"),), (0, 1))
"""


def descendants(pid):
  """A process, those that it has started, and those of these."""
  parent = {}
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):  # it has ended
      parent[int(path.parent.name)] = int(
        path.read_text().rpartition(")")[2].split()[1]
      )
  found = [pid]
  for one in found:
    found += [child for child, of in parent.items() if of == one]
  return found


def begins(out, seed):
  """The steps from which a cell's run has begun, one of each attempt."""
  path = out / f"sums/grpo/seed{seed}/run/attempts.jsonl"
  rows = map(json.loads, path.read_text().splitlines())
  return [row["begin"] for row in rows if "begin" in row]


def steps(out, seed):
  path = out / f"sums/grpo/seed{seed}/run/metrics.jsonl"
  return len(path.read_bytes().splitlines()) if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_the_cells_of_a_lost_node_go_on_elsewhere_where_they_were(tmp_path, cluster):
  """Two nodes train a cell each; all processes of one are killed at once."""
  (tmp_path / "s.py").write_text(TRAINED)
  env = os.environ | {"PYTHONPATH": str(ROOT)}
  ray = pathlib.Path(sys.executable).parent / "ray"
  start = (ray, "start", "--block", f"--address={cluster}", "--num-cpus=1")
  words = [sys.executable, "-m", "pxy", "study", "s.py"]
  out = tmp_path / "shared"
  with contextlib.ExitStack() as ended:
    nodes = []
    for i in range(2):
      log = ended.enter_context((tmp_path / f"{i}.log").open("w"))
      node = subprocess.Popen(
        [*start, "--object-store-memory=90000000"], stdout=log, stderr=log, env=env
      )
      ended.callback(node.wait)
      ended.callback(node.terminate)
      nodes.append(node)
      while "Ray runtime started" not in (tmp_path / f"{i}.log").read_text():
        assert node.poll() is None, (tmp_path / f"{i}.log").read_text()
        time.sleep(0.1)
    study = subprocess.Popen(
      [*words, "--out", "shared", "--ray", cluster, "--jobs", "1"],
      cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      text=True,
    )  # fmt: skip
    ended.callback(study.kill)
    while min(steps(out, 0), steps(out, 1)) < 4:
      assert study.poll() is None, study.communicate()[0]
      time.sleep(0.1)
    for pid in descendants(nodes[0].pid):
      with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    told, _ = study.communicate(timeout=400)
  assert study.returncode == 0, told
  begun = sorted((begins(out, seed) for seed in (0, 1)), key=len)
  assert list(map(len, begun)) == [1, 2], f"one of the two is lost, once: {begun}"
  assert begun[1][1] >= 1, "it has begun anew, not at its last checkpoint"
  subprocess.run([*words, "--out", "alone", "--jobs", "2"], cwd=tmp_path, env=env,
                 check=True)  # fmt: skip
  here, alone = (
    json.loads((tmp_path / name / "results.json").read_text())["cells"]
    for name in ("shared", "alone")
  )
  for one, other in zip(here, alone, strict=True):
    assert one | {"seconds": 0} == other | {"seconds": 0}, "not the same bits"


@pytest.mark.slow
def test_a_signal_ends_the_cells_and_the_same_again_goes_on(small, cluster):
  study, out = small
  (out / "mended").touch()
  run = begin(cluster, out, 1)
  first_start(out, run)
  run.terminate()
  said = run.communicate()[1]
  assert run.returncode == signal.SIGTERM, said
  assert states(study, out)["sums/grpo/seed0"] == "open", "it was waited for, not told"
  (out / "slow").unlink()
  again = begin(cluster, out, 2)
  said = again.communicate()[1]
  assert again.returncode == 0, said
  assert set(states(study, out).values()) == {"done"}


@pytest.mark.parametrize(
  ("address", "says"),
  [
    ("127.0.0.1:1", "--ray 127.0.0.1:1: [Errno 111] Connection refused"),
    ("ray://127.0.0.1:1", "--ray ray://127.0.0.1:1: [Errno 111] Connection refused"),
    ("head", "--ray head: give `local`, `auto`, HOST:PORT or ray://HOST:PORT"),
    ("head:x", "--ray head:x: Port could not be cast to integer value as 'x'"),
  ],
)
def test_a_ray_that_is_not_there_is_refused_at_once(
  address, says, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "ray", sys)
  cells = Study((WORLD,), (Arm("grpo"),), (0,)).cells()
  with pytest.raises(config.Error, match=f"^{re.escape(says)}$"):
    on_ray.Runner(address, tmp_path, 1).run(cells)


def test_a_missing_ray_is_named_before_anything_starts(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(config.Error, match=r"--ray needs ray \(.*\): pip install 'ray'"):
    on_ray.Runner("local", tmp_path, 1)


@pytest.mark.parametrize(
  ("cpus", "jobs", "share"),
  [(2, 1, 2), (2, 2, 1), (2, 4, 0.5), (2, 3, 0.6666), (7, 2, 3)],
)
def test_the_cells_of_a_node_have_room_on_it(cpus, jobs, share):
  assert on_ray._share(cpus, jobs) == share and share * jobs <= cpus


def test_resources_are_told_by_rays_names_and_some_node_must_have_them():
  world = World("a", "add3", resources=(("GPU", 1), ("TPU", 4)))
  told = {"num_cpus": 2, "num_gpus": 1, "resources": {"TPU": 4}}
  assert on_ray._takes(world, 2) == told
  on_ray._fits(world, 2, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0, "TPU": 4.0}])
  with pytest.raises(
    config.Error, match=r"world a: no node of this Ray has \{'CPU': 2, "
  ):
    on_ray._fits(world, 2, [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "TPU": 4.0}])


def test_a_node_without_the_studys_folder_is_refused_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = on_ray._task(Study((WORLD,), (Arm("grpo"),), (0,)).cells()[0], "out", ".")
  assert "sees no out in .: give a folder that all nodes share" in found["refused"]
