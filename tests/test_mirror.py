"""TensorBoard and W&B as mirrors of the log, with stand-ins for the packages."""

import contextlib
import sys
import types

import numpy as np
import pytest

from pxy import config, fields
from pxy.show import log as log_lib
from pxy.show import mirror

TRAIN = {"step": 1, "phase": "grpo", "actor/lr": 1e-3, "n": np.int64(2), "bad": np.nan}
EVAL = {
  "step": 1,
  "phase": "grpo",
  "eval": {"avg@4": {"value": 0.5, "se": 0.1}},
  "val-core/arithmetic/add3/mean@4": 0.5,
}
SHOWN = [
  {"actor/lr": 1e-3, "n": 2.0},
  {"eval/avg@4": 0.5, "val-core/arithmetic/add3/mean@4": 0.5},
]


class Fake(types.ModuleType):
  """Either package: keeps what it is told, and that it was closed."""

  class Error(Exception):
    pass

  def __init__(self, error=""):
    super().__init__("fake")
    self.error, self.logged, self.given, self.closed = error, [], [], False

  def SummaryWriter(self, folder, purge_step):
    self.given.append((folder, purge_step))
    return self

  def add_scalar(self, name, value, step):
    self.logged.append((step, name, value))

  def flush(self):
    pass

  def close(self):
    self.closed = True

  finish = close

  def init(self, **given):
    if self.error:
      raise self.Error(self.error)
    self.given.append(given)
    return self

  def define_metric(self, name, step_metric=None):
    pass

  def log(self, values):
    self.logged.append(values)


def run(folder, name, resume=None, records=(TRAIN, EVAL)):
  with contextlib.ExitStack() as stack:
    also = mirror.open_all([name], folder, stack, resume=resume)
    log = stack.enter_context(log_lib.Log(folder, resume=resume, also=also))
    for record in records:
      log.write(record)


def test_tensorboard_gets_the_numbers_by_name(tmp_path, monkeypatch):
  fake = Fake()
  monkeypatch.setitem(sys.modules, "tensorboardX", fake)
  run(tmp_path, "tensorboard")
  want = [(1, k, v) for shown in SHOWN for k, v in shown.items()]
  assert sorted(fake.logged) == sorted(want)
  assert fake.closed
  run(tmp_path, "tensorboard", resume=1, records=[])
  folder = str(tmp_path / "tensorboard")
  assert fake.given == [(folder, None), (folder, 2)]


def test_wandb_gets_the_numbers_and_keeps_its_run(tmp_path, monkeypatch):
  fake = Fake()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  run(tmp_path, "wandb")
  assert fake.logged == [{"step": 1} | shown for shown in SHOWN]
  assert fake.closed
  run(tmp_path, "wandb", resume=1, records=[])
  run(tmp_path, "wandb")
  first, second, third = (given["id"] for given in fake.given)
  assert first == second != third


@pytest.mark.parametrize(
  ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, package):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(config.Error, match=f"pip install {package},") as caught:
    run(tmp_path, name)
  assert "\n" not in str(caught.value)


def test_what_wandb_refuses_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", Fake("no\nkey"))
  with pytest.raises(config.Error, match="no key; set WANDB_MODE=offline"):
    run(tmp_path, "wandb")


def test_only_known_mirrors_can_be_asked_for():
  assert config.Train().mirror == ()
  with pytest.raises(config.Error, match=r"mirror\.0 'mlflow'"):
    fields.from_dict(config.Train, {"mirror": ["mlflow"]})
