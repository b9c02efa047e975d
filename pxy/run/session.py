"""A session keeps a run alive, and knows nothing of what is trained.

    with session_lib.opened(cfg, out, resume) as session:
      session.begin(policy, abstract, start)
      for step, state in session.steps(evaluate):
        ...                                   a step of any kind: state, Done
        session.record(state, done)
      session.finish()

Its folder and the lock on it, the end that a signal asks for, the rescue of a state
when that takes too long, the watchdog, checkpoints, records and mirrors, the bar,
evaluations, bad steps and the way back from them are here, once, for reinforcement
learning (loop.py) and for pre-training (pretrain.py). What it knows of a run is its
Place, which goes with the weights into each checkpoint.
"""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax

from pxy import config, files
from pxy.parallel import process
from pxy.run import clock as clock_lib
from pxy.run import folder as folder_lib
from pxy.run import place as place_lib
from pxy.safety import guard, interrupt, rescue, watchdog
from pxy.show import log as log_lib
from pxy.show import mirror
from pxy.show import progress as progress_lib
from pxy.train import checkpoint as checkpoint_lib


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a run is: what a checkpoint says beside the weights."""

  step: int = 0
  """Steps made."""
  updates: int = 0
  """Updates made: the version of the weights."""
  tokens: int = 0
  """Drawn, or trained on where nothing is drawn."""
  seconds: float = 0.0
  """Of all attempts, up to the checkpoint."""
  evaluated: int | None = None
  """The step that was last evaluated."""
  before: dict | None = None
  """Scores of the start, {name: {"value", "se"}}."""
  scores: dict | None = None
  """Scores of the last evaluation."""
  bad: int = 0
  """Bad steps in a row that it ends with."""
  entropy: dict | None = None
  """What guard.entropy knows of the run."""
  lengths: dict | None = None
  """What samplers know of lengths, by sampler (engine.Engine.lengths)."""
  seed: int = 0
  digest: str = ""
  """Of the config (config.digest)."""
  records: dict | None = None
  """Log.mark of the records up to here."""


@dataclasses.dataclass(frozen=True)
class Done:
  """A step: its record, and how it moves the run on."""

  line: dict
  """Numbers by name, and `phase`; what metrics.jsonl gets."""
  rows: Sequence[dict] = ()
  """Its responses, for the completions table."""
  updates: int = 1
  """Updates that were made."""
  tokens: int = 0
  bad: bool = False
  """Something was not finite, and an update was left out."""
  packed: Sequence = ()
  """What a bad step was made of (pack.Packed), for the folder bad/."""


@dataclasses.dataclass(frozen=True)
class Examined:
  """An evaluation: its scores as JSON holds them, and its record."""

  scores: dict[str, dict]
  phase: str
  line: dict = dataclasses.field(default_factory=dict)
  """More numbers by name."""
  rows: Sequence[dict] = ()
  tokens: int = 0


Evaluate = Callable[[object, Place], Examined]
"""Takes the state and its place; may raise interrupt.Stopped."""


@contextlib.contextmanager
def opened(
  cfg: config.Train | config.Pretrain,
  out: str | pathlib.Path,
  resume: str,
  accept: Sequence[str] = (),
) -> Iterator["Session"]:
  """The session of a run in the folder `out`; args as in loop.train.

  Leaving it with interrupt.Stopped saves and is no error; leaving it with config.Error
  saves the good steps since the last checkpoint, and raises. After any other exception
  nothing is saved, and the last checkpoint stands.
  """
  with place_lib.opened(out) as place:
    folder = folder_lib.RunFolder(place, cfg, resume, accept)
    with contextlib.ExitStack() as stack:
      session = Session(cfg, folder, stack)
      try:
        yield session
      except interrupt.Stopped:
        session.stopped()
      except config.Error:
        session.failed()
        raise
    if session.summary is not None and process.main():
      session.report(folder.path)


class Session:
  """See the module; made by `opened`.

  Attributes:
    folder: RunFolder. stop: tells whether an end was asked for. watch: Watchdog, and
      clock: Clock, around what takes time. bar: Progress, from `begin` on.
    state: of what is trained; place: where the run is; both from `begin` on.
    returns: how often it went back; each time the order of the data is another.
    lengths: those of the samplers, by name, which a checkpoint keeps and gives back.
    summary: what summary.json holds, once it is finished.
  """

  def __init__(self, cfg, folder: folder_lib.RunFolder, stack: contextlib.ExitStack):
    self.cfg, self.folder, self._stack = cfg, folder, stack
    self.summary: dict | None = None
    self.report: Callable[[pathlib.Path], object] = lambda folder: None  # of `finish`
    self.state, self.place, self._saved, self._line = None, Place(), 0, {}
    self.lengths: dict[str, dict[int, float]] = {}
    self._since = time.time()
    self.stop = stack.enter_context(interrupt.listen(cfg.save.grace))
    self.stop.agreed = process.some
    stack.enter_context(folder)
    self._rescue = rescue.Rescue(
      self._newest,
      lambda state, place: self._write(state, place, place.records),
      folder.ended,
    )
    stack.enter_context(self.stop.rescued(self._rescue))
    self.watch = stack.enter_context(watchdog.Watchdog(folder.path, cfg.waits))
    self.clock = stack.enter_context(clock_lib.Clock())
    self.returns = process.agree(len(folder.returns()))

  def begin(
    self,
    policy,
    abstract,
    start: Callable[[], object],
    used: Callable[[], dict[str, dict]] = dict,
    *,
    pace: float = 0.0,
  ) -> None:
    """Opens the records, and takes the state of the newest checkpoint, or of the start.

    Args:
      policy: its `arch` and `tokenizer` are kept in the folder.
      abstract: tree of ShapeDtypeStructs of the state.
      start: makes the state of a new run.
      used: tells what the run is made of (used.py); the main process asks, and refuses
        what differs from before.
      pace: seconds between two lines of steps where there is no terminal.
    """
    cfg, stack = self.cfg, self._stack
    process.on_main(lambda: self.folder.made_of(used()))
    self.folder.start(policy.arch, policy.tokenizer)
    self._checkpoints = stack.enter_context(
      checkpoint_lib.Checkpointer(
        self.folder.checkpoints,
        cfg.save.keep,
        cfg.save.best,
        self.folder.place.permitted,
      )
    )
    self._abstract, self._start = abstract, start
    self._restore()
    self._log = process.on_main(self._records)
    shown = None if process.main() else stack.enter_context(open(os.devnull, "w"))
    self.bar = stack.enter_context(
      progress_lib.Progress(cfg, self.place.step, file=shown, pace=pace)
    )
    stack.enter_context(self.folder.attempt(lambda: self.place.step))
    process.on_main(self.folder.place.share)

  def steps(
    self, evaluate: Evaluate, *, before: bool = True
  ) -> Iterator[tuple[int, object]]:
    """(step, state) of each step that is left; the body answers with `record`, once.

    Evaluations and checkpoints come between, when they are due; `before`: the start is
    evaluated, too. `step` counts the steps made, so the first is 0.

    Raises:
      interrupt.Stopped: an end was asked for.
      config.Error: the numbers went wrong, or the disk.
    """
    cfg = self.cfg
    while True:
      step = self.place.step
      due = step == cfg.steps or (cfg.eval_every and step % cfg.eval_every == 0)
      if (due if step else before) and self.place.evaluated != step:
        self._evaluate(evaluate)
      self._keep()
      due = cfg.save_every and step % cfg.save_every == 0 and not self.place.bad
      if step != self._saved and (due or step == cfg.steps):
        self._save()
      if step >= cfg.steps:
        return
      process.on_main(self.folder.present)
      self.clock.start()
      yield step, self.state
      try:
        guard.refuse_drift(cfg, self._line)
      except config.Error:
        self.state = None  # its gradient is not that of what was drawn
        raise
      self._keep()
      if self.place.bad >= cfg.guard.bad_steps:
        guard.refuse_bad(cfg.guard, self.place, self.returns)
        self._go_back()
      if self.stop():
        raise interrupt.Stopped

  def record(self, state, done: Done) -> None:
    """A step is whole: its state is the run's, its numbers are written."""
    place, step = self.place, self.place.step + 1
    line = {"step": step, **done.line}
    self.state = None  # until its record is written, there is nothing whole to save
    process.on_main(lambda: self._log.write(line, done.rows))
    bad = place.bad + 1 if done.bad else 0 if done.updates else place.bad
    self.state, self._line = state, line
    self.place = place = dataclasses.replace(
      place,
      step=step,
      updates=place.updates + done.updates,
      tokens=place.tokens + done.tokens,
      bad=bad,
      lengths=self._known(),
    )
    self.bar.step(line)
    if done.bad:
      where = process.on_main(
        lambda: guard.write_bad(self.folder.path, done.packed, line)
      )
      self.bar.say(f"warning: step {step} is not finite: no update; see {where}")
    if "rollout/entropy" in line:
      known, said = guard.entropy(place.entropy, line["rollout/entropy"])
      self.place = dataclasses.replace(place, entropy=known)
      if said:
        self.bar.say(f"step {step}: {said}")

  def finish(self, report: Callable[[pathlib.Path], object] | None = None) -> None:
    """The run is over, and whole: writes summary.json.

    report: called with the folder on the main process, when all records are closed.
    """
    self._checkpoints.wait()
    self.summary = {
      "before": self.place.before,
      "after": self.place.scores,
      "steps": self.place.step,
      "seconds": self.place.seconds,
      "tokens": self.place.tokens,
      "versions": folder_lib.versions(),
    }

    def write():
      self.folder.present()
      files.write_json(self.folder.path / "summary.json", self.summary)

    process.on_main(write)
    self.report = report or self.report

  def stopped(self) -> None:
    """The end that a signal asked for: saves, and says how to go on."""
    if self.place.step != self._saved:
      self._save()
    self.bar.say(f"stopped at step {self.place.step}; continue with --resume auto")

  def failed(self) -> None:
    """An error ends the run: saves the good steps since the last checkpoint."""
    if self.state is None or self.place.step == self._saved or self.place.bad:
      return
    with contextlib.suppress(config.Error):  # what ends the run is the news
      process.on_main(self.folder.present)
      self._save()

  def _evaluate(self, evaluate: Evaluate) -> None:
    """Scores the state; writes and keeps the result."""
    start, step = time.perf_counter(), self.place.step
    found = evaluate(self.state, self.place)
    line = {
      "step": step,
      "phase": found.phase,
      "eval": found.scores,
      **found.line,
      "timing_s/testing": time.perf_counter() - start,
    }
    process.on_main(lambda: self._log.write(line, found.rows))
    self.place = dataclasses.replace(
      self.place,
      evaluated=step,
      scores=found.scores,
      before=self.place.before if step else found.scores,
      tokens=self.place.tokens + found.tokens,
      lengths=self._known(),
    )
    self.bar.evaluated(line)

  def _save(self) -> None:
    now = time.time()
    seconds, self._since = self.place.seconds + now - self._since, now
    self.place = dataclasses.replace(self.place, seconds=seconds)
    # The clock's part is in the record of the next step.
    with self.stop.whole, self.watch("save"), self.clock("save_checkpoint"):
      self._write(self.state, self.place)
    self._saved = self.place.step

  def _keep(self) -> None:
    """What the rescue may save, with the records up to here: when it does, the main
    thread may have written more."""
    mark = self._log.mark() if process.main() else None
    self._rescue.keep(self.state, dataclasses.replace(self.place, records=mark))

  def _write(self, state, place: Place, mark: dict | None = None) -> None:
    """Records to where they stay first, then the checkpoint that relies on them.

    mark: of these records, if they are not all that there are.
    """

    def records():
      self._log.flush()
      self.folder.place.share()
      return mark or self._log.mark()

    about = dataclasses.asdict(place) | {"records": process.on_main(records)}
    best = place.scores if place.evaluated == place.step else None
    self._checkpoints.save(place.step, state, about, best)

  def _known(self) -> dict[str, dict[int, float]]:
    """The lengths as they are now."""
    return {name: dict(known) for name, known in self.lengths.items()}

  def _newest(self) -> int:
    return self._checkpoints.latest() or 0

  def _restore(self) -> None:
    """State and place of the newest checkpoint, or of the start."""
    if self._checkpoints.latest() is None:
      cfg = self.cfg
      self.state = self._start()
      self.place = Place(seed=cfg.seed, digest=config.digest(cfg))
    else:
      state, about = self._checkpoints.restore(None, self._abstract)
      unknown = about.keys() - {field.name for field in dataclasses.fields(Place)}
      if unknown:
        raise config.Error(
          f"{self.folder.checkpoints}: {', '.join(sorted(unknown))} in meta.json: of"
          " another version of pxy; continue the run with that"
        )
      self.state, self.place = state, Place(**about)
    for name, known in self.lengths.items():
      kept = (self.place.lengths or {}).get(name, {})
      known.clear()
      known.update({int(uid): tokens for uid, tokens in kept.items()})
    self._saved = self.place.step

  def _records(self) -> log_lib.Log:
    """The records of the run, up to the step that it goes on from."""
    place, stack = self.place, self._stack
    kept = self.folder.keep(place.step)
    also = mirror.open_all(self.cfg.mirror, self.folder.path, stack, resume=kept)
    evaluated = place.evaluated == place.step
    log = stack.enter_context(
      log_lib.Log(self.folder.path, resume=kept, evaluated=evaluated, also=also)
    )
    self.folder.whole(place.records, log.mark())
    return log

  def _go_back(self) -> None:
    """To the last good checkpoint; from there on the data have another order.

    What was made after it goes first: a process that dies in between comes back to the
    same checkpoint.
    """
    bad, metas = self.place, self._checkpoints.metas()
    good = (step for step in metas if not metas[step].get("bad"))
    self._checkpoints.forget(max(good, default=0))
    for array in jax.tree.leaves(self.state):  # its memory is needed
      array.delete()
    self._restore()
    process.on_main(lambda: self.folder.returned(bad.step, self.place.step))
    self.returns = process.agree(len(self.folder.returns()))
    process.on_main(lambda: self._log.rewind(self.place.step))
    self.bar.say(
      f"warning: {bad.bad} steps in a row were not finite: back to step"
      f" {self.place.step}, and on with another data order"
    )
