"""The programs of a run of the engine at its largest shapes, for who compiles ahead.

They are those that `Engine.run` dispatches, to the letter (tests/test_engine.py), with
shapes in the place of arrays. So they can be had of devices that are not there.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from pxy.model import attention, flops, paged
from pxy.parallel import mesh as mesh_lib
from pxy.parallel.program import Program
from pxy.sampling import step


def of(
  engine, params, prompts: int, n: int, smaller: Sequence[tuple[int, int]] = ()
) -> Iterator[Program]:
  """Programs of `n` responses to each of `prompts`, in the order in which they come.

  reshard (where the weights are others than the trainer's), prefill, admit, decode,
  of which one turn of a whole stretch is described, and what the last responses need:
  move, or carry where the cache is a pool in parts.

  Args:
    engine: engine.Engine.
    params: what `run` would be given, as shapes with shardings.
    smaller: (rows, live) of further decode programs, called `decode ROWS x LIVE`.
  """
  arch, mesh, rule = engine.arch, engine.mesh, engine.rule()
  static, sizes = {"dtype": engine.dtype, "mesh": mesh}, engine.largest(prompts, n)
  whole = functools.partial(_whole, mesh)

  def left(function, *args, **more):
    """What a program returns, and where that lives."""
    call = functools.partial(function, arch, *args, **more, **static)
    shapes = jax.eval_shape(call)
    return shapes if mesh is None else mesh_lib.at(shapes, step.lives(shapes, mesh))

  def slots_of(rows):
    return left(step.empty, rows=rows, length=sizes.room, pool=sizes.pool)

  weights, beside = params, 0
  if (transfer := step.transfer(arch, engine.dtype, mesh)) is not None:
    weights, beside = jax.eval_shape(transfer, params), mesh_lib.device_bytes(params)
    if mesh is not None:
      weights = mesh_lib.at(weights, step.placed(arch, mesh))
    yield Program("reshard", functools.partial(transfer.lower, params))
  with_weights = beside + mesh_lib.device_bytes(weights)
  slots = slots_of(sizes.rows)
  tokens_PT = whole((sizes.prompts, sizes.width), np.int32)
  given = weights, tokens_PT, whole((sizes.prompts,), np.int32)
  seen = flops.causal(arch, [sizes.width] * sizes.prompts)
  yield Program(
    "prefill",
    functools.partial(step.prefill.lower, arch, *given, pool=engine.paged, **static),
    flops.forward(arch, sizes.prompts * sizes.width, seen, sizes.prompts),
    beside + mesh_lib.device_bytes(slots),
  )
  ready = left(step.prefill, *given, pool=engine.paged)
  yield Program(
    "admit",
    functools.partial(
      step.admit.lower, slots, ready, *_lanes(sizes, whole), rule=rule, mesh=mesh
    ),
    resident=with_weights,
  )
  for rows, live in ((sizes.rows, sizes.room), *smaller):
    table = None
    if sizes.pool:
      pages = sizes.room // sizes.pool.tokens
      table = whole((rows, pages), np.int32), whole((rows,), np.bool_)
    lower = functools.partial(
      step.decode.lower, arch, weights, slots_of(rows), *[whole((), np.int32)] * 2,
      table, rule=rule, tokens=sizes.stretch, live=live, **static,
    )  # fmt: skip
    largest = (rows, live) == (sizes.rows, sizes.room)
    name = "decode" if largest else f"decode {rows} x {live}"
    yield _decode(engine, name, lower, rows, live, sizes, beside)
  if sizes.pool and sizes.pool.parts > 1:
    part, page_A = whole((), np.int32), whole((paged.CARRIED,), np.int32)
    given = slots.cache.k_LNKHS, slots.cache.v_LNKSH, part, part, page_A, page_A
    lower = functools.partial(step.carry.lower, *given, mesh=mesh)
    yield Program("carry", lower, resident=with_weights)
  if (last := engine.few(prompts, n)) and not sizes.pool:  # pages are not moved
    given = slots, whole((last,), np.int32)
    lower = functools.partial(step.resize.lower, *given, length=sizes.room, mesh=mesh)
    yield Program("move", lower, resident=with_weights)


def _whole(mesh, shape, dtype):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=step.everywhere(mesh))


def _lanes(sizes, whole) -> tuple:
  """What step.admit is given of each lane, the key, and the pages that are filled."""
  number_A, slot_A = (whole((sizes.lanes,), t) for t in (np.uint32, np.int32))
  key = jax.eval_shape(lambda: jax.random.key(0))
  filled = None
  if sizes.pool:
    filled = (whole((sizes.pool.parts, sizes.pages), np.int32),) * 3
  return number_A, slot_A, number_A, number_A, whole(key.shape, key.dtype), filled


def _decode(engine, name, lower, rows, live, sizes, beside) -> Program:
  """A stretch of turns, of caches as full as they can be."""
  arch, held = engine.arch, engine.full(rows, live, sizes.pool)
  cache_flops, cache_bytes = 0, 0
  if attention.fills(arch, engine.dtype, engine.mesh, engine.paged):
    read = engine.read(np.full(rows, held), live)
    cache_flops = flops.forward(arch, 0, [read] * arch.layers)
    cache_bytes = int(read * engine.token_bytes(rows))
  return Program(
    name,
    lower,
    flops.forward(arch, rows, [rows * min(w or held, held) for w in arch.windows()]),
    beside,
    trips=sizes.stretch,
    turns=sizes.stretch,
    cache_flops=cache_flops,
    cache_bytes=cache_bytes,
  )
