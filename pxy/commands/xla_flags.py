"""What XLA is told before it starts: on a GPU, float32 products are cuBLAS's.

XLA tries dozens of Triton programs for each product of matrices and takes the fastest.
For `make demo`'s small model that was 104 of its first 122 s; with cuBLAS alone the
whole run takes 63 s (H200, jax 0.11.2), with its programs kept 29. At a real model's
size Triton's are worth it: in bfloat16 sampling is 5 % faster with them, so there XLA
goes on choosing.
"""

import importlib.util
import os

FLAG = "--xla_gpu_enable_triton_gemm"
_BUILDS = ("cuda12", "cuda13")


def choose(dtype: str) -> None:
  """To be called before JAX has devices. What XLA_FLAGS says of it already stays."""
  said = os.environ.get("XLA_FLAGS", "")
  # Elsewhere it would mean nothing, and be part of every compiled program's name.
  if dtype == "float32" and cuda() and FLAG not in said:
    os.environ["XLA_FLAGS"] = f"{said} {FLAG}=false".strip()


def cuda() -> bool:
  """Whether JAX's plugin for NVIDIA GPUs is installed."""
  return bool(builds())


def builds() -> tuple[str, ...]:
  """Of which CUDA it is, by the names of JAX's extras: cuda12, cuda13."""
  return tuple(x for x in _BUILDS if importlib.util.find_spec(f"jax_{x}_plugin"))
