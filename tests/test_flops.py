"""Model FLOPs against what XLA counts in the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config, testing
from pxy.model import decoder, flops
from pxy.rl import rollout
from pxy.run import batch
from pxy.run import numbers as numbers_lib

# Wide enough for matrices to be nearly all there is; shallow, so that XLA unrolls.
ARCH = testing.arch(d_model=128, heads=4, head_dim=32, d_ff=384, vocab_size=1024)
ROWS, TOKENS = 4, 32  # one block of queries: XLA forms every pair


def compiled(function):
  shape = jax.ShapeDtypeStruct((ROWS, TOKENS), jnp.int32)
  lowered = jax.jit(function).lower(decoder.abstract(ARCH), shape, shape, shape)
  return lowered.compile().cost_analysis()["flops"]


def loss(params, tokens_BT, positions_BT, segments_BT):
  hidden_BTD = decoder.forward(ARCH, params, tokens_BT, positions_BT, segments_BT)
  return jnp.square(decoder.logits(ARCH, params, hidden_BTD)).mean()


@pytest.mark.parametrize(
  "function, counted", [(loss, flops.forward), (jax.grad(loss), flops.train)]
)
def test_xla_counts_the_same_within_a_few_percent(function, counted):
  pairs = [ROWS * TOKENS**2] * ARCH.layers
  want = counted(ARCH, ROWS * TOKENS, pairs)
  found = compiled(function)
  assert 0.98 < found / want < 1.06, f"XLA {found:.3g}, counted {want:.3g}"


@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_pairs_are_what_a_query_sees(window):
  arch = testing.arch(window=window, local_pattern=(True, False))
  lengths = [1, 2, 7, 20]

  def count(window):
    ago = [np.subtract.outer(np.arange(n), np.arange(n)) for n in lengths]
    return sum(int(((a >= 0) & (a < (window or 99))).sum()) for a in ago)

  assert flops.causal(arch, lengths) == [count(window), count(None)]


def test_logits_are_counted_where_they_are_formed():
  pairs = flops.causal(ARCH, [10])
  every, none = flops.forward(ARCH, 10, pairs), flops.forward(ARCH, 10, pairs, 0)
  assert every - none == 2 * 10 * ARCH.d_model * ARCH.vocab_size


def test_a_step_reads_prompts_once_and_trains_on_what_is_scored(monkeypatch):
  prompts, responses = [np.arange(3), np.arange(5)], [[4, 1, 2], [6, 2, 3]]
  ids = [[np.zeros(n, np.int32) for n in group] for group in responses]
  rollouts = rollout.stack(prompts, ids, ids)
  made = batch.prepare(
    config.Phase(),
    rollouts,
    np.array([[1.0, 0, 0], [0, 0, 0]]),
    np.ones((2, 3), bool),
    contexts={},
    key=None,
    shape=batch.Shape(micro_max=2, micro_rows=2, row_tokens=16),
  )
  step = {"forwards": 1, "seconds": 0.5, "devices": 2}
  found = numbers_lib.of_flops(ARCH, rollouts, [made], **step)
  pairs = 0
  for prompt, group in zip((3, 5), responses, strict=True):
    pairs += sum(range(1, prompt + 1))
    pairs += sum(prompt + t for n in group for t in range(1, n))
  drawn = flops.forward(ARCH, 3 + 5 + 18 - 6, [pairs] * 2, 18)
  # Only the first group has a contrast: 3 prompt tokens and n - 1 of each response.
  given = 3 * 3 + 7 - 3, flops.causal(ARCH, [6, 3, 4]), 7
  trained = flops.train(ARCH, *given) + flops.forward(ARCH, *given)
  assert found == {"perf/model_tflops": (drawn + trained) / 1e12}
  found = numbers_lib.of_flops(ARCH, rollouts, [made], **step, drawn=False)
  assert found == {"perf/model_tflops": trained / 1e12}, "stored: none was drawn"
  kind = jax.devices()[0].device_kind
  monkeypatch.setitem(flops.PEAKS, kind, 1e9)  # of each of the devices
  found = numbers_lib.of_flops(ARCH, rollouts, [made], **step)
  used = flops.train(ARCH, *given) / 0.5
  assert found["perf/mfu/actor"] == pytest.approx(used / (1e9 * 2))


def test_the_peak_is_that_of_the_closest_name_or_unknown():
  assert flops.peak("TPU v5 lite") == 197e12
  assert flops.peak("TPU v5p") == flops.peak("TPU v5") == 459e12
  assert flops.peak("NVIDIA H100 80GB HBM3") == 989e12
  assert flops.peak("cpu") is None
