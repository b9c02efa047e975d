"""The programs of a run, lowered from shapes alone: no weights, no data, no devices.

What a step does on the devices is these, in order:

  reshard   the sampler's weights out of the trainer's: cast, moved, or taken apart
  prefill   a block of prompts is read
  admit     prompts go into slots, and their first tokens are drawn
  decode    a token of every slot, with the cache at its longest (the program is a loop
            of them; what is said of it is one turn)
  move      the last responses go into fewer slots
  carry     pages of the last responses go to another part of the pool
  evaluate  the same under the distribution of the evaluations
  score     log-probs of all responses: old ones, a reference's, those of importance
            weights in the marginal space (config.passes), or to compare
  update    of each phase: loss and gradient of every response at its longest, in
            micro-batches, and a step of the optimizer
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from pxy import config
from pxy.evaluate import run as evaluate_lib
from pxy.model import flops
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import program as program_lib
from pxy.rl import context, pack
from pxy.run import batch as batch_lib
from pxy.sampling import engine as engine_lib
from pxy.sampling import programs as sampler_lib
from pxy.train import remat
from pxy.train import step as step_lib


def engine(cfg: config.Train, arch, devices) -> engine_lib.Engine:
  """The engine of a run's training on `devices`; errors as of `of`."""
  mesh = mesh_lib.sampling(mesh_lib.make(cfg.mesh, devices), cfg.sampling.tensor)
  return _engine(cfg, arch, mesh, cfg.sampling)


def _engine(cfg, arch, mesh, sampling):
  return engine_lib.Engine(
    arch,
    sampling=sampling,
    stop_ids=(0,),
    max_prompt_tokens=cfg.data.max_prompt_tokens,
    mesh=mesh,
    dtype=cfg.compute.dtype,
    group=cfg.data.responses,
  )


def settled(cfg: config.Train, arch, devices, memory: int) -> config.Train:
  """cfg with compute.remat chosen for devices that have `memory` bytes each.

  Raises config.Error as `of` does.
  """
  mesh = mesh_lib.make(cfg.mesh, devices)
  shape = batch_lib.shape(cfg, mesh_lib.row_shards(mesh))
  rows = shape.micro_rows, shape.row_tokens
  compute = remat.chosen(
    arch, cfg.compute, rows, mesh,
    sampling=cfg.sampling, opt=cfg.optim, reference=cfg.needs_reference, memory=memory,
  )  # fmt: skip
  return dataclasses.replace(cfg, compute=compute)


def of(
  cfg: config.Train, arch, devices, smaller: Sequence[tuple[int, int]] = ()
) -> Iterator[program_lib.Program]:
  """The programs of a run on `devices`, which may be those of a topology.

  Args:
    smaller: (rows, live) of further decode programs of training.

  Raises:
    config.Error: the mesh does not fit the devices or the model.
  """
  mesh = mesh_lib.make(cfg.mesh, devices)
  sampler = mesh_lib.sampling(mesh, cfg.sampling.tensor)
  stepper = step_lib.Stepper(arch, cfg.compute, cfg.sampling, cfg.optim, mesh)
  state = mesh_lib.device_bytes(stepper.abstract)
  params = mesh_lib.device_bytes(stepper.abstract.params)
  reference = params if cfg.needs_reference else 0
  resident = state - params + reference
  for one in _sampler(cfg, arch, sampler, stepper.abstract.params, smaller):
    yield dataclasses.replace(one, resident=one.resident + resident)
  yield from _trainer(cfg, arch, mesh, stepper, resident, reference)


def _sampler(cfg, arch, mesh, params, smaller):
  def programs(sampling, smaller=()):
    prompts, n = cfg.data.prompts, cfg.data.responses
    engine = _engine(cfg, arch, mesh, sampling)
    return sampler_lib.of(engine, params, prompts, n, smaller)

  yield from programs(cfg.sampling, smaller)
  for one in programs(evaluate_lib.sampling(cfg.sampling, cfg.eval)):
    if one.name == "decode":
      yield dataclasses.replace(one, name="evaluate")


def _trainer(cfg, arch, mesh, stepper, resident, reference):
  """Scoring, beside `resident`, and the updates, beside the reference model alone."""
  shape = batch_lib.shape(cfg, mesh_lib.row_shards(mesh))
  packed = functools.partial(
    pack.shapes, (shape.micro_max, shape.micro_rows, shape.row_tokens)
  )
  # Every response at its longest, one in each row.
  longest = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens - 1
  scored = shape.micro_max * shape.micro_rows
  lengths = [longest] * scored
  pairs, tokens = flops.causal(arch, lengths), sum(lengths)
  yield program_lib.Program(
    "score",
    functools.partial(stepper.lower_score, packed()),
    flops.forward(arch, tokens, pairs),
    resident,
    shape.micro_max,
  )
  for phase in cfg.phases:
    copies = max(context.of(term).copies(term) for term in phase.terms)
    given = packed(copies=copies, **dict.fromkeys(config.passes(cfg, phase), True))
    yield program_lib.Program(
      f"update {phase.name}",
      functools.partial(stepper.lower_update, given, phase.terms),
      flops.train(arch, tokens, pairs),
      reference,
      shape.micro_max,
    )
