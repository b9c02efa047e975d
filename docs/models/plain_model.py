"""A plain function takes one DSRL update; samples, weights: ours.py."""

import jax
import jax.numpy as jnp
import ours

from pxy.rl import objective, score


def logits(w, tokens_BT):
  x = w["embed"][tokens_BT]
  y = ours.norm(x, w["attn_norm"])
  q, k, v = (jnp.einsum("btd,dnh->btnh", y, w[name]) for name in "qkv")
  y = jax.nn.dot_product_attention(ours.turn(q), ours.turn(k), v, is_causal=True)
  x += jnp.einsum("btnh,nhd->btd", y, w["o"])
  y = ours.norm(x, w["mlp_norm"])
  x += (jax.nn.silu(y @ w["gate"]) * (y @ w["up"])) @ w["down"]
  return ours.norm(x, w["norm"]) @ w["embed"].T


model, params = score.from_logits(logits), ours.WEIGHTS
for loss, adv_B, how in (
  (objective.marginal_loss, ours.NSR_B, ours.NSR),
  (objective.conditional_loss, ours.GRPO_B, {}),
):
  grads, _ = jax.grad(loss, 1, has_aux=True)(model, params, ours.ROLLOUTS, adv_B, **how)
  ours.check(loss, grads, dict)
  params = jax.tree.map(lambda w, g: w - ours.LR * g, params, grads)
