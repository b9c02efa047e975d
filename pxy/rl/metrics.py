"""A metric knows its reduction: Sum, Mean, Max, Min.

Averages of averages are wrong as soon as micro-batches or devices hold different
numbers of tokens, so no metric is averaged early: a Mean carries (sum, weight), parts
are merged, and `value` divides once, at the end. The four are pytrees and work inside
jit, scan and shard_map. What needs all samples at once (quantiles, standard errors) is
computed on the host, from arrays.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pxy.rl.arrays import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum:
  """A total."""

  sum: Array

  def merge(self, other: "Sum") -> "Sum":
    return Sum(self.sum + other.sum)

  def collapse(self) -> "Sum":
    return Sum(jnp.sum(self.sum, axis=0))

  def value(self) -> Array:
    return self.sum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
  """sum / weight; nan when nothing was counted."""

  sum: Array
  weight: Array

  def merge(self, other: "Mean") -> "Mean":
    return Mean(self.sum + other.sum, self.weight + other.weight)

  def collapse(self) -> "Mean":
    return Mean(jnp.sum(self.sum, axis=0), jnp.sum(self.weight, axis=0))

  def value(self) -> Array:
    empty = self.weight == 0
    return jnp.where(empty, jnp.nan, self.sum / jnp.where(empty, 1, self.weight))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Max:
  """The largest."""

  max: Array

  def merge(self, other: "Max") -> "Max":
    return Max(jnp.maximum(self.max, other.max))

  def collapse(self) -> "Max":
    return Max(jnp.max(self.max, axis=0))

  def value(self) -> Array:
    return self.max


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Min:
  """The smallest."""

  min: Array

  def merge(self, other: "Min") -> "Min":
    return Min(jnp.minimum(self.min, other.min))

  def collapse(self) -> "Min":
    return Min(jnp.min(self.min, axis=0))

  def value(self) -> Array:
    return self.min


Metric = Sum | Mean | Max | Min


def mean(x: Array, weight: Array) -> Mean:
  """The mean of x under weights of the same shape, still as (sum, weight)."""
  return Mean(jnp.sum(x * weight), jnp.sum(weight))


def merge(a: dict[str, Metric], b: dict[str, Metric]) -> dict[str, Metric]:
  """Name by name; a name that only one side has is kept as it is."""
  others: dict[str, Any] = b  # of the same kind as in a, by name
  both = {name: a[name].merge(others[name]) for name in a if name in b}
  return a | b | both


def empty(like: dict[str, Metric]) -> dict[str, Metric]:
  """What merges into anything without changing it, shaped like `like`."""
  start = {Max: -jnp.inf, Min: jnp.inf}
  return {
    name: jax.tree.map(
      lambda x, m=m: jnp.full(x.shape, start.get(type(m), 0), x.dtype), m
    )
    for name, m in like.items()
  }


def collapse(stacked: dict[str, Metric]) -> dict[str, Metric]:
  """Merges along the leading axis, as `lax.scan` over micro-batches stacks them."""
  return {name: metric.collapse() for name, metric in stacked.items()}


def values(metrics: dict[str, Metric]) -> dict[str, float]:
  """Plain floats on the host, in one transfer."""
  on_host = jax.device_get(_values(metrics))
  return {name: float(value) for name, value in on_host.items()}


@jax.jit
def _values(metrics):
  return {name: metric.value() for name, metric in metrics.items()}
