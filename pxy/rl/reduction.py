"""How tokens become one loss: the weight of each token, and what all are divided by.

A loss is a sum of weight x token loss over a total, so whoever has seen all
micro-batches and devices divides once. A new reduction is a function and a line of
REDUCTIONS.
"""

from collections.abc import Callable
from typing import Any

from pxy import imports
from pxy.rl import choose
from pxy.rl.arrays import Array

jax, jnp = imports.later("jax"), imports.later("jax.numpy")
np = imports.later("numpy")


def weights(term: Any, lengths_n: Array) -> tuple[Array, Array]:
  """Weight of each token of each sequence, and the total, by the term's reduction.

  Args:
    lengths_n: tokens of each sequence that takes part. An empty sequence does not count
      as one.

  Returns:
    (weights_n, total), float64 for numpy and float32 for jax; the total is 0 if nothing
    takes part.
  """
  xp = jnp if isinstance(lengths_n, jax.Array) else np
  lengths_n = xp.asarray(lengths_n, jnp.float32 if xp is jnp else np.float64)
  present_n = xp.where(lengths_n > 0, 1.0, 0.0)
  given = ("lengths_n", "present_n")
  return choose.function("reduction", term, REDUCTIONS, given)(lengths_n, present_n)


def token_mean(lengths_n: Array, present_n: Array) -> tuple[Array, Array]:
  """1 / tokens: a mean over all tokens."""
  return present_n, lengths_n.sum()


def seq_mean_token_mean(lengths_n: Array, present_n: Array) -> tuple[Array, Array]:
  """1 / (length * sequences): a mean over sequences of the mean over their tokens."""
  return present_n / lengths_n.clip(1.0), present_n.sum()


def seq_mean_token_sum(lengths_n: Array, present_n: Array) -> tuple[Array, Array]:
  """1 / sequences: a mean over sequences of the sum over their tokens."""
  return present_n, present_n.sum()


def fixed_length(
  lengths_n: Array, present_n: Array, constant: float
) -> tuple[Array, Array]:
  """1 / (sequences * `constant`): a mean over sequences of a length that is given."""
  return present_n, present_n.sum() * constant


REDUCTIONS: dict[str, Callable] = {
  "token-mean": token_mean,
  "seq-mean-token-mean": seq_mean_token_mean,
  "seq-mean-token-sum": seq_mean_token_sum,
  "constant": fixed_length,
}
