"""What a person sees while a run goes on: a live line; plain lines without a terminal.

    grpo  32/80  reward 0.61  solved/mixed/unsolved 4/26/2  18.2k tok/s  3:41 left

The time left is the mean time of the last steps times the steps to go: phases differ in
speed, so the mean of the whole run would lag behind. All goes to stderr, so that stdout
stays free for results.
"""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich import console as rich_console

from pxy import imports

rich_progress = imports.later("rich.progress")  # of terminals

WINDOW = 10
"""Steps over which the time of a step is averaged."""
EVERY = 10.0
"""Seconds between plain lines within one activity, where there is no terminal."""


class Display:
  """Counts what is being done, and prints lines that stay; a context manager.

  Args:
    file: where to write; stderr if None.
  """

  def __init__(self, *, file=None):
    self._console = rich_console.Console(
      file=sys.stderr if file is None else file, highlight=False
    )
    self._live = self._inner = None
    if self._console.is_terminal:
      self._live = rich_progress.Progress(
        rich_progress.TextColumn("{task.fields[what]}", style="bold", markup=False),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        rich_progress.TextColumn("{task.fields[text]}", markup=False),
        console=self._console,
        transient=True,
      )
    self._spoken = time.perf_counter()

  def __enter__(self):
    if self._live is not None:
      self._live.start()
      self._inner = self._live.add_task("", visible=False, what="", text="")
    return self

  def __exit__(self, *_) -> None:
    if self._live is not None:
      self._live.stop()

  @contextlib.contextmanager
  def count(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A stretch of work; gives the function that takes how much of it is done."""
    try:
      yield lambda done: self._within(what, done, total)
    finally:
      self._hide()

  def say(self, text: str) -> None:
    """A line that stays."""
    self._hide()
    self._console.print(text, markup=False, soft_wrap=True)
    self._spoken = time.perf_counter()

  def show(self, renderable) -> None:
    """Something of rich's that stays, such as a table."""
    self._hide()
    self._console.print(renderable)

  def _within(self, what: str, done: int, total: int) -> None:
    if self._live is not None:
      self._live.update(
        self._inner, visible=done < total, completed=done, total=total, what=what
      )
    elif done < total and time.perf_counter() - self._spoken > EVERY:
      self.say(f"{what}  {done}/{total}")

  def _hide(self) -> None:
    if self._live is not None:
      self._live.update(self._inner, visible=False)


class Progress(Display):
  """Shows a training run.

  Args:
    cfg: the run's config; its steps and the responses of a step are counted.
    start: steps done before.
    pace: seconds between two lines of steps, where there is no terminal.
  """

  def __init__(self, cfg, start: int = 0, *, file=None, pace: float = 0.0):
    super().__init__(file=file)
    self._steps, self._done, self._pace = cfg.steps, start, pace
    self._responses = cfg.data.prompts * cfg.data.responses
    self._task = None
    self._seconds = collections.deque(maxlen=WINDOW)
    self._clock = time.perf_counter()

  def __enter__(self):
    super().__enter__()
    if self._live is not None:
      self._task = self._live.add_task(
        "", total=self._steps, completed=self._done, what="", text=""
      )
    self._clock = time.perf_counter()
    return self

  @contextlib.contextmanager
  def count(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Work between the steps; its time is not part of the next one."""
    start = time.perf_counter()
    try:
      with super().count(what, total) as counter:
        yield counter
    finally:
      self._clock += time.perf_counter() - start

  def answers(self, done: int) -> None:
    """So many responses of the step's batch have been drawn."""
    self._within("draw", done, self._responses)

  def step(self, record: dict) -> None:
    """A training step is done; `record` is what metrics.jsonl gets of it."""
    now = time.perf_counter()
    self._seconds.append(now - self._clock)
    self._clock = now
    self._done = int(record["step"])
    phase, text = str(record.get("phase", "")), line(record)
    left = (self._steps - self._done) * sum(self._seconds) / len(self._seconds)
    text = f"{text}  {clock(left)} left" if left > 0 else text
    if self._live is None:
      if left > 0 and now - self._spoken < self._pace:
        return
      self.say(f"{phase}  {self._done}/{self._steps}  {text}".strip())
    else:
      self._hide()
      self._live.update(self._task, completed=self._done, what=phase, text=text)

  def evaluated(self, record: dict) -> None:
    """An evaluation is done; `record` is what metrics.jsonl gets of it."""
    shown = [
      f"{name} {100 * score['value']:.1f} ± {100 * (score['se'] or 0):.1f} %"
      for name, score in record["eval"].items()
      if name.startswith(("avg@", "pass@")) and score["value"] is not None
    ]
    self.say(f"step {record['step']}: {'  '.join(shown)}")


@contextlib.contextmanager
def counting(what: str, total: int, *, file=None) -> Iterator[Callable[[int], None]]:
  """A display for one stretch of work, as `Display.count`."""
  with Display(file=file) as display, display.count(what, total) as counter:
    yield counter


def line(record: dict) -> str:
  """The numbers of a step that are worth a glance; what is not known is left out."""
  shown = []

  def show(name, template):
    value = record.get(name)
    if value is not None and value == value:
      shown.append(template(value))

  show("critic/score/mean", "reward {:.2f}".format)
  kinds = ("solved", "mixed", "unsolved")
  groups = [record.get(f"groups/{kind}") or 0 for kind in kinds]
  if sum(groups):
    shown.append(f"{'/'.join(kinds)} {'/'.join(f'{n:.0f}' for n in groups)}")
  show("perf/throughput", lambda x: f"{amount(x)} tok/s")
  return "  ".join(shown)


def amount(x: float) -> str:
  """1234567 -> 1.2M."""
  for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if x >= size:
      return f"{x / size:.1f}{unit}"
  return f"{x:.0f}"


def clock(seconds: float) -> str:
  """3725 -> 1:02:05."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
