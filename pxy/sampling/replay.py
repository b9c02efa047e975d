"""What a run of the engine would do, from the lengths of its responses alone.

The engine's own schedule decides (schedule.py); in place of the devices stands a
`Shadow`, which knows when each response ends and writes down what it was asked for. So
the dispatches are those of a real run of such lengths, to the last turn
(tests/test_replay.py).
"""

import dataclasses
import types
from collections.abc import Sequence

import numpy as np

from pxy import config
from pxy.sampling import engine as engine_lib


@dataclasses.dataclass(frozen=True)
class Call:
  """One program that was run.

  Attributes:
    kind: `prefill` (rows are prompts), `admit` (lanes), `decode` (slots), `move`,
      `carry` (pages).
    rows: of its arrays.
    width: tokens of each: of the longest prompt, of the cache that is read, or moved;
      1 of pages.
    turns: tokens that a decode drew for each slot; 1 of the others.
    busy: slots that drew a token, summed over the turns.
    held: tokens in the cache of those slots, summed over the turns.
    read: tokens that attention read of all slots, summed over the turns, as
      step.cache_read counts them.
  """

  kind: str
  rows: int
  width: int
  turns: int = 1
  busy: int = 0
  held: int = 0
  read: float = 0.0


class Shadow:
  """Keeps count of what a schedule asks for.

  Args:
    length_PR: tokens of each response, the first and the last included.
    prompt_P: tokens of each prompt.
    read: (tokens that slots hold, positions that are looked at) -> tokens read.
  """

  def __init__(self, length_PR: np.ndarray, prompt_P: np.ndarray, read):
    self.calls: list[Call] = []
    self._read = read
    self._length_PR, self._prompt_P = length_PR, prompt_P

  def empty(self, rows: int, length: int, pool=None):
    """Slots: tokens left to draw, and tokens held, of each."""
    return np.zeros((2, rows), np.int64)

  def read(self, tokens_PT, length_P):
    """Prompts, of which the schedule asks for their width."""
    self.calls.append(Call("prefill", *tokens_PT.shape))
    return types.SimpleNamespace(cache=types.SimpleNamespace(room=tokens_PT.shape[1]))

  def admit(self, slots, ready, prompt_A, slot_A, uid_A, reply_A, pages=None):
    """The first token of each lane is drawn."""
    used_A = slot_A < slots.shape[1]
    self.calls.append(Call("admit", len(slot_A), ready.cache.room))
    slots = slots.copy()
    left_A = self._length_PR[uid_A[used_A], reply_A[used_A]] - 1
    slots[:, slot_A[used_A]] = left_A, self._prompt_P[uid_A[used_A]]
    return slots, (np.zeros(len(slot_A), np.int32), np.zeros(len(slot_A), np.float32))

  def decode(
    self, slots, enough: int, most: int, *, tokens: int, live: int, pages=None
  ):
    """Turns until so many slots are idle, as step.decode does."""
    left_B, held_B = slots.copy()
    if pages is not None:
      left_B[~pages[1]] = 0  # some were put back
    before_B, turns, held, read = left_B.copy(), 0, 0, 0.0
    while turns < most and (left_B == 0).sum() < enough:
      going_B = left_B > 0
      held += int(held_B[going_B].sum())
      read += self._read(np.where(going_B, held_B, 0), live)
      left_B[going_B] -= 1
      held_B[going_B] += 1
      turns += 1
    new_B = before_B - left_B
    rows = len(left_B)
    self.calls.append(Call("decode", rows, live, turns, int(new_B.sum()), held, read))
    out = np.zeros((tokens, rows), np.int32), np.zeros((tokens, rows), np.float32)
    return np.stack([left_B, held_B]), (*out, new_B, left_B > 0, np.int32(turns))

  def carry(self, slots, giver, taker, from_A, to_A):
    """Pages of a pool go from one part to another."""
    self.calls.append(Call("carry", len(from_A), 1))
    return slots

  def move(self, slots, row_B, length: int):
    """Other rows, or more room."""
    self.calls.append(Call("move", len(row_B), length))
    return slots[:, np.asarray(row_B)]


def calls(
  engine: engine_lib.Engine, prompt_P: Sequence[int], length_PR: np.ndarray
) -> list[Call]:
  """What `engine.run` would dispatch for responses of these lengths.

  Args:
    prompt_P: tokens of each prompt.
    length_PR: tokens of each response.

  Raises:
    config.Error: a length beyond the engine's limits.
  """
  length_PR, prompt_P = np.asarray(length_PR), np.asarray(prompt_P)
  limit, longest = engine.sampling.max_new_tokens, engine.max_prompt_tokens
  for what, value, most, field in (
    ("responses", length_PR, limit, "sampling.max_new_tokens"),
    ("prompts", prompt_P, longest, "data.max_prompt_tokens"),
  ):
    if not ((value >= 1) & (value <= most)).all():
      raise config.Error(
        f"lengths: {what} have {value.min()} to {value.max()} tokens, expected 1 to"
        f" {most}: "
        + (f"set {field} to {value.max()} or more, or " if value.max() > most else "")
        + "name other lengths"
      )
  engine.stats = engine_lib.Stats()
  shadow = Shadow(length_PR, prompt_P, engine.read)
  prompts = [np.zeros(n, np.int32) for n in prompt_P]
  schedule = engine.schedule(
    shadow, prompts, length_PR.shape[1], range(len(prompts)), 0
  )
  while schedule.waiting or schedule.busy:
    for _ in schedule.retire(schedule.dispatch()):
      pass
  return shadow.calls
