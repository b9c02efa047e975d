"""What the losses refuse, and when: wrong input is an error, or nan, never a number.

  shapes and types       whenever a loss is called or traced         fields.Error
  values that are known  by the same call, before jit                fields.Error
  values under jit       on the device, without a callback           loss, gradient nan

What is known is numpy, Python numbers and arrays outside jit; of those on a device a
call waits for their values. Under jit they are not known, and an impossible one makes
the loss nan: `batch` reads the arrays before and says which one it is, and with the
size of the vocabulary it reads the ids too. pxy's own loop does that once a step.

An error is one line: the argument, its shape or value, what is wanted, and what has it.
"""

from typing import Any

from pxy import fields, imports
from pxy.rl.arrays import Array

jax, jnp = imports.later("jax"), imports.later("jax.numpy")
np = imports.later("numpy")

_IDS = "token ids padded with anything, of rollout.stack"
_LOGP = "a log-prob for each token of rollouts.response_BT"
ARRAYS = {
  "prompt_BS": ("int", _IDS),
  "prompt_len_B": ("int", "the tokens of each prompt"),
  "response_BT": ("int", _IDS),
  "response_len_B": ("int", "the tokens of each response"),
  "logp_BT": ("float", _LOGP),
  "adv_B": ("number", "an advantage for each response, such as adv_PR.reshape(-1)"),
  "weight_B": ("number", "a weight for each response"),
  "selected_B": ("bool", "whether a response counts, such as selected_PR.reshape(-1)"),
  "mask_BT": ("bool", "whether a token of rollouts.response_BT is trained on"),
  "adv_BT": ("number", "an advantage for each token of rollouts.response_BT"),
  "old_BT": ("float", _LOGP),
  "ref_BT": ("float", _LOGP),
  "gap_BT": ("float", "log p - log p_sampler of each token of rollouts.response_BT"),
  "total": ("number", "one number, such as objective.weight of all parts together"),
}
"""Kind of number and meaning of what goes with B responses; the suffix is the shape."""

_KINDS = {
  "int": ("integer",),
  "float": ("floating",),
  "number": ("integer", "floating"),
  "bool": ("bool_",),
  "any": ("generic",),
}


def batch(
  rollouts: Any, *, vocab: int | None = None, context: Any = None, **arrays: Any
) -> None:
  """Refuses a batch whose shapes, types or known values cannot be right.

  For the host: it waits for arrays that are on a device. Under jit, and of arrays that
  are spread over processes, only shapes and types are looked at.

  Args:
    rollouts: rl.rollout.Rollouts, B responses.
    vocab: of the model; ids are in 0 to vocab - 1. None: not known, they are >= 0.
    context: ids [S] of a fixed context, or a view.View; None: the prompt.
    arrays: by name, what else goes into the loss; None where there is none: adv_B,
      selected_B, total, old_BT, ref_BT.

  Raises:
    fields.Error: the first that is wrong.
  """
  fields.need(
    hasattr(rollouts, "response_BT") and hasattr(rollouts, "group_size"),
    f"rollouts is of type {type(rollouts).__name__}: Rollouts is wanted, of"
    " rollout.stack(prompts, ids, logps)",
  )
  of_rollouts = {k: v for k, v in vars(rollouts).items() if k != "group_size"}
  shapes(rollouts, **of_rollouts, **arrays)
  if not _parts():
    _ = rollouts.groups
  for name in ("prompt", "response"):
    _sequences(rollouts, name, vocab)
  logp_BT, length_B = _known(rollouts.logp_BT), _known(rollouts.response_len_B)
  if logp_BT is not None and length_B is not None:
    wrong_BT = _within(logp_BT, length_B) & np.isfinite(logp_BT) & (logp_BT > 0.01)
    _first(wrong_BT, "logp_BT", logp_BT, "at most 0", "log-probs are wanted, in nats")
  if context is not None:
    contexts(context, rows=rollouts.response_BT.shape[0], vocab=vocab)
  _normal(length_B, **arrays)


