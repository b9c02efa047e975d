"""Sequences -> rows of tokens that a train step sees.

A sequence is a context followed by a response; the last response token is a target
only, never an input, so a sequence takes len(context) + len(response) - 1 places.
`rows` puts one response in each row (pure, jittable); `bins` packs many into each row,
first fit decreasing, on the host. Segment ids keep sequences apart in attention,
positions start at 0 in each, and loss and gradient do not depend on the packing.

Where attention can (attention.sharer), responses of a row share what is before them,
their context but for its last token, which stands there once:

    [x1 .. xn-1] [xn y1 .. ] [xn y'1 .. ]      a segment each; prefix_BT of the last two
                                               is the id of the first

They see it as if it were their own, and go on from its positions; its gradient is the
sum of what each would have given. So an update reads a group's prompt once, as the
sampler does.

Everything about a token's part in the loss is in two numbers: its advantage (its
response's, or its own), and its weight, which holds the reduction, the term's
coefficient and the division by the global number of tokens or sequences. So a loss is a
sum, whatever the rows, micro-batches and devices over which it is taken.
"""

import collections
import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pxy.rl import arrays, check

Array = arrays.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
  """Rows of tokens [B, T]; `bins` adds a leading axis of micro-batches, M.

  Attributes:
    tokens_BT, positions_BT: inputs; positions count from 0 in each sequence.
    segments_BT: 1, 2, ... for the sequences of a row and what they share, 0 for
      padding.
    prefix_BT: id of the segment that stands before this token's, and is seen as well, 0
      where none is; None: every sequence is whole.
    targets_BT: the token that follows, 0 where none does.
    mask_BT: true where the target is a response token that is part of the loss.
    term_BT: index of the loss term that the token belongs to.
    weight_BT: reduction weight * coefficient / global normaliser; 0 outside the mask.
    adv_BT: advantage of the token.
    sampler_BT: log-prob of the target under the distribution it was sampled from; nan
      in other views than the sampler's.
    old_BT: log-prob before the first of several updates; None when there is one update.
    ref_BT: log-prob under the reference model; None without a KL term.
    gap_BT: log-prob minus the sampler's, both after the prompt, for the importance
      weights of other views; None without such.
    copies_BTC: for mixtures, the places in the row of this token in all C copies of its
      response; None when no term is a mixture.
  """

  tokens_BT: Array
  positions_BT: Array
  segments_BT: Array
  targets_BT: Array
  mask_BT: Array
  term_BT: Array
  weight_BT: Array
  adv_BT: Array
  sampler_BT: Array
  old_BT: Array | None = None
  ref_BT: Array | None = None
  gap_BT: Array | None = None
  copies_BTC: Array | None = None
  prefix_BT: Array | None = None


