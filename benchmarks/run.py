"""How fast is it here? Seconds and tokens per second of the parts of a GRPO step.

    python -m benchmarks.run --size tiny-qwen        a table; --json FILE or - for JSON
    make bench

Sampling, scoring, update and a whole step are timed in turn, round after round, and the
median of the rounds is given, so that a busy machine disturbs all alike. The first call
of each stands apart: what it takes beyond the median is tracing and compiling. Clocks
stop after the results are on the host. Tokens are those of the responses.

- sampling: all responses to all prompts, to their full length (there is no stop token);
- scoring: their log-probs in one forward pass, as for a reference model;
- update: forward, backward and AdamW on all of them;
- step: sampling, advantages, packing, update. Grading is the user's, and left out.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from rich import console
from rich import table as rich_table

from pxy import config, testing
from pxy.commands import malloc
from pxy.model import arch as arch_lib
from pxy.model import attention, decoder
from pxy.parallel import mesh as mesh_lib
from pxy.rl import metrics, rollout
from pxy.run import batch
from pxy.run import folder as folder_lib
from pxy.sampling import engine as engine_lib
from pxy.train import step as step_lib


@dataclasses.dataclass(frozen=True)
class Size:
  """A model and a batch."""

  arch: arch_lib.Arch
  prompts: int
  responses: int
  prompt: int
  """Tokens of every prompt, and of every response."""
  completion: int
  micro_rows: int = 0

  @property
  def tokens(self) -> int:
    """Of all responses."""
    return self.prompts * self.responses * self.completion


SIZES = {
  # 5,245,696 parameters: Qwen3's layer at a size that two cores can train.
  "tiny-qwen": Size(
    arch_lib.Arch(
      vocab_size=8192,
      layers=4,
      d_model=256,
      heads=4,
      kv_heads=2,
      head_dim=64,
      d_ff=768,
      context=128,
      qk_norm=True,
    ),
    prompts=4,
    responses=4,
    prompt=64,
    completion=64,
  ),
  # Only to see that the benchmark itself works.
  "test": Size(testing.arch(), prompts=2, responses=2, prompt=8, completion=8),
}


class Job:
  """The parts of a step at a size, each a call that returns when it is done."""

  def __init__(self, size: Size):
    cfg = config.Train(
      data=config.Data(
        prompts=size.prompts, responses=size.responses, max_prompt_tokens=size.prompt
      ),
      sampling=config.Sampling(max_new_tokens=size.completion),
      compute=config.Compute(micro_rows=size.micro_rows),
    )
    mesh = mesh_lib.make(config.Mesh())
    self.size, self.phase = size, cfg.phases[0]
    sharer = attention.sharer(size.arch, mesh_lib.platform(mesh))
    self.shape = batch.shape(cfg, mesh_lib.row_shards(mesh), sharer=sharer)
    self.stepper = step_lib.Stepper(
      size.arch, cfg.compute, cfg.sampling, cfg.optim, mesh
    )
    self.state = self.stepper.init(testing.params(size.arch, spread=0.02))
    self.engine = engine_lib.Engine(
      size.arch,
      sampling=cfg.sampling,
      stop_ids=(),
      max_prompt_tokens=size.prompt,
      mesh=mesh,
    )
    rng = np.random.default_rng(0)
    shape = size.prompts, size.prompt
    self.prompts = list(rng.integers(0, size.arch.vocab_size, shape, np.int32))
    self.rewards_PR = np.arange(size.prompts * size.responses) % 2 * 1.0
    self.rewards_PR = self.rewards_PR.reshape(size.prompts, size.responses)
    self.calls = 0
    self.packed = self.pack(self.sampling())

  def sampling(self):
    """The responses of one batch."""
    self.calls += 1
    key = jax.random.key(self.calls)
    return self.engine.run(
      self.state.params, self.prompts, self.size.responses, key=key
    )

  def pack(self, samples) -> batch.Batch:
    """Responses as a train step takes them."""
    ids = [[sample.ids for sample in group] for group in samples]
    logps = [[sample.logp for sample in group] for group in samples]
    return batch.prepare(
      self.phase,
      rollout.stack(self.prompts, ids, logps),
      self.rewards_PR,
      np.ones(self.rewards_PR.shape, bool),
      contexts={},
      key=None,
      shape=self.shape,
    )

  def scoring(self):
    """Log-probs of the batch."""
    given = self.state.params, self.packed.packed, self.packed.used
    return jax.device_get(self.stepper.score(*given))

  def update(self, made: batch.Batch | None = None):
    """One update on a batch; its metrics."""
    made = self.packed if made is None else made
    self.state, found = self.stepper.update(
      self.state, made.packed, made.used, self.phase.lr, self.phase.terms
    )
    found = metrics.values(found)
    jax.block_until_ready(self.state)
    return found

  def step(self):
    """Sampling, packing, update."""
    return self.update(self.pack(self.sampling()))


def seconds(call: Callable[[], object]) -> float:
  """Wall time of one call."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def measure(size: Size, rounds: int) -> dict[str, dict]:
  """Per part: median seconds, tokens per second, seconds to compile, all rounds."""
  start = time.perf_counter()
  job = Job(size)
  first = {"sampling": time.perf_counter() - start}  # making the job samples once
  parts = {
    name: getattr(job, name) for name in ("sampling", "scoring", "update", "step")
  }
  for name, call in parts.items():
    first.setdefault(name, 0.0)
    if name != "sampling":
      first[name] = seconds(call)
    seconds(call)  # warm
  found = {name: [] for name in parts}
  for _ in range(rounds):
    for name, call in parts.items():
      found[name].append(seconds(call))
  out = {}
  for name, taken in found.items():
    median = statistics.median(taken)
    out[name] = {
      "seconds": median,
      "tokens_per_second": size.tokens / median,
      "compile_seconds": max(0.0, first[name] - median),
      "rounds": taken,
    }
  return out


def main() -> None:
  """Measures and shows."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument("--size", choices=sorted(SIZES), default="tiny-qwen")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--json", metavar="FILE", help="write JSON there; -: to stdout")
  given = parser.parse_args()
  malloc.reuse()  # as the command line does
  size = SIZES[given.size]
  parts = measure(size, given.rounds)
  report = {
    "size": given.size,
    "parameters": decoder.size(size.arch),
    "tokens": size.tokens,
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "cores": os.cpu_count(),
    "versions": folder_lib.versions(),
    "parts": parts,
  }
  if given.json == "-":
    print(json.dumps(report, indent=2))
    return
  if given.json:
    pathlib.Path(given.json).write_text(json.dumps(report, indent=2) + "\n")
  show(report)


def show(report: dict) -> None:
  """The report as a table."""
  title = (
    f"{report['size']}: {report['parameters']:,} parameters, {report['tokens']:,}"
    f" response tokens, {report['devices']} {report['device']}, {report['cores']} cores"
  )
  out = rich_table.Table("part", "seconds", "tokens/s", "compile s", title=title)
  for name, part in report["parts"].items():
    out.add_row(
      name,
      f"{part['seconds']:.3f}",
      f"{part['tokens_per_second']:,.0f}",
      f"{part['compile_seconds']:.1f}",
    )
  console.Console().print(out)


if __name__ == "__main__":
  main()
