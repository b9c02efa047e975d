"""Metrics reduce the same way however the data are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy.rl import metrics


def parts(x, weight):
  """One dict of metrics per row of x."""
  return [
    {
      "sum": metrics.Sum(row.sum()),
      "mean": metrics.mean(row, w),
      "max": metrics.Max(row.max()),
      "min": metrics.Min(row.min()),
    }
    for row, w in zip(x, weight, strict=True)
  ]


@pytest.fixture
def data():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 5)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray((rng.random((3, 5)) < 0.6).astype(np.float32))


def test_merged_parts_equal_the_whole(data):
  x, weight = data
  first, *rest = parts(x, weight)
  for part in rest:
    first = metrics.merge(first, part)
  got = metrics.values(first)
  np.testing.assert_allclose(got["sum"], x.sum(), rtol=1e-5)
  np.testing.assert_allclose(got["mean"], np.average(x, weights=weight), rtol=1e-5)
  np.testing.assert_allclose(got["max"], x.max())
  np.testing.assert_allclose(got["min"], x.min())


def test_mean_is_weighted_not_a_mean_of_means():
  few = metrics.mean(jnp.array([10.0]), jnp.array([1.0]))
  many = metrics.mean(jnp.zeros(9), jnp.ones(9))
  assert float(few.merge(many).value()) == 1.0


def test_scan_and_jit_give_what_merging_gives(data):
  x, weight = data

  @jax.jit
  def scanned(x, weight):
    def body(carry, row):
      return carry, parts(row[0][None], row[1][None])[0]

    return metrics.collapse(jax.lax.scan(body, None, (x, weight))[1])

  got = metrics.values(scanned(x, weight))
  np.testing.assert_allclose(got["mean"], np.average(x, weights=weight), rtol=1e-5)
  np.testing.assert_allclose(got["max"], x.max())


def test_a_mean_of_nothing_is_nan_and_harmless():
  nothing = metrics.mean(jnp.ones(3), jnp.zeros(3))
  one = metrics.mean(jnp.full(3, 2.0), jnp.ones(3))
  assert np.isnan(nothing.value())
  assert float(nothing.merge(one).value()) == 2.0


def test_merge_keeps_names_of_either_side():
  a = {"x": metrics.Sum(jnp.array(1.0)), "y": metrics.Sum(jnp.array(2.0))}
  b = {"y": metrics.Sum(jnp.array(3.0)), "z": metrics.Sum(jnp.array(4.0))}
  assert metrics.values(metrics.merge(a, b)) == {"x": 1.0, "y": 5.0, "z": 4.0}


def test_empty_merges_without_a_trace(data):
  part = parts(*data)[0]
  merged = metrics.merge(metrics.empty(part), part)
  assert metrics.values(merged) == metrics.values(part)
