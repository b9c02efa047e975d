"""Calls of the losses as a type checker sees them. mypy reads this file; none runs it.

A line with an ignore is wrong on purpose: if mypy lets it pass, it complains of the
ignore (warn_unused_ignores), and so it does of a right line that it would refuse.
"""

import jax
import numpy as np

from pxy import config
from pxy.rl import advantage, gradient, metrics, objective, rollout, score, view


def apply(params: dict[str, jax.Array], tokens_BT: jax.Array) -> jax.Array:
  return params["embed"][tokens_BT] @ params["embed"].T


def right(
  params: dict[str, jax.Array],
  prompts: list[np.ndarray],
  ids: list[list[np.ndarray]],
  logps: list[list[np.ndarray]],
  rewards_PR: np.ndarray,
) -> float:
  model: objective.Score = score.from_logits(apply, temperature=0.7, top_p=0.9)
  given = rollout.stack(prompts, ids, logps, width=(64, 128))
  term = config.Term(space="marginal", select="negative", advantage="mean")
  adv_PR, wrong_PR = advantage.compute(term, rewards_PR, rewards_PR >= 0)
  adv_B, wrong_B = adv_PR.ravel(), wrong_PR.ravel()
  loss, found = objective.conditional_loss(model, params, given, adv_B)
  told: dict[str, float] = metrics.values(found)
  for context in (
    [0],
    np.array([0]),
    view.shuffled(given, 1),
    view.mixture(given, [1]),
  ):
    more = objective.marginal_loss(
      model, params, given, adv_B, context=context, term=term, selected_B=wrong_B
    )[0]
    loss = loss + more
  a, b = objective.both_losses(model, params, given, adv_B, context=[0])
  return float(loss + gradient.cosine(a.grads, b.grads)) + told["actor/pg_loss"]


def wrong(params: dict, given: rollout.Rollouts, adv_B: np.ndarray) -> None:
  model, call = score.from_logits(apply), objective.conditional_loss
  call(model, params, given, 1.0)  # type: ignore[arg-type]
  call(model, params, given, [1.0, 2.0])  # type: ignore[arg-type]
  call(params, model, given, adv_B)  # type: ignore[arg-type]
  call(model, params, adv_B, given)  # type: ignore[arg-type]
  call(model, params, given, adv_B, context=[0])  # type: ignore[call-arg]
  call(model, params, given, adv_B, term="grpo")  # type: ignore[arg-type]
  call(model, params, given, adv_B, selected_B="negative")  # type: ignore[arg-type]
  objective.marginal_loss(model, params, given, adv_B)  # type: ignore[call-arg]
  objective.marginal_loss(model, params, given, adv_B, context=0)  # type: ignore[arg-type]
  config.Term(select="wrong")  # type: ignore[arg-type]
  config.Term(space="pretrain")  # type: ignore[arg-type]
  view.mixture(given, 1)  # type: ignore[arg-type]
  rollout.stack([], [], [], width=64)  # type: ignore[arg-type]
  score.from_logits(apply, inputs="segmented")  # type: ignore[arg-type]