def shapes(rollouts: Any, **arrays: Any) -> None:
  """Refuses arrays that do not have the shape of their suffix, or the type of ARRAYS.

  B are the responses, T their tokens and S those of the prompts. Raises fields.Error.
  """
  size: dict[str, tuple] = {"": ()}
  for name in ("prompt_BS", "response_BT"):
    suffix, shape = name[-2:], _like(name, getattr(rollouts, name)).shape
    fields.need(
      len(shape) == 2,
      f"{name} has shape {shape}, where ({', '.join(suffix)}) is wanted: {_IDS}",
    )
    size[suffix] = shape
  size["BS"] = (size["BT"][0], size["BS"][1])
  size["B"] = size["BT"][:1]
  for name, x in arrays.items():
    suffix = name.rpartition("_")[2] if "_" in name else ""
    if x is not None and suffix in size:
      kind, what = ARRAYS.get(name, ("any", f"axes {suffix} of the rollouts"))
      need(name, x, size[suffix], kind, what)


def need(name: str, x: Any, shape: tuple, kind: str, what: str) -> None:
  """Refuses what is no array of this shape and kind of number; fields.Error says `what`
  is wanted."""
  x = _like(name, x)
  fields.need(
    x.shape == shape, f"{name} has shape {x.shape}, where {shape} is wanted: {what}"
  )
  fields.need(
    any(jnp.issubdtype(x.dtype, getattr(np, k)) for k in _KINDS[kind]),
    f"{name} has numbers of type {x.dtype}, where {kind} is wanted: {what}",
  )


def contexts(context: Any, *, rows: int, vocab: int | None = None) -> None:
  """Refuses a context that is neither ids [S] nor a view of so many rows."""
  what = "ids of one context for all, such as [start_id]"
  if hasattr(context, "context_CBS"):
    ids, length = context.context_CBS, context.length_CB
    shape = _like("context_CBS", ids).shape
    fields.need(
      len(shape) == 3 and shape[1] == rows,
      f"context_CBS has shape {shape}, where (C, {rows}, S) is wanted: a view of the"
      " same rollouts",
    )
    need("context_CBS", ids, shape, "int", "token ids")
    need("length_CB", length, shape[:2], "int", "the tokens of each context")
    _lengths("length_CB", _known(length), 1, shape[2], f"context_CBS is {shape}")
    known, name = _known(ids), "context_CBS"
    length = _known(length)
    used = None if length is None else np.arange(shape[2]) < length[..., None]
  else:
    shape = _like("context", context).shape
    fields.need(
      len(shape) == 1 and shape[0] > 0,
      f"context has shape {shape}, where (S,) with S >= 1 is wanted: {what}",
    )
    need("context", context, shape, "int", what)
    known, used, name = _known(context), np.ones(shape, bool), "context"
  if known is not None and used is not None:
    _ids(name, known, used, vocab)


def shift(by: Any, prompts: int) -> Any:
  """A shift by so many groups as int, where it is known; one that is not within 1 to
  prompts - 1 would be the own prompt, or another's by chance, and is refused."""
  need("shift", by, (), "int", "how many groups on the other prompt is")
  known = _known(by)
  if known is None:
    return by
  fields.need(
    0 < known < prompts,
    f"shift is {known}, where 1 to {prompts - 1} is wanted: the batch has {prompts}"
    f" {'prompt' if prompts == 1 else 'prompts'}, and 0 is a response's own",
  )
  return int(known)


def rewards(rewards_PR: Array, valid_PR: Array) -> None:
  """Refuses rewards and valid samples that are not both [P, R], or a reward of a valid
  sample that is known and no finite number."""
  shape = _like("rewards_PR", rewards_PR).shape
  fields.need(
    len(shape) == 2,
    f"rewards_PR has shape {shape}, where (P, R) is wanted: a row for each prompt,"
    " rewards_B.reshape(-1, R)",
  )
  found = _like("valid_PR", valid_PR).shape
  fields.need(
    found == shape,
    f"valid_PR has shape {found}, where {shape} is wanted: whether a reward of"
    " rewards_PR counts",
  )
  known_PR, counts_PR = _known(rewards_PR), _known(valid_PR)
  if known_PR is not None and counts_PR is not None:
    wrong_PR = counts_PR.astype(bool) & ~np.isfinite(known_PR.astype(float))
    _first(
      wrong_PR, "rewards_PR", known_PR, "a finite number", "or valid_PR false there"
    )


