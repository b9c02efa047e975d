"""Numbers that go wrong: seen after each step, said in words, kept for inspection.

  not finite   A loss, a gradient, or a log-prob of the sampler. No update is made
               (train/step.py), the batch is written to RUN/bad, and after several such
               steps in a row the run ends or goes back to its last good checkpoint.
  drift        Sampler and trainer give the drawn tokens different probabilities, so
               that the gradient is not that of what was drawn. The run ends.
  entropy      Of the policy, against that of the run's first step. A warning.

A marginal term scores another distribution than the one that was drawn from. A phase of
only such terms compares sampler and trainer on one micro-batch, for 6 % of the time of
the demo's steps.
"""

import dataclasses
import json
import math
import os
import pathlib

import numpy as np

from pxy import config

BAD_KEPT = 8
"""Batches in RUN/bad; older ones make room."""
COLLAPSED = 0.2
"""Share of the first step's entropy, below which a policy repeats itself."""
EXPLODED = 3.0
"""Multiple of the first step's entropy (or of SURE), above which it is noise."""
SURE = 0.1
"""Nats per token of a policy that is nearly certain: three times less is no news."""
BACK = 1.5
"""Factor by which entropy must be inside the limits again for the next warning."""


def refuse_drift(cfg: config.Train, line: dict) -> None:
  """Ends a run whose sampler and trainer differ: config.Error with the likely cause.

  Args:
    line: the step's record, with training/rollout_probs_diff_*. Stored samples are
      another policy's, and may differ.
  """
  if cfg.data.rollouts:
    return
  for how in ("mean", "max"):
    name = f"training/rollout_probs_diff_{how}"
    most = getattr(cfg.guard, f"probs_diff_{how}")
    if name in line and line[name] > most:
      raise config.Error(
        f"step {line['step']}: {name} is {line[name]:.3g}, more than"
        f" guard.probs_diff_{how} {most:g}: {_cause(cfg)}"
      )


def _cause(cfg: config.Train) -> str:
  if cfg.compute.dtype == "bfloat16":
    return (
      "bfloat16 rounds differently in the sampler's and the trainer's program; set"
      " compute.dtype float32, or allow more"
    )
  if cfg.sampling.top_k or cfg.sampling.top_p < 1:
    return (
      "tokens at the edge of sampling.top_p or top_k are inside for one of sampler and"
      " trainer and outside for the other; sample without truncation, or allow more"
    )
  return (
    "in float32 one forward pass serves both, so the responses were drawn with other"
    " weights or at another temperature than they are scored with"
  )


def entropy(known: dict | None, now: float) -> tuple[dict | None, str | None]:
  """Follows the entropy (nats per token): what to remember, and a warning or None.

  There is one warning per crossing of a limit. known: what was remembered last; None in
  the first step.
  """
  if not math.isfinite(now):
    return known, None
  if known is None:
    return {"start": now, "state": "usual"}, None
  start, before = known["start"], known["state"]
  low, high = COLLAPSED * start, EXPLODED * max(start, SURE)
  if now < low * (BACK if before == "collapsed" else 1):
    state = "collapsed"
  elif now > high / (BACK if before == "exploded" else 1):
    state = "exploded"
  else:
    state = "usual"
  known = known | {"state": state}
  if state in (before, "usual"):
    return known, None
  means = {
    "collapsed": "has collapsed: responses to a prompt become the same, and groups"
    " without contrast teach nothing; lower the learning rate or stop here",
    "exploded": "has exploded: responses turn into noise; lower the learning rate, or"
    " the coefficient of negative samples",
  }
  return known, f"warning: entropy {start:.3g} -> {now:.3g} {means[state]}"


def write_bad(folder: pathlib.Path, packed, line: dict) -> pathlib.Path:
  """Writes the batches of a step whose numbers are not finite; returns the file.

  The .npz holds UPDATE/FIELD for each array of pack.Packed, and `metrics`, the step's
  record as JSON; no pickles. Log-probs under the old policy and the reference are not
  in it: the weights are as they were and give them again. Raises config.Error where
  the disk does not take it.
  """
  arrays = {
    f"{i}/{field.name}": getattr(p, field.name)
    for i, p in enumerate(packed)
    for field in dataclasses.fields(p)
    if getattr(p, field.name) is not None
  }
  folder = pathlib.Path(folder) / "bad"
  path = folder / f"{line['step']:08d}.npz"
  partial = folder / f".{path.name}.partial"
  try:
    folder.mkdir(exist_ok=True)
    with open(partial, "wb") as file:
      np.savez_compressed(file, metrics=json.dumps(line), **arrays)
    os.replace(partial, path)
    for old in sorted(folder.glob("[0-9]*.npz"))[:-BAD_KEPT]:
      old.unlink()
  except OSError as error:
    raise config.Error(f"{path}: {error.strerror or error}; make room") from error
  return path


def refuse_bad(cfg: config.Guard, place, returns: int) -> None:
  """Ends a run after too many bad steps in a row, unless it may go back once more.

  place: its `step`, and the `bad` steps in a row that it ends with. What ends a run is
  a config.Error.
  """
  why = f"{place.bad} steps in a row had a loss or gradient that is not finite"
  cure = "see the batches in its folder bad/, and lower the learning rate"
  if cfg.on_bad == "stop":
    raise config.Error(f"step {place.step}: {why}: {cure}")
  if returns >= cfg.rollbacks:
    raise config.Error(f"step {place.step}: {why}, after {returns} returns: {cure}")
