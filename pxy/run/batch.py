"""Graded rollouts -> what a train step sees: advantage, view, weights, pack.

Only samples that can have a gradient are scored: those a term selects and whose
advantage is not zero. The normalisers are those of all selected samples all the same,
so leaving the others out changes no number.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import flops
from pxy.rl import advantage, context, pack, reduction, rollout, view

LEAST = 512
"""Tokens that a micro-batch has room for, if the batch has so many: for fewer, adding
up its gradient costs more than they do."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """The one shape [M, B, T] of a run's packed batches, so that a step compiles once."""

  micro_max: int
  """M: micro-batches, of which a step uses as many as it needs."""
  micro_rows: int
  """B: rows of each."""
  row_tokens: int
  """T: tokens of a row; several sequences share one."""
  shared: bool = False
  """Responses of a row share what is before them (pack.py)."""


@dataclasses.dataclass(frozen=True)
class Batch:
  """A packed batch whose first `used` micro-batches hold something."""

  packed: pack.Packed
  """[M, B, T], of the run's Shape."""
  used: int
  adv_PR: np.ndarray
  """Advantages of the first term."""
  selected_PR: np.ndarray
  """Samples in the normaliser of the first term."""
  scored: int
  """Sequences that are scored, over all terms."""
  scored_tokens: int
  """Response tokens that are scored, over all terms."""


