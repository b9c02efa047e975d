"""Numbers that look random and are functions of a counter, on any machine for ever.

The worlds are made of these: no random generator whose stream may change.
"""

import numpy as np


def mix(x: np.ndarray) -> np.ndarray:
  """The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection of uint64."""
  x = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def stream(seed: int, purpose: int, keys: np.ndarray) -> np.ndarray:
  """uint64 of each key, another function for each (seed, purpose < 64)."""
  return mix(mix(np.array([seed * 64 + purpose])) ^ mix(np.asarray(keys)))


def below(bits: np.ndarray, limit: int) -> np.ndarray:
  """int64 from 0 to below a small limit."""
  return (bits % np.uint64(limit)).astype(np.int64)


def share(bits: np.ndarray) -> np.ndarray:
  """float64 from 0 to below 1."""
  return (bits >> np.uint64(11)) * 2.0**-53