def sampling(temperature: float, top_k: int, top_p: float) -> None:
  """Refuses a temperature, top-k or top-p of no distribution; Python numbers."""
  fields.need(
    0 < temperature < float("inf"),
    f"temperature {temperature}: must be > 0; greedy tokens are scored at 1",
  )
  fields.need(
    top_k >= 0 and top_k == int(top_k),
    f"top_k {top_k}: must be a whole number, 0 for all ids",
  )
  fields.need(
    0 < top_p <= 1, f"top_p {top_p}: must be above 0 and at most 1, 1 for all ids"
  )


def scored(logp_BT: Array, entropy_BT: Array, packed: Any) -> None:
  """Refuses what a score gives where it is not two arrays of the rows that it got."""
  what = "a score gives the log-prob of each target, and the entropy there"
  for name, x in (("logp_BT", logp_BT), ("entropy_BT", entropy_BT)):
    need(f"{name} of score", x, packed.tokens_BT.shape, "float", what)


def given(apply: str, found: Any, packed: Any, what: str) -> None:
  """Refuses what a model gives where it is no array [B, T, ...] of floats."""
  fields.need(
    hasattr(found, "shape") and hasattr(found, "dtype"),
    f"{apply} gave {type(found).__name__}, where an array is wanted: {what}",
  )
  shape, dtype = found.shape, found.dtype
  rows, places = packed.tokens_BT.shape
  fields.need(
    len(shape) == 3 and shape[:2] == (rows, places),
    f"{apply} gave an array {shape}, where ({rows}, {places}, ...) is wanted: {what}",
  )
  fields.need(
    jnp.issubdtype(dtype, np.floating),
    f"{apply} gave numbers of type {dtype}, where float is wanted: {what}",
  )


def sound(rollouts: Any, view: Any, packed: Any, total: Any, own: Any) -> Array:
  """Whether the values of a batch are possible, a scalar: that is for `batch`, where
  they are known, and here for the device.

  Args:
    rollouts, view, packed: of the batch.
    total, own: what the loss is divided by, and the weight of these responses: 0 goes
      with no response that counts.
  """

  def within(x, least, most):
    return jnp.all((x >= least) & (x <= most))

  divides = ((total > 0) & (total < jnp.inf)) | ((total == 0) & (own == 0))
  return (
    within(rollouts.prompt_len_B, 1, rollouts.prompt_BS.shape[1])
    & within(rollouts.response_len_B, 0, rollouts.response_BT.shape[1])
    & within(view.length_CB, 1, view.context_CBS.shape[2])
    & jnp.all((packed.tokens_BT >= 0) & (packed.targets_BT >= 0))
    & divides
  )


def known_ids(packed: Any, vocab: int) -> Array:
  """What log-probs are multiplied by: 1; nan in rows that hold ids outside 0 to
  vocab - 1, at the tokens that count, so that others' gradients stay."""
  outside_BT = (packed.tokens_BT < 0) | (packed.tokens_BT >= vocab)
  outside_BT |= (packed.targets_BT < 0) | (packed.targets_BT >= vocab)
  wrong_B1 = jnp.any(outside_BT, axis=1, keepdims=True)
  return jnp.where(wrong_B1 & packed.mask_BT, jnp.nan, 1.0)


# ---- values --------------------------------------------------------------------------


