"""The folder of a run, and the refusal of what does not belong in it.

config.json          what the run is; another one is refused (same.py)
used.json            what it is made of, by digest, and what was accepted on the way
model/               architecture and tokenizer
metrics.jsonl        the record, with completions.parquet (show/log.py)
checkpoints/         train/checkpoint.py
attempts.jsonl       each process that worked on it: a line when it begins, one when
                     it ends
returns.json         each return to an earlier checkpoint, where there was one
bad/, stacks.txt     of steps that were not finite (guard.py), of a hang (watchdog.py)
summary.json         and the reports, at the end
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from pxy import __version__, config, fields, files
from pxy.parallel import process
from pxy.run import place as place_lib
from pxy.run import same
from pxy.train import checkpoint, manifest


class RunFolder:
  """Decides between a new run and a continued one, and refuses a mix-up.

  A context manager: while it is open, no other process works on the folder. Of several
  processes of a run the main one looks, decides, locks and writes.

  Attributes:
    place: of the run (place.py). path: to work in; name: what messages call it.

  Raises:
    config.Error: resume is `never` and the folder holds a run, or `must` and it holds
      no checkpoint, or it holds another run and the difference is not accepted, or it
      cannot be written, or another process works on it.
  """

  def __init__(
    self,
    at: place_lib.Folder | pathlib.Path,
    cfg,
    resume: str,
    accept: Sequence[str] = (),
  ):
    self.place = at if isinstance(at, place_lib.Folder) else place_lib.Folder(at)
    self.path, self.name = self.place.path, self.place.name
    if self.path == pathlib.Path():
      raise config.Error("--out: name a folder, such as runs/first")
    self.checkpoints = self.path / "checkpoints"
    self._cfg, self._saved = cfg, 0
    self._same = same.Same(cfg, f"--out {self.name}", accept)
    self._used: dict = {}
    self._held = bool(process.agree(process.main() and self._inspect(resume)))

  def _inspect(self, resume: str) -> bool:
    """Whether the folder holds a run, and one that may go on."""
    cfg, file = self._cfg, self.path / "config.json"
    if self.path.exists() and not self.path.is_dir():
      raise config.Error(f"--out {self.name}: a file is in the way; name a folder")
    if self.checkpoints.exists() and not self.checkpoints.is_dir():
      raise config.Error(f"{self.checkpoints}: a file is in the way; remove it")
    files.writable(file, f"--out {self.name}")
    saved = checkpoint.steps(self.checkpoints)
    held = file.is_file()
    if saved and not held:
      raise config.Error(
        f"--out {self.name} holds checkpoints, but no config.json that tells of what"
        " run: give another folder, or bring config.json back"
      )
    if held and resume == "never":
      raise config.Error(
        f"--out {self.name} holds a run: give another folder, remove it, or continue it"
        " with --resume auto"
      )
    if not saved and resume == "must":
      raise config.Error(
        f"--out {self.name}: no run to resume, for there is no checkpoint; start"
        " with --resume auto"
      )
    if held:
      self._same.of_config(read_json(file))
    if saved and saved[-1] > cfg.steps and not _empty(self.checkpoints, saved[-1]):
      raise config.Error(
        f"--steps {cfg.steps}: the run in {self.name} is at step {saved[-1]} already;"
        " give as many or more, or another --out"
      )
    self._saved = saved[-1] if saved else 0
    return held

  def __enter__(self) -> "RunFolder":
    with contextlib.ExitStack() as stack:
      if process.main():
        with self._refused():
          self.path.mkdir(parents=True, exist_ok=True)
          self._lock = os.open(self.path, os.O_RDONLY)
        stack.callback(os.close, self._lock)
        self._take()
      process.barrier("folder")
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_) -> None:
    self._stack.close()

  def _take(self) -> None:
    """Locks the folder; the lock goes with the process, however it ends."""
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise config.Error(
        f"--out {self.name}: another process works on this run; wait for its end, or"
        " give another folder"
      ) from None
    except OSError:  # a file system without locks
      pass

  def present(self) -> None:
    """Refuses to go on when the folder was moved or removed under the run, or is
    another's."""
    self.place.check()
    try:
      there = os.path.samestat(os.stat(self.path), os.fstat(self._lock))
    except OSError:
      there = False
    if not there:
      raise config.Error(
        f"--out {self.name}: the folder was moved or removed while the run went on;"
        " move it back, and continue with --resume auto"
      )

  def whole(self, marks: dict | None, found: dict[str, int]) -> None:
    """Refuses a run whose records are not those that its checkpoint was saved with.

    Args:
      marks: Log.mark when the checkpoint was saved; None in those of a new run.
      found: Log.mark now, after the records of later steps were dropped.
    """
    self._same.of_records(marks, found)
    self._write_used()  # with what was accepted

  def made_of(self, used: dict[str, dict]) -> None:
    """Refuses a run that would go on with other things than it was made of so far, and
    writes used.json; before its first checkpoint nothing was made.

    used: by name; as run/used.py has it.
    """
    used, file = json.loads(json.dumps(used)), self.path / "used.json"
    accepted = []
    if self._saved and file.is_file():
      held = read_json(file)
      if not _is_used(held):
        raise config.Error(f"{file}: not what a run writes; bring it back or remove it")
      self._same.of_used(held["used"], used)
      accepted = held["accepted"]
    elif self._saved and used:
      print(
        f"pxy: --out {self.path}: no used.json tells what the run was made of up to"
        f" step {self._saved}; {', '.join(used)} are taken as they are now",
        file=sys.stderr,
      )
    self._used = {"versions": versions(), "used": used, "accepted": accepted}
    self._write_used()

  def _write_used(self) -> None:
    notes = [{"step": self._saved, **note} for note in self._same.noted]
    whole = self._used | {"accepted": [*self._used["accepted"], *notes]}
    with self._refused():
      files.write_json(self.path / "used.json", whole)

  def keep(self, step: int) -> int | None:
    """The step up to which Log keeps records, its `resume`: `step` in a run that goes
    on, None in a new one."""
    return step if self._held else None

  def returns(self) -> list[dict]:
    """Each return to an earlier checkpoint, as {"from": step, "to": step}."""
    file = self.path / "returns.json"
    held = read_json(file) if file.is_file() else []
    if not isinstance(held, list):
      raise config.Error(f"{file}: no list of returns; bring it back or remove it")
    return held

  def returned(self, step: int, to: int) -> None:
    """Notes a return."""
    more = [*self.returns(), {"from": step, "to": to}]
    files.write_json(self.path / "returns.json", more)

  @contextlib.contextmanager
  def attempt(self, at: Callable[[], int]) -> Iterator[None]:
    """Notes that the run goes on from step `at()`, and how and where that ends."""
    with self._refused():
      self._note({"begin": at(), "versions": versions()})
    how = "stopped"
    try:
      yield
      how = "finished" if at() >= self._cfg.steps else how
    except BaseException as error:
      how = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
      raise
    finally:
      self.ended(at(), how)

  def ended(self, step: int, how: str = "stopped") -> None:
    """Notes the end of an attempt; where the disk does not take the note, it lacks."""
    with contextlib.suppress(OSError):
      self._note({"end": step, "how": how})

  def _note(self, line: dict) -> None:
    if not process.main():
      return
    with open(self.path / "attempts.jsonl", "a", encoding="utf-8") as file:
      file.write(json.dumps({"time": time.time()} | line) + "\n")

  def start(self, arch, tokenizer) -> None:
    """Writes what names the run: its config, architecture and tokenizer."""
    if not process.main():
      return
    from pxy.weights import hf

    with self._refused():
      files.write_json(self.path / "config.json", fields.to_dict(self._cfg))
      hf.save_arch(self.path / "model", arch, tokenizer)
      tokenizer.save(self.path / "model")

  @contextlib.contextmanager
  def _refused(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise config.Error(
        f"--out {self.name}: {error.strerror or error}; choose a folder that can be"
        " written"
      ) from error


def read_json(path: pathlib.Path):
  """JSON of a file; config.Error names it when it is broken."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise config.Error(f"{path}: {error}") from error


def _is_used(value) -> bool:
  """Whether JSON is what used.json holds."""
  return (
    isinstance(value, dict)
    and isinstance(value.get("used"), dict)
    and isinstance(value.get("accepted"), list)
  )


def _empty(checkpoints: pathlib.Path, step: int) -> bool:
  """Whether the folder of a checkpoint holds none."""
  return not (checkpoints / f"{step:08d}" / manifest.NAME).is_file()


def versions() -> dict[str, str]:
  """Versions of what a run's numbers depend on."""
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  found = {name: metadata.version(name) for name in names}
  return {"pxy": __version__, "python": platform.python_version(), **found}
