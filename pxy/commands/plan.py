"""`--dry-run`: what a run would do, before anything is loaded but the architecture."""

import json

import numpy as np

from pxy import config, fields
from pxy.model import arch as arch_lib
from pxy.model import attention, decoder
from pxy.run import batch
from pxy.run import stored as stored_lib
from pxy.sampling import engine as engine_lib
from pxy.weights import load


def show(cfg: config.Train | config.Pretrain) -> None:
  """Prints the resolved config and the plan."""
  lines = of_train(cfg) if isinstance(cfg, config.Train) else of_pretrain(cfg)
  print(json.dumps(fields.to_dict(cfg), indent=2))
  print("\nplan")
  for name, value in lines.items():
    print(f"  {name:<28}{value}")


def of_train(cfg: config.Train) -> dict[str, str]:
  """The plan of a reinforcement-learning run, a line each."""
  config.check(cfg)
  arch = load.arch(cfg.model)
  _fits(cfg, arch)
  shards = (1 if cfg.mesh.data == -1 else cfg.mesh.data) * (
    1 if cfg.mesh.fsdp == -1 else cfg.mesh.fsdp
  )
  batches, on_cpu = (  # a GPU's are a TPU's
    _batch(batch.shape(cfg, shards, sharer=attention.sharer(arch, platform)))
    for platform in ("tpu", "cpu")
  )
  responses = cfg.data.prompts * cfg.data.responses
  most = responses * (cfg.sampling.max_new_tokens + cfg.data.max_prompt_tokens)
  most *= 1 + cfg.reward.refill  # each round may draw all of them again
  phases = []
  for number, phase in enumerate(cfg.phases):
    start, end = config.span(cfg, number)
    if start < min(end, cfg.steps):
      phases.append(f"{phase.name} {start + 1}-{min(end, cfg.steps)} at {_rate(phase)}")
  stored = {}
  if cfg.data.rollouts:
    policy = load.about(cfg.model)
    found = stored_lib.load(cfg, policy.tokenizer, arch.vocab_size)
    stored = {"stored samples": f"{found.told}; none are drawn but to evaluate"}
  cache = 2 * arch.layers * arch.kv_heads * arch.head_dim
  slots = min(cfg.sampling.slots, responses)
  width = 4 if cfg.compute.dtype == "float32" else 2
  length = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens
  held = min(slots * length, cfg.sampling.cache_tokens or slots * length)
  return {
    "model": f"{cfg.model}: {decoder.size(arch):,} parameters",
    "phases": ", ".join(phases) or "none",
    "steps": f"{cfg.steps}, each {cfg.data.prompts} prompts x {cfg.data.responses}",
    "tokens": f"at most {most:,} a step, {cfg.steps * most:,} in all",
    **stored,
    "scored beside the updates": "; ".join(scored(cfg)) or "nothing",
    "evaluations": f"{_evaluations(cfg)} of {cfg.eval.problems} x {cfg.eval.samples}",
    "train batch": f"up to {batches}"
    + (f"; on a CPU {on_cpu}" if on_cpu != batches else ""),
    "memory, weights and Adam": f"{_size(12 * decoder.size(arch))} over the mesh",
    "memory, sampler's weights": f"{_size(width * decoder.size(arch))}",
    "memory, sampler's cache": f"{_size(width * cache * held)}"
    f" for {slots} slots of {length} tokens"
    + (f", {held} together" if held < slots * length else ""),
  }


def _batch(shape: batch.Shape) -> str:
  rows = f"{shape.micro_rows} rows x {shape.row_tokens} tokens"
  return f"{shape.micro_max} micro-batches of {rows}"


_PASSES = {
  "old": "old log-probs",
  "ref": "a reference's log-probs",
  "gap": "importance weights",
}


def scored(cfg: config.Train) -> list[str]:
  """What each phase scores all responses of a step for, in words; a pass each."""
  asked = [(phase.name, config.passes(cfg, phase)) for phase in cfg.phases]
  return [
    f"{name}: {' and '.join(_PASSES[one] for one in ones)}"
    f" ({len(ones)} forward pass{'es' * (len(ones) > 1)} a step)"
    for name, ones in asked
    if ones
  ]


def of_pretrain(cfg: config.Pretrain) -> dict[str, str]:
  """The plan of a pre-training run, a line each."""
  config.check(cfg)
  arch = arch_lib.of_width(cfg.width, cfg.width.vocab)
  tokens = cfg.rows * cfg.row_tokens
  return {
    "model": f"{decoder.size(arch):,} parameters",
    "steps": f"{cfg.steps} of {cfg.rows} rows x {cfg.row_tokens} tokens",
    "tokens": f"at most {cfg.steps * tokens:,} in all",
    "learning rate": _rate(cfg),
    "memory, weights and Adam": _size(12 * decoder.size(arch)),
  }


def _fits(cfg: config.Train, arch: arch_lib.Arch) -> None:
  engine_lib.Engine(  # It refuses what the model's context cannot hold.
    arch,
    sampling=cfg.sampling,
    stop_ids=(),
    max_prompt_tokens=cfg.data.max_prompt_tokens,
  )


def _rate(how: config.Phase | config.Pretrain) -> str:
  """A learning rate and its schedule, in words."""
  rise = f" after a warm-up of {how.warmup}" if how.warmup else ""
  fall = f", {how.schedule} to {how.lr * how.lr_end:g}"
  return f"lr {how.lr:g}{rise}{'' if how.schedule == 'constant' else fall}"


def _evaluations(cfg: config.Train) -> int:
  between = (cfg.steps - 1) // cfg.eval_every if cfg.eval_every else 0
  return (1 if cfg.steps == 0 else 2) + max(0, between)


def _size(size: float) -> str:
  power = int(np.log2(max(1, size)) // 10)
  return f"{size / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
