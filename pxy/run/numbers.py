"""One step's numbers, under the names that people have dashboards for (verl's).

Look at critic/score/mean, groups/solved and groups/mixed first, not at the loss: with
one update per batch the loss of GRPO is near zero by construction, and that is no
fault.
"""

import os

import jax
import numpy as np

from pxy import config, imports
from pxy.evaluate import behaviour, scores
from pxy.measures import passk
from pxy.model import flops
from pxy.rl import pack
from pxy.run import session

psutil = imports.later("psutil")  # once a step is done


def of(parts, step: int, phase, graded, made, found, probed) -> session.Done:
  """The record of a training step, and how it moves the run on.

  Args:
    parts: parts.Parts.
    step: the steps made before it.
    phase: config.Phase.
    graded: collect.Graded.
    made, found: step.Batches and step.Found.
    probed: of parts.Parts.probe.
  """
  cfg, taken = parts.cfg, parts.session.clock.take()
  returns = parts.session.returns
  rollouts, batches = made.rollouts, made.of
  tokens = int(rollouts.response_len_B.sum() + rollouts.prompt_len_B.sum())
  line = {
    "phase": phase.name,
    "space": "+".join(dict.fromkeys(term.space for term in phase.terms)),
    "training/global_step": step + 1,
    "training/returns": returns,
    "training/epoch": parts.sources(returns)[0].epoch(step, cfg.data.prompts),
    **found.numbers,
    **of_samples(graded, made.rewards_PR, made.valid_PR, parts.collector.pool.labels),
    "rollout/nonfinite": 0 if parts.stored else nonfinite(rollouts),
    **of_batch(batches),
    "timing_s/gen": graded.gen_seconds,
    "timing_s/reward": graded.grade_seconds,
    **taken,
    **of_flops(
      parts.policy.arch,
      rollouts,
      batches,
      forwards=len(config.passes(cfg, phase)),
      seconds=taken["timing_s/update_actor"],
      devices=parts.mesh.size,
      drawn=not parts.stored,
    ),
    **of_machine(),
    "perf/total_num_tokens": tokens,
    "perf/throughput": tokens / taken["timing_s/step"] / parts.mesh.size,
    **({} if parts.stored else of_slots(parts.collector.engine)),
    **probed,
  }
  adv_PR = np.concatenate([b.adv_PR for b in batches])
  return session.Done(
    line=line,
    rows=rows(step + 1, "train", phase.name, graded, adv_PR),
    updates=found.updates,
    tokens=tokens,
    bad=found.bad,
    packed=[b.packed for b in batches],
  )


def of_samples(graded, rewards_PR, valid_PR, labels=()) -> dict[str, float]:
  """Scores, lengths, groups, exclusions and thoughts of the samples of a step.

  labels: of several rewards, of which each has its spread over the samples that have
  it.
  """
  flat, raw_PR = graded.flat, graded.scores_PR
  length_PR = graded.length_PR
  status = [a.outcome.status for a in flat]
  out = {
    **_spread("critic/score", raw_PR[np.isfinite(raw_PR)]),
    **_spread("critic/rewards", rewards_PR[valid_PR]),
    **_spread("response_length", length_PR),
    "response_length/clip_ratio": float(graded.truncated_PR.mean()),
    **_spread("prompt_length", np.array([len(p.ids) for p in graded.prompts])),
    "rollout/entropy": float(-sum(a.sample.logp.sum() for a in flat) / length_PR.sum()),
    "samples/ungradable": status.count("ungradable"),
    "samples/failed": status.count("failed"),
    "samples/duplicates": sum(
      len(group) - len({a.sample.ids.tobytes() for a in group})
      for group in graded.answers
    ),
  }
  for name, n in passk.groups(scores.correct(raw_PR)).items():
    out[f"groups/{name}"] = n
  for name, (value, _) in behaviour.thought_scores(graded.texts).items():
    out[name] = value
  user = {}
  for a in flat:
    for name, value in a.outcome.metrics.items():
      user.setdefault(f"reward/{name}", []).append(value)
  for name, values in user.items():
    if name.removeprefix("reward/") in labels:
      out |= _spread(name, values) | {f"{name}/std": float(np.std(values))}
    else:
      out[name] = float(np.mean(values))
  return out


def nonfinite(rollouts) -> int:
  """Log-probs of the sampler that are not finite."""
  return int((~np.isfinite(rollouts.logp_BT)).sum())


def of_batch(batches) -> dict[str, float]:
  """Advantages, and what was scored."""
  adv = np.concatenate([b.adv_PR[b.selected_PR] for b in batches])
  return {
    **_spread("critic/advantages", adv),
    "samples/selected": int(adv.size),
    "samples/scored": sum(b.scored for b in batches),
    "tokens/scored": sum(b.scored_tokens for b in batches),
  }


