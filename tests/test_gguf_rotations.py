"""The scaling of Llama 3, found again from the tensor in which a GGUF file keeps it."""

import dataclasses

import gguf
import numpy as np
import pytest
import test_gguf

from pxy import config, testing
from pxy.model import arch as arch_lib
from pxy.model import layers
from pxy.weights import gguf_file, gguf_rotations

PUBLISHED = {
  "Llama 3.1 8B, 70B, 405B and 3.3 70B": (128, 8.0),
  "Llama 3.2 1B": (64, 32.0),
  "Llama 3.2 3B": (128, 32.0),
}
"""The width of a head and the factor; the rest is the same for all."""


def arch(head_dim, factor):
  scaling = arch_lib.Scaling(factor, (1.0, 4.0, 8192))
  return testing.arch(head_dim=head_dim, rope_theta=5e5, rope_scaling=scaling)


def read(path, freqs, theta=5e5, head_dim=64):
  tensor = (np.asarray(freqs, np.float32), gguf.GGMLQuantizationType.F32)
  fields = {"general.architecture": "llama"}
  test_gguf.write(path / "x.gguf", fields, {"rope_freqs.weight": tensor})
  return gguf_rotations.llama3(gguf_file.File(path / "x.gguf"), theta, head_dim)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_scalings_are_found(name, tmp_path):
  head_dim, factor = PUBLISHED[name]
  want = arch(head_dim, factor)
  freqs_h = test_gguf.rope_freqs(want)
  assert len(set(freqs_h.tolist())) > 4, "some are on the ramp"
  found = read(tmp_path, freqs_h, head_dim=head_dim)
  assert found == want.rope_scaling
  # What the model then computes is what the file asks for.
  got_h = layers.frequencies(dataclasses.replace(want, rope_scaling=found), False)
  plain_h = 5e5 ** (-2.0 * np.arange(head_dim // 2) / head_dim)
  np.testing.assert_allclose(got_h, plain_h / freqs_h, rtol=5e-7)


def test_ones_scale_nothing(tmp_path):
  assert read(tmp_path, np.ones(32)) is None


SOUND = test_gguf.rope_freqs(arch(64, 32.0))


@pytest.mark.parametrize(
  "freqs",
  [
    SOUND * 1.0001,
    SOUND[::-1],
    np.where(np.arange(32) == 15, SOUND * 1.001, SOUND),
    np.linspace(1, 32, 32),
    np.full(32, 8.0),
    np.zeros(32),
    -SOUND,
    np.full(32, 0.5),
    np.full(32, 3e38),
    test_gguf.rope_freqs(dataclasses.replace(arch(64, 32.0), rope_theta=1e4)),
  ],
)
def test_another_scaling_is_refused(freqs, tmp_path):
  with pytest.raises(config.Error, match="in a way that is not supported"):
    read(tmp_path, freqs)


@pytest.mark.parametrize("theta", [1e-300, 1e-30, 1.0, 1e300])
def test_wild_bases_are_refused_too(theta, tmp_path):
  with pytest.raises(config.Error, match="not supported"):
    read(tmp_path, SOUND, theta)


def test_fields_of_linear_scaling():
  linear = gguf_rotations.linear
  assert linear("none", 4.0, 0.0) is None
  assert linear("linear", 0.0, 0.0) is linear("linear", 1.0, 8.0) is None
  assert linear("linear", 4.0, 8.0) == arch_lib.Scaling(4.0)
  assert linear("linear", 0.0, 8.0) == arch_lib.Scaling(8.0)
  for factor in (0.25, -1.0, float("inf"), float("nan")):
    with pytest.raises(config.Error, match="factor must be >= 1"):
      linear("linear", factor, 0.0)
