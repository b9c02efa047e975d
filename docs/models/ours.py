"""What the five models beside this file share: samples, weights, pxy's own gradient.

Each is a transformer of one layer in another library, with the weights that pxy's
decoder has here, and takes one DSRL update: a marginal step on wrong answers, then a
GRPO step on the same rollouts. Both gradients must be those of pxy's decoder. Run one:

    python docs/models/linen_model.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pxy import config, testing
from pxy.model import arch, layers
from pxy.rl import advantage, objective, rollout
from pxy.train import step

V, D, N, F = 23, 16, 2, 24  # vocabulary, width, heads, feed-forward
ARCH = arch.Arch(
  vocab_size=V, layers=1, d_model=D, heads=N, kv_heads=N, head_dim=D // N, d_ff=F,
  context=32,
)  # fmt: skip
START, LR = 1, 0.05

# Two prompts, three responses each, of a sampler that is the model itself.
PROMPTS = [np.array([3, 4]), np.array([5, 6, 7])]
RESPONSES = [[np.array([8, 9, 2]), np.array([10, 2]), np.array([11, 12, 13, 2])]] * 2
LOGPS = [[np.zeros(len(y)) for y in group] for group in RESPONSES]
ROLLOUTS = rollout.stack(PROMPTS, RESPONSES, LOGPS, width=(4, 6))
REWARDS_PR = np.array([[1.0, 0, 0], [0, 1, 1]])
GRADED_PR = np.ones((2, 3), bool)

# Phase 1 pushes log P(y) of wrong answers down, phase 2 is GRPO on log P(y|x).
TERM = objective.Term(space="marginal", select="negative", advantage="mean")
NSR_B, WRONG_B = (x.ravel() for x in advantage.compute(TERM, REWARDS_PR, GRADED_PR))
NSR = {"context": [START], "term": TERM, "selected_B": WRONG_B}
GRPO_B = advantage.grpo(REWARDS_PR, GRADED_PR).ravel()


def norm(x, scale):
  """RMSNorm."""
  x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + ARCH.norm_eps)
  return x * scale[None, None]


def turn(x_BTNH, positions_BT=None):
  """Queries or keys turned by their positions; None: 0, 1, ..."""
  if positions_BT is None:
    positions_BT = jnp.arange(x_BTNH.shape[1])[None]
  return layers.rotate(x_BTNH, *layers.angles(ARCH, positions_BT, False))


def attention(q_BTNH, k_BTNH, v_BTNH, *, mask, **_):
  """Rotary attention, as Flax's modules take it."""
  return jax.nn.dot_product_attention(turn(q_BTNH), turn(k_BTNH), v_BTNH, mask=mask)


def turn_heads(q_TNH, k_TNH, v_TNH):
  """The same of one sequence, as Equinox's module takes it."""
  return turn(q_TNH[None])[0], turn(k_TNH[None])[0], v_TNH


def named(params) -> dict:
  """pxy's tree of one layer as a flat dict: embed, attn_norm, q, k, v, o, ..."""
  (layer,) = [jax.tree.map(lambda x: x[0], params["layers"])]
  return {
    "embed": params["embed"],
    "norm": params["norm"]["scale"],
    "attn_norm": layer["attn_norm"]["scale"],
    "mlp_norm": layer["mlp_norm"]["scale"],
    **layer["attn"],
    **layer["mlp"],
  }


def flax(named) -> dict:
  """Those by the names that Linen and NNX have for their parts."""
  attn = {"query": "q", "key": "k", "value": "v", "out": "o"}
  return {
    "embed": {"embedding": named["embed"]},
    "attn": {long: {"kernel": named[short]} for long, short in attn.items()},
    **{name: {"kernel": named[name]} for name in ("gate", "up", "down")},
    **{name: {"scale": named[name]} for name in ("attn_norm", "mlp_norm", "norm")},
  }


def equinox(kind, named):
  """A module of that kind with embed, attn, and dicts mlp and norms, in Equinox."""
  import equinox as eqx

  key = jax.random.key(0)

  def linear(w_IO):
    new = eqx.nn.Linear(*w_IO.shape, use_bias=False, key=key)
    return eqx.tree_at(lambda x: x.weight, new, w_IO.T)

  def norm(scale_D):
    new = eqx.nn.RMSNorm(D, eps=ARCH.norm_eps, use_bias=False)
    return eqx.tree_at(lambda x: x.weight, new, scale_D)

  attn = eqx.tree_at(
    lambda x: (x.query_proj, x.key_proj, x.value_proj, x.output_proj),
    eqx.nn.MultiheadAttention(N, D, key=key),
    [linear(named[name].reshape(D, D)) for name in "qkvo"],
  )
  mlp = {name: linear(named[name]) for name in ("gate", "up", "down")}
  norms = {name: norm(named[name]) for name in ("attn_norm", "mlp_norm", "norm")}
  return kind(eqx.nn.Embedding(weight=jnp.asarray(named["embed"])), attn, mlp, norms)


OWN = testing.params(ARCH)
WEIGHTS = named(OWN)


@functools.cache
def gradients() -> dict[str, dict]:
  """Of pxy's decoder, by loss and by name: of the NSR step, and of GRPO's after it."""
  own, params, found = step.scorer(ARCH, config.Compute(), config.Sampling()), OWN, {}
  for loss, adv_B, how in (
    (objective.marginal_loss, NSR_B, NSR),
    (objective.conditional_loss, GRPO_B, {}),
  ):
    grads, _ = jax.grad(loss, 1, has_aux=True)(own, params, ROLLOUTS, adv_B, **how)
    params = jax.tree.map(lambda w, g: w - LR * g, params, grads)
    found[loss.__name__] = named(grads)
  return found


def check(loss, grads, names) -> float:
  """Refuses a gradient that is not pxy's own, leaf by leaf; says how far it is.

  names: makes of a dict by pxy's names a tree like `grads`.
  """
  want = names(gradients()[loss.__name__])
  off = jax.tree.map(lambda x, y: np.abs(x - y).max() / np.abs(y).max(), grads, want)
  worst = max(map(float, jax.tree.leaves(off)))
  assert worst < 1e-4, f"{loss.__name__}: another gradient than pxy's: {off}"
  print(f"{loss.__name__}: the gradient of pxy's own decoder, to {worst:.0e}")
  return worst