def rows(
  view: Any,
  rollouts: Any,
  adv_B: Array | None,
  weight_B: Array,
  *,
  mask_BT: Array | None = None,
  adv_BT: Array | None = None,
  term: int = 0,
  on_policy: bool = True,
  old_BT: Array | None = None,
  ref_BT: Array | None = None,
  gap_BT: Array | None = None,
) -> Packed:
  """One response, with all copies of its context, in each row. Pure and jittable.

  Args:
    view: contexts [C, B, S] and their lengths, from `rl.view`.
    rollouts: the responses.
    adv_B: advantage per response; not looked at where adv_BT is given.
    weight_B: weight of each token of a response; 0 leaves the response out of the loss.
    mask_BT: bool, response tokens [B, T] that are part of the loss, the others are only
      read; None: all.
    adv_BT: advantage of each response token [B, T], instead of adv_B.
    term: index written to term_BT.
    on_policy: whether the view is the one the responses were sampled in; if not, their
      sampler log-probs are nan, since there is nothing to compare them with.
    old_BT, ref_BT: log-probs of the response tokens [B, T] before the first update and
      under a reference model, or None.
    gap_BT: how far the trainer's log-probs after the prompt are above the sampler's, of
      the same tokens, or None.

  Raises fields.Error where one of them has another shape.
  """
  check.shapes(
    rollouts, adv_B=adv_B, weight_B=weight_B, mask_BT=mask_BT, adv_BT=adv_BT,
    old_BT=old_BT, ref_BT=ref_BT, gap_BT=gap_BT,
  )  # fmt: skip
  xp = jnp if isinstance(rollouts.response_BT, jax.Array) else np
  context_CBS, context_len_CB = map(xp.asarray, (view.context_CBS, view.length_CB))
  copies, size, context_width = context_CBS.shape
  response_width = rollouts.response_BT.shape[1]
  response_len_B = rollouts.response_len_B
  width = copies * (context_width + response_width - 1)

  # Copy c of row b occupies [end - length, end).
  length_CB = xp.where(
    response_len_B[None] > 0, context_len_CB + response_len_B[None] - 1, 0
  )
  end_CB = xp.cumsum(length_CB, axis=0).astype(np.int32)
  column_T = np.arange(width, dtype=np.int32)
  copy_BT = (column_T[None, None, :] >= end_CB[:, :, None]).sum(0).astype(np.int32)
  used_BT = copy_BT < copies
  copy_BT = xp.minimum(copy_BT, copies - 1)

  # Picked along a row, which keeps rows on their devices under Explicit axes too.
  context_len_BT = xp.take_along_axis(context_len_CB.T, copy_BT, 1)
  start_BT = xp.take_along_axis((end_CB - length_CB).T, copy_BT, 1)
  local_BT = column_T[None] - start_BT
  # Of the input in the response, < 0 in the context.
  place_BT = local_BT - context_len_BT

  def of_response(values_BT, at_BT):
    return xp.take_along_axis(values_BT, xp.clip(at_BT, 0, response_width - 1), 1)

  context_BU = context_CBS.swapaxes(0, 1).reshape(size, copies * context_width)
  column_BT = copy_BT * context_width + xp.clip(local_BT, 0, context_width - 1)
  context_BT = xp.take_along_axis(context_BU, column_BT, 1)
  tokens_BT = xp.where(
    place_BT < 0, context_BT, of_response(rollouts.response_BT, place_BT)
  )
  scored_BT = used_BT & (place_BT >= -1)  # the target is a response token
  on_BT = scored_BT & (copy_BT == 0) & (weight_B > 0)[:, None]
  if mask_BT is not None:
    on_BT = on_BT & of_response(mask_BT, place_BT + 1)
  targets_BT = of_response(rollouts.response_BT, place_BT + 1)

  def on(where_BT, values_BT, dtype):
    return xp.where(where_BT, values_BT, 0).astype(dtype)

  def of_targets(values_BT):
    if values_BT is None:
      return None
    return on(on_BT, of_response(values_BT, place_BT + 1), np.float32)

  copies_BTC = None
  if copies > 1:
    shift_CB = context_len_CB - context_len_CB[:1] + (end_CB - length_CB)
    copies_BTC = xp.where(
      on_BT[..., None], column_T[None, :, None] + shift_CB.T[:, None, :], 0
    ).astype(np.int32)
  return Packed(
    tokens_BT=on(used_BT, tokens_BT, np.int32),
    positions_BT=on(used_BT, local_BT, np.int32),
    segments_BT=on(used_BT, copy_BT + 1, np.int32),
    targets_BT=on(scored_BT, targets_BT, np.int32),
    mask_BT=on_BT,
    term_BT=on(used_BT, term, np.int32),
    weight_BT=on(on_BT, xp.asarray(weight_B)[:, None], np.float32),
    adv_BT=on(on_BT, xp.asarray(adv_B)[:, None], np.float32)
    if adv_BT is None
    else of_targets(adv_BT),
    sampler_BT=on(
      on_BT,
      of_response(rollouts.logp_BT, place_BT + 1) if on_policy else np.nan,
      np.float32,
    ),
    old_BT=of_targets(old_BT),
    ref_BT=of_targets(ref_BT),
    gap_BT=of_targets(gap_BT),
    copies_BTC=copies_BTC,
  )


