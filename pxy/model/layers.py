"""The parts of the decoder, as NNX modules that describe their parameters.

    x += attention(norm(x)),  x += down(act(gate(norm(x))) * up(norm(x)))

A parameter is declared once: shape, initial spread, and the logical axes by which it
may be sharded. What mixes tokens comes in as a function `attend(q, k, v)`, so that
training, prefill and cached decoding are the same layer. Weights are cast to the type
of the activations where they are used; norms and rotations are computed in float32.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from pxy.model.arch import Arch

EMBED_STD = 0.02

_ACTIVATIONS = {
  "silu": jax.nn.silu,
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def weight(rngs: nnx.Rngs, shape, axes, std: float) -> nnx.Param:
  """A float32 parameter from N(0, std^2), with a logical axis name per dimension."""
  value = std * jax.random.normal(rngs.params(), shape, jnp.float32)
  return nnx.Param(value, axes=axes)


def linear(x, w: nnx.Param, inputs: int = 1):
  """x[..., in] @ w[in, out], where either side may be several axes.

  All but the contracted axes of x are flattened: left apart, the weight's gradient
  contracts two axes at once, for which XLA transposes its operands on a CPU (a training
  step of the small models here took three times as long).
  """
  w = w[...].astype(x.dtype)
  out = w.shape[inputs:]
  y = x.reshape(-1, math.prod(w.shape[:inputs])) @ w.reshape(-1, math.prod(out))
  return y.reshape(x.shape[: x.ndim - inputs] + out)


def frequencies(arch: Arch, local: bool):
  """Radians per token of the h = H / 2 rotations, theta^(-2i / H), scaled.

  local: of the layers with a window.
  """
  theta, scaling = arch.rope_theta, arch.rope_scaling
  if local and arch.rope_local_theta is not None:
    theta, scaling = arch.rope_local_theta, None
  pairs_h = jnp.arange(arch.head_dim // 2, dtype=jnp.float32)
  out_h = theta ** (-2.0 * pairs_h / arch.head_dim)
  if scaling is None:
    return out_h
  kept_h = jnp.zeros_like(out_h)
  if scaling.over != "turns":
    first, last = _pairs(scaling, theta, arch.head_dim)
    kept_h = 1 - jnp.clip((pairs_h - first) / (last - first), 0, 1)
  elif scaling.ramp is not None:
    low, high, context = scaling.ramp
    turns_h = context * out_h / (2 * math.pi)
    kept_h = jnp.clip((turns_h - low) / (high - low), 0, 1)
  return out_h * (kept_h + (1 - kept_h) / scaling.factor)


def _pairs(scaling, theta: float, head_dim: int) -> tuple[float, float]:
  """Numbers of the pairs that turn `high` and `low` times in the context, as YaRN's own
  code has them: within the head, and apart."""
  low, high, context = scaling.ramp
  first, last = (
    head_dim * math.log(context / (2 * math.pi * turns)) / (2 * math.log(theta))
    for turns in (high, low)
  )
  if scaling.over == "whole_pairs":
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, head_dim - 1)
  return first, last + 0.001 if first == last else last


def angles(arch: Arch, positions_BT, local: bool):
  """float32 cos_BTh, sin_BTh by which the layers with (local) or without a window turn
  queries and keys, with the factor of scaled ones."""
  out = rope(positions_BT, frequencies(arch, local))
  scaling = arch.rope_scaling
  if local and arch.rope_local_theta is not None:
    scaling = None
  if scaling is None or scaling.attention == 1:
    return out
  return tuple(scaling.attention * x for x in out)


def still(angles, turns):
  """The angles where `turns` (scalar bool) is true, else none: nothing is turned."""
  cos, sin = angles
  return jnp.where(turns, cos, 1), jnp.where(turns, sin, 0)


def rope(positions_BT, frequencies_h):
  """float32 cos_BTh, sin_BTh of the rotations' angles, position * frequency."""
  frequencies_h = jnp.asarray(frequencies_h, jnp.float32)
  angles = positions_BT.astype(jnp.float32)[..., None] * frequencies_h[None, None]
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTNH, cos_BTh, sin_BTh):
  """Rotates the pair (i, i + H/2) of each head by its position's angle."""
  a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos_BTh[:, :, None], sin_BTh[:, :, None]
  out = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return out.astype(x_BTNH.dtype)


