"""Rollouts: what was sampled, as arrays. Token in, token out.

Row b of `Rollouts` is response b % R to prompt b // R: a group is a stretch of rows,
never a hash. Lengths are recorded when sampling ends; no mask is ever derived from
token values, since a model may pad with its stop token, and the stop token counts as
part of y.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from pxy import fields
from pxy.rl import check
from pxy.rl.arrays import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollouts:
  """P * R responses in group order, padded to common lengths with anything.

  Made by hand, they are as good as `check.batch(rollouts, vocab=...)` says.

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
    """P, the prompts that were answered; fields.Error where groups are not whole."""
    rows, size = self.prompt_len_B.shape[0], self.group_size
    fields.need(
      isinstance(size, int) and size >= 1 and rows % size == 0,
      f"group_size {size} does not divide the {rows} responses: cut rollouts between"
      " groups, with rollouts.take, or give group_size=1",
    )
    return rows // size

  def take(self, groups: slice) -> "Rollouts":
    """The rollouts of a range of groups (for several updates per batch)."""
    r = self.group_size
    start, stop, _ = groups.indices(self.groups)
    return jax.tree.map(lambda x: x[start * r : stop * r], self)


def trained(rollouts: Rollouts, mask_BT: Array | None = None) -> Array:
  """Tokens of each response that are trained on, [B]: all of them, or those of a mask.

  mask_BT: bool, of response_BT; False where a tool or an environment wrote the token,
    or where it is not to be learned. None: all True. Raises fields.Error where it is of
    another shape or type.
  """
  if mask_BT is None:
    return rollouts.response_len_B
  check.shapes(rollouts, mask_BT=mask_BT)
  width = rollouts.response_BT.shape[1]
  xp = jnp if isinstance(mask_BT, jax.Array) else np
  there_BT = np.arange(width)[None] < rollouts.response_len_B[:, None]
  return xp.sum(there_BT & mask_BT, axis=1)


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

  Raises fields.Error where they are not in this order: a prompt for each group, groups
  of one size, ids 1-D integers, a log-prob for each; or one is longer than the width.
  """
  prompt_width, response_width = width or (None, None)
  found = len(prompts), len(ids), len(logps)
  fields.need(
    len(set(found)) == 1 and found[0],
    f"prompts, ids and logps have lengths {found}, where one length P >= 1 is wanted:"
    " prompts[p], ids[p][r], logps[p][r]",
  )
  size = len(ids[0])
  for name, nested in (("ids", ids), ("logps", logps)):
    sizes = sorted({len(group) for group in nested})
    fields.need(
      sizes == [size] and size,
      f"{name}[p] have {sizes} responses, where every prompt needs the same number, one"
      f" at least: {name}[p][r]",
    )
  flat_prompts = [_ids(f"prompts[{p}]", x) for p, x in enumerate(prompts)]
  flat_ids = [
    _ids(f"ids[{p}][{r}]", x) for p in range(len(ids)) for r, x in enumerate(ids[p])
  ]
  flat_logps = [np.asarray(x, np.float32) for group in logps for x in group]
  empty = [p for p, x in enumerate(flat_prompts) if not x.size]
  fields.need(
    not empty,
    f"prompts[{empty and empty[0]}] has shape (0,), where (S,) with S >= 1 is wanted:"
    " a prompt needs one token at least, a start token",
  )
  for i, (x, y) in enumerate(zip(flat_ids, flat_logps, strict=True)):
    fields.need(
      x.shape == y.shape,
      f"logps[{i // size}][{i % size}] has shape {y.shape}, where {x.shape} is wanted:"
      " every response token needs its log-prob",
    )
  prompt_BS, prompt_len_B = pad(
    [p for p in flat_prompts for _ in range(size)], np.int32, prompt_width, "prompt"
  )
  response_BT, response_len_B = pad(flat_ids, np.int32, response_width, "response")
  logp_BT, _ = pad(flat_logps, np.float32, response_width, "log-probs")
  return Rollouts(
    prompt_BS, prompt_len_B, response_BT, response_len_B, logp_BT, group_size=size
  )


def _ids(name, x) -> np.ndarray:
  """Ids of one sequence, 1-D; an empty list has no type yet."""
  try:
    x = np.asarray(x)
  except ValueError:  # of several lengths
    x = np.asarray(x, object)
  fields.need(
    x.ndim == 1 and x.dtype != object,
    f"{name} has shape {x.shape}, where one sequence of ids is wanted:"
    f" {'a prompt for each group, prompts[p]' if name[0] == 'p' else 'ids[p][r]'}",
  )
  fields.need(
    not x.size or np.issubdtype(x.dtype, np.integer),
    f"{name} has numbers of type {x.dtype}, where token ids are wanted: integers",
  )
  fields.need(
    not x.size or (x.min() >= 0 and x.max() < 2**31),
    f"{name} holds {x.min(initial=0)} to {x.max(initial=0)}, where token ids are"
    " wanted: 0 to 2147483647",
  )
  return x.astype(np.int32)


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
