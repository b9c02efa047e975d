"""Prefill, admit, decode, resize, carry: the device side of sampling, pure functions.

Every response that is being written owns a slot, a row of `Slots`. `prefill` reads each
prompt once; `admit` copies its cache into the slots of its responses, or into pages
that they share (`pages` says which), and draws their first token from the prompt's last
hidden state; `decode` draws up to `tokens` more for all slots in one dispatch, and
returns early once `enough` slots are idle. Token t of a response is

    draw(fold_in(response key, t), logits(hidden state after token t - 1)),

math of one row alone: which slot it has, who its neighbours are and how many slots
there are change nothing. The functions are jitted at module level with hashable static
arguments, so all engines of a process share their programs.

Left out: speculative decoding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pxy.model import attention, cudnn, decoder, paged
from pxy.model import cache as kv
from pxy.parallel import mesh as mesh_lib
from pxy.rl import draw


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
  """What the device knows of the responses that are being written, one row each."""

  cache: kv.Cache | paged.Pool
  """Keys and values of the prompt and of all drawn tokens but the last."""
  token_B: jax.Array
  """The last drawn token."""
  key_B: jax.Array
  """The response's key."""
  drawn_B: jax.Array
  """Tokens drawn so far."""
  idle_B: jax.Array
  """The response has ended, or there never was one."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
  """Prompts that have been read: their cache, and logits of the token that follows."""

  cache: kv.Cache
  logits_PV: jax.Array


@dataclasses.dataclass(frozen=True)
class Rule:
  """How a token is drawn and when a response ends. Static: part of a program's name."""

  temperature: float
  top_k: int
  top_p: float
  stop_ids: tuple[int, ...]
  limit: int
  """Most tokens of a response."""

  def draw(self, key_B, drawn_B, logits_BV):
    """Token number `drawn_B` of each response: id, log-prob, whether it is the last."""
    keys_B = jax.vmap(jax.random.fold_in)(key_B, drawn_B)
    id_B, logp_B = draw.draw(
      keys_B,
      logits_BV,
      temperature=self.temperature,
      top_k=self.top_k,
      top_p=self.top_p,
    )
    stops = jnp.asarray(self.stop_ids, jnp.int32)
    stop_B = (id_B[:, None] == stops[None, :]).any(-1)
    return id_B, logp_B, stop_B | (drawn_B + 1 >= self.limit)


@functools.partial(
  jax.jit, static_argnames=("arch", "rows", "length", "pool", "dtype", "mesh")
)
def empty(arch, *, rows, length, dtype, pool=None, mesh=None) -> Slots:
  """`rows` idle slots with room for `length` tokens each; pool: paged.Size of their
  cache, None where each has a place of its own."""
  zero_B = jnp.zeros(rows, jnp.int32)
  slots = Slots(
    cache=_cache(arch, rows, length, pool, dtype, mesh),
    token_B=zero_B,
    key_B=jax.random.split(jax.random.key(0), rows),
    drawn_B=zero_B,
    idle_B=jnp.ones(rows, bool),
  )
  return _pin(slots, mesh)


def _cache(arch, rows, length, pool, dtype, mesh):
  if pool is not None:
    return paged.empty(arch, rows, length, pool, dtype)
  return kv.empty(arch, rows, length, dtype, cudnn.holds(arch, dtype, mesh))


def cache_bytes(arch, rows: int, length: int, *, dtype, mesh=None) -> int:
  """Bytes on each device of `rows` places of their own; nothing is allocated."""
  shapes = jax.eval_shape(lambda: _cache(arch, rows, length, None, dtype, mesh))
  if mesh is not None:
    shapes = mesh_lib.at(shapes, kv.placed(shapes, mesh))
  return mesh_lib.device_bytes(shapes)


def cache_read(arch, length_B, room: int, *, dtype, page=None, mesh=None) -> float:
  """Tokens of the cache that attention reads in a turn, in the mean over the layers, if
  every device reads as many as the one that reads most.

  length_B: numpy, what rows hold, 0 of those that are idle. room: as far as is read
  where rows are read alike. page: tokens of a pool's page; None: it is no pool.
  """
  rows, shards = len(length_B), 1 if mesh is None else mesh_lib.row_shards(mesh)
  shards = 1 if rows % shards else shards
  tokens_B = attention.read(arch, length_B, room, dtype, mesh, page)
  return shards * float(tokens_B.reshape(shards, -1).sum(1).max())


@functools.partial(jax.jit, static_argnames=("arch", "pool", "dtype", "mesh"))
def prefill(
  arch, params, tokens_PT, length_P, *, dtype, pool=False, mesh=None
) -> Prompts:
  """Read right-padded prompts of 0 < `length_P` <= T tokens; the cache has room for T.

  params: as `weights` gives them. pool: the slots' cache is one. mesh: that the program
  runs on; None: one device.
  """
  tokens_PT = _pin(tokens_PT, mesh)
  hidden_PD, cache = decoder.prefill(
    arch, params, tokens_PT, length_P, dtype=dtype, mesh=mesh,
    turned=False if pool else None,
  )  # fmt: skip
  return _pin(Prompts(cache, decoder.logits(arch, params, hidden_PD)), mesh)


