"""Wrong input is an error that names the argument, what it is and what is wanted.

What is known is refused before anything is compiled; what only the device knows makes
the loss nan, and its gradient.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.rl import advantage, check, objective, pack, rollout, score, view

V, P, R, T, S = 11, 3, 2, 4, 3
B = P * R
ADV_B = np.linspace(-1, 1, B).astype(np.float32)
OLD_BT = np.full((B, T), -1.0, np.float32)
RNG = np.random.default_rng(0)
GIVEN = rollout.Rollouts(
  RNG.integers(0, V, (B, S)).astype(np.int32),
  np.array([1, 1, 3, 3, 2, 2], np.int32),
  RNG.integers(0, V, (B, T)).astype(np.int32),
  np.array([4, 0, 2, 1, 3, 4], np.int32),
  -RNG.random((B, T)).astype(np.float32),
  group_size=R,
)
PARAMS = RNG.normal(size=(V, V)).astype(np.float32)
BIGRAM = score.from_logits(lambda params, tokens_BT: params[tokens_BT])
CHUNKED = score.from_hidden(
  lambda params, tokens_BT: params[tokens_BT], lambda params: params, chunk=4
)
SHUFFLED, MIXTURE = (
  objective.Term(space="marginal", context=name, copies=2)
  for name in ("shuffled", "mixture")
)
NEGATIVE = objective.Term(select="negative")


def having(**fields):
  return dataclasses.replace(GIVEN, **fields)


def put(name, place, value):
  """The rollouts with one element of an array changed."""
  x = np.array(getattr(GIVEN, name))
  x[place] = value
  return having(**{name: x})


def on_x(given=GIVEN, adv_B=ADV_B, **more):
  return objective.conditional_loss(BIGRAM, PARAMS, given, adv_B, **more)


def on_y(context, given=GIVEN, adv_B=ADV_B, **more):
  return objective.marginal_loss(BIGRAM, PARAMS, given, adv_B, context=context, **more)


def compute(rewards_PR, valid_PR=None, **fields):
  valid_PR = np.ones((P, R), bool) if valid_PR is None else valid_PR
  return advantage.compute(config.Term(**fields), rewards_PR, valid_PR)


def stack(prompts=((1, 2), (3,)), ids=(((4,), (5,)), ((6, 7), ())), logps=None):
  logps = [[np.zeros(np.shape(y)) for y in g] for g in ids] if logps is None else logps
  return rollout.stack(prompts, ids, logps)


def scored(logits):
  """A loss of a model that gives this."""
  one = score.from_logits(lambda params, tokens_BT: logits)
  return objective.conditional_loss(one, PARAMS, GIVEN, ADV_B)


def headed(head):
  one = score.from_hidden(lambda params, x_BT: params[x_BT], lambda params: head)
  return objective.conditional_loss(one, PARAMS, GIVEN, ADV_B)


REWARDS = np.arange(P * R).reshape(P, R) % 2.0
WIDTH = S + T - 1
WRONG = [
  # Advantages.
  (lambda: on_x(adv_B=1.0), "adv_B has shape (), where (6,) is wanted: an advantage"),
  (lambda: on_x(adv_B=ADV_B[:1]), "adv_B has shape (1,), where (6,)"),
  (lambda: on_x(adv_B=ADV_B[:, None]), "adv_B has shape (6, 1), where (6,)"),
  (lambda: on_x(adv_B=np.ones(B + 1)), "adv_B has shape (7,), where (6,)"),
  (lambda: on_x(adv_B=jnp.ones(B + 1)), "adv_B has shape (7,), where (6,)"),
  (lambda: on_x(adv_B=np.ones((P, R))), "(3, 2), where (6,) is wanted: an advantage "
   "for each response, such as adv_PR.reshape(-1)"),
  (lambda: on_y([1], adv_B=1.0), "adv_B has shape (), where (6,)"),
  (lambda: on_x(adv_B=ADV_B > 0), "adv_B has numbers of type bool, where number"),
  (lambda: on_x(adv_B=np.where(ADV_B > 0, np.nan, 1)),
   "adv_B[3] is nan, where a finite number is wanted: or selected_B false there"),
  # Log-probs and what counts.
  (lambda: on_x(old_BT=OLD_BT[:, 1:]), "old_BT has shape (6, 3), where (6, 4)"),
  (lambda: on_x(old_BT=OLD_BT[:1]), "old_BT has shape (1, 4), where (6, 4)"),
  (lambda: on_y([1], old_BT=OLD_BT[0]), "old_BT has shape (4,), where (6, 4) is wanted"
   ": a log-prob for each token of rollouts.response_BT"),
  (lambda: on_x(ref_BT=OLD_BT.T, term=objective.Term(kl="k3", kl_coef=0.1)),
   "ref_BT has shape (4, 6), where (6, 4)"),
  (lambda: on_x(having(logp_BT=OLD_BT[:, :2])), "logp_BT has shape (6, 2), where (6,"),
  (lambda: on_x(having(logp_BT=np.exp(OLD_BT))),
   "logp_BT[0, 0] is 0.367879, where at most 0 is wanted: log-probs are"),
  (lambda: on_x(selected_B=np.ones((P, R), bool)), "selected_B has shape (3, 2), wher"),
  (lambda: on_x(selected_B=np.array([0, 3])), "selected_B has shape (2,), where (6,)"),
  (lambda: on_x(selected_B=np.arange(B)), "numbers of type int64, where bool is wante"),
  (lambda: on_x(term=NEGATIVE), "selected_B is None, and term.select is 'negative'"),
  (lambda: objective.weight(NEGATIVE, GIVEN), "selected_B is None, and term.select"),
  (lambda: objective.weight(objective.Term(), GIVEN, ADV_B), "selected_B has numbers"),
  # Totals.
  (lambda: on_x(total=0), "total is 0, where a number > 0 is wanted: objective.weight"),
  (lambda: on_x(total=-3.0), "total is -3.0, where a number > 0"),
  (lambda: on_x(total=np.nan), "total is nan, where a number > 0"),
  (lambda: on_x(total=jnp.zeros(())), "total is 0.0, where a number > 0"),
  (lambda: on_x(total=np.ones(1)), "total has shape (1,), where () is wanted"),
  # Contexts.
  (lambda: on_y([[1, 2]]), "context has shape (1, 2), where (S,) with S >= 1 is wante"),
  (lambda: on_y(1), "context has shape (), where (S,) with S >= 1"),
  (lambda: on_y([]), "context has shape (0,), where (S,) with S >= 1 is wanted: ids o"),
  (lambda: on_y([[1, 2], [3]]), "context is a list of lists of several lengths"),
  (lambda: on_y([1.0]), "context has numbers of type float64, where int is wanted"),
  (lambda: on_y([3, -1]), "context[1] is -1, where at least 0 is wanted: it is no tok"),
  (lambda: view.marginal(GIVEN, np.ones((2, 2), int)), "context has shape (2, 2), whe"),
  (lambda: view.marginal(GIVEN, []), "context has shape (0,), where (S,) with S >= 1"),
  (lambda: on_y(view.marginal(having(response_BT=OLD_BT[:1]), [1])),
   "context_CBS has shape (1, 1, 1), where (C, 6, S) is wanted: a view of the same"),
  (lambda: on_y(view.View(GIVEN.prompt_BS[None], GIVEN.prompt_len_B[None] + 1)),
   "length_CB[0, 2] is 4, where 1 to 3 is wanted: context_CBS is (1, 6, 3)"),
  (lambda: on_y([1], term=MIXTURE), "context is fixed ids, where context='mixture' of "
   "the term wants a view of 2: view.mixture(rollouts, ...)"),
  (lambda: on_y([1], term=SHUFFLED), "fixed ids, where context='shuffled' of the term"),
  (lambda: on_y(view.mixture(GIVEN, [1, 2]), term=MIXTURE), "a view of 3, where"),
  # Other prompts.
  (lambda: view.shuffled(GIVEN, 0), "shift is 0, where 1 to 2 is wanted: the batch has"
   " 3 prompts, and 0 is a response's own"),
  (lambda: view.shuffled(GIVEN, P), "shift is 3, where 1 to 2 is wanted"),
  (lambda: view.shuffled(GIVEN, 1.0), "shift has numbers of type float64, where int"),
  (lambda: view.mixture(GIVEN, [1, 3]), "shift is 3, where 1 to 2 is wanted"),
  (lambda: view.mixture(GIVEN, [1, 1]), "shifts are [1, 1], where no two may be equal"),
  (lambda: view.shuffled(having(group_size=4), 1), "group_size 4 does not divide the "
   "6 responses: cut rollouts between groups, with rollouts.take, or give group_size"),
  (lambda: on_x(having(group_size=4)), "group_size 4 does not divide the 6 responses"),
  (lambda: having(group_size=0).groups, "group_size 0 does not divide"),
  (lambda: having(group_size=4).take(slice(1)), "group_size 4 does not divide"),
  # Rollouts.
  (lambda: on_x({"prompt_BS": 1}), "rollouts is of type dict: Rollouts is wanted"),
  (lambda: on_x(put("prompt_len_B", 2, 0)), "prompt_len_B[2] is 0, where 1 to 3 is wa"),
  (lambda: on_y([1], put("prompt_len_B", 2, 4)), "prompt_len_B[2] is 4, where 1 to 3"),
  (lambda: on_x(put("response_len_B", 1, 5)), "response_len_B[1] is 5, where 0 to 4 is"
   " wanted: response_BT has shape (6, 4)"),
  (lambda: on_x(jax.tree.map(jnp.asarray, put("response_len_B", 1, -1))),
   "response_len_B[1] is -1, where 0 to 4"),
  (lambda: on_x(having(response_len_B=np.ones(2, int))), "response_len_B has shape (2"),
  (lambda: on_x(having(prompt_BS=GIVEN.prompt_BS[:2])), "prompt_BS has shape (2, 3),"),
  (lambda: on_x(having(response_BT=OLD_BT)), "response_BT has numbers of type float32"),
  (lambda: on_x(put("response_BT", (2, 1), -1)), "response_BT[2, 1] is -1, where at l"),
  (lambda: check.batch(put("response_BT", (2, 1), V), vocab=V), "response_BT[2, 1] is "
   "11, where 0 to 10 is wanted: the vocabulary has 11 ids"),
  (lambda: check.batch(put("prompt_BS", (3, 2), 99), vocab=V), "prompt_BS[3, 2] is 99"),
  (lambda: check.batch(GIVEN, vocab=V, context=[V]), "context[0] is 11, where 0 to 10"),
  (lambda: check.batch(GIVEN, adv_B=1.0), "adv_B has shape ()"),
  (lambda: pack.rows(view.conditional(GIVEN), GIVEN, ADV_B[:1], ADV_B),
   "adv_B has shape (1,), where (6,)"),
  (lambda: pack.rows(view.conditional(GIVEN), GIVEN, ADV_B, 1.0),
   "weight_B has shape (), where (6,)"),
  # Ragged answers.
  (lambda: stack(prompts=((1, 2), ())), "prompts[1] has shape (0,), where (S,) with S"),
  (lambda: stack(prompts=((1,),)), "prompts, ids and logps have lengths (1, 2, 2), wh"),
  (lambda: stack(prompts=[[1], [2], [3]]), "(3, 2, 2), where one length P >= 1 is want"
   "ed: prompts[p], ids[p][r], logps[p][r]"),
  (lambda: stack(prompts=[[[1], [2]], [[3], [4]]]), "prompts[0] has shape (2, 1), wher"
   "e one sequence of ids is wanted: a prompt for each group, prompts[p]"),
  (lambda: stack(prompts=[[[1], [2, 3]], [[3], [4]]]), "prompts[0] has shape (2,), wh"),
  (lambda: stack(prompts=[[0.5], [1]]), "prompts[0] has numbers of type float64, wher"),
  (lambda: stack(ids=[[[1], [2]], [[3]]]), "ids[p] have [1, 2] responses, where every "
   "prompt needs the same number"),
  (lambda: stack(ids=[[[1], [2.5]]] * 2), "ids[0][1] has numbers of type float64, whe"),
  (lambda: stack(ids=[[[1], [-2]]] * 2), "ids[0][1] holds -2 to 0, where token ids ar"),
  (lambda: stack(ids=[[1, 2]] * 2), "ids[0][0] has shape (), where one sequence of id"),
  (lambda: stack(logps=[[[0.0], [0.0]], [[0.0], []]]), "logps[1][0] has shape (1,), wh"
   "ere (2,) is wanted: every response token needs its log-prob"),
  # Rewards.
  (lambda: compute(np.where(REWARDS > 0, np.nan, 0)), "rewards_PR[0, 1] is nan, where "
   "a finite number is wanted: or valid_PR false there"),
  (lambda: compute(np.where(REWARDS > 0, np.nan, 0), select="negative",
                   negative="reward"), "rewards_PR[0, 1] is nan"),
  (lambda: advantage.sign(np.full((P, R), np.nan), np.ones((P, R))), "rewards_PR[0, 0"),
  (lambda: compute(REWARDS.ravel()), "rewards_PR has shape (6,), where (P, R) is want"),
  (lambda: compute(REWARDS, np.ones((P, 1), bool)), "valid_PR has shape (3, 1), where "
   "(3, 2) is wanted"),
  (lambda: compute(REWARDS, np.ones((R, P), bool), advantage="batch"), "valid_PR has"),
  (lambda: advantage.grpo(REWARDS, True), "valid_PR has shape (), where (3, 2)"),
  # Scores.
  (lambda: score.from_logits(len, top_p=0.0), "top_p 0.0: must be above 0 and at most"),
  (lambda: score.from_logits(len, top_p=1.5), "top_p 1.5: must be above 0 and at most"),
  (lambda: score.from_hidden(len, len, top_p=np.nan), "top_p nan: must be above 0"),
  (lambda: score.from_hidden(len, len, top_k=-1), "top_k -1: must be a whole number"),
  (lambda: score.from_logits(len, temperature=0), "temperature 0: must be > 0; greedy"),
  (lambda: score.from_hidden(len, len, temperature=-1.0), "temperature -1.0: must be"),
  (lambda: scored({"logits": 1}), "apply gave dict, where an array is wanted: logits"),
  (lambda: scored(jnp.ones((B, T, V))), f"apply gave an array ({B}, {T}, {V}), where "
   f"({B}, {WIDTH}, ...) is wanted: logits of the next token, [B, T, V]"),
  (lambda: scored(jnp.ones((B, WIDTH, V), int)), "apply gave numbers of type int32"),
  (lambda: headed(jnp.ones((V + 1, V))), "head has shape (12, 11), where (11, V) is w"),
  (lambda: objective.conditional_loss(lambda p, x: (p[0], p[0]), PARAMS, GIVEN, ADV_B),
   f"logp_BT of score has shape (11,), where ({B}, {WIDTH}) is wanted: a score gives"),
]  # fmt: skip


@pytest.mark.parametrize("call, says", WRONG, ids=[says[:60] for _, says in WRONG])
def test_wrong_input_is_refused_in_one_line_that_says_what_is_wanted(call, says):
  with pytest.raises(config.Error) as refusal:
    call()
  text = str(refusal.value)
  assert says in text and "\n" not in text, f"it says: {text}"


@functools.cache
def program(space, one):
  """Value and gradient of a loss of which jit knows nothing but shapes."""

  @jax.jit
  def found(params, given, adv_B, total, context, shift):
    def loss(params):
      if space == "conditional":
        return objective.conditional_loss(one, params, given, adv_B, total=total)[0]
      other = context if space == "marginal" else view.shuffled(given, shift)
      of = {"context": other, "total": total}
      return objective.marginal_loss(one, params, given, adv_B, **of)[0]

    return jax.value_and_grad(loss)(params)

  def call(given=GIVEN, adv_B=ADV_B, total=9.0, context=(3, 1), shift=1):
    context = np.array(context, np.int32)
    value, grads_VV = found(PARAMS, given, adv_B, np.float32(total), context, shift)
    return float(value), np.asarray(grads_VV)

  return call


@pytest.mark.parametrize("one", [BIGRAM, CHUNKED], ids=["logits", "hidden"])
@pytest.mark.parametrize(
  "space, wrong",
  [
    ("conditional", {"given": put("prompt_len_B", 2, 0)}),
    ("conditional", {"given": put("prompt_len_B", 2, S + 1)}),
    ("conditional", {"given": put("response_len_B", 3, T + 1)}),
    ("conditional", {"given": put("response_len_B", 3, -1)}),
    ("conditional", {"given": put("response_BT", (0, 2), V)}),
    ("conditional", {"given": put("response_BT", (0, 3), -1)}),
    ("conditional", {"given": put("prompt_BS", (2, 0), V)}),
    ("conditional", {"adv_B": np.where(ADV_B > 0, np.nan, ADV_B)}),
    *(("conditional", {"total": total}) for total in (0, -2, np.nan, np.inf)),
    ("marginal", {"context": (V, 1)}),
    ("marginal", {"context": (-1, 1)}),
    ("marginal", {"total": 0}),
    ("shuffled", {"shift": 0}),
    ("shuffled", {"shift": P}),
  ],
  ids=lambda x: x if isinstance(x, str) else next(iter(x)),
)
def test_what_only_the_device_knows_makes_loss_and_gradient_nan(one, space, wrong):
  call = program(space, one)
  value, grads_VV = call()
  assert np.isfinite(value) and np.isfinite(grads_VV).all() and grads_VV.any()
  value, grads_VV = call(**wrong)
  assert np.isnan(value), f"the loss is {value}, a plausible number"
  assert np.isnan(grads_VV).any(), "the gradient alone would pass"


def test_rewards_that_are_nan_under_jit_make_advantages_nan_and_stay():
  rewards_PR = REWARDS.copy()
  rewards_PR[1, 0] = np.nan
  for more in (
    {},
    {"select": "negative"},
    {"select": "positive", "negative": "reward"},
  ):
    term = config.Term(**more)
    adv_PR, selected_PR = jax.jit(
      lambda r, v, term=term: advantage.compute(term, r, v)
    )(rewards_PR, np.ones((P, R), bool))
    assert np.isnan(adv_PR[1, 0]) and selected_PR[1, 0], f"{term.select} drops it"


def test_nothing_selected_has_a_total_of_0_and_a_loss_of_0():
  none_B = np.zeros(B, bool)
  total = objective.weight(NEGATIVE, GIVEN, none_B)
  for given in (total, 0, None):
    value, _ = on_x(term=NEGATIVE, selected_B=none_B, total=given)
    assert total == 0 and value == 0, "a batch without negatives must not stop a run"
  nowhere_BT = np.zeros((B, T), bool)
  total = objective.weight(objective.CONDITIONAL, GIVEN, None, nowhere_BT)
  assert total == 0 and on_x(mask_BT=nowhere_BT, total=total)[0] == 0


def test_log_probs_and_mixtures_of_impossible_values_are_nan_under_jit():
  logps = jax.jit(objective.logps, static_argnums=0)
  assert np.isfinite(logps(BIGRAM, PARAMS, GIVEN)).all()
  assert np.isnan(logps(BIGRAM, PARAMS, put("prompt_len_B", 2, 0))).all()

  apart = score.from_logits(
    lambda params, tokens_BT, *_: params[tokens_BT], inputs=score.segmented
  )

  @jax.jit
  def mixed(by):
    context = view.mixture(GIVEN, list(by))
    term = dataclasses.replace(MIXTURE, copies=3)
    return objective.marginal_loss(
      apart, PARAMS, GIVEN, ADV_B, context=context, term=term
    )[0]

  assert np.isfinite(mixed(np.array([1, 2]))) and np.isnan(mixed(np.array([1, 1])))


def test_right_input_of_every_kind_has_one_value():
  want = on_x(old_BT=OLD_BT, selected_B=ADV_B < 0, total=9.0)[0]
  on_device = jax.tree.map(jnp.asarray, GIVEN)
  found = [
    on_x(old_BT=OLD_BT, selected_B=(ADV_B < 0).tolist(), total=9),
    on_x(on_device, ADV_B.tolist(), old_BT=OLD_BT, selected_B=ADV_B < 0, total=9.0),
    on_x(on_device, jnp.asarray(ADV_B), old_BT=jnp.asarray(OLD_BT),
         selected_B=jnp.asarray(ADV_B < 0), total=jnp.float32(9)),
    on_x(having(group_size=1), ADV_B, old_BT=OLD_BT, selected_B=ADV_B < 0, total=9.0),
  ]  # fmt: skip
  assert [float(value) for value, _ in found] == [float(want)] * len(found)
  shape, _ = jax.eval_shape(on_x, GIVEN, ADV_B)
  assert shape.shape == ()
  padded = put("response_BT", (1, 0), -5)  # beyond its length: padding may be anything
  check.batch(padded, vocab=V)
