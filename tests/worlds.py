"""Small worlds that several tests share: a random model, its score, rollouts; sums."""

import functools
import pathlib

import jax
import numpy as np

from pxy import config
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.rl import rollout
from pxy.train import step

SUMS = str(pathlib.Path(__file__).parent / "data" / "sums.jsonl")
"""240 problems of arithmetic/add3 to train on and 40 to test: all of its 22,000 take a
run seconds to prepare."""
ARCH = arch_lib.Arch(
  vocab_size=31,
  layers=2,
  d_model=16,
  heads=4,
  kv_heads=2,
  head_dim=4,
  d_ff=24,
  context=64,
)


@functools.cache
def params(seed: int = 0):
  return decoder.init(ARCH, jax.random.key(seed))


@functools.cache
def score(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0):
  sampling = config.Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
  return step.scorer(ARCH, config.Compute(vocab_chunk=13), sampling)


def rollouts(seed: int = 0, prompts: int = 3, responses: int = 4, empty: bool = True):
  """Random prompts of 1-6 tokens and responses of 0-7 tokens (at least 1 if not
  empty)."""
  rng = np.random.default_rng(seed)

  def ids(low, high):
    return rng.integers(0, ARCH.vocab_size, rng.integers(low, high + 1)).astype(
      np.int32
    )

  of_prompts = [ids(1, 6) for _ in range(prompts)]
  of_responses = [
    [ids(0 if empty else 1, 7) for _ in range(responses)] for _ in range(prompts)
  ]
  logps = [[-rng.random(len(y)).astype(np.float32) for y in g] for g in of_responses]
  return rollout.stack(of_prompts, of_responses, logps)
