"""One step, after its responses are graded: batches from them, the updates on those."""

import dataclasses

import jax
import numpy as np

from pxy import config
from pxy.parallel import process
from pxy.rl import advantage, check, metrics, rollout
from pxy.run import batch as batch_lib
from pxy.run import numbers
from pxy.run import parts as parts_lib
from pxy.sampling import collect
from pxy.train import optim
from pxy.train import state as state_lib


@dataclasses.dataclass(frozen=True)
class Batches:
  """What a step is trained on: a Batch (batch.py) for each of its updates.

  Attributes:
    rollouts: all responses, as arrays.
    rewards_PR: scores after the rule for responses that grew too long.
    valid_PR: samples that take part.
    of: a packed batch for each update.
    total_B: log p of stored responses; nan where not known.
  """

  rollouts: rollout.Rollouts
  rewards_PR: np.ndarray
  valid_PR: np.ndarray
  of: list[batch_lib.Batch]
  total_B: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
  """What an update has found: numbers by name, and how many updates were made.

  bad: a loss, a gradient or a log-prob of the sampler was not finite, and an update was
  left out.
  """

  numbers: dict[str, float]
  updates: int
  bad: bool


def keys(seed: int, step: int, returns: int) -> tuple[jax.Array, jax.Array]:
  """The keys of a step: of its responses, and of its views. `returns`: how often the
  run went back; each time all is drawn anew."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  if returns:
    key = jax.random.fold_in(key, returns)
  of_responses, of_views = jax.random.split(key)
  return of_responses, of_views


def entered(cfg: config.Train, state: state_lib.State, step: int) -> state_lib.State:
  """The state as the phase of this step finds it: with fresh moments, where the phase
  begins here and asks for them."""
  number, phase = config.phase_at(cfg, step)
  begins = step and number != config.phase_at(cfg, step - 1)[0]
  if not begins or phase.on_start == "keep":
    return state
  return dataclasses.replace(state, opt_state=optim.reset(state.opt_state))


def batches(
  parts: parts_lib.Parts, phase: config.Phase, graded: collect.Graded, key, params
) -> Batches:
  """Advantage, view, weights and packing of graded responses: one batch an update.

  Args:
    key: draws the other prompts of the contexts that are made of prompts, and random
      labels.
    params: the weights before the step, for importance weights in other views than the
      sampler's.
  """
  cfg, rollouts = parts.cfg, graded.rollouts()
  check.batch(rollouts, vocab=parts.policy.arch.vocab_size)
  size = cfg.data.prompts // cfg.updates
  of = [slice(i * size, (i + 1) * size) for i in range(cfg.updates)]
  gaps = [None] * cfg.updates
  if phase.needs_gap:
    # Of stored samples the ratio is to the start, and so are these.
    of_start = parts.stored is not None and phase.needs_old
    before = parts.reference if of_start else params
    gaps = [_gaps(parts, before, rollouts.take(groups)) for groups in of]
  with parts.session.clock("adv"):
    rewards_PR, valid_PR = advantage.overlong(
      cfg.reward.overlong,
      graded.scores_PR,
      graded.valid_PR,
      length_PR=graded.length_PR,
      truncated_PR=graded.truncated_PR,
      limit=cfg.sampling.max_new_tokens,
      buffer=cfg.reward.overlong_buffer,
    )
    mask_BT, adv_BT = graded.mask_BT, graded.adv_BT
    packed = [
      batch_lib.prepare(
        phase,
        rollouts,
        rewards_PR,
        valid_PR,
        contexts=parts.contexts,
        key=key,
        shape=parts.shape,
        groups=groups,
        mask_BT=mask_BT,
        adv_BT=adv_BT,
        gap_BT=gap_BT,
      )
      for groups, gap_BT in zip(of, gaps, strict=True)
    ]
  as_kept = cfg.sampling.temperature == 1  # as the trainer's log p is
  total_B = np.where(as_kept, graded.total_PR, np.nan).reshape(-1)
  return Batches(rollouts, rewards_PR, valid_PR, packed, total_B)


def _gaps(parts, params, rollouts) -> np.ndarray:
  """The trainer's log-probs above the sampler's, by a pass over all responses."""
  with parts.session.watch("update"), parts.session.clock("old_log_prob"):
    packed, used = batch_lib.all_drawn(rollouts, parts.shape)
    logp_MBT = process.get(parts.trainer.score(params, packed, used))
  return batch_lib.gaps(rollouts, packed, logp_MBT)


def update(
  parts: parts_lib.Parts,
  state: state_lib.State,
  phase: config.Phase,
  lr: float,
  made: Batches,
) -> tuple[state_lib.State, Found]:
  """The updates of a step: (state, Found). The state given is used up.

  Only with several updates per batch are the old log-probs computed; with one they are
  those of the update itself. Of stored samples they are those of the start of the run.
  What a broken distribution has drawn is not trained on.
  """
  trainer, reference, clock = parts.trainer, parts.reference, parts.session.clock
  of_start = parts.stored is not None and phase.needs_old
  drift = _drift(parts, state.params, phase, made)
  sound = parts.stored is not None or not numbers.nonfinite(made.rollouts)
  used = [b for b in made.of if b.used and sound]
  more = [{} for _ in used]
  with parts.session.watch("update"):
    if phase.needs_reference:
      with clock("ref"):
        for given, b in zip(more, used, strict=True):
          given["ref_BT"] = trainer.score(reference, b.packed, b.used)
        jax.block_until_ready(more)
    if parts.cfg.updates > 1 or of_start:
      old = reference if of_start else state.params
      with clock("old_log_prob"):
        for given, b in zip(more, used, strict=True):
          given["old_BT"] = trainer.score(old, b.packed, b.used)
        jax.block_until_ready(more)
    found = {}
    with clock("update_actor"):
      for given, b in zip(more, used, strict=True):
        packed = dataclasses.replace(b.packed, **given)
        state, part = trainer.update(state, packed, b.used, lr, phase.terms)
        found = metrics.merge(found, part)
      values = {"actor/lr": lr, "actor/skipped": 0.0} | metrics.values(found)
  skipped = int(values["actor/skipped"])
  bad = not sound or skipped > 0
  return state, Found(values | drift, len(used) - skipped, bad)


def _drift(parts, params, phase, made) -> dict[str, float]:
  """How sampler and trainer differ, where the update itself does not tell."""
  told = any(term.space == "conditional" for term in phase.terms)
  if told and not np.isfinite(made.total_B).any():
    return {}
  with parts.session.watch("update"), parts.session.clock("compare"):
    packed, used = batch_lib.sample(made.rollouts, parts.shape)
    logp_MBT = process.get(parts.trainer.score(params, packed, used))
  of_tokens = {} if told else numbers.of_drift(packed, logp_MBT)
  return of_tokens | numbers.of_totals(packed, logp_MBT, made.total_B)
