"""stderr is pxy's: what JAX is told to look for, on any machine, and that no command
prints what a library says of itself."""

import importlib.machinery
import os
import pathlib
import subprocess
import sys
import types

import pytest

from pxy.aot import chips
from pxy.commands import cli, quiet, xla_flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
DISK, NETWORK, OTHER = "0x010802", "0x020000", "0x120000"
CPU, ALL = {"JAX_PLATFORMS": "cpu"}, {}


def pci(root, maker, kind):
  folder = root / "sys/bus/pci/devices/0000:00:04.0"
  folder.mkdir(parents=True)
  (folder / "vendor").write_text(maker + "\n")
  (folder / "class").write_text(kind + "\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """start(command, env, files, device, ...) -> the environment after it."""
  spec = importlib.machinery.ModuleSpec("libtpu", None)

  def start(
    command="train", env=(), files=(), device=None, libtpu=True, others=(), cuda=False
  ):
    module = types.ModuleType("libtpu")
    module.__spec__ = spec
    monkeypatch.setitem(sys.modules, "libtpu", module if libtpu else None)
    monkeypatch.setattr(quiet, "plugins", lambda: set(others))
    monkeypatch.setattr(xla_flags, "cuda", lambda: cuda)
    monkeypatch.setattr(os, "environ", dict(env))
    for file in files:
      (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / file).touch()
    if device:
      pci(tmp_path, *device)
    quiet.start(command, str(tmp_path))
    return os.environ

  return start


@pytest.mark.parametrize(
  ("how", "platforms"),
  [
    ({}, "cpu"),
    ({"libtpu": False}, None),
    ({"files": ["dev/accel0"]}, None),
    ({"files": ["dev/vfio/0", "dev/vfio/vfio"]}, None),
    ({"files": ["dev/vfio/vfio"]}, "cpu"),  # of any machine that has the module
    ({"files": ["dev/accel/accel0"]}, "cpu"),  # an NPU
    ({"device": ("0x1ae0", OTHER)}, None),
    ({"device": ("0x1ae0", DISK)}, "cpu"),
    ({"device": ("0x1ae0", NETWORK)}, "cpu"),
    ({"device": ("0x10de", OTHER)}, "cpu"),
    ({"env": {"TPU_WORKER_ID": "0"}}, None),
    ({"env": {"JAX_FORCE_TPU_INIT": "1"}}, None),
    # As a child of a process that has JAX sees it.
    ({"env": {"TPU_SKIP_MDS_QUERY": "1", "TPU_LIBRARY_PATH": "a/libtpu.so"}}, "cpu"),
    # As a child sees it of one that has compiled for a TPU.
    ({"env": chips.DESCRIBED}, "cpu"),
    ({"env": chips.DESCRIBED | {"TPU_WORKER_HOSTNAMES": "a,b"}}, None),
    ({"env": {"JAX_PLATFORMS": ""}}, ""),
    ({"env": {"JAX_PLATFORMS": "cuda,cpu"}}, "cuda,cpu"),
    ({"env": {"PXY_VERBOSE": "1"}}, None),
    ({"env": {"PXY_VERBOSE": "0"}}, "cpu"),
    ({"command": "study"}, None),
    ({"files": ["dev/nvidia0"], "others": ["jax_plugins.xla_cuda13"]}, None),
  ],
)
def test_jax_looks_at_the_cpu_alone_where_nothing_else_can_be(machine, how, platforms):
  after = machine(**how)
  assert after.get("JAX_PLATFORMS") == platforms, (
    f"{how}: a TPU or a GPU would be lost, or libtpu speaks: pxy/commands/quiet.py"
  )
  verbose = how.get("env", {}).get("PXY_VERBOSE") == "1"
  assert after.get("TF_CPP_MIN_LOG_LEVEL") == (None if verbose else "2")
  described = "TPU_WORKER_HOSTNAMES" in after.keys() - how.get("env", {}).keys()
  assert described == bool(how.get("others")), "told that there is no TPU"


def test_what_libtpu_was_told_is_no_tpu(machine, tmp_path):
  assert "TPU_WORKER_HOSTNAMES" in machine(others=["jax_plugins.xla_cuda13"])
  assert not quiet.tpu(str(tmp_path)), "pxy doctor would find a TPU that is not there"


@pytest.mark.parametrize(
  ("how", "lines"),
  [
    ({}, 1),
    ({"libtpu": False}, 1),
    ({"command": "score"}, 0),
    ({"cuda": True, "others": ["jax_plugins.xla_cuda13"]}, 0),
    ({"env": {"JAX_PLATFORMS": "cpu"}}, 0),
  ],
)
def test_a_gpu_that_jax_cannot_use_is_told_with_its_cure(machine, capsys, how, lines):
  assert set(quiet.ON_DEVICES) < set(cli.COMMANDS), "a command has another name now"
  machine(files=["proc/driver/nvidia/version"], **how)
  said = capsys.readouterr().err
  assert said.count("\n") == lines and said.count("jax[cuda13]") == lines, said


def test_plugins_are_found_as_jax_finds_them(tmp_path, monkeypatch):
  (tmp_path / "jax_plugins/mine").mkdir(parents=True)
  (tmp_path / "jax_plugins/mine/__init__.py").touch()
  entries = tmp_path / "other-1.0.dist-info/entry_points.txt"
  entries.parent.mkdir()
  entries.write_text("[jax_plugins]\nother = other.plugin\n")
  monkeypatch.syspath_prepend(str(tmp_path))
  assert {"jax_plugins.mine", "other.plugin"} <= quiet.plugins()


def stderr(cwd, *argv):
  """Of `pxy ARGV` as a shell starts it, beside another process that has libtpu open:
  it is then as loud as it is alone."""
  dropped = ("JAX_PLATFORMS", "TF_CPP_MIN_LOG_LEVEL", "PXY_VERBOSE")
  env = {k: v for k, v in os.environ.items() if k not in dropped}
  env |= {"PYTHONPATH": str(ROOT), "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
  done = subprocess.run(
    [sys.executable, "-m", "pxy", *argv],
    capture_output=True, text=True, cwd=cwd, env=env, timeout=300,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stderr.splitlines()


FOREIGN = "what is not pxy's reached stderr; pxy/commands/quiet.py is where it is told"


def test_what_only_prints_a_result_leaves_stderr_empty(tmp_path):
  sample = stderr(tmp_path, "sample", "builtin:tiny", "--prompt", "What is 12 + 30?")
  assert sample == [], FOREIGN
  assert stderr(tmp_path, "export", "builtin:tiny", "--out", "folder") == [], FOREIGN
  (tmp_path / "rows.jsonl").write_text('{"response": "\\\\boxed{2}", "answer": "2"}\n')
  (own,) = stderr(tmp_path, "score", "rows.jsonl", "--task", "boxed")
  assert own.startswith("rows.jsonl: 1 rows, 1 scored"), FOREIGN


FEW = "--eval.problems", "2", "--eval.samples", "2"
STEPS = *FEW, "--steps", "2", "--phases.0.steps", "1", "--data.prompts", "2"
ON_TASK = "--task", "arithmetic/add3", "--problems", "2", "--samples", "4"
CALLS = {
  "pretrain": [
    "base", *FEW, "--steps", "2", "--corpus.documents", "2000", "--out", "base",
  ],
  "train": ["dsrl", *STEPS, "--out", "run"],
  "eval": ["run", *ON_TASK],
  "probe": ["run", *ON_TASK, "--save", "samples"],
  "bound": ["builtin:tiny", "run", *ON_TASK, "--save", "samples"],
  "gate": ["run", "--against", "builtin:tiny", "g.py", *ON_TASK, "--save", "samples"],
  "align": ["run", "--n", "2", "--max-new-tokens", "16"],
  "sample": ["run", "--prompt", "What is 12 + 30?"],
  "export": ["run", "--out", "folder"],
  "compile": ["dsrl", "--topology", "v5e:2x2"],
  "score": ["rows.jsonl", "--task", "boxed"],
  "study": ["s.py", "--out", "study"],
  "report": ["run", "--out", "both"],
  "doctor": [],
  "data": ["check", "asked.jsonl"],
}  # fmt: skip
"""Each command, after those that make what it reads."""
OWN = {
  "pretrain": ("corpus ", "pretrain ", "evaluate ", "step "),
  "train": (
    "builtin:tiny: ", "arithmetic/add3: ", "first prompt: ", "responses end at ",
    "step ", "draw ", "evaluate ", "nsr-prerl ", "grpo ", "report: ",
  ),
  "eval": ("eval ",),
  "probe": ("evaluate ", "score "),
  "bound": ("evaluate ", "score "),
  "gate": ("evaluate ", "score "),
  "align": ("align ", "draw "),
  "score": ("rows.jsonl: 1 rows",),
  "study": ("sums/dsrl/seed0: ",),
}  # fmt: skip
FILES = {
  "rows.jsonl": '{"response": "\\\\boxed{2}", "answer": "2"}\n',
  "asked.jsonl": '{"question": "What is 2 + 3?", "answer": "5"}\n',
  "g.py": """
from pxy.measures.gate import Gate

def gates():
  return (Gate("bound/pass@1", of="value", at_least=-1.0),)
""",
  "s.py": f"""
from pxy.study.plan import Arm, Study, World

def study():
  return Study((World("sums", "add3", {STEPS}),), (Arm("dsrl"),), (0,), ())
""",
}


@pytest.mark.slow
def test_every_command_prints_its_own_lines_alone(tmp_path):
  assert CALLS.keys() == cli.COMMANDS.keys(), "say how the new one is called"
  for name, text in FILES.items():
    (tmp_path / name).write_text(text)
  for name, argv in CALLS.items():
    lines = stderr(tmp_path, name, *argv)
    own = OWN.get(name, ())
    assert [x for x in lines if not x.startswith(own)] == [], f"{name}: {FOREIGN}"
