"""Rollouts: what was sampled, as arrays. Token in, token out.

Row b of `Rollouts` is response b % R to prompt b // R: a group is a stretch of rows,
never a hash. Lengths are recorded when sampling ends; no mask is ever derived from
token values, since a model may pad with its stop token, and the stop token counts as
part of y.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import numpy.typing as npt

from pxy import fields


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollouts:
  """P * R responses in group order, padded to common lengths with anything.

  Attributes:
    prompt_BS: prompt ids, from column 0.
    prompt_len_B: their lengths, at least 1.
    response_BT: response ids including the sampled stop token, from column 0.
    response_len_B: their lengths; 0 is allowed and never contributes.
    logp_BT: log-probs of response_BT under the distribution they were sampled from.
    group_size: R, static.
  """

  prompt_BS: np.ndarray | jax.Array
  prompt_len_B: np.ndarray | jax.Array
  response_BT: np.ndarray | jax.Array
  response_len_B: np.ndarray | jax.Array
  logp_BT: np.ndarray | jax.Array
  group_size: int = dataclasses.field(metadata={"static": True}, default=1)

  @property
  def groups(self) -> int:
    """P, the prompts that were answered."""
    return self.prompt_len_B.shape[0] // self.group_size

  def take(self, groups: slice) -> "Rollouts":
    """The rollouts of a range of groups (for several updates per batch)."""
    r = self.group_size
    start, stop, _ = groups.indices(self.groups)
    return jax.tree.map(lambda x: x[start * r : stop * r], self)


def stack(
  prompts: Sequence[np.ndarray],
  ids: Sequence[Sequence[np.ndarray]],
  logps: Sequence[Sequence[np.ndarray]],
  *,
  width: tuple[int, int] | None = None,
) -> Rollouts:
  """Rollouts from ragged numpy: prompts[p], ids[p][r] and logps[p][r] per response.

  Args:
    logps: in nats.
    width: columns for prompts and for responses. Given, all batches have one shape, and
      what is compiled for one serves the others; None: the longest of each.

  Raises ValueError where groups differ in size, a response and its log-probs in length,
  or one is longer than the width.
  """
  prompt_width, response_width = width or (None, None)
  size = len(ids[0])
  flat_ids = [np.asarray(x, np.int32) for group in ids for x in group]
  flat_logps = [np.asarray(x, np.float32) for group in logps for x in group]
  if any(len(group) != size for group in ids):
    raise ValueError("every prompt needs the same number of responses")
  prompt_BS, prompt_len_B = pad(
    [p for p in prompts for _ in range(size)], np.int32, prompt_width, "prompt"
  )
  response_BT, response_len_B = pad(flat_ids, np.int32, response_width, "response")
  logp_BT, logp_len_B = pad(flat_logps, np.float32, response_width, "log-probs")
  if (logp_len_B != response_len_B).any():
    raise ValueError("every response token needs its log-prob")
  return Rollouts(
    prompt_BS, prompt_len_B, response_BT, response_len_B, logp_BT, group_size=size
  )


def pad(
  rows: Sequence[np.ndarray],
  dtype: npt.DTypeLike,
  width: int | None = None,
  what: str = "row",
) -> tuple[np.ndarray, np.ndarray]:
  """Ragged rows as one zero-padded array [B, width] and their lengths [B].

  width: None is that of the longest, at least 1. Raises fields.Error where a row is
  longer, and calls it `what`.
  """
  length_B = np.array([len(row) for row in rows], np.int32)
  longest = int(length_B.max(initial=0))
  width = max(1, longest) if width is None else width
  fields.need(
    longest <= width,
    f"{what} {int(length_B.argmax()) if rows else 0} has {longest} tokens, beyond the"
    f" width of {width}: raise it, or cut the {what}",
  )
  padded_BT = np.zeros((len(rows), width), dtype)
  for i, row in enumerate(rows):
    padded_BT[i, : len(row)] = row
  return padded_BT, length_B
