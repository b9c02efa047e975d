"""`pxy doctor`: what it makes of given facts, and the command on a machine that is well
and on one that is not."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from pxy import __main__ as command
from pxy import versions
from pxy.commands import cli
from pxy.commands.checks import chips, devices, machine, packages, reach
from pxy.commands.checks import line as line_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIB = 2**30
Package = packages.Package
GPU = chips.Gpu("NVIDIA H100", "580.65.06", 81559.0, 4.0)
OLD = GPU._replace(driver="550.54.15")
HELD = GPU._replace(used=70000.0)


def told(lines, status, *words):
  """That there are lines of this status alone, and that they and their cures have the
  words; what is not ok has a cure."""
  text = " ".join(f"{line.found} {line.cure}" for line in lines)
  assert {line.status for line in lines} == {status}, text
  assert all(bool(line.cure) == (line.status != "ok") for line in lines), text
  assert not [word for word in words if word not in text], text


ASKS = ("jax>=0.7", "flax>=0.11.2", "ray>=2.50; extra == 'ray'")
JAX = (
  "jaxlib<=0.10.2,>=0.10.1",
  "libtpu==0.0.42.*; extra == 'tpu'",
  "jax-cuda13-plugin[with-cuda]<=0.10.2,>=0.10.2; extra == 'cuda13'",
  "jaxlib==0.10.1; extra == 'minimum-jaxlib'",
)
WELL = {
  "pxy-rl": Package("0.1.0", ASKS),
  "jax": Package("0.10.2", JAX),
  "jaxlib": Package("0.10.2"),
  "flax": Package("0.12.8", ("orbax-checkpoint",)),
  "orbax-checkpoint": Package("0.12.8"),
  "libtpu": Package("0.0.42.1"),
}


@pytest.mark.parametrize(
  ("change", "status", "words"),
  [
    ({}, "ok", ["jax 0.10.2", "flax 0.12.8", "libtpu 0.0.42.1"]),
    ({"jaxlib": Package("0.9.0")}, "fail", ["jax needs jaxlib", "0.9.0 is installed"]),
    ({"flax": Package("0.10.0")}, "fail", ["pip install 'flax>=0.11.2'"]),
    ({"orbax-checkpoint": None}, "fail", ["flax needs orbax-checkpoint: not inst"]),
    ({"libtpu": Package("0.0.41")}, "warn", ["pip install 'libtpu==0.0.42.*'"]),
    ({"libtpu": None}, "ok", []),
    ({"jax-cuda13-plugin": Package("0.10.1")}, "warn", ["jax-cuda13-plugin", "0.10.1"]),
    ({"ray": Package("1.0")}, "ok", []),  # not asked for, and so not ours to judge
    ({"pxy-rl": None, "jaxlib": Package("0.9.0")}, "ok", []),  # run by its path
  ],
)
def test_packages_that_are_not_what_others_ask_for(change, status, words):
  found = {name: one for name, one in (WELL | change).items() if one is not None}
  told(packages.judge(found, []), status, *words)


def test_pairs_whose_metadata_is_wrong_are_lines_with_their_cure():
  wrong = {"pxy": "0", "jax": "0.12.0.1", "flax": "0.12.8"}
  lines = packages.judge(WELL, [versions.wrong(wrong)])
  told(lines, "fail", "jax 0.12.0.1 needs flax >= 0.12.9", "pip install -U 'flax")


def test_a_circle_of_packages_ends():
  found = {"pxy-rl": Package("0", ("a[x]",)), "a": Package("1", ("a[x]", "b>2"))}
  ((who, need, there),) = packages.broken(found | {"b": Package("2")})
  assert (who, need.name, there) == ("a", "b", "2")


@pytest.mark.parametrize(
  ("facts", "status", "words"),
  [
    ({}, "ok", ["the CPU computes"]),
    ({"nvidia": True, "gpus": (GPU,) * 8, "cuda": ("cuda13",)}, "ok", ["8 NVIDIA"]),
    ({"nvidia": True, "gpus": (GPU,)}, "warn", ["pip install 'jax[cuda13]'"]),
    ({"nvidia": True, "gpus": (OLD,)}, "warn", ["pip install 'jax[cuda12]'"]),
    ({"nvidia": True, "gpus": ()}, "warn", ["jax[cuda13]", "before 580"]),
    (
      {"nvidia": True, "gpus": (OLD,), "cuda": ("cuda13",)},
      "warn",
      ["550.54.15 is older", "pip uninstall jax-cuda13-plugin", "jax[cuda12]"],
    ),
    ({"nvidia": True, "gpus": (OLD,), "cuda": ("cuda12",)}, "ok", ["550.54.15"]),
    (
      {"nvidia": True, "gpus": (GPU, HELD), "cuda": ("cuda13",)},
      "warn",
      ["GPU 1: others hold 70,000 of 81,559 MiB", "CUDA_VISIBLE_DEVICES"],
    ),
    (
      {"nvidia": True, "gpus": "nvidia-smi: no answer", "cuda": ("cuda13",)},
      "warn",
      ["nvidia-smi: no answer", "driver"],
    ),
    (
      {"nvidia": True, "gpus": (HELD,), "cuda": ("cuda13",), "said": "cpu"},
      "ok",
      ["JAX_PLATFORMS=cpu"],
    ),
    ({"tpu": True}, "warn", ["no libtpu", "pip install 'jax[tpu]'"]),
    ({"tpu": True, "libtpu": True}, "ok", ["a TPU"]),
    ({"tpu": True, "said": "cpu"}, "ok", ["left out"]),
  ],
)
def test_chips_that_jax_cannot_use(facts, status, words):
  told(chips.judge(chips.Facts(**facts)), status, *words)


def test_what_nvidia_smi_prints_is_read():
  text = "NVIDIA H100, 580.65.06, 81559, 4\nNVIDIA GB10, 580.95.05, [N/A], [N/A]\n"
  assert chips.read(text) == (GPU, chips.Gpu("NVIDIA GB10", "580.95.05", 0.0, 0.0))
  assert chips.read("no devices were found\n") == ()


def test_an_nvidia_smi_that_fails_is_told(tmp_path):
  broken = tmp_path / "nvidia-smi"
  assert chips.smi(str(broken)) == (), "a container may have none"
  broken.write_text("#!/bin/sh\necho 'has failed: no\ndriver'; exit 9\n")
  broken.chmod(0o755)
  assert chips.smi(str(broken)) == "nvidia-smi: has failed: no driver"


def test_chips_are_counted_by_their_devices(tmp_path):
  for name in ("nvidia0", "nvidia1", "nvidiactl", "vfio/vfio", "vfio/3"):
    (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "dev" / name).touch()
  assert chips.count(str(tmp_path)) == 3


@pytest.mark.parametrize(
  ("line", "status", "words"),
  [
    (machine.judge_memory(16 * GIB, 8 * GIB, "the machine"), "ok", ["8.0 GiB of 16"]),
    (machine.judge_memory(16 * GIB, 2 * GIB, "the machine"), "warn", ["--dry-run"]),
    (machine.judge_memory(GIB, GIB // 2, "this job"), "fail", ["512 MiB", "this job"]),
    (machine.judge_open_files(1024, 4096), "ok", ["1024"]),
    (machine.judge_open_files(-1, -1), "ok", ["no limit"]),
    (machine.judge_open_files(256, -1), "warn", ["256", "ulimit -n 4096"]),
    (machine.judge_open_files(40, 64), "fail", ["--ulimit nofile=4096"]),
    (machine.judge_shared("/dev/shm", "", 64 * 2**20, 1), "ok", ["64 MiB"]),
    (machine.judge_shared("/dev/shm", "", 64 * 2**20, 8), "warn", ["--shm-size"]),
    (machine.judge_shared("/dev/shm", "no folder", 0, 0), "warn", ["--shm-size"]),
    (machine.judge_programs("c", "", 3 * 2**20, "V"), "ok", ["3 MiB of at most 2.0"]),
    (machine.judge_programs("c", "a file", None, "V"), "warn", ["a file", "set V to"]),
    (reach.judge_hub("U", False, 200), "ok", ["U answers"]),
    (reach.judge_hub("U", False, 401), "ok", ["U answers"]),
    (reach.judge_hub("U", False, 503), "warn", ["status 503", "HF_ENDPOINT"]),
    (reach.judge_hub("U", False, "refused"), "warn", ["refused", "HF_HUB_OFFLINE"]),
    (reach.judge_hub("U", True, None), "ok", ["HF_HUB_OFFLINE"]),
    (reach.judge_bucket("gs://b/r", 200), "ok", ["gs://b/r"]),
    (reach.judge_bucket("gs://b/r", 404), "fail", ["no such bucket", "create"]),
    (reach.judge_bucket("gs://b/r", "no answer"), "fail", ["no answer", "HTTPS_PROXY"]),
  ],
)
def test_what_is_low_or_away(line, status, words):
  told([line], status, *words)


def test_a_bucket_and_the_hub_are_asked(monkeypatch):
  class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_error(200 if self.path in ("/storage/v1/b/mine", "/hub") else 404)

    def log_message(self, *_):
      pass

  monkeypatch.setenv("no_proxy", "*")
  monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
  with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("HF_ENDPOINT", f"{url}/hub")
    told(reach.there("gs://mine/runs/a"), "ok", "in reach")
    told(reach.there("gs://other/runs/a"), "fail", "no such bucket")
    told(reach.hub(), "ok", "answers")
    server.shutdown()
  told(reach.hub(), "warn", "refused")
  told(reach.there("gs://mine/runs/a"), "fail", "refused")
  told(reach.there("s3://mine/runs/a"), "fail", "is no gs://BUCKET/FOLDER")


@pytest.mark.parametrize(
  ("trouble", "free", "status"),
  [
    ("", 50 * GIB, "ok"),
    ("", 0, "ok"),  # a file system that does not say
    ("", 5 * GIB, "warn"),
    ("", GIB // 100, "fail"),
    ("No space left on device", 50 * GIB, "fail"),
  ],
)
def test_a_folder_is_as_good_as_its_room(trouble, free, status):
  line = machine.judge_folder("out", "/runs", trouble, free, machine.OUT, "elsewhere")
  told([line], status, "/runs", trouble)


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
  (line,) = machine.folder("out", tmp_path / "not/yet", (0, 0), "elsewhere")
  assert line.status == "ok" and not list(tmp_path.iterdir())
  (tmp_path / "file").touch()
  (line,) = machine.folder("out", tmp_path / "file/run", (0, 0), "elsewhere")
  told([line], "fail", "file is no folder", "elsewhere")


@pytest.mark.parametrize("kinds", ["", "memory"])
def test_a_container_has_what_its_cgroup_leaves(tmp_path, kinds):
  names = ("memory.max", "memory.current", "inactive_file")
  if kinds:
    names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
  job = tmp_path / "sys/fs/cgroup" / kinds / "job"
  (job / "step").mkdir(parents=True)
  (tmp_path / "proc/self").mkdir(parents=True)
  (tmp_path / "proc/self/cgroup").write_text(f"3:cpu:/\n4:{kinds}:/job/step\n")
  (job / "step" / names[0]).write_text("max\n")
  (job / names[0]).write_text("1000000\n")
  (job / names[1]).write_text("900000\n")
  (job / "memory.stat").write_text(f"anon 5\n{names[2]} 300000\n")
  assert list(machine._limits(tmp_path)) == [(1000000, 400000)]
  (line,) = machine.memory(str(tmp_path))
  told([line], "fail", "container")


DONE = [
  {"stage": "devices", "found": "8 x TPU v5e", "platform": "tpu"},
  *({"stage": stage, "found": "right"} for stage in devices.STAGES[1:]),
]
CRASH = "I0000 x\nF0000 check failed: chip\n    @ 0x1 stack\n*** SIGABRT\n"


@pytest.mark.parametrize(
  ("told_of", "how", "said", "statuses", "words"),
  [
    (DONE, "", "", "ok ok ok ok", ["8 x TPU v5e"]),
    ([], "ended by SIGABRT", CRASH, "fail warn warn warn", ["SIGABRT: F0000 check"]),
    (DONE[:1], "no answer in 9 s", "", "ok fail warn warn", ["no answer in 9 s"]),
    (DONE[:2], "no answer in 9 s", "", "ok ok fail warn", ["NCCL_DEBUG=INFO"]),
    ([], "no answer in 9 s", "", "fail warn warn warn", ["on all hosts at once"]),
    ([], "ended by SIGKILL", "", "fail warn warn warn", ["dmesg"]),
    ([], "", "", "fail warn warn warn", ["without a word", "PXY_VERBOSE=1"]),
    (
      [{"stage": "devices", "error": "RuntimeError: Unable to initialize backend 'x'"}],
      "", "", "fail warn warn warn", ["unset it"],
    ),
    (
      [DONE[0], {"stage": "matmul", "error": "wrong numbers on TPU_3"}, *DONE[2:]],
      "", "", "ok fail ok ok", ["wrong numbers on TPU_3"],
    ),
    (
      [*DONE[:3], {"stage": "imports", "error": "ImportError: optax"}],
      "", "", "ok ok ok fail", ["ImportError: optax", "--force-reinstall"],
    ),
  ],
)  # fmt: skip
def test_a_device_that_fails_is_a_line_with_a_cure(told_of, how, said, statuses, words):
  lines = devices.judge(told_of, how, said)
  assert [line.name for line in lines] == list(devices.STAGES)
  for line, status in zip(lines, statuses.split(), strict=True):
    told([line], status)
  text = " ".join(f"{line.found} {line.cure}" for line in lines)
  assert not [word for word in words if word not in text], text


def test_a_chip_that_jax_did_not_find_is_a_warning():
  facts = chips.Facts(nvidia=True, gpus=(GPU,), cuda=("cuda13",))
  assert chips.hoped(facts) == "gpu" and chips.hoped(facts._replace(said="cpu")) == ""
  cpu = DONE[0] | {"found": "1 x cpu", "platform": "cpu"}
  line, *_ = devices.judge([cpu, *DONE[1:]], "", "", chips.hoped(facts))
  told([line], "warn", "no GPU, though there is one")


def test_a_process_that_hangs_is_ended_and_one_that_crashes_is_told():
  event = '{"stage": "devices", "found": "1 x cpu"}'
  _, how, _ = devices.watch(["sh", "-c", "exec sleep 1000"], limit=0.5)
  assert how == "no answer in 0.5 s"
  crash = f"echo '{event}'; echo broken >&2; kill -ABRT $$"
  events, how, said = devices.watch(["sh", "-c", crash])
  assert (events, how, said) == ([json.loads(event)], "ended by SIGABRT", "broken\n")


def test_a_check_that_cannot_look_is_a_line():
  def check():
    raise OSError("no such\ndevice")

  told(line_lib.each("disk", check), "fail", "OSError: no such device")


def test_doctor_alone_starts_where_packages_do_not_go_together(monkeypatch, capsys):
  monkeypatch.setattr(versions, "faults", lambda *_: ["jax needs flax: pip install"])
  monkeypatch.setattr(versions, "_tolerated", False)
  begun = []
  monkeypatch.setattr(cli, "main", lambda: begun.append(sys.argv[1]))
  for name, code in (("train", 2), ("doctor", 0)):
    monkeypatch.setattr(sys, "argv", ["pxy", name])
    assert command._run() == code
  assert begun == ["doctor"] and capsys.readouterr().err.count("\n") == 1
  versions.check("jax", "flax")  # as pxy.rl asks, which the command line imports


def doctor(cwd, *argv, code, files=None, path=(), **env):
  """stdout of `pxy doctor ARGV` as a process, which says nothing on stderr."""
  dropped = ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "PXY_VERBOSE")
  clean = {k: v for k, v in os.environ.items() if k not in dropped}
  clean |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))} | env
  # By a shell: a fork of this process, whose JAX has threads, may hang.
  limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"] if files else []
  done = subprocess.run(
    [*limited, sys.executable, "-m", "pxy", "doctor", *map(str, argv)],
    capture_output=True, text=True, cwd=cwd, env=clean, timeout=300,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
  return done.stdout


def test_the_command_on_a_machine_that_is_well(tmp_path):
  flags = "--xla_force_host_platform_device_count=3"
  env = {"XLA_FLAGS": flags, "HF_HUB_OFFLINE": "1", "PXY_CACHE": str(tmp_path / "c")}
  out = doctor(tmp_path, "--out", "r", "--json", "d.json", code=0, **env)
  found = json.loads((tmp_path / "d.json").read_text())
  lines = {line["name"]: line for line in found["checks"]}
  assert found["passed"] and list(lines)[-4:] == list(devices.STAGES)
  assert lines["devices"]["found"] == "3 x cpu"
  assert lines["matmul"]["found"].startswith("right on 3 of 3")
  assert lines["all-reduce"]["found"] == "right on all, over 3"
  assert out.endswith("a run would work here\n") and not (tmp_path / "r").exists()


def test_the_command_where_a_run_would_fail(tmp_path):
  for name, version in (("jax", "0.12.0.1"), ("flax", "0.12.8")):
    folder = tmp_path / f"site/{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
  for name in ("jax", "flax"):  # as it then ends: nobody may import them here
    (tmp_path / f"site/{name}.py").write_text("raise AttributeError('HiPrimitive')")
  (tmp_path / "file").touch()
  env = {"PXY_CACHE": "file", "HF_HUB_OFFLINE": "1"}
  path = [tmp_path / "site"]
  out = doctor(tmp_path, "--out", "file/r", code=1, files=40, path=path, **env)
  for text in (
    "jax 0.12.0.1 needs flax >= 0.12.9, and 0.12.8 is installed\n"
    "      cure: pip install -U 'flax>=0.12.9'",
    "file is no folder\n      cure: choose another folder",
    "file is no folder\n      cure: set PXY_CACHE",
    "fail  open files         40 at a time\n      cure: raise the hard limit",
    "fail  devices            AttributeError: HiPrimitive\n      cure: pip install",
  ):
    assert text in out, out
  last = out.splitlines()[-1]
  assert last == "a run would fail here: packages, out, cache, open files, devices"