def bins(
  parts: Sequence[Packed],
  *,
  row_tokens: int,
  micro_rows: int,
  micro_max: int,
  before: Sequence[Array] | None = None,
) -> tuple[Packed, int]:
  """Packs the rows of `rows` (numpy) densely: ([micro_max, micro_rows, row_tokens],
  used).

  Rows without a masked token are dropped. First fit decreasing: within 11/9 of the best
  possible, where nothing is shared. Only the first `used` micro-batches hold anything;
  the rest is padding, so that the train step has one shape and loops `used` times.

  Args:
    before: of each part, how many tokens of each sequence may be shared, none of them
      with a target: what is the same in several of a part stands in a row once. Of no
      mixture. None: nothing is shared.

  Raises:
    ValueError: a sequence is longer than a row, or more micro-batches are needed.
  """
  copies = max(
    (p.copies_BTC.shape[-1] for p in parts if p.copies_BTC is not None), default=1
  )
  size = micro_max, micro_rows, row_tokens
  given = {
    name: all(getattr(part, f"{name}_BT") is not None for part in parts)
    for name in ("old", "ref", "gap")
  }
  if before is not None and copies > 1:
    raise ValueError("the sequences of a mixture do not share what is before them")
  packed = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype),
    shapes(size, copies=copies, prefix=before is not None, **given),
  )
  empty = {
    name: x.reshape(-1, *x.shape[2:])
    for name, x in vars(packed).items()
    if x is not None
  }
  units = _units(parts, before)
  if units and max(unit.length for unit in units) > row_tokens:
    raise ValueError(
      f"a sequence of {max(unit.length for unit in units)} tokens does not fit a row of"
      f" {row_tokens}: raise compute.row_tokens"
    )
  places = first_fit(
    [unit.length for unit in units], row_tokens, [unit.before for unit in units]
  )
  used_rows = 1 + max((row for row, *_ in places), default=-1)
  if used_rows > micro_max * micro_rows:
    raise ValueError(f"{micro_max} x {micro_rows} rows are too few for the batch")
  segments_B = np.zeros(micro_max * micro_rows, np.int32)

  def put(unit, row, start, first, end):
    """Columns [first, end) of a sequence from the row's place `start` on."""
    part, b, place = unit.part, unit.b, slice(start, start + end - first)
    for name, rows_BT in empty.items():
      if name == "copies_BTC":
        if part.copies_BTC is None:  # C times itself has the mean of itself
          own_TC: Array = np.repeat(np.arange(end)[:, None], copies, 1)
        else:
          own_TC = part.copies_BTC[b, :end]
        rows_BT[row, place] = np.where(part.mask_BT[b, :end, None], own_TC + start, 0)
      elif name != "prefix_BT":
        rows_BT[row, place] = getattr(part, name)[b, first:end]
    empty["segments_BT"][row, place] += segments_B[row]
    segments_B[row] += int(part.segments_BT[b].max())
    return place

  prefix: dict[tuple, int] = {}  # by row and what it is: the id of its segment
  for unit, (row, start, whole) in zip(units, places, strict=True):
    name, tokens = unit.before
    if name is None:
      put(unit, row, start, 0, unit.length)
      continue
    if whole:
      put(unit, row, start, 0, tokens)
      prefix[row, name] = segments_B[row]
    place = put(unit, row, start + tokens * whole, tokens, unit.length)
    empty["prefix_BT"][row, place] = prefix[row, name]
  return packed, -(-used_rows // micro_rows)


class _Unit(NamedTuple):
  """A sequence to be packed: row b of a part."""

  length: int
  part: Packed
  b: int
  before: tuple[Hashable, int] = (None, 0)
  """What it has in common with others, and how many tokens that are."""


def _units(parts: Sequence[Packed], before: Sequence[Array] | None) -> list[_Unit]:
  """Sequences with a masked token, the longest first; those that share together."""
  groups: dict[Hashable, list[_Unit]] = {}
  for i, part in enumerate(parts):
    for b in np.flatnonzero(part.mask_BT.any(1)).tolist():
      tokens = int(before[i][b]) if before is not None else 0
      name = (i, part.tokens_BT[b, :tokens].tobytes()) if tokens else (i, b)
      length = int((part.segments_BT[b] > 0).sum())
      groups.setdefault(name, []).append(_Unit(length, part, b, (name, tokens)))

  def total(group):
    return sum(unit.length - unit.before[1] for unit in group) + group[0].before[1]

  return [
    unit if len(group) > 1 else unit._replace(before=(None, 0))
    for group in sorted(groups.values(), key=total, reverse=True)
    for unit in sorted(group, key=lambda unit: -unit.length)
  ]


def first_fit(
  lengths: Sequence[int],
  row_tokens: int,
  before: Sequence[tuple[Hashable, int]] | None = None,
) -> list[tuple[int, int, bool]]:
  """(row, first token, whole) of each sequence, in the first row that has room for it:
  within 11/9 of as few rows as possible, if they come in falling order of length and
  share nothing.

  Args:
    before: what each has in common with others (None: nothing), and how many of its
      tokens that are: where such a sequence is in the row, it needs no place for them,
      and is not whole.
  """
  places, free_B = [], np.full(len(lengths), row_tokens)
  there: dict[Hashable, np.ndarray] = collections.defaultdict(
    lambda: np.zeros(len(lengths), bool)
  )
  for i, length in enumerate(lengths):
    name, tokens = before[i] if before else (None, 0)
    has_B = there[name]
    row = int((free_B >= (length - tokens * has_B if tokens else length)).argmax())
    places.append((row, row_tokens - int(free_B[row]), not has_B[row]))
    free_B[row] -= length - tokens * has_B[row]
    if tokens:
      has_B[row] = True
  return places


def shapes(
  size: tuple[int, int, int],
  *,
  copies: int = 1,
  old: bool = False,
  ref: bool = False,
  gap: bool = False,
  prefix: bool = False,
) -> Packed:
  """What `bins` gives, as jax.ShapeDtypeStruct.

  Args:
    size: micro_max, micro_rows, row_tokens.
    copies: of a response, in the mixture that has most.
    old, ref, gap, prefix: whether these are there.
  """
  given = {"old_BT": old, "ref_BT": ref, "gap_BT": gap, "copies_BTC": copies > 1}
  given["prefix_BT"] = prefix
  made: dict[str, Any] = {
    f.name: jax.ShapeDtypeStruct(
      (*size, copies) if f.name == "copies_BTC" else size, dtype(f.name)
    )
    for f in dataclasses.fields(Packed)
    if given.get(f.name, True)
  }
  return Packed(**made)


def looked_at(packed: Packed) -> Array:
  """Where a score is looked at, bool [B, T]: at the targets that are part of the loss;
  with mixtures, whose copies have no mask of their own, wherever there is a token."""
  if packed.copies_BTC is None:
    return packed.mask_BT
  return packed.segments_BT > 0


def lengths(packed: Packed) -> tuple[np.ndarray, np.ndarray]:
  """(tokens of each sequence, tokens of it that stand before another as well), in the
  order of rows; every copy of a mixture counts, and a prefix that is shared."""
  segments_BT, positions_BT = (
    np.asarray(x).reshape(-1, x.shape[-1])
    for x in (packed.segments_BT, packed.positions_BT)
  )
  row_B1 = np.arange(len(segments_BT))[:, None] * (segments_BT.max(initial=0) + 1)
  on_BT = segments_BT > 0
  each = np.unique((row_B1 + segments_BT)[on_BT], return_inverse=True)[1]
  first_U = np.full(each.max(initial=-1) + 1, np.iinfo(np.int64).max)
  end_U = np.zeros(len(first_U), np.int64)
  np.minimum.at(first_U, each, positions_BT[on_BT])
  np.maximum.at(end_U, each, positions_BT[on_BT] + 1)
  return end_U, first_U


def dtype(name: str) -> type:
  """Of a field of Packed: bool, int32 or float32."""
  if name == "mask_BT":
    return bool
  ints = (
    "tokens_BT", "positions_BT", "segments_BT", "targets_BT", "term_BT", "copies_BTC",
    "prefix_BT",
  )  # fmt: skip
  return np.int32 if name in ints else np.float32
