"""What an update keeps of its forward pass: as much as there is memory for.

    needed = state + 2 gradients + reference + what is kept of a micro-batch
             + a layer that is computed again + logits of one chunk, twice

The less is kept, the more is computed again in the backward pass. On a GPU `dots` is
the fastest, `none` no faster and twice as large (docs/performance.md), so the order is
dots, attention, full; a CPU says nothing of its memory and keeps all.

What is kept is counted, not guessed: the shapes that a traced forward pass hands to the
backward pass, of one row and of two, whose difference is a row's. Nothing is compiled.
For Qwen3-0.6B's 4 rows of 4,096 tokens in bfloat16 that gives 18 GB (full), 28 (dots),
36 (half of the vocabulary in a chunk), 46 (all of it) and 77 (none), where one H200
took 19, 31, 44, 41 and 74.
"""

import dataclasses
import functools

import jax

from pxy import config
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.rl import objective, pack
from pxy.train import step

ORDER = "dots", "attention", "full"

_MB = 2**20

SHARE = 0.8
"""Of a device's memory that an update may be counted to need: the count leaves out what
the compiler holds besides, and pieces too small to be used again."""


def limit(mesh) -> int | None:
  """Bytes that a program may use of a device; None where that is not known. All
  processes get what the main one has."""
  given = [device.memory_stats() or {} for device in mesh.local_devices]
  least = min((one.get("bytes_limit", 0) for one in given), default=0)
  return process.agree(least // _MB) * _MB or None


def chosen(
  arch,
  compute: config.Compute,
  rows: tuple[int, int],
  mesh,
  *,
  sampling: config.Sampling,
  opt: config.Optim,
  reference: bool = False,
  memory: int | None = None,
) -> config.Compute:
  """compute with `auto` settled: the first of ORDER that fits, or its last.

  Args:
    rows: of a micro-batch of all devices, and tokens of each.
    sampling, opt: of the run.
    reference: whether a reference model's weights are there, too.
    memory: bytes of a device; None: what the mesh's devices say. Where they do not, all
      is computed again, or on a CPU nothing.
  """
  if compute.remat != "auto":
    return compute
  memory = limit(mesh) if memory is None else memory
  if memory is None:
    unknown = "none" if mesh_lib.platform(mesh) == "cpu" else ORDER[-1]
    return dataclasses.replace(compute, remat=unknown)
  beside = _weights(arch, compute, sampling, opt, mesh, reference)
  for remat in ORDER:
    one = dataclasses.replace(compute, remat=remat)
    if beside + of_rows(arch, one, sampling, rows, mesh) <= SHARE * memory:
      break
  return one


def notes(asked: config.Compute, compute: config.Compute) -> list[str]:
  """What was chosen, where that was asked for."""
  return [f"compute.remat auto: {compute.remat}"] if compute != asked else []


def _weights(arch, compute, sampling, opt, mesh, reference):
  """Bytes of state, gradients and reference."""
  abstract = step.Stepper(arch, compute, sampling, opt, mesh).abstract
  params = mesh_lib.device_bytes(abstract.params)
  return mesh_lib.device_bytes(abstract) + (2 + reference) * params


def of_rows(
  arch, compute: config.Compute, sampling: config.Sampling, rows, mesh
) -> int:
  """Bytes on a device that a micro-batch takes: what its forward pass leaves to the
  backward one, all of a layer that is computed again, and logits. What a tensor axis
  would split is counted whole.

  rows: how many there are on all devices, and tokens of each.
  """
  count, tokens = rows
  given = arch, sampling, tokens, mesh
  row = _kept(compute, *given)
  if compute.remat != "none":
    row += _kept(dataclasses.replace(compute, remat="none"), *given) // arch.layers
  logits = 2 * 4 * tokens * min(compute.vocab_chunk, arch.vocab_size)
  return count // mesh_lib.row_shards(mesh) * (row + logits)


@functools.cache
def _kept(compute, arch, sampling, tokens, mesh):
  """Bytes that the forward pass of a row leaves to the backward one."""
  score = step.scorer(arch, compute, sampling, mesh)

  def back(params, packed):
    def loss(params):
      return objective.loss(score, params, packed, (objective.CONDITIONAL,))[0]

    return jax.vjp(loss, params)[1]

  def left(rows):
    packed = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
      pack.shapes((1, rows, tokens)),
    )
    made = jax.tree.leaves(jax.eval_shape(back, decoder.abstract(arch), packed))
    return sum(x.size * x.dtype.itemsize for x in made)

  shards = mesh_lib.row_shards(mesh)
  return (left(2 * shards) - left(shards)) // shards
