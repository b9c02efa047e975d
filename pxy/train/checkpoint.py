"""Checkpoints: saved in the background, published by one rename, verified when read.

    FOLDER/.00000020.partial/   being written; never read
    FOLDER/00000020/            complete
      state/                    Orbax: every array, by its name in the state's tree
      meta.json                 step, score, place in the run, type and shape of arrays
      manifest.json             size and SHA-256 of each file

`save` returns when the arrays are on the host; Orbax writes them while training goes
on, a thread of ours adds the manifest and renames. So a folder with a number for
a name is whole whenever the process dies, and what the disk did to it later shows in
the manifest. Only then are older ones removed: all but the newest `keep` and the best.
In a bucket the manifest does what the rename does here (shelf.py).

Arrays are stored under flat names (params.layers.attn.q), with neither mesh nor
classes, so that any mesh restores them and the parameters can be read alone. Orbax is
imported when it is needed: it takes a quarter of a second.
"""

import contextlib
import functools
import json
import logging
import math
import pathlib
import re
import sys
import threading
import traceback
from collections.abc import Callable

import jax
import numpy as np

from pxy import config
from pxy.parallel import process
from pxy.train import shelf as shelf_lib


class Checkpointer:
  """Writes and reads the checkpoints of one run; a context manager.

  Leaving it waits for the save under way.

  Args:
    folder: made when needed.
    keep: how many of the newest are kept.
    best: the score whose highest value marks one more that is kept, by its name with or
      without the number of samples (`avg` is avg@16).
    permitted: as shelf.at has it.

  Raises:
    config.Error: from any method, when the disk does not let it do its work.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    keep: int,
    best: str,
    permitted: Callable[[], object] = lambda: None,
  ):
    if keep < 1:
      raise config.Error(f"save.keep {keep}: must be >= 1")
    # Orbax wants absolute paths.
    self.folder = pathlib.Path(folder).absolute()
    self._shelf = shelf_lib.at(self.folder, permitted)
    self._keep, self._best = keep, best
    self._orbax = None
    self._thread: threading.Thread | None = None
    self._failure: Exception | None = None
    self._saving = 0

  def __enter__(self):
    process.on_main(self._shelf.sweep)
    process.barrier("checkpoints")
    return self

  def __exit__(self, kind, *_):
    try:
      # What ends the run is the news, not that its last save failed then.
      with contextlib.suppress(*[config.Error] if kind else []):
        self.wait()
    finally:
      if self._orbax is not None:
        with contextlib.suppress(Exception):  # of a save: `wait` has raised it
          self._orbax.close()
        self._orbax = None

  def save(self, step: int, state, meta: dict, scores: dict | None = None) -> None:
    """Starts to save; waits for the save before it.

    Args:
      state: tree of arrays; may be donated as soon as this returns.
      meta: JSON values, given back by `restore`.
      scores: {name: {"value": float, ...}} of this state, if it was evaluated.
    """
    self.wait()
    arrays = _flatten(state)
    about = {
      "step": step,
      "score": _score(self._best, scores),
      "meta": meta,
      "arrays": {name: [x.dtype.name, list(x.shape)] for name, x in arrays.items()},
    }
    # `meta` may change after this returns, and what is no JSON should fail here.
    about = json.loads(json.dumps(about))
    self._saving, name = step, _name(step)
    size = sum(x.nbytes for x in arrays.values())
    self._together(lambda: process.main() and self._shelf.make(name, size))
    try:
      ocp = _orbax()
      if self._orbax is None:
        self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
      self._orbax.save(self._shelf.saving(name), args=ocp.args.PyTreeSave(arrays))
    except self._shelf.failures as error:
      failure = self._unsaved(error)
      process.leave(failure)
      raise failure from error
    self._thread = threading.Thread(
      target=self._publish, args=(step, about), name="checkpoint"
    )
    self._thread.start()

  def wait(self) -> None:
    """Waits until what `save` started is published; raises what went wrong."""
    thread = self._thread
    if thread is None:
      return
    thread.join()
    self._thread = None

    def fail():
      failure, self._failure = self._failure, None
      if failure is not None:
        raise failure

    self._together(fail)

  def latest(self) -> int | None:
    """Step of the newest complete checkpoint."""
    self.wait()
    newest = process.agree(max(steps(self.folder), default=-1))
    return None if newest < 0 else newest

  def metas(self) -> dict[int, dict]:
    """The meta of each complete checkpoint, by step; those that cannot be read lack."""
    self.wait()
    self._refresh()
    found = {}
    for step in steps(self.folder):
      with contextlib.suppress(config.Error):
        found[step] = _about(self.folder / _name(step))["meta"]
    return found

  def forget(self, after: int) -> None:
    """Removes the checkpoints of later steps, which a run that went back gives up."""
    self.wait()
    if process.main():
      for step in steps(self.folder):
        if step > after:
          self._shelf.remove(_name(step))
    process.barrier("forgotten")

  def restore(self, step: int | None, abstract):
    """State and meta of a checkpoint.

    Args:
      step: which; None: the newest that is intact. Damaged ones are named on stderr and
        passed over.
      abstract: tree of ShapeDtypeStructs, with shardings where jax arrays are wanted;
        numpy arrays elsewhere.

    Raises:
      config.Error: there is none, `step` is damaged, or it holds another model.
    """
    self.wait()
    self._refresh()
    path = self.folder / _name(process.agree(_pick(self.folder, step)))
    return _read(path, abstract, whole=True), _about(path)["meta"]

  def _refresh(self) -> None:
    if not process.main():
      self._shelf.refresh()

  def _publish(self, step, about):
    """In a thread: waits for Orbax, then completes, renames and prunes."""
    try:
      self._orbax.wait_until_finished()
    except Exception as error:
      # In there the others wait for this process: ten minutes (orbax-checkpoint 0.12).
      process.leave(self._unsaved(error))
      self._failure = error
      return
    if not process.main():
      return
    try:
      self._shelf.publish(_name(step), about)
      for old in self._superseded(step):
        self._shelf.remove(_name(old))
    except Exception as error:
      self._failure = error

  def _superseded(self, step) -> list[int]:
    """Steps to remove once `step` is published.

    Later steps, left by a run that went back, neither count nor go.
    """
    past = [s for s in steps(self.folder) if s <= step]
    scored = [(-math.inf, step)]
    for s in past:
      with contextlib.suppress(config.Error):  # a damaged one is not the best
        score = _about(self.folder / _name(s))["score"]
        scored += [] if score is None else [(score, s)]
    kept = {*past[-self._keep :], max(scored)[1]}
    return [s for s in past if s not in kept]

  def _together(self, act) -> None:
    """Calls `act()` on every process; when it fails on one, an Error on all."""
    failure = None
    try:
      act()
    except Exception as error:
      failure = self._unsaved(error)
      failure.__cause__ = error
    process.together(failure)

  def _unsaved(self, why: Exception) -> config.Error:
    found = steps(self.folder)
    rest = f"the newest complete one is {found[-1]}" if found else "there is no other"
    text = self._shelf.told(why) or str(why)
    text = text.partition("\n")[0].partition(" [tensorstore")[0]
    text = text.replace(f"{self._shelf.name}/", "") or type(why).__name__
    return config.Error(
      f"{self._shelf.name}: step {self._saving} could not be saved ({text}); {rest}"
    )


def steps(folder: pathlib.Path) -> list[int]:
  """Steps of the complete checkpoints in a folder, oldest first."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in folder.iterdir()
    if re.fullmatch(r"[0-9]{8,}", path.name) and path.is_dir() and not path.is_symlink()
  )


