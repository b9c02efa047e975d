"""A Flax NNX transformer takes one DSRL update; samples, weights: ours.py."""

import jax
import ours
from flax import nnx

from pxy.rl import objective, score


class Transformer(nnx.Module):
  def __init__(self, rngs):
    bare = {"use_bias": False, "rngs": rngs}
    how = {"attention_fn": ours.attention, "decode": False, **bare}
    self.embed = nnx.Embed(ours.V, ours.D, rngs=rngs)
    self.attn = nnx.MultiHeadAttention(ours.N, ours.D, **how)
    self.gate, self.up = (nnx.Linear(ours.D, ours.F, **bare) for _ in "ab")
    self.down = nnx.Linear(ours.F, ours.D, **bare)
    norms = (nnx.RMSNorm(ours.D, rngs=rngs) for _ in "abc")
    self.attn_norm, self.mlp_norm, self.norm = norms

  def __call__(self, tokens_BT):
    x, mask = self.embed(tokens_BT), nnx.make_causal_mask(tokens_BT, dtype=bool)
    x += self.attn(self.attn_norm(x), mask=mask)
    y = self.mlp_norm(x)
    x += self.down(nnx.silu(self.gate(y)) * self.up(y))
    return self.embed.attend(self.norm(x))


module = Transformer(nnx.Rngs(0))
nnx.update(module, ours.flax(ours.WEIGHTS))
apply, params = score.nnx(module)
model = score.from_logits(apply)
for loss, adv_B, how in (
  (objective.marginal_loss, ours.NSR_B, ours.NSR),
  (objective.conditional_loss, ours.GRPO_B, {}),
):
  grads, _ = jax.grad(loss, 1, has_aux=True)(model, params, ours.ROLLOUTS, adv_B, **how)
  ours.check(loss, nnx.to_pure_dict(grads), ours.flax)
  params = jax.tree.map(lambda w, g: w - ours.LR * g, params, grads)