@functools.partial(
  jax.jit, static_argnames=("rule", "mesh"), donate_argnames=("slots",)
)
def admit(
  slots, prompts, prompt_A, slot_A, uid_A, reply_A, key, pages=None, *, rule, mesh=None
):
  """Start response `reply_A` to prompt row `prompt_A` in slot `slot_A`.

  Lanes with a slot out of range start nothing, so that A can be fixed. The response's
  key is fold_in(fold_in(key, uid), reply). The cache must have room for the prompts'
  width; a pool takes what `pages` say, as paged.fill has it. Returns the slots, and the
  first ids and log-probs (id_A, logp_A).
  """
  fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  key_A = jax.vmap(jax.random.fold_in)(fold(key, uid_A), reply_A)
  zero_A = jnp.zeros_like(slot_A)
  id_A, logp_A, end_A = rule.draw(key_A, zero_A, prompts.logits_PV[prompt_A])

  def put(slots_B, values_A):
    return slots_B.at[slot_A].set(values_A, mode="drop")

  if pages is None:
    cache = kv.copy(slots.cache, slot_A, prompts.cache, prompt_A)
  else:
    cache = paged.fill(slots.cache, prompts.cache, *pages, mesh)
    length_B = put(cache.length_B, prompts.cache.length_B[prompt_A])
    cache = dataclasses.replace(cache, length_B=length_B)
  slots = Slots(
    cache=cache,
    token_B=put(slots.token_B, id_A),
    key_B=put(slots.key_B, key_A),
    drawn_B=put(slots.drawn_B, zero_A + 1),
    idle_B=put(slots.idle_B, end_A),
  )
  return _pin(slots, mesh), _whole((id_A, logp_A), mesh)


@functools.partial(
  jax.jit,
  static_argnames=("arch", "rule", "tokens", "live", "dtype", "mesh"),
  donate_argnames=("slots",),
)
def decode(
  arch, params, slots, enough, turns, pages=None, *, rule, tokens, live, dtype,
  mesh=None,
):  # fmt: skip
  """Draw up to `turns` tokens per slot, `tokens` at most, until `enough` are idle.

  The cache must have room for `turns` more in every slot that is not idle, all within
  its first `live` positions, which are those that attention reads at most. pages: of a
  pool page_BP, with pages for as many, and which slots have a response, busy_B.

  Returns the slots and (ids_TB, logp_TB, new_B, going_B, steps made): slot b's new
  tokens are the first new_B[b] of column b, and going_B says which slots are not idle.
  """
  rows, before_B = slots.token_B.shape[0], slots.drawn_B
  if pages is not None:
    page_BP, busy_B = pages
    cache = dataclasses.replace(slots.cache, page_BP=page_BP)
    idle_B = slots.idle_B | ~busy_B
    slots = _pin(dataclasses.replace(slots, cache=cache, idle_B=idle_B), mesh)

  def unfinished(carry):
    step, slots, _ = carry
    return (step < jnp.minimum(turns, tokens)) & (slots.idle_B.sum() < enough)

  def one(carry):
    step, slots, (ids_TB, logp_TB) = carry
    idle_B = slots.idle_B
    # An idle slot decodes rubbish into its own first position, so that it can neither
    # write out of range nor cost attention a long row; in a pool, where that may be
    # another's by now, into none.
    still = {} if pages is None else {"still_B": idle_B}
    length_B = jnp.where(idle_B, 0, slots.cache.length_B)
    cache = dataclasses.replace(slots.cache, length_B=length_B, **still)
    hidden_BD, cache = decoder.decode(
      arch, params, slots.token_B, cache, dtype=dtype, live=live, mesh=mesh
    )
    logits_BV = decoder.logits(arch, params, hidden_BD)
    id_B, logp_B, end_B = rule.draw(slots.key_B, slots.drawn_B, logits_BV)
    out = ids_TB.at[step].set(id_B), logp_TB.at[step].set(logp_B)
    slots = Slots(
      cache=cache,
      token_B=id_B,
      key_B=slots.key_B,
      drawn_B=jnp.where(idle_B, slots.drawn_B, slots.drawn_B + 1),
      idle_B=idle_B | end_B,
    )
    return step + 1, _pin(slots, mesh), out

  out = jnp.zeros((tokens, rows), jnp.int32), jnp.zeros((tokens, rows), jnp.float32)
  if apart := _apart(params, slots.cache, live):
    slots = dataclasses.replace(slots, cache=kv.apart(slots.cache))
  steps, slots, out = jax.lax.while_loop(unfinished, one, (jnp.int32(0), slots, out))
  if apart:
    slots = dataclasses.replace(slots, cache=kv.stacked(slots.cache))
  new_B, going_B = slots.drawn_B - before_B, ~slots.idle_B
  return slots, _whole((*out, new_B, going_B, steps), mesh)


