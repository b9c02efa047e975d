"""What a person sees while a run goes on: one live line, or plain lines without a terminal.

    nsr-prerl  12/60  reward 0.47  solved 47 %  mixed 61 %  18.2k tok/s  3:41 left

The time left is the mean time of the last steps times the steps to go: phases differ in
speed, so the mean of the whole run would lag behind.
"""

import collections
import sys
import time

from rich import console as rich_console
from rich import progress as rich_progress

WINDOW = 10
"""Steps over which the time of a step is averaged."""
EVERY = 10.0
"""Seconds between plain lines within one activity, where there is no terminal."""


class Progress:
  """Shows a run of `steps` steps, `start` of which are done; a context manager.

  Args:
    file: where to write; stderr if None, so that stdout stays free for results.
  """

  def __init__(self, steps: int, *, start: int = 0, file=None):
    self._console = rich_console.Console(
      file=sys.stderr if file is None else file, highlight=False
    )
    self._steps, self._done = steps, start
    self._live = None
    if self._console.is_terminal:
      self._live = rich_progress.Progress(
        rich_progress.TextColumn("{task.fields[phase]}", style="bold"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        rich_progress.TextColumn("{task.fields[text]}"),
        console=self._console,
        transient=True,
      )
    self._task = self._inner = None
    self._clock = time.perf_counter()
    self._seconds = collections.deque(maxlen=WINDOW)
    self._spoken = 0.0

  def __enter__(self) -> "Progress":
    if self._live is not None:
      self._live.start()
      self._task = self._live.add_task(
        "", total=self._steps, completed=self._done, phase="", text=""
      )
      self._inner = self._live.add_task("", visible=False, phase="", text="")
    self.restart()
    return self

  def __exit__(self, *_) -> None:
    if self._live is not None:
      self._live.stop()

  def restart(self) -> None:
    """Starts the clock of the next step; what came before (an evaluation) is not its."""
    self._clock = time.perf_counter()

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
      self._print(f"{phase}  {self._done}/{self._steps}  {text}".strip())
    else:
      self._live.update(self._inner, visible=False)
      self._live.update(self._task, completed=self._done, phase=phase, text=text)

  def doing(self, what: str, done: int, total: int) -> None:
    """Part of a step or an evaluation: `done` of `total` responses, say."""
    if self._live is not None:
      self._live.update(
        self._inner, visible=done < total, completed=done, total=total, phase=what
      )
    elif time.perf_counter() - self._spoken > EVERY:
      self._spoken = time.perf_counter()
      self._print(f"{what}  {done}/{total}")

  def note(self, text: str) -> None:
    """A line that stays."""
    if self._live is not None:
      self._live.update(self._inner, visible=False)
    self._print(text)

  def _print(self, text: str) -> None:
    self._console.print(text, markup=False, soft_wrap=True)
    self._spoken = time.perf_counter()


def line(record: dict) -> str:
  """The numbers of a step that are worth a glance; what is not known is left out."""
  shown = []

  def show(name, template, scale=1.0):
    value = record.get(name)
    if value is not None and value == value:
      shown.append(template.format(scale * value))

  show("critic/score/mean", "reward {:.3f}")
  show("solve_rate", "solved {:.0f} %", 100)
  show("groups/mixed_share", "mixed {:.0f} %", 100)
  show("response_length/mean", "length {:.0f}")
  throughput = record.get("perf/throughput")
  if throughput is not None and throughput == throughput:
    shown.append(f"{amount(throughput)} tok/s")
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
