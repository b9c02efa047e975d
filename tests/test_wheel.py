"""What a user installs: a wheel out of an sdist, used outside of any checkout; and the
name under which nobody may be sent to the package index."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = (".py", ".md", ".ipynb", ".toml", ".sh", ".yml", ".yaml", ".txt")
STRANGER = re.compile(
  r"pip3? +install[^\n;|&]*[\s'\"`]pxy([-_]rl)?(\[[^\]\n]*\])?(?![\w./-])"
  r"|['\"`]pxy([-_]rl)?\["
)
"""Telling pip to fetch pxy by its name, or an extra of it."""
MINE = """
from pxy.config import Train
from pxy import methods

RATES = methods.Rates(1e-6, 1e-7, 1e-8, warmup=3, on_start="keep")


def config(method="dsrl"):
  return Train(phases=methods.phases(method, RATES))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """pxy(*argv): its stdout, from an installed wheel and an empty folder."""
  tmp = tmp_path_factory.mktemp("wheel")

  def run(*command, cwd=tmp, **env):
    done = subprocess.run(
      [sys.executable, *map(str, command)],
      cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout

  build = ("-m", "hatchling", "build", "-d", tmp / "dist", "-t")
  run(*build, "sdist", cwd=ROOT)
  (sdist,) = (tmp / "dist").glob("pxy_rl-*.tar.gz")
  with tarfile.open(sdist) as file:
    file.extractall(tmp / "unpacked", filter="data")
  (source,) = (tmp / "unpacked").iterdir()
  run(*build, "wheel", cwd=source)
  (wheel,) = (tmp / "dist").glob("pxy_rl-*.whl")
  pip = ("-m", "pip", "--disable-pip-version-check", "--no-input")
  run(*pip, "install", "-q", "--no-deps", "--no-index", "-t", tmp / "site", wheel)
  (tmp / "empty").mkdir()

  def python(*command):
    return run(*command, cwd=tmp / "empty", PYTHONPATH=str(tmp / "site"))

  python.wheel = wheel
  where = python("-c", "import pxy; print(pxy.__file__)")
  assert where.startswith(str(tmp / "site")), f"this is not the wheel: {where}"
  python.folder = tmp / "empty"
  return python


def test_a_wheel_has_its_experiments(installed):
  told = installed("-m", "pxy", "train", "dsrl", "--dry-run")
  assert "nsr-prerl 1-20 at lr 1e-05, grpo 21-120 at lr 0.0005" in told
  told = installed("-m", "pxy", "train", "smollm2_chain_sum:joint", "--help")
  assert "(default: joint)" in told and "(default: builtin:smollm2-135m)" in told
  told = installed("-m", "pxy", "pretrain", "base", "--help")
  assert "(default: 650)" in told and "(default: 48)" in told
  names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
  code = "from pxy.commands import experiment; print(*experiment.own())"
  assert set(installed("-c", code).split()) == names


def test_a_wheel_runs_the_users_own_file(installed):
  (installed.folder / "my.py").write_text(MINE)
  told = installed("-m", "pxy", "train", "my.py:nsr_rl", "--help")
  assert "(default: nsr-rl)" in told and "(default: 1e-07)" in told
  told = installed("-m", "pxy", "train", "my.py", "--help")
  assert "(default: nsr-prerl)" in told and "(default: 1e-08)" in told


def test_pip_knows_it_by_its_own_name(installed):
  code = "from importlib import metadata as m; print(m.version('pxy-rl'))"
  import pxy

  assert installed("-c", code).strip() == pxy.__version__


def test_type_checkers_read_its_types(installed):
  code = "import importlib.resources as r; print(r.files('pxy').joinpath('py.typed'))"
  assert pathlib.Path(installed("-c", code).strip()).is_file(), "py.typed is lacking"


@pytest.mark.slow
def test_a_wheel_answers_and_trains(installed):
  assert "pxy COMMAND" in installed("-m", "pxy", "--help")
  asked = ("--prompt", "What is 347 + 285?", "--max-new-tokens", 96)
  assert "boxed" in installed("-m", "pxy", "sample", "builtin:tiny", *asked)
  small = ("--phases.0.steps", 1, "--eval.problems", 8, "--eval.samples", 2)
  installed("-m", "pxy", "train", "dsrl", "--steps", 3, *small, "--out", "run")
  lines = (installed.folder / "run/metrics.jsonl").read_text().splitlines()
  steps = [json.loads(line)["step"] for line in lines]
  assert max(steps) == 3, f"metrics.jsonl has the steps {steps}"


FIRST = """
import pxy  # a reader who tried before: it is the clone's folder
assert not hasattr(pxy, "__version__"), f"the test is no test: {pxy.__file__}"
del pxy
exec(open("cell.py").read())
import pxy
from pxy.rl import objective
print(pxy.__file__)
"""


@pytest.mark.slow
def test_the_first_cell_of_a_notebook_needs_no_restart(installed, tmp_path):
  # An environment with all that pxy needs, of links, and without pxy.
  has = tmp_path / "has"
  has.mkdir()
  for entry in pathlib.Path(pytest.__file__).parent.parent.iterdir():
    if "pxy" not in entry.name:
      (has / entry.name).symlink_to(entry)
  venv.create(tmp_path / "env", symlinks=True)
  (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
  (site / "has.pth").write_text(f"{has}\n")

  here = tmp_path / "here"
  (here / "pxy" / "pxy").mkdir(parents=True)
  (here / "pxy" / "pxy" / "__init__.py").write_text("__version__ = 'a clone'\n")
  shutil.copy(ROOT / "colabs" / "first_cell.py", here / "cell.py")
  shutil.copy(installed.wheel, here)
  env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
  done = subprocess.run(
    [tmp_path / "env/bin/python", "-c", FIRST], cwd=here, capture_output=True,
    env=env | {"PIP_NO_INDEX": "1"}, text=True, timeout=300, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == str(site / "pxy" / "__init__.py")


def test_no_text_sends_anyone_to_the_index_for_pxy():
  listed = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  paths = [ROOT / name for name in listed.stdout.splitlines()]
  paths = paths or [p for p in ROOT.rglob("*") if ".venv" not in p.as_posix()]
  found = [
    f"{path.relative_to(ROOT)}: {hit[0]}"
    for path in paths
    if path.is_file() and (path.suffix in TEXTS or path.name in ("Makefile", "run"))
    for hit in STRANGER.finditer(path.read_text(encoding="utf-8"))
  ]
  assert not found, (
    "`pxy` on the package index is a stranger's: name the dependency itself, or install"
    " from the checkout or a wheel"
  )


@pytest.mark.parametrize(
  ("text", "stranger"),
  [
    ("pip install {}", True),
    ("%pip install -q {}", True),
    ("pip install -U '{}[tpu]'", True),
    ("pip install {}-rl", True),
    ('"{}[gym]"', True),
    ("`pip install {}`", True),
    ("pip install -e .", False),
    ("pip install -e ./{}", False),
    ("pip install dist/{}_rl-0.1.0-py3-none-any.whl", False),
    ("pip install 'jax[tpu]'; {} train dsrl", False),
    ("pip install git+https://host/{}.git", False),
  ],
)
def test_the_forms_are_told_apart(text, stranger):
  assert bool(STRANGER.search(text.format("pxy"))) == stranger
