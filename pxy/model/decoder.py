"""The decoder: pure functions of (arch, params).

    x = embed(tokens);  x = layer_l(x) for l < L;  hidden = norm(x);  logits = hidden @
    head

`params` is a nested dict of float32 arrays. Those below "layers" are stacked, layer
first, and `jax.lax.scan` runs over them, so that compile time does not grow with depth.
The NNX modules of layers.py say what there is; their graph definitions are made
abstractly, once per Arch, and merged with one layer's slice inside the scan. `apart`
layers are a tuple, and run one after the other.

`forward` reads whole packed rows. `prefill` reads prompts and keeps their keys and
values, `decode` reads one token per row with the cache: same layers, same numbers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pxy import imports
from pxy.model import attention, cudnn, paged, splash
from pxy.model import cache as kv
from pxy.model.arch import Arch
from pxy.parallel import mesh as mesh_lib

# Late: flax takes as long to import as jax, and only a model is made of it.
nnx = imports.later("flax.nnx")
layers = imports.later("pxy.model.layers")

# Stands for "no window" where the windows of all layers are one array.
_FAR = 2**30

# Depth up to which the scan is unrolled. A rolled scan copies what the backward pass
# needs into stacked arrays: a quarter of a training step at 3 layers.
_UNROLL = 4

# The same for training on a GPU, where it was 8 to 14 % of an update at 28 layers. What
# it costs is compiling, 24 s instead of 9.
_UNROLL_GPU = 32


def _cudnn(primitive, *_, **__) -> bool:
  """A remat policy: cuDNN's attention, which has no place to be given a name."""
  return primitive.name.startswith("dot_product_attention_fwd")


_saved = jax.checkpoint_policies
_ATTENTION = _saved.save_from_both_policies(
  _saved.save_only_these_names(splash.NAME), _cudnn
)
_REMAT = {
  "dots": _saved.save_from_both_policies(
    _saved.dots_with_no_batch_dims_saveable, _ATTENTION
  ),
  "attention": _ATTENTION,
  "full": _saved.nothing_saveable,
}


@functools.cache
def _modules(arch: Arch):
  """Graph definitions and abstract states of (one layer, all the rest)."""

  def make(kind):
    return nnx.split(nnx.eval_shape(lambda: kind(arch, nnx.Rngs(params=0))))

  return make(layers.Layer), make(layers.Outer)


def _merge(graph, values):
  return nnx.merge(graph, nnx.State(values))


@functools.partial(jax.jit, static_argnames="arch")
def init(arch: Arch, key) -> dict:
  """Random float32 parameters, a pure function of `key`."""

  def make(kind, key):
    return nnx.to_pure_dict(nnx.state(kind(arch, nnx.Rngs(params=key))))

  outer, inner = jax.random.split(key)
  stack = jax.vmap(functools.partial(make, layers.Layer))
  keys_L = jax.random.split(inner, arch.layers)
  return make(layers.Outer, outer) | {"layers": stack(keys_L)}


def abstract(arch: Arch) -> dict:
  """The parameters as jax.ShapeDtypeStruct, without shardings."""
  return jax.eval_shape(lambda: init(arch, jax.random.key(0)))


def axes(arch: Arch) -> dict:
  """Logical axis names of the parameters, in a tree like `params`."""
  (_, layer), (_, outer) = _modules(arch)

  def names(state, stacked):
    leaves = nnx.to_flat_state(state)
    named = [(path, stacked + tuple(leaf.axes)) for path, leaf in leaves]
    return nnx.to_pure_dict(nnx.from_flat_state(named))

  return names(outer, ()) | {"layers": names(layer, ("layers",))}


def apart(params) -> dict:
  """The parameters with "layers" a tuple, one tree each.

  A GPU or a CPU copies a layer's weights out of the stack before it reads them, in
  every turn of a scan: for a token of few rows that is three times the bytes.
  """
  depth = jax.tree.leaves(params["layers"])[0].shape[0]
  layers = [jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(depth)]
  return params | {"layers": tuple(layers)}


