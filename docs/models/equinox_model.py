"""An Equinox transformer takes one DSRL update; samples, weights: ours.py."""

import equinox as eqx
import jax
import jax.numpy as jnp
import ours

from pxy.rl import objective, score


class Transformer(eqx.Module):
  embed: eqx.nn.Embedding
  attn: eqx.nn.MultiheadAttention
  mlp: dict[str, eqx.nn.Linear]
  norms: dict[str, eqx.nn.RMSNorm]

  def __call__(self, tokens_T):
    norm = {name: jax.vmap(x) for name, x in self.norms.items()}
    gate, up, down = (jax.vmap(self.mlp[name]) for name in ("gate", "up", "down"))
    x, past = jax.vmap(self.embed)(tokens_T), jnp.tri(len(tokens_T), dtype=bool)
    y = norm["attn_norm"](x)
    x += self.attn(y, y, y, past, process_heads=ours.turn_heads)
    y = norm["mlp_norm"](x)
    return norm["norm"](x + down(jax.nn.silu(gate(y)) * up(y))) @ self.embed.weight.T


def of(named):  # the module with these weights; of a gradient, that with its numbers
  return eqx.filter(ours.equinox(Transformer, named), eqx.is_inexact_array)


apply, params = score.equinox(ours.equinox(Transformer, ours.WEIGHTS))
model = score.from_logits(apply)
for loss, adv_B, how in (
  (objective.marginal_loss, ours.NSR_B, ours.NSR),
  (objective.conditional_loss, ours.GRPO_B, {}),
):
  grads, _ = jax.grad(loss, 1, has_aux=True)(model, params, ours.ROLLOUTS, adv_B, **how)
  ours.check(loss, grads, of)
  params = jax.tree.map(lambda w, g: w - ours.LR * g, params, grads)
