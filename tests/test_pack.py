"""Packing: what a row holds, and that dense packing only moves things."""

import jax
import numpy as np
import pytest

from pxy.rl import pack, rollout, score, view

import worlds


def one(prompt, response, **kwargs):
  rollouts = rollout.stack(
    [np.array(prompt)], [[np.array(response)]], [[-np.arange(len(response)) - 1.0]]
  )
  return pack.rows(
    kwargs.pop("view", view.conditional)(rollouts),
    rollouts,
    np.array([0.5]),
    np.array([2.0]),
    **kwargs,
  )


def test_a_row_by_hand():
  # x = 7 8, y = 4 5 6 (6 is the stop token): inputs x y[:-1], targets shifted by one.
  packed = one([7, 8], [4, 5, 6])
  assert packed.tokens_BT.tolist() == [[7, 8, 4, 5]]
  assert packed.targets_BT.tolist() == [[0, 4, 5, 6]]
  assert packed.mask_BT.tolist() == [[False, True, True, True]]
  assert packed.positions_BT.tolist() == [[0, 1, 2, 3]]
  assert packed.segments_BT.tolist() == [[1, 1, 1, 1]]
  assert packed.sampler_BT.tolist() == [[0, -1, -2, -3]]
  assert packed.adv_BT.tolist() == [[0, 0.5, 0.5, 0.5]]
  assert packed.weight_BT.tolist() == [[0, 2, 2, 2]]
  assert pack.looked_at(packed) is packed.mask_BT


def test_the_first_response_token_has_a_term_after_a_lone_start_token():
  packed = one([7, 8], [4, 5, 6], view=lambda r: view.marginal(r, [1]))
  row = [x.tolist() for x in (packed.tokens_BT[0], packed.targets_BT[0])]
  assert row == [[1, 4, 5], [4, 5, 6]], "context 1, then y: every y_t is a target"
  assert packed.mask_BT.all()


def test_an_empty_response_is_an_empty_row():
  packed = one([7, 8], [])
  assert not packed.mask_BT.any() and not packed.segments_BT.any()


def test_mixture_copies_point_at_the_same_token():
  rollouts = worlds.rollouts(prompts=4, responses=2, empty=False)
  ones = np.ones(8)
  packed = pack.rows(view.mixture(rollouts, [1, 3]), rollouts, ones, ones)
  for b, t in zip(*np.nonzero(packed.mask_BT), strict=True):
    places = packed.copies_BTC[b, t]
    assert places[0] == t
    assert len(set(packed.targets_BT[b, places])) == 1
    assert packed.segments_BT[b, places].tolist() == [1, 2, 3]
    assert pack.looked_at(packed)[b, places].all(), "a score is asked of every copy"
  lengths = rollouts.response_len_B
  assert packed.mask_BT.sum(1).tolist() == lengths.tolist()


