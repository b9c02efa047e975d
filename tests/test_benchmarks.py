"""The benchmark measures what it says, at the size that it names."""

import numpy as np

from benchmarks import run
from pxy.model import decoder


def test_tiny_qwen_has_the_size_that_others_were_measured_at():
  size = run.SIZES["tiny-qwen"]
  assert decoder.size(size.arch) == 5_245_696
  assert size.tokens == 1024


def test_every_part_is_measured():
  parts = run.measure(run.SIZES["test"], rounds=3)
  assert list(parts) == ["sampling", "scoring", "update", "step"]
  for part in parts.values():
    assert part["seconds"] == np.median(part["rounds"]) > 0
    assert part["tokens_per_second"] == 32 / part["seconds"]
    assert part["compile_seconds"] >= 0


def test_responses_have_their_full_length():
  size = run.SIZES["test"]
  job = run.Job(size)
  assert all(len(s.ids) == size.completion for group in job.sampling() for s in group)
  assert job.packed.scored_tokens == size.tokens
