"""A model that is called as Hugging Face's are takes one DSRL update; see ours.py."""

import collections

import jax
import jax.numpy as jnp
import ours

from pxy.rl import objective, score

Output = collections.namedtuple("Output", ["logits"])


def model_fn(w, input_ids, attention_mask, position_ids) -> Output:
  x, seen = w["embed"][input_ids], attention_mask.astype(bool)[:, None, None]
  y = ours.norm(x, w["attn_norm"])
  q, k, v = (jnp.einsum("btd,dnh->btnh", y, w[name]) for name in "qkv")
  q, k = ours.turn(q, position_ids), ours.turn(k, position_ids)
  y = jax.nn.dot_product_attention(q, k, v, mask=seen, is_causal=True)
  x += jnp.einsum("btnh,nhd->btd", y, w["o"])
  y = ours.norm(x, w["mlp_norm"])
  x += (jax.nn.silu(y @ w["gate"]) * (y @ w["up"])) @ w["down"]
  return Output(ours.norm(x, w["norm"]) @ w["embed"].T)


params = ours.WEIGHTS
model = score.from_logits(
  lambda w, *given: model_fn(w, *given).logits,
  inputs=lambda rows: (rows.tokens_BT, rows.segments_BT > 0, rows.positions_BT),
)
for loss, adv_B, how in (
  (objective.marginal_loss, ours.NSR_B, ours.NSR),
  (objective.conditional_loss, ours.GRPO_B, {}),
):
  grads, _ = jax.grad(loss, 1, has_aux=True)(model, params, ours.ROLLOUTS, adv_B, **how)
  ours.check(loss, grads, dict)
  params = jax.tree.map(lambda w, g: w - ours.LR * g, params, grads)
