"""Model FLOPs: what the architecture asks for, counted from its sizes.

    forward(tokens, pairs) = 2 tokens (layers * weights of a layer + heads * D V)
                             + 4 layers N H pairs
    training               = 3 forward

A weight of a matrix costs a multiplication and an addition per token; a query meets a
key at 2 H FLOPs per head for the score and as many for the value. Pairs are those that
causality, segments and windows let see each other, and nothing that is computed again
counts, so that the share of the chip's peak (MFU) is of useful work and never profits
from waste. Source: the appendix of the PaLM report. Left out: norms, rotations,
activations, softmax and the embedding's lookup: about 1 % at common sizes.
"""

from collections.abc import Iterable

from pxy.model.arch import Arch

PEAKS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H200": 989e12,
  "NVIDIA B200": 2250e12,
}
"""Dense bfloat16 FLOPs per second of a device, by how its kind begins: the makers' data
sheets."""


def peak(device_kind: str) -> float | None:
  """FLOPs per second that a device can do at most; None where it is not known."""
  names = [name for name in PEAKS if device_kind.startswith(name)]
  return PEAKS[max(names, key=len)] if names else None


def forward(
  arch: Arch, tokens: int, pairs: Iterable[int], predicted: int | None = None
) -> int:
  """FLOPs of one pass over `tokens` inputs.

  Args:
    pairs: of a query and a key, in each layer.
    predicted: tokens after which logits are formed; None: all.
  """
  q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
  layer = arch.d_model * (2 * q + 2 * kv + 3 * arch.d_ff)
  predicted = tokens if predicted is None else predicted
  weights = tokens * arch.layers * layer + predicted * arch.d_model * arch.vocab_size
  return 2 * weights + 4 * q * sum(pairs)


def train(
  arch: Arch, tokens: int, pairs: Iterable[int], predicted: int | None = None
) -> int:
  """FLOPs of a pass and of its gradient, which takes twice as many."""
  return 3 * forward(arch, tokens, pairs, predicted)


def causal(arch: Arch, lengths: Iterable[int]) -> list[int]:
  """Pairs of a query and a key that it sees, per layer, in sequences of such lengths.

  A window of w gives the first w tokens what causality does, and the others w.
  """
  lengths = [int(length) for length in lengths]

  def seen(window: int | None) -> int:
    full = [length if window is None else min(length, window) for length in lengths]
    return sum(
      n * (n + 1) // 2 + (length - n) * n
      for n, length in zip(full, lengths, strict=True)
    )

  by_window = {window: seen(window) for window in set(arch.windows())}
  return [by_window[window] for window in arch.windows()]
