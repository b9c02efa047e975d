"""From graded rollouts to packed batches: normalisers, exclusions, several updates."""

import dataclasses

import jax
import numpy as np
import pytest

from pxy import config, testing
from pxy.rl import advantage, context, objective, rollout
from pxy.run import batch
from pxy.run import numbers as numbers_lib

import worlds

SHAPE = batch.Shape(micro_max=12, micro_rows=2, row_tokens=40)
REWARDS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]], float)
VALID = np.ones((4, 4), bool)
ROLLOUTS = worlds.rollouts(prompts=4, empty=False)


def prepared(*terms, rewards=REWARDS, valid=VALID, **given):
  options = {"contexts": {"start": [1]}, "key": jax.random.key(0), "shape": SHAPE}
  return batch.prepare(
    config.Phase(terms=terms), ROLLOUTS, rewards, valid, **options | given
  )


def tokens(sample_PR):
  return ROLLOUTS.response_len_B[np.asarray(sample_PR, bool).reshape(-1)].sum()


@pytest.mark.parametrize("kind", ["grpo", "mean", "rloo", "batch"])
def test_advantages_of_several_updates_are_those_of_the_whole_batch(kind):
  term = config.Term(advantage=kind)
  parts = [prepared(term, groups=slice(i, i + 2)) for i in (0, 2)]
  want_PR, _ = advantage.compute(term, REWARDS, VALID)
  np.testing.assert_array_equal(np.concatenate([p.adv_PR for p in parts]), want_PR)
  for part in parts:
    scored = part.packed.adv_BT[part.packed.mask_BT]
    assert set(scored.tolist()) <= set(part.adv_PR.reshape(-1).tolist())
    assert part.scored_tokens == part.packed.mask_BT.sum()


def test_random_labels_are_those_of_the_step_in_all_terms_and_updates():
  terms = config.Term(control="random-label"), config.Term(advantage="mean")
  whole = prepared(*terms)
  parts = [prepared(*terms, groups=slice(i, i + 2)) for i in (0, 2)]
  adv_PR = np.concatenate([p.adv_PR for p in parts])
  np.testing.assert_array_equal(adv_PR, whole.adv_PR)
  assert (adv_PR != prepared(config.Term()).adv_PR).any()
  other = prepared(*terms, key=jax.random.key(1))
  assert (adv_PR != other.adv_PR).any(), "another step has other labels"


@pytest.mark.parametrize(
  "shape", [SHAPE, batch.Shape(16, 1, 13), batch.Shape(16, 1, 25, shared=True)]
)
def test_gaps_come_back_to_the_responses_they_are_of(shape):
  packed, _ = batch.all_drawn(ROLLOUTS, shape)
  known_MBT = np.where(packed.mask_BT, packed.sampler_BT + 0.001 * packed.targets_BT, 9)
  got_BT = batch.gaps(ROLLOUTS, packed, known_MBT)
  on_BT = np.arange(got_BT.shape[1])[None] < ROLLOUTS.response_len_B[:, None]
  want_BT = np.where(on_BT, 0.001 * ROLLOUTS.response_BT, 0)
  np.testing.assert_allclose(got_BT, want_BT, atol=1e-6)


def test_a_sample_without_a_grade_takes_no_part_and_poisons_nothing():
  # As if the group had one sample less; its reward is nan, as collect leaves it.
  rewards, valid = REWARDS.copy(), VALID.copy()
  rewards[0, 1], valid[0, 1] = np.nan, False
  made = prepared(config.Term(), rewards=rewards, valid=valid)
  assert np.isfinite(made.packed.adv_BT).all() and np.isfinite(made.adv_PR).all()
  np.testing.assert_allclose(
    made.adv_PR[0, [0, 2, 3]], np.array([1, -2, 1]) / 3**0.5, rtol=1e-5
  )
  weights = made.packed.weight_BT[made.packed.mask_BT]
  np.testing.assert_allclose(weights, 1 / tokens(valid), rtol=1e-6)
  other = prepared(config.Term(), rewards=np.where(valid, rewards, 7.0), valid=valid)
  jax.tree.map(np.testing.assert_array_equal, made.packed, other.packed)


def test_each_term_has_its_own_normaliser_and_coefficient():
  negative_PR = (REWARDS == 0) & REWARDS.any(1, keepdims=True)
  marginal = config.Term(
    space="marginal", select="negative", advantage="mean", coef=0.5
  )
  packed = prepared(config.Term(), marginal).packed
  for i, want in enumerate([1 / tokens(VALID), 0.5 / tokens(negative_PR)]):
    weights = packed.weight_BT[packed.mask_BT & (packed.term_BT == i)]
    assert weights.size
    np.testing.assert_allclose(weights, want, rtol=1e-6, err_msg=f"term {i}")


@pytest.mark.parametrize("valid", [VALID, ~VALID])
def test_a_batch_without_contrast_is_empty(valid):
  made = prepared(config.Term(), rewards=np.ones((4, 4)), valid=valid)
  assert (made.used, made.scored, made.scored_tokens) == (0, 0, 0)