def _sequences(rollouts, name, vocab):
  """Lengths and ids of the prompts or the responses."""
  column = "S" if name == "prompt" else "T"
  ids, length_B = f"{name}_B{column}", f"{name}_len_B"
  x, known_B = getattr(rollouts, ids), _known(getattr(rollouts, length_B))
  least = 1 if name == "prompt" else 0
  shape = tuple(x.shape)
  _lengths(length_B, known_B, least, shape[1], f"{ids} has shape {shape}")
  known = _known(x)
  if known is not None and known_B is not None:
    _ids(ids, known, _within(known, known_B), vocab)


def _lengths(name, known, least, most, why):
  if known is not None:
    _first((known < least) | (known > most), name, known, f"{least} to {most}", why)


def _ids(name, known, used, vocab):
  wrong, want, why = known < 0, "at least 0", "it is no token id"
  if vocab is not None:
    wrong, want = wrong | (known >= vocab), f"0 to {vocab - 1}"
    why = f"the vocabulary has {vocab} ids"
  _first(wrong & used, name, known, want, why)


def _normal(
  length_B, adv_B=None, adv_BT=None, mask_BT=None, selected_B=None, total=None, **_
):
  """Advantages of what counts, and the total."""
  counts_B = None if length_B is None else length_B > 0
  if selected_B is not None and counts_B is not None:
    selected_B = _known(selected_B)
    counts_B = None if selected_B is None else counts_B & selected_B
  known_B = None if adv_B is None else _known(adv_B)
  if known_B is not None and counts_B is not None:
    wrong_B = counts_B & ~np.isfinite(known_B.astype(float))
    _first(wrong_B, "adv_B", known_B, "a finite number", "or selected_B false there")
  known_BT = None if adv_BT is None else _known(adv_BT)
  on_BT = True if mask_BT is None else _known(mask_BT)
  if known_BT is not None and counts_B is not None and on_BT is not None:
    wrong_BT = _within(known_BT, length_B) & counts_B[:, None] & on_BT
    wrong_BT &= ~np.isfinite(known_BT.astype(float))
    _first(wrong_BT, "adv_BT", known_BT, "a finite number", "or mask_BT false there")
  known = None if total is None else _known(total)
  if known is not None:
    if mask_BT is not None and counts_B is not None:
      counts_B = (
        None if on_BT is None else counts_B & (_within(on_BT, length_B) & on_BT).any(1)
      )
    nothing = known == 0 and (counts_B is None or not counts_B.any())
    fields.need(
      bool(0 < known < np.inf) or nothing,
      f"total is {known}, where a number > 0 is wanted: objective.weight of all parts"
      " of the batch together",
    )


def _first(wrong, name, x, want, why):
  """Refuses the first of an array's elements that is wrong, by its place."""
  if wrong.any():
    place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
    value = f"{x[place]:.6g}" if x.dtype.kind == "f" else x[place]
    raise fields.Error(
      f"{name}[{', '.join(map(str, place))}] is {value}, where {want} is wanted: {why}"
    )


def _within(x_BT, length_B):
  return np.arange(x_BT.shape[1])[None] < length_B[:, None]


def array(x: Any) -> Any:
  """A list as an array, of jax where it holds one; anything else as it is."""
  if not isinstance(x, list | tuple):
    return x
  traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))
  return (jnp if traced else np).asarray(x)


def _like(name, x):
  """x, or an array of it, with a shape and a type."""
  if hasattr(x, "shape") and hasattr(x, "dtype"):
    return x
  try:
    x = array(x)
    return x if hasattr(x, "shape") else np.asarray(x)
  except ValueError:
    raise fields.Error(
      f"{name} is a list of lists of several lengths: an array is wanted"
    ) from None


def _known(x):
  """The values of an array as numpy; None under jit, and where other processes have
  some of them."""
  x = array(x)
  if isinstance(x, jax.core.Tracer):
    return None
  if isinstance(x, jax.Array):
    return np.asarray(jax.device_get(x)) if x.is_fully_addressable else None
  return np.asarray(x)


def _parts() -> bool:
  """Whether this is inside a shard_map, where each device has a part of each group."""
  return bool(jax.sharding.get_abstract_mesh().manual_axes)
