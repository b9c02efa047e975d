"""One step's numbers, under the names that people have dashboards for (verl's).

Look at critic/score/mean, groups/solved and groups/mixed first, not at the loss: with
one update per batch the loss of GRPO is near zero by construction, and that is no
fault.
"""

import contextlib
import os
import time

import jax
import numpy as np
import psutil

from pxy.evaluate import behaviour, passk, scores
from pxy.model import flops
from pxy.rl import pack


def of_samples(answers, rewards_PR, valid_PR) -> dict[str, float]:
  """Scores, lengths, groups, exclusions and thoughts of the samples of a step."""
  flat = [a for group in answers for a in group]
  length = np.array([len(a.sample.ids) for a in flat])
  prompt = np.array([len(group[0].prompt.ids) for group in answers])
  raw_PR = np.array([[a.outcome.score for a in group] for group in answers])
  status = [a.outcome.status for a in flat]
  out = {
    **_spread("critic/score", raw_PR[np.isfinite(raw_PR)]),
    **_spread("critic/rewards", rewards_PR[valid_PR]),
    **_spread("response_length", length),
    "response_length/clip_ratio": float(
      np.mean([a.sample.stop == "length" for a in flat])
    ),
    **_spread("prompt_length", prompt),
    "rollout/entropy": float(-sum(a.sample.logp.sum() for a in flat) / length.sum()),
    "rollout/nonfinite": sum(int((~np.isfinite(a.sample.logp)).sum()) for a in flat),
    "samples/ungradable": status.count("ungradable"),
    "samples/failed": status.count("failed"),
    "samples/duplicates": sum(
      len(group) - len({a.sample.ids.tobytes() for a in group}) for group in answers
    ),
  }
  for name, n in passk.groups(scores.correct(raw_PR)).items():
    out[f"groups/{name}"] = n
  for name, (value, _) in behaviour.thought_scores(
    [[a.text for a in group] for group in answers]
  ).items():
    out[name] = value
  user = {}
  for a in flat:
    for name, value in a.outcome.metrics.items():
      user.setdefault(f"reward/{name}", []).append(value)
  return out | {name: float(np.mean(values)) for name, values in user.items()}


def of_batch(batches) -> dict[str, float]:
  """Advantages, and what was scored."""
  adv = np.concatenate([b.adv_PR[b.selected_PR] for b in batches])
  return {
    **_spread("critic/advantages", adv),
    "samples/selected": int(adv.size),
    "samples/scored": sum(b.scored for b in batches),
    "tokens/scored": sum(b.scored_tokens for b in batches),
  }


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


def rows(step: int, split: str, phase: str, answers, adv_PR=None) -> list[dict]:
  """Rows of the completions table (show/log.py), one per response."""
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
    for p, group in enumerate(answers)
    for r, a in enumerate(group)
  ]


def of_flops(
  arch, rollouts, batches, *, forwards: int, seconds: float, devices: int
) -> dict[str, float]:
  """Model FLOPs of a step (10^12), and the share of the devices' peak in its updates.

  Args:
    forwards: passes without gradient over what is trained on.
    seconds: of the updates.
    devices: in the run's mesh.
  """
  response_B = rollouts.response_len_B
  prompt_P = rollouts.prompt_len_B[:: rollouts.group_size]
  # A prompt is read once, and each response goes on from its prompt's cache.
  pairs = flops.causal(arch, rollouts.prompt_len_B + response_B - 1)
  again = flops.causal(arch, prompt_P.repeat(rollouts.group_size - 1))
  total = flops.forward(
    arch,
    int(prompt_P.sum() + (response_B - 1).sum()),
    [a - b for a, b in zip(pairs, again, strict=True)],
    int(response_B.sum()),
  )
  trained = 0
  for b in batches:
    length = pack.lengths(b.packed)
    given = int(length.sum()), flops.causal(arch, length), b.scored_tokens
    trained += flops.train(arch, *given)
    total += forwards * flops.forward(arch, *given)
  out = {"perf/model_tflops": (total + trained) / 1e12}
  peak = flops.peak(jax.devices()[0].device_kind)
  if peak is not None and seconds > 0:
    out["perf/mfu/actor"] = trained / seconds / (peak * devices)
  return out


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


class Clock:
  """Seconds per phase of a step: `with clock("gen"): ...`, read by `take`."""

  def __init__(self):
    self._seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, name: str):
    start = time.perf_counter()
    yield
    self.add(name, time.perf_counter() - start)

  def add(self, name: str, seconds: float) -> None:
    self._seconds[name] = self._seconds.get(name, 0.0) + seconds

  def take(self) -> dict[str, float]:
    """timing_s/* since the last call."""
    seconds, self._seconds = self._seconds, {}
    return {f"timing_s/{name}": value for name, value in seconds.items()}


class Compiles:
  """Counts programs made ready to run, and the seconds that it took, while it is open.

  Compiled or read from the cache: JAX tells of both alike.
  """

  def __init__(self):
    self.count, self.seconds = 0, 0.0

  def __enter__(self):
    jax.monitoring.register_event_duration_secs_listener(self._heard)
    return self

  def __exit__(self, *_):
    jax.monitoring.unregister_event_duration_listener(self._heard)

  def _heard(self, event: str, seconds: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      self.count += 1
      self.seconds += seconds