def _apart(params, cache, live: int) -> bool:
  """Whether layers of a cache are apart for a stretch, as those of the weights are: on
  a CPU, where attention reads the whole, or it would still cut that out, and where
  there may be two of it."""
  if not isinstance(params["layers"], tuple) or not isinstance(cache, kv.Cache):
    return False
  held = cache.k_LBKHS.nbytes + cache.v_LBKSH.nbytes
  return not cache.turned and live >= cache.room and held <= WHOLE


@functools.partial(jax.jit, static_argnames=("length", "mesh"))
def resize(slots, row_B, *, length, mesh=None) -> Slots:
  """Slots `row_B` (int32) in that order, each with room for `length` tokens, which must
  hold what the busy ones have; old and new are there at the same time."""
  cache = kv.resize(slots.cache, row_B, length)
  rest = (x[row_B] for x in (slots.token_B, slots.key_B, slots.drawn_B, slots.idle_B))
  return _pin(Slots(cache, *rest), mesh)


@functools.partial(
  jax.jit, static_argnames=("mesh",), donate_argnames=("k_LNKHS", "v_LNKSH")
)
def carry(k_LNKHS, v_LNKSH, giver, taker, from_A, to_A, *, mesh):
  """(keys, values) of a pool, some copied from part to part, as paged.carry has it."""
  return paged.carry(k_LNKHS, v_LNKSH, giver, taker, from_A, to_A, mesh)


def reorder(slots, row_B, *, mesh=None) -> Slots:
  """Slots `row_B` (int32) of a pool in that order; no page is touched."""
  pool = slots.cache
  held = pool.page_BP, pool.length_B, pool.still_B
  rest = slots.token_B, slots.key_B, slots.drawn_B, slots.idle_B
  held, rest = _picked((held, rest), row_B, mesh=mesh)
  names = "page_BP", "length_B", "still_B"
  pool = dataclasses.replace(pool, **dict(zip(names, held, strict=True)))
  return Slots(pool, *rest)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _picked(tree, row_B, *, mesh):
  return _pin(jax.tree.map(lambda x: x[row_B], tree), mesh)


def weights(arch, params, *, dtype, mesh=None):
  """The weights to sample with: cast once, and on a mesh placed by its sampling rules.

  Vectors (norm scales) stay float32: the decoder uses them so. All else it would cast
  in every step, to the same numbers. Where `parts` says so, the layers are apart.
  """
  program = transfer(arch, dtype, mesh)
  return params if program is None else program(params)


@functools.cache
def transfer(arch, dtype, mesh):
  """The program of `weights`: from any split over the same devices, in one dispatch.
  None where it has nothing to do.

  Raises config.Error when the mesh does not divide the weights.
  """
  apart = parts(arch, dtype, mesh)
  if mesh is None and dtype == "float32" and not apart:
    return None
  axes, where = decoder.axes(arch), placed(arch, mesh)

  def cast(params):
    def one(x, names):
      return x if len(set(names) - {"layers"}) < 2 else x.astype(dtype)

    params = jax.tree.map(one, params, axes)
    return decoder.apart(params) if apart else params

  return jax.jit(cast, out_shardings=where)


COPY = 2**31
"""Bytes of float32 weights of which a CPU may hold a second copy."""

WHOLE = 2**30
"""Bytes of a device's cache above which there are never two of it: it is made at its
full length at once, for a move to a longer one needs the old and the new."""


def parts(arch, dtype, mesh) -> bool:
  """Whether layers are sampled with apart, not out of one stack: where cudnn.holds,
  and on one CPU, which would copy them out of it in every turn (a third of its time at
  SmolLM2-135M's shape), if the copy that this takes is not more than COPY bytes."""
  if cudnn.holds(arch, dtype, mesh):
    return True
  one = mesh is None and mesh_lib.platform(mesh) == "cpu"
  return one and 4 * decoder.size(arch) <= COPY


def placed(arch, mesh):
  """The shardings of the weights to sample with; None without a mesh."""
  if mesh is None:
    return None
  shapes = decoder.abstract(arch)
  return mesh_lib.shardings(mesh, decoder.axes(arch), shapes, mesh_lib.SAMPLE)


def lives(tree, mesh):
  """Where slots, prompts and rows live on a mesh: as kv.placed says, and logits split
  over the vocabulary as the head is. A tree of shardings."""
  where = kv.placed(tree, mesh)
  if isinstance(tree, Prompts):
    rows, _ = where.logits_PV.spec
    logits_PV = NamedSharding(mesh, PartitionSpec(rows, "tensor"))
    where = dataclasses.replace(where, logits_PV=logits_PV)
  return where


def everywhere(mesh) -> NamedSharding | None:
  """The sharding of what every device holds whole; None without a mesh."""
  return None if mesh is None else mesh_lib.whole(mesh)


def _pin(tree, mesh):
  """Fix where it lives; left to the compiler, a second call could find it elsewhere and
  compile again."""
  if mesh is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, lives(tree, mesh))


def _whole(tree, mesh):
  """On every device, so that every process can fetch it."""
  if mesh is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, everywhere(mesh))