def longest(cfg, shape, ids=()):
  """A batch of the longest prompts and responses that a config allows, prepared."""
  sizes = cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens
  arrays = [np.ones((16, n), np.int32) for n in sizes]
  arrays[0][:, 0] = np.arange(16) // 4  # four prompts
  lengths = [np.full(16, n, np.int32) for n in sizes]
  (prompt_BS, response_BT), (prompt_len_B, response_len_B) = arrays, lengths
  rollouts = rollout.Rollouts(
    prompt_BS, prompt_len_B, response_BT, response_len_B, 0.0 * response_BT, 4
  )
  return batch.prepare(
    cfg.phases[0],
    rollouts,
    np.tile([1.0, 0, 0, 1], (4, 1)),
    VALID,
    contexts={name: ids or [1] for name, c in context.CONTEXTS.items() if c.ids},
    key=jax.random.key(0),
    shape=shape,
  )


def config_of(*terms, **compute):
  return config.Train(
    phases=(config.Phase(terms=terms),),
    data=config.Data(prompts=4, responses=4, max_prompt_tokens=6),
    sampling=config.Sampling(max_new_tokens=7),
    compute=config.Compute(**compute),
  )


@pytest.mark.parametrize("name", context.CONTEXTS)
@pytest.mark.parametrize("sharer", [None, testing.arch()])
def test_the_shape_holds_the_longest_batch(name, sharer):
  term = config.Term(space="marginal", context=name, copies=4, advantage="mean")
  cfg = config_of(config.Term(), term)
  shape = batch.shape(cfg, row_shards=4, sharer=sharer)
  assert shape.micro_rows % 4 == 0
  assert shape.shared == (sharer is not None and name != "mixture")
  made = longest(cfg, shape)
  assert made.scored == 32 and made.used <= shape.micro_max


@pytest.mark.parametrize("row_tokens", [0, 12, 19, 26, 100])
def test_rows_hold_as_many_responses_of_a_group_as_is_cheapest(row_tokens):
  """All of four where the model is wide, fewer where attention is most of its work;
  and any lengths find room, in whatever order they come."""
  cfg = config_of(config.Term(), row_tokens=row_tokens)
  wide, narrow = (testing.arch(d_ff=width) for width in (4096, 1))
  if not row_tokens:
    assert batch.shape(cfg, 1, sharer=wide).row_tokens == 5 + 4 * 7 + 7
    few = dataclasses.replace(cfg, sampling=config.Sampling(max_new_tokens=700))
    assert batch.shape(few, 1, sharer=narrow).row_tokens < 5 + 4 * 700
  shape = batch.shape(cfg, 1, sharer=wide)
  assert longest(cfg, shape).used <= shape.micro_max
  for seed in range(20):
    rollouts = worlds.rollouts(seed, prompts=4, responses=4)
    rng = np.random.default_rng(seed)
    on_BT = rng.random(rollouts.response_BT.shape) < 0.5  # tokens that are trained on
    for mask_BT in (None, on_BT):
      batch.prepare(
        cfg.phases[0], rollouts, rng.random((4, 4)), VALID, contexts={},
        key=jax.random.key(0), shape=shape, mask_BT=mask_BT,
      )  # fmt: skip
    batch.all_drawn(rollouts, shape)


def test_a_context_longer_than_the_prompts_counts_in_the_shape():
  """50 tokens where a prompt has 6: 50 + 7 - 1 places a sequence, in rows of 56."""
  term = config.Term(space="marginal", context="document", advantage="mean")
  cfg, ids = config_of(term), list(range(1, 51))
  assert batch.shape(cfg, 1).row_tokens == 16
  shape = batch.shape(cfg, 1, {"document": ids}, positions=57)
  assert shape.row_tokens == 56
  made = longest(cfg, shape, ids)
  assert made.scored == 16
  scored = made.packed.mask_BT.any(-1)
  assert (made.packed.tokens_BT[scored][:, :50] == ids).all()
  with pytest.raises(config.Error, match=r"compute.row_tokens 48: .* may take 56"):
    batch.shape(config_of(term, row_tokens=48), 1, {"document": ids})
  with pytest.raises(config.Error, match=r"'document' has 50 tokens .* context of 56"):
    batch.shape(cfg, 1, {"document": ids}, positions=56)
  # A comparison with the sampler needs room for a prompt, whatever the context.
  assert batch.shape(cfg, 1, {"document": [1]}).row_tokens == 16


def test_ids_are_asked_of_the_tokenizer_for_the_fixed_contexts_of_a_run():
  class Tokenizer:
    start_id, document_id = 7, 8

  names = ("start", "document", "shuffled")
  terms = [config.Term(space="marginal", context=name) for name in names]
  terms.append(config.Term())  # its context is its prompt
  assert batch.contexts(Tokenizer(), terms) == {"start": [7], "document": [8]}
  assert batch.contexts(None, [config.Term()]) == {}


