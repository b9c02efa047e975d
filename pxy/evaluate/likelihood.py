"""Log p of whole responses after any context: of its prompt, of another, of none.

    log p(y | c) = sum_t log pi(y_t | c, y_<t)       at temperature 1, nothing cut off

Each is a function of the weights, c and y alone, to the bit: response r is scored in
row r % 8 of a batch of one shape, which the lengths decide, and what stands in the
other rows does not reach it. So what is added later equals what is there. Sums are
exact over the float32 values of the tokens, and kept to six digits behind the point.

`start` and `document` are lone tokens (rl/context.py), `other` is another problem's
prompt. There is no context of no token: a causal model gives a first token no
probability without one before it, and `start` is that one.
"""

import collections
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pxy import config
from pxy.rl import context, pack, rollout, view
from pxy.train import step

ROWS = 8
"""Of a batch."""
_AHEAD = 8
"""Batches that are dispatched before the first is fetched."""

OTHER = "other"
NAMES = (*(name for name, known in context.CONTEXTS.items() if known.ids), OTHER)
"""What may be asked for besides `prompt`."""


def names(text: str) -> list[str]:
  """Contexts of a list with commas, `prompt` first; config.Error for unknown ones."""
  asked = [word for word in text.replace(" ", "").split(",") if word]
  for word in asked:
    if word == "none":
      raise config.Error(
        "--contexts none: a first token has no probability without a token before it;"
        " `start` has the lone start token there"
      )
    if word not in ("prompt", *NAMES):
      raise config.Error(f"--contexts {word}: there are {', '.join(NAMES)}")
  return [name for name in ("prompt", *NAMES) if name == "prompt" or name in asked]


def fixed(tokenizer, asked: Sequence[str]) -> dict[str, list[int]]:
  """Ids of the contexts that are the tokenizer's; config.Error where it has none."""
  known = {name: context.CONTEXTS[name] for name in asked if name in context.CONTEXTS}
  return {name: list(found.ids(tokenizer)) for name, found in known.items()}


def known(tokenizer, asked: Sequence[str]) -> list[str]:
  """Those of the contexts that a tokenizer has."""
  out = []
  for name in asked:
    try:
      fixed(tokenizer, [name])
    except config.Error:
      continue
    out.append(name)
  return out


class Likelihood:
  """Scores responses under a model; made once for each architecture."""

  def __init__(self, arch):
    score = step.scorer(arch, config.Compute(), config.Sampling(), every=True)

    def scores(params, packed):
      return [jnp.where(packed.mask_BT, x, 0.0) for x in score(params, packed)]

    self._scores = jax.jit(scores)

  def __call__(
    self,
    params,
    asked: Sequence[tuple[Sequence[int], int, np.ndarray]],
    on_done: Callable[[int], None] = lambda n: None,
  ) -> list[tuple[float | None, float | None]]:
    """(log p, entropy) in nats of each (context ids, r, response ids), summed over its
    tokens; None where it is not finite.

    Responses to the same context are scored together; a context has at least one id.
    on_done: told now and then how many are done.
    """
    out = [(None, None)] * len(asked)
    running, done = [], 0
    for members, packed in batches(asked):
      running.append((members, packed.mask_BT, self._scores(params, packed)))
      if len(running) > _AHEAD:
        done += _take(out, asked, running.pop(0))
        on_done(done)
    for one in running:
      done += _take(out, asked, one)
      on_done(done)
    return out


def batches(
  asked: Sequence[tuple[Sequence[int], int, np.ndarray]],
) -> Iterator[tuple[list[int], pack.Packed]]:
  """(which of `asked`, packed rows) of each batch; `asked` is that of Likelihood, and
  response r is in row r % ROWS."""
  found: dict[tuple, list[int]] = {}
  taken: collections.Counter = collections.Counter()
  for i, (ids, r, response) in enumerate(asked):
    place = tuple(ids), _width(len(ids) + len(response) - 1), r % ROWS
    found.setdefault((*place[:2], taken[place]), []).append(i)
    taken[place] += 1
  for (ids, width, _), members in found.items():
    yield members, _packed(ids, [asked[i][1:] for i in members], width)


def _width(tokens: int) -> int:
  """Tokens of a row: 32, 64, 96, 128, 192, 256, 384 ..."""
  width = 32
  while width < tokens:
    width += max(32, (1 << width.bit_length()) // 4)
  return width


def _packed(ids: Sequence[int], responses, width: int) -> pack.Packed:
  """A batch [ROWS, width] of (r, ids) after one context; other rows are empty."""
  response_BT = np.zeros((ROWS, width + 1 - len(ids)), np.int32)
  length_B = np.zeros(ROWS, np.int32)
  for r, response in responses:
    response_BT[r % ROWS, : len(response)] = response
    length_B[r % ROWS] = len(response)
  rollouts = rollout.Rollouts(
    prompt_BS=np.tile(np.asarray(ids, np.int32), (ROWS, 1)),
    prompt_len_B=np.full(ROWS, len(ids), np.int32),
    response_BT=response_BT,
    response_len_B=length_B,
    logp_BT=np.zeros(response_BT.shape, np.float32),
  )
  ones_B = np.ones(ROWS, np.float32)
  return pack.rows(view.conditional(rollouts), rollouts, ones_B, ones_B)


def _take(out, asked, done) -> int:
  """Writes down a batch's sums; how many."""
  members, mask_BT, scored = done
  logp_BT, entropy_BT = map(np.asarray, jax.device_get(scored))
  for i in members:
    row = asked[i][1] % ROWS
    out[i] = tuple(_sum(x_BT[row][mask_BT[row]]) for x_BT in (logp_BT, entropy_BT))
  return len(members)


def _sum(x_T: np.ndarray) -> float | None:
  return round(math.fsum(x_T.tolist()), 6) if np.isfinite(x_T).all() else None