class Norm(nnx.Module):
  """RMSNorm: x / rms(x) * scale."""

  def __init__(self, arch: Arch, width: int, axis: str):
    fill = jnp.zeros if arch.norm_plus_one else jnp.ones
    self.scale = nnx.Param(fill(width, jnp.float32), axes=(axis,))
    self.eps, self.plus_one = arch.norm_eps, arch.norm_plus_one

  def __call__(self, x):
    y = x.astype(jnp.float32)
    scale = self.scale[...].astype(jnp.float32)
    scale = (1 + scale if self.plus_one else scale).reshape((1,) * (x.ndim - 1) + (-1,))
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
    return (y * scale).astype(x.dtype)


class Attention(nnx.Module):
  """Projections, optional biases and head norms, rotation; `attend` mixes tokens."""

  def __init__(self, arch: Arch, rngs: nnx.Rngs):
    d, n, k, h = arch.d_model, arch.heads, arch.kv_heads, arch.head_dim
    std = d**-0.5
    self.q = weight(rngs, (d, n, h), ("d_model", "heads", "head_dim"), std)
    self.k = weight(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), std)
    self.v = weight(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), std)
    # Divided by sqrt of the number of branches, so that depth does not grow the stream.
    std = (n * h * 2 * arch.layers) ** -0.5
    self.o = weight(rngs, (n, h, d), ("heads", "head_dim", "d_model"), std)
    if arch.qkv_bias:
      self.q_bias = weight(rngs, (n, h), ("heads", "head_dim"), 0.0)
      self.k_bias = weight(rngs, (k, h), ("kv_heads", "head_dim"), 0.0)
      self.v_bias = weight(rngs, (k, h), ("kv_heads", "head_dim"), 0.0)
    if arch.qk_norm:
      self.q_norm = Norm(arch, h, "head_dim")
      self.k_norm = Norm(arch, h, "head_dim")
    self.arch = arch

  def __call__(self, x_BTD, angles, attend):
    """-> (out_BTD, (k_BTKH, v_BTKH))."""
    q, k, v = (linear(x_BTD, w) for w in (self.q, self.k, self.v))
    if self.arch.qkv_bias:
      q += self.q_bias[...].astype(q.dtype)[None, None]
      k += self.k_bias[...].astype(k.dtype)[None, None]
      v += self.v_bias[...].astype(v.dtype)[None, None]
    if self.arch.qk_norm:
      q, k = self.q_norm(q), self.k_norm(k)
    q, k = rotate(q, *angles), rotate(k, *angles)
    out = attend(q, k, v)
    return linear(out, self.o, inputs=2), (k, v)


class Mlp(nnx.Module):
  """down(act(gate(x)) * up(x))."""

  def __init__(self, arch: Arch, rngs: nnx.Rngs):
    d, f = arch.d_model, arch.d_ff
    self.gate = weight(rngs, (d, f), ("d_model", "d_ff"), d**-0.5)
    self.up = weight(rngs, (d, f), ("d_model", "d_ff"), d**-0.5)
    self.down = weight(rngs, (f, d), ("d_ff", "d_model"), (f * 2 * arch.layers) ** -0.5)
    self.activation = arch.activation

  def __call__(self, x):
    gate = _ACTIVATIONS[self.activation](linear(x, self.gate))
    return linear(gate * linear(x, self.up), self.down)


class Layer(nnx.Module):
  """One decoder layer."""

  def __init__(self, arch: Arch, rngs: nnx.Rngs):
    self.attn_norm = Norm(arch, arch.d_model, "d_model")
    self.attn = Attention(arch, rngs)
    self.mlp_norm = Norm(arch, arch.d_model, "d_model")
    self.mlp = Mlp(arch, rngs)
    if arch.post_norm:
      self.attn_post_norm = Norm(arch, arch.d_model, "d_model")
      self.mlp_post_norm = Norm(arch, arch.d_model, "d_model")
    self.post_norm = arch.post_norm

  def __call__(self, x_BTD, angles, attend):
    """-> (x_BTD, (k_BTKH, v_BTKH))."""
    out, kv = self.attn(self.attn_norm(x_BTD), angles, attend)
    x_BTD += self.attn_post_norm(out) if self.post_norm else out
    out = self.mlp(self.mlp_norm(x_BTD))
    return x_BTD + (self.mlp_post_norm(out) if self.post_norm else out), kv


class Outer(nnx.Module):
  """What the decoder has besides its layers: embedding, last norm, untied head."""

  def __init__(self, arch: Arch, rngs: nnx.Rngs):
    shape = (arch.vocab_size, arch.d_model)
    self.embed = weight(rngs, shape, ("vocab", "d_model"), EMBED_STD)
    self.norm = Norm(arch, arch.d_model, "d_model")
    if not arch.tied:
      self.head = weight(rngs, shape[::-1], ("d_model", "vocab"), arch.d_model**-0.5)
