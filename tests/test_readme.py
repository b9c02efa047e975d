"""What the README shows from other code, run as it stands there."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def test_the_losses_from_other_code():
  (text,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
  rng = np.random.default_rng(0)
  names = {
    "apply": lambda params, tokens_BT: params["embed"][tokens_BT] @ params["head"],
    "params": {
      "embed": jnp.asarray(rng.normal(size=(9, 4)), jnp.float32),
      "head": jnp.asarray(rng.normal(size=(4, 9)), jnp.float32),
    },
    "prompts": [np.array([1, 2]), np.array([3, 4, 5])],
    "responses": [[np.array([6, 0]), np.array([7, 8, 0])] for _ in range(2)],
    "logps": [[np.zeros(2), np.zeros(3)] for _ in range(2)],
    "rewards_PR": np.array([[1.0, 0], [1, 0]]),
    "graded_PR": np.ones((2, 2), bool),
    "start_id": 8,
  }
  exec(compile(text, str(README), "exec"), names)
  params, marginal = names["params"], names["grads"]
  conditional = jax.grad(names["grpo"])(params)
  for grads in (marginal, conditional):
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))
  # The table sees what is read on the way to a response token: 7 and 8 of the wrong
  # response and the context 8; or both responses and the last token of each prompt.
  rows = [np.flatnonzero(np.abs(g["embed"]).sum(1)) for g in (marginal, conditional)]
  assert rows[0].tolist() == [7, 8] and rows[1].tolist() == [2, 5, 6, 7, 8]
