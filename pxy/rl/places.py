"""Only the places that count: a function of tokens that leaves out the others.

Prompts and padding have no part in a loss. The places that count are put first, and of
a quarter, half, three quarters or all of the places the least that holds them is given
to the function: as many programs, of which one runs. A loop over blocks would add up a
gradient of weights in memory once a block. Under jax.vmap all are given as many.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pxy.rl.arrays import Array

# Into how many shares places are cut, and how many a share has at least; a multiple of
# that, since products want whole vectors.
_SHARES, _PLACES = 4, 64


class Order(NamedTuple):
  """The places that count first: of K parts of rows, each of M places."""

  from_KM: jax.Array
  """Which place comes here."""
  to_KM: jax.Array
  """Where this place has gone."""
  most: jax.Array
  """Places that count, in the part that has most of them."""


def sizes(places: int) -> list[int]:
  """How many of a part's places may be given: of these the least that will do."""
  step = max(_PLACES, -(-places // _SHARES))
  step = -(-step // _PLACES) * _PLACES
  return [min(end, places) for end in range(step, places + step, step)]


def order(mask_KM: Array) -> Order:
  """That of a bool mask, of the places that count."""
  from_KM = jnp.argsort(~mask_KM, axis=1, stable=True)
  count_KM = jnp.cumsum(mask_KM, axis=1)
  beyond_KM = jnp.arange(mask_KM.shape[1])[None] - count_KM + count_KM[:, -1:]
  to_KM = jnp.where(mask_KM, count_KM - 1, beyond_KM)
  return Order(from_KM, to_KM, _most(count_KM[:, -1]))


@jax.custom_batching.custom_vmap
def _most(count_K):
  return jnp.max(count_K)


@_most.def_vmap
def _most_of_all(size, batched, count_AK):
  """One number for all, or every program would run and a result be selected."""
  del size, batched
  return jnp.max(count_AK), False


def run(
  order: Order, function: Callable, arrays: Sequence[Array | None]
) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
  """function(*first places of arrays [N, ...]), on as few as hold those that count.

  Args:
    order: of N = K M places.
    function: gives (tuple of arrays [n, ...] of the n places given, an array or None).
    arrays: None comes as None.

  Returns:
    What it gave, the arrays with all N places where they were, 0 where it had none.
  """
  parts, places = order.from_KM.shape

  def move(x_N, to_KM):
    if x_N is None:
      return None
    x_KM = x_N.reshape(parts, places, *x_N.shape[1:])
    to_KM = to_KM.reshape(parts, places, *[1] * (x_N.ndim - 1))
    return jnp.take_along_axis(x_KM, to_KM, axis=1)

  def flat(x_KM):
    return None if x_KM is None else x_KM.reshape(-1, *x_KM.shape[2:])

  moved = [move(x_N, order.from_KM) for x_N in arrays]

  def first(count):
    def some():
      given = (None if x is None else flat(x[:, :count]) for x in moved)
      found, more = function(*given)

      def fill(x_N):
        x_KM = x_N.reshape(parts, count, *x_N.shape[1:])
        rest = [(0, 0), (0, places - count), *[(0, 0)] * (x_N.ndim - 1)]
        return flat(jnp.pad(x_KM, rest))

      return tuple(map(fill, found)), more

    return some

  which = jnp.searchsorted(jnp.array(sizes(places)), order.most)
  found, more = jax.lax.switch(which, [first(count) for count in sizes(places)])
  return tuple(flat(move(x_N, order.to_KM)) for x_N in found), more
