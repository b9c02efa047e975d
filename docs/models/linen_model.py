"""A Flax Linen transformer takes one DSRL update; samples, weights: ours.py."""

import flax.linen as nn
import jax
import ours

from pxy.rl import objective, score


class Transformer(nn.Module):
  @nn.compact
  def __call__(self, tokens_BT):
    embed = nn.Embed(ours.V, ours.D, name="embed")
    how = {"use_bias": False, "attention_fn": ours.attention}
    attn = nn.MultiHeadDotProductAttention(ours.N, name="attn", **how)
    x, mask = embed(tokens_BT), nn.make_causal_mask(tokens_BT, dtype=bool)
    x += attn(nn.RMSNorm(name="attn_norm")(x), mask=mask)
    y = nn.RMSNorm(name="mlp_norm")(x)
    gate, up = (nn.Dense(ours.F, use_bias=False, name=n)(y) for n in ("gate", "up"))
    x += nn.Dense(ours.D, use_bias=False, name="down")(nn.silu(gate) * up)
    return embed.attend(nn.RMSNorm(name="norm")(x))


model, params = score.from_logits(score.linen(Transformer())), ours.flax(ours.WEIGHTS)
for loss, adv_B, how in (
  (objective.marginal_loss, ours.NSR_B, ours.NSR),
  (objective.conditional_loss, ours.GRPO_B, {}),
):
  grads, _ = jax.grad(loss, 1, has_aux=True)(model, params, ours.ROLLOUTS, adv_B, **how)
  ours.check(loss, grads, ours.flax)
  params = jax.tree.map(lambda w, g: w - ours.LR * g, params, grads)
