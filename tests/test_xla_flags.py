"""What XLA is told of products: on a GPU, in float32, and never against the user."""

import importlib.util
import os

import pytest

from pxy.commands import xla_flags

OFF, ON = (f"{xla_flags.FLAG}={x}" for x in ("false", "true"))


@pytest.mark.parametrize(
  ("dtype", "plugin", "before", "after"),
  [
    ("float32", "jax_cuda13_plugin", None, OFF),
    ("float32", "jax_cuda12_plugin", "--xla_dump_to=d", f"--xla_dump_to=d {OFF}"),
    ("float32", "jax_cuda13_plugin", ON, ON),
    ("float32", None, None, None),
    ("bfloat16", "jax_cuda13_plugin", None, None),
  ],
)
def test_float32_on_a_gpu_is_without_triton(monkeypatch, dtype, plugin, before, after):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == plugin or None)
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  if before is not None:
    monkeypatch.setenv("XLA_FLAGS", before)
  xla_flags.choose(dtype)
  assert os.environ.get("XLA_FLAGS") == after
