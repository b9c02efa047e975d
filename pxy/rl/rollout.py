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


def trained(rollouts: Rollouts, mask_BT=None):
  """Tokens of each response that are trained on, [B]: all of them, or those of a mask.

  mask_BT: bool, of response_BT; False where a tool or an environment wrote the token,
    or where it is not to be learned. None: all True. Raises fields.Error where it is of
    another shape or type.
  """
  if mask_BT is None:
    return rollouts.response_len_B
  of_tokens("mask_BT", mask_BT, rollouts, bool)
  width = rollouts.response_BT.shape[1]
  xp = jnp if isinstance(mask_BT, jax.Array) else np
  there_BT = np.arange(width)[None] < rollouts.response_len_B[:, None]
  return xp.sum(there_BT & mask_BT, axis=1)


def of_tokens(name: str, x_BT, rollouts: Rollouts, kind: type) -> None:
  """Refuses (fields.Error) what is no array [B, T] like the responses, of `kind`: bool,
  or float, as which integers count, too."""
  want = rollouts.response_BT.shape
  fields.need(
    np.shape(x_BT) == want,
    f"{name} has the shape {np.shape(x_BT)}, but there is one for each response token:"
    f" it must be {want}, that of response_BT",
  )
  dtype = getattr(x_BT, "dtype", None)
  kinds = jnp.bool_ if kind is bool else jnp.number
  fields.need(
    dtype is not None and jnp.issubdtype(dtype, kinds),
    f"{name} holds {dtype or type(x_BT).__name__}: it must be an array of"
    f" {kind.__name__}",
  )


def stack(
  prompts: Sequence[np.ndarray],
  ids: Sequence[Sequence[np.ndarray]],
  logps: Sequence[Sequence[np.ndarray]],
) -> Rollouts:
  """Rollouts from ragged numpy: prompts[p], ids[p][r] and logps[p][r] per response.

  logps are in nats. Raises ValueError where groups differ in size, or a response and
  its log-probs in length.
  """
  size = len(ids[0])
  flat_ids = [np.asarray(x, np.int32) for group in ids for x in group]
  flat_logps = [np.asarray(x, np.float32) for group in logps for x in group]
  if any(len(group) != size for group in ids):
    raise ValueError("every prompt needs the same number of responses")
  prompt_BS, prompt_len_B = pad([p for p in prompts for _ in range(size)], np.int32)
  response_BT, response_len_B = pad(flat_ids, np.int32)
  logp_BT, logp_len_B = pad(flat_logps, np.float32)
  if (logp_len_B != response_len_B).any():
    raise ValueError("every response token needs its log-prob")
  return Rollouts(
    prompt_BS, prompt_len_B, response_BT, response_len_B, logp_BT, group_size=size
  )


def pad(rows: Sequence[np.ndarray], dtype) -> tuple[np.ndarray, np.ndarray]:
  """Ragged rows as one zero-padded array [B, longest] and their lengths [B]."""
  length_B = np.array([len(row) for row in rows], np.int32)
  padded_BT = np.zeros((len(rows), max(1, int(length_B.max(initial=0)))), dtype)
  for i, row in enumerate(rows):
    padded_BT[i, : len(row)] = row
  return padded_BT, length_B
