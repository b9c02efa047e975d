"""AdamW behind a global-norm clip, as pure functions on trees.

    g <- g * min(1, clip / |g|)
    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    w <- w - lr * (m^ / (sqrt(v^) + eps) + decay * w)      m^, v^: bias corrected

Sources: Loshchilov and Hutter, arXiv 1711.05101; the moments and the clip are optax's.
The learning rate is an argument and an array: a phase's own rate compiles nothing.
Norm scales and biases are not decayed. Left out: schedules (rate.py), other optimizers.
"""

import jax
import jax.numpy as jnp
import optax

from pxy import config
from pxy.train.state import State


def init(cfg: config.Optim, params) -> State:
  """The state before the first update; also of abstract params, by jax.eval_shape."""
  return State(params, _chain(cfg).init(params), jnp.zeros((), jnp.int32))


def update(cfg: config.Optim, grads, state: State, lr) -> tuple[State, dict]:
  """One update of the weights.

  Args:
    grads: tree like state.params; already divided by the global weight.
    lr: float32 scalar array.

  Returns:
    The next state, and {"grad_norm": norm of all gradients before the clip}.
  """
  steps, opt_state = _chain(cfg).update(grads, state.opt_state, state.params)
  params = jax.tree.map(lambda w, s: w - (lr * s).astype(w.dtype), state.params, steps)
  norm = optax.tree.norm(grads)
  return State(params, opt_state, state.step + 1), {"grad_norm": norm}


def reset(opt_state):
  """Forgets the moments and their count: zeros, as `init` makes, where they lived."""
  return jax.tree.map(jnp.zeros_like, opt_state)


def decayed(params):
  """Tree of booleans: which leaves the weight decay applies to."""

  def one(path, _):
    name = path[-1].key
    return name != "scale" and not name.endswith("bias")

  return jax.tree_util.tree_map_with_path(one, params)


def shardings(state: State, params, rest) -> State:
  """Shardings of a whole state: the moments lie where their parameters do.

  Args:
    state: arrays or shapes.
    params: tree of shardings like state.params.
    rest: the sharding of counts.
  """
  like = jax.tree.structure(state.params)

  def follows(node):
    return jax.tree.structure(node) == like

  return jax.tree.map(
    lambda node: params if follows(node) else rest, state, is_leaf=follows
  )


def _chain(cfg: config.Optim) -> optax.GradientTransformation:
  return optax.chain(
    optax.clip_by_global_norm(cfg.clip_norm),
    optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps, mu_dtype=cfg.mu_dtype),
    optax.add_decayed_weights(cfg.weight_decay, mask=decayed),
  )