def params(folder: pathlib.Path, abstract, step: int | None = None):
  """Only the parameters, of `step` or of the newest intact checkpoint.

  Args and errors are those of Checkpointer.restore.
  """
  folder = pathlib.Path(folder).absolute()
  path = folder / _name(_pick(folder, step))
  return _read(path, {"params": abstract}, whole=False)["params"]


def _pick(folder, step) -> int:
  found, shelf = steps(folder), shelf_lib.at(folder)
  if step is not None:
    if step not in found:
      held = ", ".join(map(str, found)) or "none"
      raise config.Error(
        f"{shelf.name}: no checkpoint of step {step}; there are: {held}"
      )
    if why := shelf.damage(_name(step)):
      raise config.Error(
        f"{shelf.name}/{_name(step)} is damaged ({why}); choose another step of:"
        f" {', '.join(map(str, found))}"
      )
    return step
  if not found:
    raise config.Error(f"{shelf.name}: no checkpoint yet")
  for step in reversed(found):
    why = shelf.damage(_name(step))
    if not why:
      return step
    print(
      f"pxy: {shelf.name}/{_name(step)} is damaged ({why}): skipped", file=sys.stderr
    )
  raise config.Error(
    f"{shelf.name}: every checkpoint is damaged; start again elsewhere"
  )


