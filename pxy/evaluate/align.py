"""Gradient alignment: what a step on log P(y) does to log P(y|x).

For a response y of T tokens to x, and a marginal context c,

    g_c = grad 1/T log pi(y|x)      g_m = grad 1/T log pi(y|c)
    inner = <g_m, g_c>              cosine = inner / (|g_m| |g_c|)

To first order a step theta + eta g_m changes 1/T log pi(y|x) by eta inner: where it is
positive, moving y in P(y) moves it the same way in P(y|x). arXiv 2604.14142 finds it
positive throughout; that is a finding, not a theorem, so the step is also taken, and
the change measured. The inner product of the summed log-probs is T^2 inner; cosines and
signs are the same.

`Meter` measures one response after the other. It holds both gradients at a time, or,
with `one_gradient`, only one: then the inner product is a forward-mode derivative of
1/T log pi(y|c) along g_c, and there are no numbers by block.

The gradients are those of `objective.both_losses` of one response (advantage 1, clip
none); the pass is its own, because the log-probs and entropies of the tokens come out
of it too, and both_losses, which gives losses, would need both views scored once more.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pxy.evaluate import scores as scores_lib
from pxy.measures import passk
from pxy.rl import gradient, objective, pack

ENTROPIES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, math.inf)
"""Edges of the bins by entropy, in nats."""


class Meter:
  """The programs that measure a response; each compiles once.

  Args:
    score: (params, packed) -> (logp_BT, entropy_BT).
    forward_score: the same for jax.jvp (score.from_hidden, forward_mode=True); given,
      one gradient is held at a time.
    step: size of the step that is taken, as the change of 1/T log pi(y|c) that it
      makes to first order, in nats per token.
    stacked: name of the block whose leaves have layers along their first axis.
  """

  def __init__(
    self,
    score: objective.Score,
    forward_score: objective.Score | None = None,
    *,
    step: float = 1e-3,
    stacked: str | None = "layers",
  ):
    self._dots = functools.partial(gradient.dots, stacked=stacked)
    self._mean = functools.partial(_mean, score)
    self._step = step
    self._blocks = forward_score is None
    if self._blocks:
      self._programs = (jax.jit(self._both),)
    else:
      self._forward = functools.partial(_mean, forward_score)
      self._programs = jax.jit(self._marginal), jax.jit(self._conditional)

  def __call__(
    self, params, conditional: pack.Packed, marginal: pack.Packed
  ) -> Iterator[dict]:
    """Measures the response of each row [B, T]; both views have the same rows.

    Yields:
      for each row: tokens; logp_conditional, logp_marginal and entropy, one number per
      token; inner, cosine and norms of the length-averaged log-probs' gradients; eta,
      predicted and measured change of 1/T log pi(y|x) in a step along g_m; blocks:
      {name: {"inner", "cosine"}}, empty with one gradient.
    """

    def row(packed, b):
      return jax.tree.map(lambda x: x[b : b + 1], packed)

    for b in range(conditional.mask_BT.shape[0]):
      yield self._row(params, row(conditional, b), row(marginal, b))

  def _row(self, params, conditional, marginal) -> dict:
    found: dict = {}
    for program in self._programs:
      found |= jax.device_get(program(params, conditional, marginal))
    on = [np.asarray(packed.mask_BT)[0] for packed in (conditional, marginal)]
    logp_c, logp_m = (
      np.where(mask, found[name], 0)[0][mask].astype(np.float64)
      for mask, name in zip(on, ("logp_c", "logp_m"), strict=True)
    )
    norm_c, norm_m = math.sqrt(_sum(found["cc"])), math.sqrt(_sum(found["mm"]))
    inner = _sum(found["cm"])
    return {
      "tokens": len(logp_c),
      "logp_conditional": logp_c,
      "logp_marginal": logp_m,
      "entropy": found["entropy"][0][on[0]].astype(np.float64),
      "inner": inner,
      "cosine": inner / max(norm_c * norm_m, 1e-30),
      "norm_conditional": norm_c,
      "norm_marginal": norm_m,
      "eta": float(found["eta"]),
      "predicted": float(found["eta"]) * inner,
      "measured": float(found["after"]) - float(found["before"]),
      "blocks": self._by_block(found) if self._blocks else {},
    }

  def _by_block(self, found) -> dict[str, dict[str, float]]:
    cm, cc, mm = (_named(found[name]) for name in ("cm", "cc", "mm"))
    return {
      name: {
        "inner": cm[name],
        "cosine": cm[name] / max(math.sqrt(cc[name] * mm[name]), 1e-30),
      }
      for name in cm
    }

  def _both(self, params, conditional, marginal):
    views = (conditional, marginal)
    losses = [functools.partial(self._mean, packed=packed) for packed in views]
    of_c, of_m = gradient.each(losses, params)
    ((before, (logp_c, entropy)), g_c), ((_, (logp_m, _)), g_m) = of_c, of_m
    mm = self._dots(g_m, g_m)
    return {
      "logp_c": logp_c,
      "logp_m": logp_m,
      "entropy": entropy,
      "cm": self._dots(g_c, g_m),
      "cc": self._dots(g_c, g_c),
      "mm": mm,
      "before": before,
      **self._stepped(params, g_m, mm, conditional),
    }

  def _marginal(self, params, conditional, marginal):
    grad = jax.value_and_grad(self._mean, has_aux=True)
    (_, (logp_m, _)), g_m = grad(params, marginal)
    mm = self._dots(g_m, g_m)
    return {
      "logp_m": logp_m,
      "mm": mm,
      **self._stepped(params, g_m, mm, conditional),
    }

  def _conditional(self, params, conditional, marginal):
    grad = jax.value_and_grad(self._mean, has_aux=True)
    (before, (logp_c, entropy)), g_c = grad(params, conditional)
    _, inner = jax.jvp(
      lambda params: self._forward(params, marginal)[0], (params,), (g_c,)
    )
    return {
      "logp_c": logp_c,
      "entropy": entropy,
      "cc": self._dots(g_c, g_c),
      "cm": {"all": inner},
      "before": before,
    }

  def _stepped(self, params, g_m, mm, conditional):
    eta = self._step / jnp.maximum(sum(jnp.sum(x) for x in mm.values()), 1e-30)
    moved = jax.tree.map(lambda w, g: w + (eta * g).astype(w.dtype), params, g_m)
    return {"eta": eta, "after": self._mean(moved, conditional)[0]}


def _mean(score, params, packed):
  """1/T log p of the row's response, and its tokens' (log-probs, entropies)."""
  logp_BT, entropy_BT = score(params, packed)
  if packed.copies_BTC is not None:
    logp_BT = objective.mixed(logp_BT, packed)
  count = jnp.maximum(jnp.sum(packed.mask_BT), 1)
  total = jnp.sum(jnp.where(packed.mask_BT, logp_BT, 0.0))
  return total / count, (logp_BT, entropy_BT)


def _sum(by_block) -> float:
  return float(sum(np.sum(x, dtype=np.float64) for x in by_block.values()))


def _named(by_block) -> dict[str, float]:
  out = {}
  for name, x in by_block.items():
    if np.ndim(x):
      out |= {f"{name}.{i}": float(value) for i, value in enumerate(x)}
    else:
      out[name] = float(x)
  return out


# What a table of measured responses says.


def summary(rows: Sequence[dict], outcomes: Sequence[tuple[int, float]]) -> dict:
  """Numbers over responses; an empty one (no tokens) takes no part.

  Args:
    rows: what Meter gave for each response.
    outcomes: (problem, score) of each response; nan where there is no score.

  Returns:
    splits: for all, correct and wrong responses the count, and value, standard error
      (problems are the independent draws) and extremes of the numbers;
    one_step: slope and correlation of measured on predicted changes;
    blocks: mean inner product and cosine, by block;
    position, entropy: mean log-prob gap log pi(y_t|x, y_<t) - log pi(y_t|c, y_<t) of
      the tokens in each bin.
  """
  problems = list(dict.fromkeys(p for p, _ in outcomes))
  right = scores_lib.correct(np.array([score for _, score in outcomes]))
  known = np.array([row["tokens"] > 0 for row in rows], bool)
  splits = {
    "all": known,
    "correct": known & (right == 1),
    "wrong": known & (right == 0),
  }

  def split(chosen):
    def of(value: Callable[[dict], float]) -> dict:
      found: dict[int, list[float]] = {p: [] for p in problems}
      for (p, _), row, on in zip(outcomes, rows, chosen, strict=True):
        if on:
          found[p].append(value(row))
      flat = [x for xs in found.values() for x in xs]
      above = np.array([sum(xs) for xs in found.values()])
      below = np.array([len(xs) for xs in found.values()], float)
      score = scores_lib.to_json({"": passk.ratio(above, below)})[""]
      return score | {"min": min(flat, default=None), "max": max(flat, default=None)}

    return {
      "responses": int(chosen.sum()),
      "inner": of(lambda row: row["inner"]),
      "inner_sum": of(lambda row: row["inner"] * row["tokens"] ** 2),
      "cosine": of(lambda row: row["cosine"]),
      "negative": of(lambda row: float(row["inner"] < 0)),
      "logp_conditional": of(lambda row: row["logp_conditional"].mean()),
      "logp_marginal": of(lambda row: row["logp_marginal"].mean()),
      "gap": of(lambda row: gap(row).mean()),
    }

  kept = [row for row, on in zip(rows, known, strict=True) if on]
  return {
    "splits": {name: split(chosen) for name, chosen in splits.items()},
    "one_step": one_step(kept),
    "blocks": _blocks(kept),
    "position": _binned(kept, lambda row: np.arange(row["tokens"]), _powers(kept)),
    "entropy": _binned(kept, lambda row: row["entropy"], ENTROPIES),
  }


def gap(row: dict) -> np.ndarray:
  """Log-prob gap of each token of a measured response."""
  return row["logp_conditional"] - row["logp_marginal"]


def one_step(rows: Sequence[dict]) -> dict[str, float | None]:
  """How the measured changes follow the predicted ones.

  slope is that of the line through the origin, 1 where the first order is all;
  correlation is None where there is nothing to correlate.
  """
  predicted = np.array([row["predicted"] for row in rows], np.float64)
  measured = np.array([row["measured"] for row in rows], np.float64)
  square = float(predicted @ predicted)
  spread = predicted.std() * measured.std() if len(rows) > 1 else 0.0
  return {
    "slope": float(predicted @ measured) / square if square else None,
    "correlation": float(np.corrcoef(predicted, measured)[0, 1]) if spread else None,
  }


def _blocks(rows):
  names = dict.fromkeys(name for row in rows for name in row["blocks"])
  return {
    name: {
      key: float(np.mean([row["blocks"][name][key] for row in rows]))
      for key in ("inner", "cosine")
    }
    for name in names
  }


def _powers(rows) -> tuple[int, ...]:
  """0, 1, 2, 4, ... up to beyond the longest response."""
  longest = max((row["tokens"] for row in rows), default=1)
  return (0, *(2**i for i in range(longest.bit_length() + 1)))


def _binned(rows, where: Callable[[dict], np.ndarray], edges) -> list[dict]:
  """Mean gap of the tokens in each bin [from, to); empty bins are left out."""
  x = np.concatenate([where(row) for row in rows]) if rows else np.zeros(0)
  y = np.concatenate([gap(row) for row in rows]) if rows else np.zeros(0)
  out = []
  for low, high in itertools.pairwise(edges):
    inside = (x >= low) & (x < high)
    if inside.any():
      top = None if math.isinf(high) else high
      count = int(inside.sum())
      out.append(
        {"from": low, "to": top, "tokens": count, "gap": float(y[inside].mean())}
      )
  return out
