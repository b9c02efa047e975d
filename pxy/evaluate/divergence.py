"""How far apart two models are on a text: the exact KL divergence of each next token.

    KL(p, q; y) = sum_t sum_v p(v | c, y_<t) log [p(v | c, y_<t) / q(v | c, y_<t)]

at temperature 1, over the whole vocabulary. With y drawn from p its mean over texts is
the divergence of the models; so forward (p the base, y of the base) and reverse (p the
new model, y of the new model) are the same function (2509.04259). The two models need
one tokenizer; their architectures may differ.

Logits of `CHUNK` tokens exist at a time.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pxy.evaluate import likelihood
from pxy.model import decoder

CHUNK = 256


def kl(
  policy, other, asked: Sequence[tuple[Sequence[int], int, np.ndarray]]
) -> list[float]:
  """KL(policy, other) in nats of each (context ids, r, response ids), summed over its
  tokens; nan where it is not finite. The two are load.Policy."""
  out = [math.nan] * len(asked)
  for members, packed in likelihood.batches(asked):
    kl_BT = np.asarray(
      _kl(policy.arch, other.arch, policy.params, other.params, packed)
    )
    for i in members:
      row = asked[i][1] % likelihood.ROWS
      out[i] = math.fsum(kl_BT[row][packed.mask_BT[row]].tolist())
  return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _kl(arch, other, params, others, packed):
  hidden = [
    decoder.forward(a, p, packed.tokens_BT, packed.positions_BT, packed.segments_BT)
    for a, p in ((arch, params), (other, others))
  ]
  size, width = packed.tokens_BT.shape
  tokens = size * width
  chunk = min(CHUNK, tokens)
  pad = -tokens % chunk

  def chunked(x_BTD):
    x_ND = jnp.pad(x_BTD.reshape(tokens, -1), [(0, pad), (0, 0)])
    return x_ND.reshape(-1, chunk, x_ND.shape[-1])

  def one(pair):
    logp_NV, logq_NV = (
      jax.nn.log_softmax(decoder.logits(a, p, x_ND))
      for a, p, x_ND in zip((arch, other), (params, others), pair, strict=True)
    )
    return jnp.sum(jnp.exp(logp_NV) * (logp_NV - logq_NV), axis=-1)

  kl_N = jax.lax.map(one, tuple(map(chunked, hidden))).reshape(-1)[:tokens]
  return jnp.where(packed.mask_BT, kl_N.reshape(size, width), 0.0)