def _read(path, abstract, *, whole: bool):
  """Arrays of a checkpoint in a tree like `abstract`; whole: it must hold no others."""
  wanted = _flatten(abstract)
  held = _about(path)["arrays"]
  lacks, more = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
  if lacks or (more and whole):
    odd = f"lacks {lacks[0]}" if lacks else f"has {more[0]} besides"
    raise config.Error(f"{path} {odd}: it is of another model or optimizer")
  for name, want in wanted.items():
    is_now, should = held[name], [want.dtype.name, list(want.shape)]
    if is_now != should:
      raise config.Error(
        f"{path}: {name} is {is_now[0]}{is_now[1]}, expected {should[0]}{should[1]}:"
        " it is of another model"
      )
  ocp = _orbax()

  def how(x):
    if getattr(x, "sharding", None) is None:
      return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape)

  args = ocp.args.PyTreeRestore(
    item=wanted,
    restore_args={name: how(x) for name, x in wanted.items()},
    partial_restore=True,
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    state = shelf_lib.at(path.parent).state(path.name)
    arrays = reader.restore(state, args=args)
  structure = jax.tree.structure(abstract)
  return structure.unflatten([arrays[name] for name in wanted])


def _about(path) -> dict:
  file = path / "meta.json"
  try:
    about = json.loads(file.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise config.Error(f"{file}: {error}") from error
  if not isinstance(about, dict) or not {"score", "meta", "arrays"} <= about.keys():
    raise config.Error(f"{file}: not that of a checkpoint")
  if about.get("step") != int(path.name):
    raise config.Error(f"{file}: of step {about.get('step')}; remove the folder")
  return about


def _flatten(tree) -> dict:
  name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
  return {name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(step: int) -> str:
  return f"{step:08d}"


def _score(best: str, scores: dict | None) -> float | None:
  for name, score in (scores or {}).items():
    if best in (name, name.rpartition("@")[0]):
      value = score["value"]
      return value if value is not None and math.isfinite(value) else None
  return None


@functools.cache
def _orbax():
  """Orbax, without its notices: whatever matters is raised, and said in our words."""
  import orbax.checkpoint

  def not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname

  logging.getLogger("absl").addFilter(not_orbax)
  # When one write fails, orbax-checkpoint 0.12 lets go of the other writes: those that
  # fail as well are told by asyncio when they are collected, and those whose event loop
  # is closed by then end in tracebacks from tensorstore's threads. The first is raised.
  logging.getLogger("asyncio").addFilter(lambda record: not _orbaxs(record.exc_info))
  otherwise = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      otherwise(unraisable)

  sys.unraisablehook = hook
  return orbax.checkpoint


def _orbaxs(exc_info) -> bool:
  """Whether an exception, as logging has it, came through Orbax."""
  frames = traceback.walk_tb(exc_info[2]) if exc_info else ()
  return any("orbax" in frame.f_code.co_filename for frame, _ in frames)
