"""Mirrors of a run's record: TensorBoard and Weights & Biases, fed by show/log.py.

    Log(folder, also=[tensorboard(folder / "tensorboard")])

A mirror is called with every record and shows its numbers under their names, at the
record's step; an evaluation's scores stand below eval/ (their standard errors are in
metrics.jsonl, which stays the record: a mirror is for looking at). Both packages are
extras, imported only when asked for. W&B works offline as its own settings say
(WANDB_MODE=offline).

Left out: text, tables and plots.
"""

import importlib
import math
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pxy import config

Mirror = Callable[[dict], None]


def open_all(
  names: Sequence[str], folder: str | os.PathLike, stack, *, resume: int | None = None
) -> list[Mirror]:
  """The mirrors of a run folder by name, closed with `stack`.

  Args:
    names: of `tensorboard` and `wandb`.
    stack: contextlib.ExitStack.
    resume: the step up to which records are kept; None: a new run.

  Raises:
    config.Error: a package is missing, or W&B refuses.
  """
  folder = pathlib.Path(folder)
  makers = {"tensorboard": tensorboard, "wandb": wandb}
  return [makers[name](folder, stack, resume=resume) for name in names]


def tensorboard(folder, stack, *, resume: int | None = None) -> Mirror:
  """Writes event files below tensorboard/; a resume hides what the log dropped."""
  package = _package("tensorboardX", "tensorboard")
  writer = package.SummaryWriter(
    str(pathlib.Path(folder) / "tensorboard"),
    purge_step=None if resume is None else resume + 1,
  )
  stack.callback(writer.close)

  def mirror(record):
    for name, value in numbers(record):
      writer.add_scalar(name, value, record["step"])
    writer.flush()

  return mirror


def wandb(folder, stack, *, resume: int | None = None) -> Mirror:
  """Logs to W&B; a continued run keeps its identity, which is in wandb.id.

  Project, entity and mode are W&B's own environment variables. config.Error: wandb is
  not installed, or cannot begin.
  """
  package = _package("wandb", "wandb")
  folder = pathlib.Path(folder)
  file = folder / "wandb.id"
  folder.mkdir(parents=True, exist_ok=True)
  if resume is None or not file.is_file():
    file.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
  try:
    run = package.init(
      dir=str(folder),
      project=os.environ.get("WANDB_PROJECT") or "pxy",
      name=folder.resolve().name,
      id=file.read_text(encoding="utf-8").strip(),
      resume="allow",
    )
  except package.Error as error:
    raise config.Error(
      f"mirror wandb: {' '.join(str(error).split())}; set WANDB_MODE=offline, or leave"
      " the mirror out"
    ) from None
  # W&B's own step only grows; a repeated step after a resume has to count as itself.
  run.define_metric("step")
  run.define_metric("*", step_metric="step")
  stack.callback(run.finish)
  return lambda record: run.log({"step": record["step"]} | dict(numbers(record)))


def numbers(record: dict) -> Iterator[tuple[str, float]]:
  """(name, value) of a record's finite numbers, without its step."""
  scores = {f"eval/{k}": v["value"] for k, v in record.get("eval", {}).items()}
  for name, value in (record | scores).items():
    if isinstance(value, (bool, np.bool_)) or name == "step":
      continue
    if isinstance(value, (int, float, np.number)) and math.isfinite(value):
      yield name, float(value)


def _package(name: str, mirror: str):
  try:
    return importlib.import_module(name)
  except ImportError:
    raise config.Error(
      f"mirror {mirror}: the package {name} is not installed;"
      f" pip install {name}, or leave the mirror out"
    ) from None
