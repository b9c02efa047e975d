"""A decoder in float64 numpy, one sequence at a time, one token pair at a time.

Written from the papers, not from pxy: it takes tensors by their Hugging Face names and
in their layout (a matrix is [out, in]), repeats key-value heads, and knows no cache,
no packing, no blocks. The flags are read off `arch`.
"""

import math

import numpy as np


def forward(arch, tensors, tokens):
  """tokens [T] -> (final hidden states [T, D], logits [T, V])."""
  w = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
  x = w["model.embed_tokens.weight"][np.asarray(tokens)]
  if arch.embed_scale:
    x = x * math.sqrt(arch.d_model)
  for layer in range(arch.layers):
    part = f"model.layers.{layer}."
    mine = {k[len(part) :]: v for k, v in w.items() if k.startswith(part)}
    x = _layer(arch, layer, mine, x)
  hidden = _norm(arch, x, w["model.norm.weight"])
  name = "model.embed_tokens.weight" if arch.tied else "lm_head.weight"
  logits = hidden @ w[name].T
  return hidden, _cap(logits, arch.logit_softcap)


def _layer(arch, layer, w, x):
  after_attn, before_mlp, after_mlp = None, "post_attention_layernorm.weight", None
  if arch.post_norm:
    after_attn, after_mlp = before_mlp, "post_feedforward_layernorm.weight"
    before_mlp = "pre_feedforward_layernorm.weight"
  y = _attention(arch, layer, w, _norm(arch, x, w["input_layernorm.weight"]))
  x = x + (_norm(arch, y, w[after_attn]) if after_attn else y)
  y = _norm(arch, x, w[before_mlp])
  gate = y @ w["mlp.gate_proj.weight"].T
  if arch.activation == "silu":
    gate = gate / (1 + np.exp(-gate))
  else:
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    gate = 0.5 * gate * (1 + np.tanh(inner))
  y = (gate * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
  return x + (_norm(arch, y, w[after_mlp]) if after_mlp else y)


def _attention(arch, layer, w, x):
  width = arch.head_dim
  local = arch.window is not None
  if local and arch.local_pattern:
    local = arch.local_pattern[layer % len(arch.local_pattern)]
  heads = {}
  for name in "qkv":
    y = x @ w[f"self_attn.{name}_proj.weight"].T
    if arch.qkv_bias:
      y = y + w[f"self_attn.{name}_proj.bias"]
    heads[name] = y.reshape(len(x), -1, width)
  for name in "qk":
    if arch.qk_norm:
      heads[name] = _norm(arch, heads[name], w[f"self_attn.{name}_norm.weight"])
    pattern = arch.rope_pattern or (True,)
    if pattern[layer % len(pattern)]:
      heads[name] = np.stack(
        [_rotate(arch, h, t, local) for t, h in enumerate(heads[name])]
      )
  scale = width**-0.5 if arch.attn_scale is None else arch.attn_scale
  window = arch.window if local else None
  out, _ = attend(*(heads[n] for n in "qkv"), scale, arch.attn_softcap, window)
  return out.reshape(len(x), -1) @ w["self_attn.o_proj.weight"].T


def attend(q, k, v, scale, softcap=None, window=None, slope=None):
  """q [T, N, H], k and v [T, K, H] -> out [T, N, H], and the gradients of
  sum(slope * out) with respect to q, k and v."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out, grads = np.zeros_like(q), [np.zeros_like(x) for x in (q, k, v)]
  group = q.shape[1] // k.shape[1]
  for t, n in np.ndindex(q.shape[:2]):
    seen = slice(max(0, t - window + 1) if window else 0, t + 1)
    keys, values = k[seen, n // group], v[seen, n // group]
    scores = _cap(scale * (keys @ q[t, n]), softcap)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    out[t, n] = weights @ values
    if slope is not None:
      of_weights = values @ slope[t, n]
      of_scores = weights * (of_weights - weights @ of_weights)
      if softcap is not None:
        of_scores *= 1 - (scores / softcap) ** 2
      grads[0][t, n] = scale * of_scores @ keys
      grads[1][seen, n // group] += scale * np.outer(of_scores, q[t, n])
      grads[2][seen, n // group] += np.outer(weights, slope[t, n])
  return out, grads


def _rotate(arch, h, t, local):
  half = arch.head_dim // 2
  out = np.empty_like(h)
  for i in range(half):
    angle = t * _frequency(arch, i, local)
    pair = h[:, i] + 1j * h[:, i + half]
    pair = pair * complex(math.cos(angle), math.sin(angle))
    if arch.rope_scaling and not (local and arch.rope_local_theta is not None):
      pair = pair * arch.rope_scaling.attention
    out[:, i], out[:, i + half] = pair.real, pair.imag
  return out


def _frequency(arch, i, local):
  if local and arch.rope_local_theta is not None:
    return arch.rope_local_theta ** (-2 * i / arch.head_dim)
  plain = arch.rope_theta ** (-2 * i / arch.head_dim)
  if arch.rope_scaling is None:
    return plain
  slow = plain / arch.rope_scaling.factor
  if arch.rope_scaling.ramp is None:
    return slow
  low, high, context = arch.rope_scaling.ramp
  if arch.rope_scaling.over != "turns":  # YaRN: over the numbers of the pairs
    ends = []
    for turns in (high, low):
      wavelength = context / turns
      number = math.log(wavelength / (2 * math.pi), arch.rope_theta) * arch.head_dim / 2
      ends.append(number)
    if arch.rope_scaling.over == "whole_pairs":
      ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], arch.head_dim - 1)
    share = min(max((i - first) / (last - first), 0), 1)
    return share * slow + (1 - share) * plain
  wavelength = 2 * math.pi / plain
  if wavelength > context / low:
    return slow
  if wavelength < context / high:
    return plain
  smooth = (context / wavelength - low) / (high - low)
  return (1 - smooth) * slow + smooth * plain


def _norm(arch, x, scale):
  scale = 1 + scale if arch.norm_plus_one else scale
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + arch.norm_eps) * scale


def _cap(x, cap):
  return x if cap is None else cap * np.tanh(x / cap)
