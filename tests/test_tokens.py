"""A mask and an advantage for each token: what they are by default, and what they are
not. The oracle (test_oracle.py, the world `tokens`) has their numbers."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.rl import objective
from pxy.run import batch

import worlds

ROLLOUTS = worlds.rollouts(prompts=3, responses=4, empty=False)
SHAPE = ROLLOUTS.response_BT.shape
ADV_B = np.linspace(-1, 1, SHAPE[0]).astype(np.float32)
ADV_BT = np.broadcast_to(ADV_B[:, None], SHAPE)
THERE_BT = np.arange(SHAPE[1]) < ROLLOUTS.response_len_B[:, None]
MASK_BT = np.random.default_rng(0).random(SHAPE) < 0.6
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "objectives.md"


def score(scale, packed):
  """A causal model of one weight: a token is likely by itself and what it has read."""
  read_BT = jnp.cumsum(packed.tokens_BT, axis=1)
  logp_BT = -scale * (0.1 * packed.targets_BT + 0.01 * read_BT)
  return logp_BT, 0.5 * logp_BT


def value_and_grad(space, rollouts=ROLLOUTS, **given):
  """Of the loss that moves P(y|x), or P(y) after a lone 1; op by op, so that equal
  numbers are the same bits."""
  if space == "marginal":
    given["context"] = [1]
  call = getattr(objective, f"{space}_loss")
  rollouts = jax.tree.map(jnp.asarray, rollouts)

  def loss(scale):
    return call(score, scale, rollouts, **given)[0]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(objective, "_of_rollouts", objective._of_rollouts.__wrapped__)
    return jax.value_and_grad(loss)(1.0)


@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_all_tokens_with_their_responses_advantage_are_the_default(space):
  plain = value_and_grad(space, adv_B=ADV_B)
  given = value_and_grad(space, adv_BT=ADV_BT, mask_BT=np.ones(SHAPE, bool))
  assert plain == given, "the same bits"


def test_a_token_outside_the_mask_is_read_and_not_trained_on():
  plain = value_and_grad("conditional", adv_B=ADV_B, mask_BT=MASK_BT)
  odd_BT = np.where(MASK_BT, ADV_BT, np.nan)
  rollouts = dataclasses.replace(
    ROLLOUTS, logp_BT=np.where(MASK_BT, ROLLOUTS.logp_BT, -99.0)
  )
  found = value_and_grad("conditional", rollouts, adv_BT=odd_BT, mask_BT=MASK_BT)
  assert plain == found, "its advantage and its log-prob count nowhere"
  other_BT = np.where(MASK_BT, ROLLOUTS.response_BT, 3)
  rollouts = dataclasses.replace(ROLLOUTS, response_BT=other_BT)
  other = value_and_grad("conditional", rollouts, adv_B=ADV_B, mask_BT=MASK_BT)
  assert plain != other, "what follows is conditioned on it"


def test_the_mean_is_over_the_tokens_that_are_trained_on():
  term = config.Term()
  total = objective.weight(term, ROLLOUTS, mask_BT=MASK_BT)
  assert total == (MASK_BT & THERE_BT).sum() < objective.weight(term, ROLLOUTS)
  none = np.zeros(SHAPE, bool)
  found = value_and_grad("marginal", adv_B=ADV_B, mask_BT=none)
  assert found == (0.0, 0.0), "no token is no loss"


def test_a_packed_update_has_them_of_its_own_groups():
  made = [
    batch.prepare(
      config.Phase(terms=(config.Term(advantage="reinforce"),)),
      ROLLOUTS,
      np.ones((3, 4)),
      np.ones((3, 4), bool),
      contexts={},
      key=None,
      shape=batch.Shape(12, 2, 40),
      groups=slice(p, p + 1),
      mask_BT=MASK_BT,
      adv_BT=np.arange(MASK_BT.size, dtype=float).reshape(SHAPE),
    )
    for p in range(3)
  ]
  places = (np.flatnonzero(MASK_BT & THERE_BT)).tolist()
  got = [sorted(m.packed.adv_BT[m.packed.mask_BT].tolist()) for m in made]
  size = 4 * SHAPE[1]
  assert got == [[x for x in places if x // size == p] for p in range(3)]
  assert sum(m.scored_tokens for m in made) == len(places)


WRONG = {
  "neither": ({}, "adv_B .* and adv_BT .*give one of the two"),
  "both": ({"adv_B": ADV_B, "adv_BT": ADV_BT}, "adv_B .* and adv_BT .*give one"),
  "adv of a response": (
    {"adv_BT": ADV_B}, r"adv_BT has shape \(12,\), where \(12, 7\)",
  ),
  "adv too short": ({"adv_BT": ADV_BT[:, 1:]}, r"adv_BT has shape \(12, 6\)"),
  "adv is a mask": (
    {"adv_BT": MASK_BT}, "adv_BT has numbers of type bool, where number",
  ),
  "mask of a response": (
    {"adv_B": ADV_B, "mask_BT": MASK_BT[:, 0]}, r"mask_BT has shape \(12,\)",
  ),
  "mask of numbers": (
    {"adv_B": ADV_B, "mask_BT": MASK_BT * 1.0},
    "mask_BT has numbers of type float.*, where bool",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("space", ["conditional", "marginal"])
def test_a_wrong_shape_or_type_is_named(space, name):
  given, said = WRONG[name]
  with pytest.raises(config.Error, match=said):
    value_and_grad(space, **given)


def test_the_process_rewards_of_the_page_are_what_they_say():
  (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
  rewards_BT = np.zeros(SHAPE, np.float32)
  rewards_BT[0, 1], rewards_BT[1, 0] = 1.0, -1.0
  given = {
    "rewards_BT": rewards_BT,
    "rollouts": ROLLOUTS,
    "mask_BT": MASK_BT,
    "score": score,
    "params": 1.0,
  }
  exec(code, given)
  left_BT = rewards_BT[:, ::-1].cumsum(1)[:, ::-1]
  want = left_BT - left_BT.reshape(3, 4, -1).mean(1).repeat(4, 0)
  np.testing.assert_allclose(given["adv_BT"], want, atol=1e-6)
  for name in ("conditional", "marginal"):
    assert np.isfinite(given[name]) and given[name] != 0
