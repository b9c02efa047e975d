"""The programs of a run, lowered from shapes alone: no weights, no data, no devices.

What a step does on the devices is these, in order:

  reshard   the sampler's weights out of the trainer's: cast, and moved
  prefill   a block of prompts is read
  admit     prompts go into slots, and their first tokens are drawn
  decode    a token of every slot, with the cache at its longest (the program is a loop
            of them; what is said of it is one turn)
  evaluate  the same under the distribution of the evaluations
  score     log-probs of all responses: old ones, a reference's, or to compare
  update    of each phase: loss and gradient of every response at its longest, in
            micro-batches, and a step of the optimizer
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from pxy import config
from pxy.evaluate import run as evaluate_lib
from pxy.model import cache as kv
from pxy.model import decoder, flops
from pxy.parallel import mesh as mesh_lib
from pxy.rl import context, pack
from pxy.run import batch as batch_lib
from pxy.sampling import engine as engine_lib
from pxy.sampling import step as sampling_step
from pxy.train import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """One program, not lowered yet.

  Attributes:
    name: as in the list above.
    lower: -> jax.stages.Lowered.
    model_flops: of all devices together, by model/flops.py; 0 where nothing is
      multiplied.
    resident: bytes on each device besides the program's arguments.
    trips: turns of the loops whose count only the data knows.
  """

  name: str
  lower: Callable[[], jax.stages.Lowered]
  model_flops: int
  resident: int
  trips: int = 1


def of(cfg: config.Train, arch, devices) -> Iterator[Program]:
  """The programs of a run on `devices`, which may be those of a topology.

  Raises:
    config.Error: the mesh does not fit the devices or the model.
  """
  mesh = mesh_lib.make(cfg.mesh, devices)
  sampler = mesh_lib.sampling(mesh, cfg.sampling.tensor)
  stepper = step_lib.Stepper(arch, cfg.compute, cfg.sampling, cfg.optim, mesh)
  dtype = cfg.compute.dtype
  transfer = sampling_step.transfer(arch, dtype, sampler)
  weights = jax.eval_shape(transfer, stepper.abstract.params)
  weights = mesh_lib.at(weights, mesh_lib.shardings(
    sampler, decoder.axes(arch), decoder.abstract(arch), mesh_lib.SAMPLE
  ))  # fmt: skip
  state = mesh_lib.device_bytes(stepper.abstract)
  params = mesh_lib.device_bytes(stepper.abstract.params)
  reference = params if cfg.needs_reference else 0
  yield Program(
    "reshard",
    functools.partial(transfer.lower, stepper.abstract.params),
    model_flops=0,
    resident=state - params + reference,
  )
  yield from _sampler(cfg, arch, sampler, weights, state + reference)
  yield from _trainer(cfg, arch, mesh, stepper, reference)


def _sampler(cfg, arch, mesh, weights, resident):
  engine = engine_lib.Engine(
    arch,
    sampling=cfg.sampling,
    stop_ids=(0,),
    max_prompt_tokens=cfg.data.max_prompt_tokens,
    mesh=mesh,
    dtype=cfg.compute.dtype,
  )
  mesh = engine.mesh
  static = {"dtype": engine.dtype, "mesh": mesh}
  sizes = engine.largest(cfg.data.prompts, cfg.data.responses)

  def rows(function, *args, **more):
    """What it returns, and where that lives."""
    shapes = jax.eval_shape(functools.partial(function, arch, **more, **static), *args)
    return shapes if mesh is None else mesh_lib.at(shapes, kv.placed(shapes, mesh))

  def whole(shape, dtype=np.int32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sampling_step.everywhere(mesh))

  read = whole((sizes.prompts, sizes.width)), whole((sizes.prompts,))
  prompts = rows(sampling_step.prefill, weights, *read)
  slots = rows(sampling_step.empty, rows=sizes.rows, length=sizes.room)
  yield Program(
    "prefill",
    functools.partial(sampling_step.prefill.lower, arch, weights, *read, **static),
    flops.forward(
      arch,
      sizes.prompts * sizes.width,
      flops.causal(arch, [sizes.width] * sizes.prompts),
      sizes.prompts,
    ),
    resident + mesh_lib.device_bytes(slots),
  )
  number, slot = whole((sizes.lanes,), np.uint32), whole((sizes.lanes,))
  key = jax.eval_shape(lambda: jax.random.key(0))
  lanes = number, slot, number, number, whole(key.shape, key.dtype)
  yield Program(
    "admit",
    functools.partial(
      sampling_step.admit.lower, slots, prompts, *lanes, rule=engine.rule(), mesh=mesh
    ),
    0,
    resident + mesh_lib.device_bytes(weights),
  )
  rules = {
    "decode": cfg.sampling,
    "evaluate": evaluate_lib.sampling(cfg.sampling, cfg.eval),
  }
  for name, sampling in rules.items():
    rule = dataclasses.replace(
      engine.rule(),
      temperature=sampling.temperature,
      top_k=sampling.top_k,
      top_p=sampling.top_p,
    )
    yield Program(
      name,
      functools.partial(
        sampling_step.decode.lower,
        arch,
        weights,
        slots,
        whole(()),
        rule=rule,
        tokens=engine_lib.STRETCH,
        live=sizes.room,
        **static,
      ),
      flops.forward(
        arch,
        sizes.rows,
        [sizes.rows * min(w or sizes.room, sizes.room) for w in arch.windows()],
      ),
      resident,
    )


def _trainer(cfg, arch, mesh, stepper, reference):
  shape = batch_lib.shape(cfg, mesh_lib.row_shards(mesh))
  size = (shape.micro_max, shape.micro_rows, shape.row_tokens)
  # Every response at its longest, one in each row.
  longest = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens - 1
  scored = shape.micro_max * shape.micro_rows
  lengths = [longest] * scored
  pairs, tokens = flops.causal(arch, lengths), sum(lengths)
  yield Program(
    "score",
    functools.partial(stepper.lower_score, _packed(size, 1, False, False)),
    flops.forward(arch, tokens, pairs),
    mesh_lib.device_bytes(stepper.abstract)
    - mesh_lib.device_bytes(stepper.abstract.params)
    + reference,
    shape.micro_max,
  )
  for phase in cfg.phases:
    copies = max(context.of(term).copies(term) for term in phase.terms)
    packed = _packed(size, copies, cfg.updates > 1, phase.needs_reference)
    yield Program(
      f"update {phase.name}",
      functools.partial(stepper.lower_update, packed, phase.terms),
      flops.train(arch, tokens, pairs),
      reference,
      shape.micro_max,
    )


def _packed(size, copies, old, ref) -> pack.Packed:
  optional = {"old_BT": old, "ref_BT": ref}
  fields = {
    field.name: jax.ShapeDtypeStruct(size, pack.dtype(field.name))
    for field in dataclasses.fields(pack.Packed)
    if field.name != "copies_BTC" and optional.get(field.name, True)
  }
  if copies > 1:
    fields["copies_BTC"] = jax.ShapeDtypeStruct((*size, copies), np.int32)
  return pack.Packed(**fields)