@pytest.mark.parametrize("name", context.CONTEXTS)
def test_a_run_needs_as_many_prompts_as_the_context(name):
  term = config.Term(space="marginal", context=name, copies=3, advantage="mean")
  for prompts in range(1, 4):
    cfg = config_of(term)
    cfg = dataclasses.replace(
      cfg, data=dataclasses.replace(cfg.data, prompts=2 * prompts), updates=2
    )
    if prompts >= context.of(term).groups(term):
      config.check(cfg)
    else:
      with pytest.raises(config.Error, match=f"context {name!r}.* there are {prompts}"):
        config.check(cfg)


def test_mixtures_of_a_run_have_the_same_number_of_copies():
  terms = [
    config.Term(space="marginal", context="mixture", copies=n, advantage="mean")
    for n in (2, 3)
  ]
  with pytest.raises(config.Error, match="same number of copies"):
    config.check(config_of(*terms))


def test_ratios_of_sequences_do_not_depend_on_the_packing():
  term = config.Term(clip="gspo", clip_low=0.01, clip_high=0.01, tis="sequence")

  def loss(shape):
    packed = prepared(term, shape=shape).packed
    packed = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), packed)
    logp_BT = -0.1 * packed.targets_BT - 0.2 * packed.positions_BT.astype(np.float32)
    old_BT = np.where(packed.mask_BT, logp_BT + 0.05 * np.sin(packed.targets_BT), 0.0)
    packed = dataclasses.replace(packed, old_BT=old_BT.astype(np.float32))

    def score(scale, _):
      return scale * logp_BT, 0 * logp_BT

    def total(scale):
      return objective.loss(score, scale, packed, (term,))[0]

    value, pull = jax.jit(jax.value_and_grad(total))(1.0)
    return float(value), float(pull), int((packed.segments_BT.max(1) > 1).sum())

  dense, sparse = loss(SHAPE), loss(batch.Shape(16, 1, 13))
  assert dense[2] > 0 and dense[1] != 0, "rows should hold several sequences"
  np.testing.assert_allclose(dense[:2], sparse[:2], rtol=1e-5)


def test_a_sample_for_comparison_fills_rows_that_are_shared():
  """Three of the longest, of 12 places, are sure to fit in each of two rows of 40."""
  shape = batch.Shape(micro_max=4, micro_rows=2, row_tokens=40, shared=True)
  rollouts = worlds.rollouts(prompts=16, responses=4, empty=False)
  longest = (rollouts.prompt_len_B + rollouts.response_len_B).max() - 1
  packed, used = batch.sample(rollouts, shape)
  every = -(-64 // (2 * (40 // longest)))
  assert used == 1 and longest == 12
  assert packed.mask_BT.sum() == rollouts.response_len_B[::every].sum()


@pytest.mark.parametrize("micro_rows", [1, 3, 16, 40])
def test_a_sample_for_comparison_fills_one_micro_batch_from_all_over(micro_rows):
  shape = batch.Shape(micro_max=40, micro_rows=micro_rows, row_tokens=40)
  packed, used = batch.sample(ROLLOUTS, shape)
  assert used == 1
  got = sorted(packed.sampler_BT[packed.mask_BT].tolist())
  every = -(-16 // micro_rows)
  logps = [
    row[:n] for row, n in zip(ROLLOUTS.logp_BT, ROLLOUTS.response_len_B, strict=True)
  ]
  assert got == sorted(np.concatenate(logps[::every]).tolist())


def test_the_comparison_sees_a_difference_in_one_token():
  packed, _ = batch.sample(ROLLOUTS, SHAPE)
  logp = np.where(packed.mask_BT, packed.sampler_BT, 0.0)
  name = "training/rollout_probs_diff_"
  assert numbers_lib.of_drift(packed, logp)[f"{name}max"] == 0
  place = tuple(np.argwhere(packed.mask_BT)[0])
  logp[place] -= 1.0
  found = numbers_lib.of_drift(packed, logp)
  want = np.exp(packed.sampler_BT[place]) * (1 - np.exp(-1))
  assert found[f"{name}max"] == pytest.approx(want, rel=1e-5)
  mean = want / packed.mask_BT.sum()
  assert found[f"{name}mean"] == pytest.approx(mean, rel=1e-5)


def test_log_p_of_whole_responses_is_compared_where_that_is_all_that_is_known():
  packed, _ = batch.sample(ROLLOUTS, batch.Shape(1, 3, 40))
  logp = np.where(packed.mask_BT, packed.sampler_BT, 0.0)
  rows = zip(ROLLOUTS.logp_BT, ROLLOUTS.response_len_B, strict=True)
  total_B = np.array([row[:n].sum() for row, n in rows])
  name = "training/rollout_logp_diff_mean"
  found = numbers_lib.of_totals(packed, logp, total_B)
  assert found == {name: pytest.approx(0, abs=1e-6)}
  off_B = 0.5 * ROLLOUTS.response_len_B * (-1.0) ** np.arange(16)
  found = numbers_lib.of_totals(packed, logp, total_B + off_B)
  assert found == {name: pytest.approx(0.5)}
  assert numbers_lib.of_totals(packed, logp, np.full(16, np.nan)) == {}