def segments(packed):
  """The sequences of rows as a sorted list of their fields, wherever they stand."""
  found = []
  for row in np.ndindex(packed.segments_BT.shape[:-1]):
    ids = packed.segments_BT[row]
    for segment in sorted(set(ids[ids > 0].tolist())):
      at = ids == segment
      fields = ("tokens_BT", "positions_BT", "targets_BT", "mask_BT", "adv_BT")
      found.append(tuple(tuple(getattr(packed, f)[row][at].tolist()) for f in fields))
  return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_bins_hold_the_same_sequences_densely(seed):
  rollouts = worlds.rollouts(seed, prompts=6, responses=4)
  rng = np.random.default_rng(seed)
  adv_B, weight_B = rng.normal(size=24), rng.random(24)
  sparse = pack.rows(view.conditional(rollouts), rollouts, adv_B, weight_B)
  packed, used = pack.bins([sparse], row_tokens=14, micro_rows=3, micro_max=8)
  assert segments(packed) == segments(sparse)
  tokens = int((sparse.segments_BT > 0).sum())
  rows = int((packed.segments_BT > 0).any(-1).sum())
  assert rows <= -(-tokens * 11 // (9 * 14)) + 2, "first fit decreasing packs densely"
  assert used == -(-rows // 3)


def test_rows_without_weight_are_not_packed():
  rollouts = worlds.rollouts(empty=False)
  weight_B = np.zeros(12)
  weight_B[[2, 7]] = 1.0
  sparse = pack.rows(view.conditional(rollouts), rollouts, np.ones(12), weight_B)
  packed, used = pack.bins([sparse], row_tokens=16, micro_rows=2, micro_max=6)
  assert packed.mask_BT.sum() == rollouts.response_len_B[[2, 7]].sum()
  assert used == 1


def test_lengths_are_those_of_the_sequences_with_every_copy():
  rollouts = worlds.rollouts(empty=False)
  view_ = view.mixture(rollouts, [1])
  sparse = pack.rows(view_, rollouts, np.ones(12), np.ones(12))
  packed, _ = pack.bins([sparse], row_tokens=40, micro_rows=2, micro_max=6)
  want = np.asarray(view_.length_CB) + rollouts.response_len_B - 1
  length, again = pack.lengths(packed)
  assert sorted(length) == sorted(want.reshape(-1)) and not again.any()
  assert length.sum() == (packed.segments_BT > 0).sum()


def unfolded(packed):
  """Rows with a shared prefix as `segments` has those of whole sequences."""
  found = []
  for row in np.ndindex(packed.segments_BT.shape[:-1]):
    ids, prefix = packed.segments_BT[row], packed.prefix_BT[row]
    for segment in sorted(set(ids[packed.mask_BT[row]].tolist())):
      own = ids == segment
      before = set(prefix[own].tolist())
      assert len(before) == 1, "a sequence goes on from one prefix"
      (before,) = before
      first = (ids == before) & (before > 0)
      assert not first.any() or first.argmax() < own.argmax(), "it stands before"
      at = np.concatenate([np.flatnonzero(first), np.flatnonzero(own)])
      names = ("tokens_BT", "positions_BT", "targets_BT", "mask_BT", "adv_BT")
      found.append(tuple(tuple(getattr(packed, f)[row][at].tolist()) for f in names))
  return sorted(found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("row_tokens", [14, 40])
def test_what_stands_before_responses_is_there_once_a_row(seed, row_tokens):
  """Nothing else changes; rows that do not hold a group have its prompt each."""
  rollouts = worlds.rollouts(seed, prompts=6, responses=4)
  rng = np.random.default_rng(seed)
  adv_B, weight_B = rng.normal(size=24), rng.random(24)
  weight_B[rng.random(24) < 0.2] = 0  # some have no part in the loss
  parts = [
    pack.rows(v, rollouts, adv_B, weight_B, term=i)
    for i, v in enumerate((view.conditional(rollouts), view.marginal(rollouts, [1])))
  ]
  size = {"row_tokens": row_tokens, "micro_rows": 3, "micro_max": 16}
  whole, _ = pack.bins(parts, **size)
  before = [rollouts.prompt_len_B - 1, np.zeros(24, int)]
  packed, used = pack.bins(parts, **size, before=before)
  assert unfolded(packed) == segments(whole)
  rows = (packed.segments_BT > 0).any(-1)
  assert used == -(-rows.sum() // 3) and not packed.segments_BT[used:].any()
  saved = (whole.segments_BT > 0).sum() - (packed.segments_BT > 0).sum()
  length, again = pack.lengths(packed)
  assert (length - again).sum() == (packed.segments_BT > 0).sum()
  # Of each prompt in a row, all but its last token, once less than its responses.
  once = again[again > 0].sum() - sum(
    first
    for row in np.ndindex(rows.shape)
    for first in (
      (packed.segments_BT[row] == one).sum()
      for one in set(packed.prefix_BT[row].tolist()) - {0}
    )
  )
  assert saved == once > 0


def test_who_shares_nothing_is_packed_as_ever():
  """A context of one token leaves nothing to share, and so does one response."""
  rollouts = worlds.rollouts(prompts=6, responses=1, empty=False)
  ones = np.ones(6)
  size = {"row_tokens": 20, "micro_rows": 2, "micro_max": 3}
  for one in (view.conditional(rollouts), view.marginal(rollouts, [1])):
    parts, before = [pack.rows(one, rollouts, ones, ones)], one.length_CB[0] - 1
    whole, _ = pack.bins(parts, **size)
    packed, _ = pack.bins(parts, **size, before=[before])
    assert not packed.prefix_BT.any()
    for name, x in vars(whole).items():
      np.testing.assert_array_equal(x, vars(packed)[name] if x is not None else x, name)


@pytest.mark.parametrize("inputs", [score.tokens, score.segmented])
def test_a_model_that_is_not_told_of_prefixes_is_refused_rows_with_them(inputs):
  rollouts = worlds.rollouts(empty=False)
  whole = pack.rows(view.conditional(rollouts), rollouts, np.ones(12), np.ones(12))
  size = {"row_tokens": 40, "micro_rows": 2, "micro_max": 6}
  packed, _ = pack.bins([whole], **size, before=[rollouts.prompt_len_B - 1])
  with pytest.raises(ValueError, match=r"inputs=score\.prefixed, .* before=None"):
    inputs(packed)


def test_mixtures_do_not_share():
  rollouts = worlds.rollouts(empty=False)
  sparse = pack.rows(view.mixture(rollouts, [1]), rollouts, np.ones(12), np.ones(12))
  with pytest.raises(ValueError, match="mixture"):
    pack.bins([sparse], row_tokens=40, micro_rows=2, micro_max=6, before=[np.ones(12)])


def test_rows_under_jit_equal_rows_on_the_host():
  rollouts = worlds.rollouts()
  ones = np.ones(12, np.float32)

  def build(rollouts):
    return pack.rows(view.mixture(rollouts, [1]), rollouts, ones, ones)

  on_device = jax.jit(build)(jax.tree.map(jax.numpy.asarray, rollouts))
  for a, b in zip(
    jax.tree.leaves(on_device), jax.tree.leaves(build(rollouts)), strict=True
  ):
    np.testing.assert_array_equal(a, b)


def test_a_sequence_longer_than_a_row_names_the_cure():
  rollouts = worlds.rollouts(empty=False)
  ones = np.ones(12)
  sparse = pack.rows(view.conditional(rollouts), rollouts, ones, ones)
  with pytest.raises(ValueError, match=r"raise compute\.row_tokens"):
    pack.bins([sparse], row_tokens=4, micro_rows=2, micro_max=6)
