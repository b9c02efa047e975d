"""GGUF files against what transformers computed from them.

tests/golden/make_gguf.py wrote the numbers; tests/parity compares live.
"""

import dataclasses
import functools
import pathlib

import gguf_worlds
import numpy as np
import pytest
import safetensors.numpy

from pxy.model import decoder
from pxy.weights import load

import hf_worlds

GOLDEN = pathlib.Path(__file__).parent / "golden" / "gguf.safetensors"


@functools.cache
def golden():
  return safetensors.numpy.load_file(GOLDEN)


@pytest.fixture(scope="module", params=gguf_worlds.CASES)
def case(request, tmp_path_factory):
  """(name, policy)."""
  path = tmp_path_factory.mktemp("gguf") / "x.gguf"
  return request.param, load.load(str(gguf_worlds.write(path, request.param)))


def logits(arch, params, ids_T):
  hidden_TD = hf_worlds.hidden(arch, params, ids_T, arch.layers)
  return decoder.logits(arch, params, hidden_TD)


def test_logits_and_greedy(case):
  """Of the text and of the likeliest tokens after it, which are theirs."""
  name, policy = case
  assert policy.arch == gguf_worlds.CASES[name].arch
  text_T, drawn_T = gguf_worlds.ids(), golden()[f"{name}.greedy"]
  got_TV = logits(policy.arch, policy.params, np.concatenate([text_T, drawn_T]))
  want_TV = golden()[f"{name}.logits"]
  hf_worlds.assert_close(got_TV[: len(text_T)], want_TV, "logits")
  likeliest_T = got_TV.argmax(-1)[len(text_T) - 1 : -1]
  assert likeliest_T.tolist() == drawn_T.tolist()


WITHOUT = {
  "llama3": {"rope_scaling": None},
  "gemma3": {"window": None, "local_pattern": ()},
  "gemma3_narrow": {"attn_scale": 0.25},
  "gemma3_scaled": {"rope_scaling": None},
}


def test_the_case_would_tell(case):
  """Else it could agree because the option changes nothing."""
  name, policy = case
  arch = dataclasses.replace(policy.arch, **WITHOUT[name])
  got_TV = logits(arch, policy.params, gguf_worlds.ids())
  apart = hf_worlds.distance(got_TV, golden()[f"{name}.logits"])
  assert apart > 3 * hf_worlds.NOISE, f"{apart:.1e}: the option changes next to nothing"