def size(arch: Arch) -> int:
  """Number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(abstract(arch)))


def head(arch: Arch, params):
  """The matrix from hidden states to logits, head_DV."""
  return params["embed"].T if arch.tied else params["head"]


def logits(arch: Arch, params, hidden):
  """float32 logits [..., V] of hidden states [..., D], capped where the model is."""
  out = jnp.dot(
    hidden,
    head(arch, params).astype(hidden.dtype),
    preferred_element_type=jnp.float32,
  )
  cap = arch.logit_softcap
  return out if cap is None else cap * jnp.tanh(out / cap)


def _outer(arch, params):
  graph = _modules(arch)[1][0]
  return _merge(graph, {k: v for k, v in params.items() if k != "layers"})


def _embed(arch, params, tokens_BT, dtype, rows=None):
  table_VD = params["embed"].astype(dtype)
  if rows is not None:
    # A lookup in a table split both ways would put all rows on every device.
    table_VD = _pin(table_VD, jax.NamedSharding(rows.mesh, jax.P()))
  x_BTD = table_VD[tokens_BT]
  return x_BTD * jnp.asarray(arch.d_model**0.5, dtype) if arch.embed_scale else x_BTD


def _pin(x, sharding):
  return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)


def _scan(
  arch, params, x_BTD, positions_BT, attend, *,
  remat, rows=None, extra=None, keep=True, held=None, unroll=_UNROLL,
):  # fmt: skip
  """x_BTD through all layers -> (hidden_BTD, stacked keys and values or None, held).

  attend(q, k, v, held, extra, window) -> (out, held) has one layer's slice of `extra`
  and its window; `held` goes from layer to layer.
  """
  graph = _modules(arch)[0][0]
  windows = arch.windows()
  same = len(set(windows)) == 1
  window_L = None if same else jnp.array([w or _FAR for w in windows], jnp.int32)
  # The angles of every layer alike, or two tables of which each layer takes one.
  kinds = sorted({w is not None for w in windows})  # layers without a window first
  kinds = kinds if arch.rope_local_theta is not None else kinds[:1]
  tables = [layers.angles(arch, positions_BT, k) for k in kinds]
  turn_L = None if all(arch.turns()) else jnp.array(arch.turns())

  def step(carry, inputs):
    x_BTD, held = carry
    values, extra, window, turn = inputs
    angles = tables[0]
    if len(tables) == 2:
      angles = jax.tree.map(functools.partial(jnp.where, window == _FAR), *tables)
    if turn is not None:
      angles = layers.still(angles, turn)
    window = windows[0] if same else window

    def mix(q, k, v):
      nonlocal held
      out, held = attend(q, k, v, held=held, extra=extra, window=window)
      return out

    layer = _merge(graph, values)
    x_BTD, pair = layer(_pin(x_BTD, rows), angles, mix)
    return (x_BTD, held), pair if keep else None

  if remat != "none":
    step = jax.checkpoint(step, policy=_REMAT[remat], prevent_cse=False)
  carry = x_BTD, held
  if isinstance(params["layers"], tuple):
    pairs = []
    for i, values in enumerate(params["layers"]):
      at = jax.tree.map(lambda x, i=i: x[i], (extra, window_L, turn_L))
      carry, pair = step(carry, (values, *at))
      pairs.append(pair)
    pairs = jax.tree.map(lambda *x: jnp.stack(x), *pairs)
  else:
    unroll = arch.layers if arch.layers <= unroll else 1
    inputs = (params["layers"], extra, window_L, turn_L)
    carry, pairs = jax.lax.scan(step, carry, inputs, unroll=unroll)
  x_BTD, held = carry
  return _pin(_outer(arch, params).norm(_pin(x_BTD, rows)), rows), pairs, held


def _read(
  arch, params, tokens_BT, positions_BT, segments_BT, prefix_BT=None, *,
  remat, dtype, keep, rows=None, most=None, mesh=None, kernel=None,
):  # fmt: skip

  def attend(q, k, v, held, extra, window):
    out_BTNH = attention.packed(
      q, k, v, segments_BT, scale=arch.scale, softcap=arch.attn_softcap, window=window,
      windows=[w or _FAR for w in arch.windows()], most=most, mesh=mesh, kernel=kernel,
      prefix_BT=prefix_BT,
    )  # fmt: skip
    return out_BTNH, held

  x_BTD = _embed(arch, params, tokens_BT, dtype, rows)
  hidden_BTD, pairs, _ = _scan(
    arch, params, x_BTD, positions_BT, attend, remat=remat, rows=rows, keep=keep,
    unroll=_UNROLL if keep or mesh_lib.platform(mesh) != "gpu" else _UNROLL_GPU,
  )  # fmt: skip
  return hidden_BTD, pairs


def forward(
  arch: Arch,
  params,
  tokens_BT,
  positions_BT,
  segments_BT,
  prefix_BT=None,
  *,
  remat: str = "none",
  dtype="float32",
  rows=None,
  kernel=None,
):
  """Final hidden states hidden_BTD of packed rows.

  A token sees the tokens before it in its row that have its segment id, or the id
  prefix_BT where that is given and not 0; 0 is padding. positions_BT count within a
  segment, after its prefix. dtype: of the activations. rows: the sharding of
  arrays of rows; with parameters split over the same devices the compiler must be told
  to keep rows apart and gather weights, else it may do the opposite. kernel: that of
  attention.packed; None: by the platform of the mesh of `rows`.
  """
  hidden_BTD, _ = _read(
    arch, params, tokens_BT, positions_BT, segments_BT, prefix_BT,
    remat=remat, dtype=dtype, keep=False, rows=rows,
    mesh=None if rows is None else rows.mesh, kernel=kernel,
  )  # fmt: skip
  return hidden_BTD


def prefill(
  arch: Arch, params, tokens_BT, length_B, *, dtype="float32", mesh=None, turned=None
):
  """Reads right-padded prompts of `length_B` > 0 tokens.

  mesh: that the program runs on; None: one device. turned: of the cache; None: as
  attention reads it here. Returns the last real token's hidden_BD, and the cache, with
  room for T tokens.
  """
  if turned is None:
    turned = cudnn.holds(arch, dtype, mesh)
  rows, tokens = tokens_BT.shape
  positions_BT = jnp.broadcast_to(jnp.arange(tokens)[None], (rows, tokens))
  segments_BT = (positions_BT < length_B[:, None]).astype(jnp.int32)
  hidden_BTD, (k, v) = _read(
    arch, params, tokens_BT, positions_BT, segments_BT,
    remat="none", dtype=dtype, keep=True, most=2, mesh=mesh,  # a prompt, and padding
  )  # fmt: skip
  hidden_BD = jnp.take_along_axis(hidden_BTD, (length_B - 1)[:, None, None], 1)[:, 0]
  return hidden_BD, kv.of(k, v, length_B.astype(jnp.int32), turned)


def decode(
  arch: Arch,
  params,
  tokens_B,
  cache: kv.Cache | paged.Pool,
  *,
  dtype="float32",
  live: int | None = None,
  mesh=None,
):
  """Reads one token per row, at position `cache.length_B`.

  live: positions of the cache that are looked at, from the first; None: all; of a
  turned cache, in each row as many as it has, and of a pool as attention.planned says.
  mesh: that the program runs on; None: one device. Returns the token's hidden_BD, and
  the cache with it, one longer.
  """
  length_B, pool = cache.length_B, isinstance(cache, paged.Pool)
  turned = not pool and cache.turned
  plan = attention.planned(cache, arch.windows(), mesh)

  def attend(q, k, v, held, extra, window):
    q, k, v = q[:, 0], k[:, 0], v[:, 0]
    if turned:
      held = kv.put(held, extra, k, v)
    out_BNH = attention.cached(
      q, k, v, held if turned else cache, extra, scale=arch.scale,
      softcap=arch.attn_softcap, window=window, live=live, plan=plan, mesh=mesh,
    )  # fmt: skip
    return out_BNH[:, None], held

  hidden_B1D, pairs, held = _scan(
    arch, params, _embed(arch, params, tokens_B[:, None], dtype), length_B[:, None],
    attend, remat="none", extra=np.arange(arch.layers), keep=not turned,
    held=cache if turned else None,
  )  # fmt: skip
  hidden_BD = hidden_B1D[:, 0]
  if turned:
    return hidden_BD, dataclasses.replace(held, length_B=length_B + 1)
  k, v = pairs
  # Zero, but not to XLA: the write has to wait for the last layer to have read. Left
  # without an order it copied the cache in each step, 3.5 of 11 ms at 256 rows of 128.
  wait = (0 * hidden_BD[:, 0])[None, :, None, None]
  k, v = k[:, :, 0] + wait, v[:, :, 0] + wait
  append = functools.partial(paged.append, mesh=mesh) if pool else kv.append
  return hidden_BD, append(cache, k, v)