def shape(
  cfg: config.Train,
  row_shards: int,
  contexts: Mapping[str, Sequence[int]] | None = None,
  positions: int | None = None,
  sharer: arch_lib.Arch | None = None,
) -> Shape:
  """Shape that holds any batch of the run, the comparison with the sampler included.

  Args:
    row_shards: devices that the rows are split over; rows divide by it.
    contexts: ids of the fixed contexts, of `contexts`; where they are not known, a
      context is assumed to be no longer than a prompt.
    positions: tokens that the model can tell apart; None: not known.
    sharer: the model, where its attention lets responses share what is before them
      (attention.sharer); None: it does not.

  Raises:
    config.Error: compute.row_tokens is too small for a sequence, or `positions` are too
      few for a context and its response.
  """
  prompt, response = cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens
  longest = prompt + response - 1
  for term in (term for phase in cfg.phases for term in phase.terms):
    ids = context.ids(term, contexts or {})
    size = context.of(term).tokens(term, ids, prompt, response)
    longest = max(longest, size)
    if ids and positions and len(ids) + response > positions:
      raise config.Error(
        f"context {term.context!r} has {len(ids)} tokens and a response up to"
        f" {response}: more than the model's context of {positions}"
      )
    if context.of(term).copies(term) > 1:
      sharer = None
  before, tokens = longest - response, cfg.compute.row_tokens
  together = _together(sharer, before, response, cfg.data.responses, tokens)
  row_tokens = tokens or -(-(before + together * response) // 8) * 8
  if row_tokens < longest:
    raise config.Error(
      f"compute.row_tokens {row_tokens}: a sequence may take {longest}; raise it, or"
      " leave it 0"
    )
  groups = cfg.data.prompts // cfg.updates
  most_terms = max(len(phase.terms) for phase in cfg.phases)
  # A group begins a row only where none has room for more of it: at most so many.
  rows = groups * -(-cfg.data.responses // together) * most_terms
  default = max(-(-rows // 8), -(-LEAST // row_tokens))
  micro_rows = min(cfg.compute.micro_rows or default, rows)
  micro_rows = -(-micro_rows // row_shards) * row_shards
  return Shape(-(-rows // micro_rows), micro_rows, row_tokens, sharer is not None)


def _together(arch, before: int, response: int, n: int, row_tokens: int) -> int:
  """How many of `n` responses stand in a row with the `before` tokens that they share:
  so many that one is cheapest. More share more, and a longer row's attention looks at
  more that it must not see.

  row_tokens: of a row that is given; 0: it is as long as that takes.
  """
  if arch is None:
    return 1
  if row_tokens:
    return min(max(1, (row_tokens - before) // response), n)

  def cost(k):
    tokens = before + k * response
    pairs = [tokens * tokens * 9 // 16] * arch.layers  # in blocks of an eighth
    return flops.forward(arch, tokens, pairs, 0) / k

  return min(range(1, n + 1), key=cost)


def prepare(
  phase: config.Phase,
  rollouts: rollout.Rollouts,
  rewards_PR: np.ndarray,
  valid_PR: np.ndarray,
  *,
  contexts: Mapping[str, Sequence[int]],
  key,
  shape: Shape,
  groups: slice = slice(None),
  mask_BT: np.ndarray | None = None,
  adv_BT: np.ndarray | None = None,
  gap_BT: np.ndarray | None = None,
) -> Batch:
  """Packs the samples of an update that have a gradient under the phase's terms.

  Args:
    phase: its terms are applied in order; the tokens of term i have term_BT == i.
    rollouts: of the whole step, in P groups of R.
    rewards_PR: scores after the overlong rule; ignored where not valid.
    valid_PR: samples that take part at all.
    contexts: ids of the fixed contexts by name, of `contexts`.
    key: JAX key that draws the other prompts of `shuffled` and `mixture`, and random
      labels.
    groups: those that this one of several updates is made of; advantages are computed
      over all.
    mask_BT: bool, tokens of `rollouts` that are trained on; None: all.
    adv_BT: advantage of each token, instead of its response's, which selects all the
      same.
    gap_BT: of the responses of these groups, for importance weights in other views than
      the sampler's (`gaps`); where the phase needs them.
  """
  parts, before, first = [], [], None
  start, stop, _ = groups.indices(rollouts.groups)
  rows = slice(start * rollouts.group_size, stop * rollouts.group_size)
  rollouts = rollouts.take(groups)
  mask_BT, adv_BT = (None if x is None else x[rows] for x in (mask_BT, adv_BT))
  length_B = rollout.trained(rollouts, mask_BT)
  for i, term in enumerate(phase.terms):
    adv_PR, selected_PR = advantage.compute(term, rewards_PR, valid_PR, key)
    adv_PR, selected_PR = adv_PR[groups], selected_PR[groups]
    if first is None:
      first = adv_PR, selected_PR
    selected_B = selected_PR.reshape(-1)
    adv_B = adv_PR.reshape(-1)
    weight_B = np.zeros(len(adv_B), np.float64)
    weight_n, total = reduction.weights(term, length_B[selected_B])
    weight_B[selected_B] = np.asarray(weight_n, np.float64)
    if total > 0:
      weight_B *= term.coef / float(total)
    if term.kl == "none":  # with a KL term, samples without advantage have a gradient
      pulls_B = adv_B != 0 if adv_BT is None else (adv_BT != 0).any(1)
      weight_B[~pulls_B] = 0.0
    seen = view_of(term, rollouts, contexts, key)
    before.append(np.asarray(seen.length_CB)[0] - 1)
    parts.append(
      pack.rows(
        seen,
        rollouts,
        adv_B,
        weight_B,
        mask_BT=mask_BT,
        adv_BT=adv_BT,
        term=i,
        on_policy=term.space == "conditional",
        gap_BT=gap_BT,
      )
    )
  packed, used = pack.bins(
    parts,
    row_tokens=shape.row_tokens,
    micro_rows=shape.micro_rows,
    micro_max=shape.micro_max,
    before=before if shape.shared else None,
  )
  return Batch(
    packed,
    used,
    *first,
    scored=sum(int(part.mask_BT.any(1).sum()) for part in parts),
    scored_tokens=sum(int(part.mask_BT.sum()) for part in parts),
  )


def contexts(tokenizer, terms: Sequence[config.Term]) -> dict[str, list[int]]:
  """Ids of the fixed contexts that the terms ask for, by name.

  Raises config.Error when the tokenizer has no such token.
  """
  return {
    term.context: list(context.of(term).ids(tokenizer))
    for term in terms
    if context.of(term).ids is not None
  }


def sample(rollouts: rollout.Rollouts, shape: Shape) -> tuple[pack.Packed, int]:
  """One micro-batch of responses in the view they were drawn in: (packed, used).

  For a comparison of sampler and trainer where no term takes that view: a response for
  each row, or as many as there is room for in rows that are shared, spread over the
  batch. term_BT has their numbers.
  """
  longest = int((rollouts.prompt_len_B + rollouts.response_len_B).max()) - 1
  each = shape.row_tokens // longest if shape.shared else 1
  every = -(-len(rollouts.response_len_B) // (shape.micro_rows * each))
  return _as_drawn(rollouts, shape, every)


def all_drawn(rollouts: rollout.Rollouts, shape: Shape) -> tuple[pack.Packed, int]:
  """All responses in the view they were drawn in, for `gaps`: (packed, used)."""
  return _as_drawn(rollouts, shape, 1)


def gaps(rollouts: rollout.Rollouts, packed: pack.Packed, logp_MBT) -> np.ndarray:
  """The trainer's log-probs above the sampler's, of the response tokens [B, T].

  Args:
    packed: of `all_drawn`.
    logp_MBT: its log-probs under the trainer's weights.
  """
  on_MBT = np.asarray(packed.mask_BT)
  # Of a response the tokens lie in one row, in order.
  order = np.argsort(packed.term_BT[on_MBT], kind="stable")
  width = rollouts.response_BT.shape[1]
  gap_BT = np.zeros(rollouts.response_BT.shape, np.float32)
  on_BT = np.arange(width)[None] < rollouts.response_len_B[:, None]
  gap_BT[on_BT] = (np.asarray(logp_MBT) - packed.sampler_BT)[on_MBT][order]
  return gap_BT


def _as_drawn(rollouts, shape, every):
  """Packs one response in `every`; term_BT has their numbers."""
  weight_B = np.zeros(len(rollouts.response_len_B))
  weight_B[::every] = 1.0
  part = pack.rows(view.conditional(rollouts), rollouts, weight_B, weight_B)
  number_B1 = np.arange(len(weight_B), dtype=np.int32)[:, None]
  part = dataclasses.replace(part, term_BT=np.where(part.mask_BT, number_B1, 0))
  return pack.bins(
    [part],
    row_tokens=shape.row_tokens,
    micro_rows=shape.micro_rows,
    micro_max=shape.micro_max,
    before=[rollouts.prompt_len_B - 1] if shape.shared else None,
  )


def view_of(term: config.Term, rollouts, contexts, key) -> view.View:
  """The view that a term takes of the rollouts; arguments as of `prepare`."""
  return context.of(term).view(rollouts, context.ids(term, contexts), key, term)