def of_slots(engine) -> dict[str, float]:
  """What became of the sampler's slots, and of a pool of pages, in the last run."""
  out = {"rollout/idle": engine.stats.idle}
  return out | ({"rollout/redone": engine.stats.again} if engine.paged else {})


def of_totals(packed, logp_MBT, total_B) -> dict[str, float]:
  """How far the trainer's log p of whole responses is from the sampler's (total_B, nan
  where not known), in nats a token; packed is of batch.sample."""
  which = packed.term_BT[packed.mask_BT]
  sum_B = np.bincount(which, logp_MBT[packed.mask_BT], minlength=len(total_B))
  length_B = np.bincount(which, minlength=len(total_B))
  known_B = np.isfinite(total_B) & (length_B > 0)
  if not known_B.any():
    return {}
  gap = np.abs(sum_B - total_B)[known_B] / length_B[known_B]
  return {"training/rollout_logp_diff_mean": float(gap.mean())}


def of_drift(packed, logp_MBT) -> dict[str, float]:
  """Differences of probability between sampler and trainer; logp is the trainer's."""
  known_MBT = packed.mask_BT & np.isfinite(packed.sampler_BT)
  diff = np.abs(np.exp(logp_MBT) - np.exp(packed.sampler_BT))[known_MBT]
  if not diff.size:
    return {}
  return {
    "training/rollout_probs_diff_mean": float(diff.mean()),
    "training/rollout_probs_diff_p95": float(np.quantile(diff, 0.95)),
    "training/rollout_probs_diff_max": float(diff.max()),
  }


def rows(step: int, split: str, phase: str, graded, adv_PR=None) -> list[dict]:
  """Rows of the completions table (show/completions.py), one per response; adv_PR: of
  the first term."""
  return [
    {
      "step": step,
      "split": split,
      "phase": phase,
      "uid": a.prompt.uid,
      "response": r,
      "prompt": a.prompt.text,
      "completion": a.text,
      "answer": a.prompt.answer,
      "reward": a.outcome.score,
      "advantage": None if adv_PR is None else float(adv_PR[p, r]),
      "outcome": a.outcome.status,
      "why": a.outcome.why,
      "stop": a.sample.stop,
      "tokens": len(a.sample.ids),
      "version": a.sample.version,
    }
    for p, group in enumerate(graded.answers)
    for r, a in enumerate(group)
  ]


def of_flops(
  arch, rollouts, batches, *, forwards: int, seconds: float, devices: int, drawn=True
) -> dict[str, float]:
  """Model FLOPs of a step (10^12), and the share of the devices' peak in its updates.

  Args:
    forwards: passes without gradient over what is trained on.
    seconds: of the updates.
    devices: in the run's mesh.
    drawn: the responses; stored ones were not drawn in this step.
  """
  total = _of_drawing(arch, rollouts) if drawn else 0
  trained = 0
  for b in batches:
    length, again = pack.lengths(b.packed)
    pairs = _less(flops.causal(arch, length), flops.causal(arch, again))
    given = int((length - again).sum()), pairs, b.scored_tokens
    trained += flops.train(arch, *given)
    total += forwards * flops.forward(arch, *given)
  out = {"perf/model_tflops": (total + trained) / 1e12}
  peak = flops.peak(jax.devices()[0].device_kind)
  if peak is not None and seconds > 0:
    out["perf/mfu/actor"] = trained / seconds / (peak * devices)
  return out


def _of_drawing(arch, rollouts) -> int:
  """FLOPs: a prompt is read once, and each response goes on from its prompt's cache."""
  response_B = rollouts.response_len_B
  prompt_P = rollouts.prompt_len_B[:: rollouts.group_size]
  pairs = flops.causal(arch, rollouts.prompt_len_B + response_B - 1)
  again = flops.causal(arch, prompt_P.repeat(rollouts.group_size - 1))
  return flops.forward(
    arch,
    int(prompt_P.sum() + (response_B - 1).sum()),
    _less(pairs, again),
    int(response_B.sum()),
  )


def _less(pairs, again):
  """Pairs of each layer, without those that are formed once for several sequences."""
  return [a - b for a, b in zip(pairs, again, strict=True)]


def of_machine() -> dict[str, float]:
  """Resident memory of this process, and the peak of the fullest device (GB)."""
  peaks = [
    (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    for device in jax.local_devices()
  ]
  return {
    "perf/cpu_memory_used_gb": psutil.Process(os.getpid()).memory_info().rss / 1e9,
    "perf/max_memory_allocated_gb": max(peaks) / 1e9,
  }


def _spread(name: str, x: np.ndarray) -> dict[str, float]:
  x = np.asarray(x, np.float64)
  if not x.size:
    return {f"{name}/{how}": float("nan") for how in ("mean", "max", "min")}
  return {
    f"{name}/mean": float(x.mean()),
    f"{name}/max": float(x.max()),
    f"{name}/min": float(x.min()),
  }
