"""The train step: micro-batches in a loop, exact global sums, one optimizer update.

    grads = sum_m  d/dparams loss(score, params, packed_m, terms)

The packed batch has one shape for the whole run and a count of the micro-batches that
hold something; the loop runs that often, so a step costs what it scores and compiles
once. Weights in the batch hold the global normalisers (rl/pack.py), so partial losses
and gradients only add up: nothing is divided by a number of micro-batches or devices.

Shardings of state and batch are pinned at both ends of the program; left free, the
second call compiles again with what the compiler chose in the first.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pxy import config
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.rl import metrics, objective, pack
from pxy.rl import score as score_lib
from pxy.train import optim
from pxy.train import state as state_lib


def scorer(
  arch,
  compute: config.Compute,
  sampling: config.Sampling,
  mesh=None,
  *,
  every: bool = False,
  forward_mode: bool = False,
) -> objective.Score:
  """score(params, packed) of a decoder, under the distribution that is sampled from.

  compute: remat.chosen settles its `auto`; unsettled, nothing is computed again.
  mesh: that the rows are split over, and the vocabulary; None: one device.
  every: as score.from_hidden has it.
  forward_mode: for jax.jvp (rl/logprob.py), which attention's kernels do not have.
  """
  return score_lib.from_hidden(
    functools.partial(
      decoder.forward,
      arch,
      remat="none" if compute.remat == "auto" else compute.remat,
      dtype=compute.dtype,
      rows=None if mesh is None else mesh_lib.rows(mesh),
      kernel="xla" if forward_mode else None,
    ),
    lambda params: decoder.head(arch, params).astype(compute.dtype),
    inputs=score_lib.prefixed,
    temperature=sampling.temperature,
    softcap=arch.logit_softcap,
    top_k=sampling.top_k,
    top_p=sampling.top_p,
    tied=arch.tied,
    chunk=compute.vocab_chunk,
    shards=1 if mesh is None else mesh.shape["tensor"],
    row_shards=1 if mesh is None else mesh_lib.row_shards(mesh),
    every=every,
    forward_mode=forward_mode,
  )


def accumulate(score: objective.Score, terms, params, packed: pack.Packed, used):
  """Loss, gradient, metrics and sampler differences of the first `used` micro-batches.

  packed has a leading axis M; `used` is traced. Returns (grads, metrics, diff_MBT), the
  differences being 0 beyond what was scored.
  """

  def one(m):
    def loss(params):
      return objective.loss(score, params, _micro(packed, m), terms)

    grads, (found, diff_BT) = jax.grad(loss, has_aux=True)(params)
    return grads, found, diff_BT

  def add(m, carry):
    grads, found, diff_MBT = carry
    more_grads, more_found, diff_BT = one(m)
    return (
      jax.tree.map(jnp.add, grads, more_grads),
      metrics.merge(found, more_found),
      diff_MBT.at[m].set(diff_BT),
    )

  shapes = jax.eval_shape(one, 0)
  start = (
    jax.tree.map(jnp.zeros_like, params),
    metrics.empty(shapes[1]),
    jnp.zeros(packed.tokens_BT.shape, jnp.float32),
  )
  return jax.lax.fori_loop(0, used, add, start)


class Stepper:
  """The programs of a run, with shardings pinned: init, score, update.

  Packed batches are [M, B, T] with rows divisible by the mesh's (data, fsdp).

  Attributes:
    abstract: the state as shapes with shardings, for a checkpoint to be restored into.

  Raises:
    config.Error: the mesh does not divide the weights.
  """

  def __init__(self, arch, compute, sampling, opt: config.Optim, mesh):
    self._score = scorer(arch, compute, sampling, mesh)
    self._opt = opt
    shapes = decoder.abstract(arch)
    placed = mesh_lib.shardings(mesh, decoder.axes(arch), shapes)
    whole = mesh_lib.whole(mesh)
    state = jax.eval_shape(functools.partial(optim.init, opt), shapes)
    placed = optim.shardings(state, placed, whole)
    self._moments = placed.opt_state
    if opt.offload:
      away = jax.tree.map(lambda s: s.with_memory_kind("pinned_host"), self._moments)
      placed = dataclasses.replace(placed, opt_state=away)
    self.abstract = mesh_lib.at(state, placed)
    self._rows = mesh_lib.rows(mesh, axis=1)
    self._params = placed.params
    self._init = jax.jit(functools.partial(optim.init, opt), out_shardings=placed)
    self._update = jax.jit(
      self._updated,
      static_argnums=0,
      in_shardings=(placed, self._rows, whole, whole),
      out_shardings=(placed, whole),
      donate_argnums=1,
    )
    self._scored = jax.jit(
      self._scores,
      in_shardings=(placed.params, self._rows, whole),
      out_shardings=self._rows,
    )

  def init(self, params) -> state_lib.State:
    """The state before the first update, of float32 params from anywhere."""
    return self._init(process.put(params, self._params))

  def score(self, params, packed: pack.Packed, used: int):
    """float32 log-probs of the targets [M, B, T], 0 outside the mask and beyond the
    first `used` micro-batches; one forward each."""
    return self._scored(params, process.put(packed, self._rows), np.int32(used))

  def update(self, state, packed: pack.Packed, used: int, lr: float, terms):
    """One update from a packed batch: (state, metrics that know their reduction).

    `state` is donated: its arrays cannot be read afterwards. The first `used` micro-
    batches are scored, terms are config.Term. A loss or gradient that is not finite
    leaves the state as it was; actor/skipped counts it.
    """
    kernels = tuple(objective.kernel(term) for term in terms)
    packed = process.put(packed, self._rows)
    return self._update(kernels, state, packed, np.int32(used), np.float32(lr))

  def lower_score(self, packed: pack.Packed) -> jax.stages.Lowered:
    """`score` of a packed batch of shapes, lowered."""
    return self._scored.lower(self.abstract.params, self._placed(packed), np.int32(0))

  def lower_update(self, packed: pack.Packed, terms) -> jax.stages.Lowered:
    """`update` on a packed batch of shapes, lowered."""
    kernels = tuple(objective.kernel(term) for term in terms)
    packed, zero = self._placed(packed), np.float32(0)
    return self._update.lower(kernels, self.abstract, packed, np.int32(0), zero)

  def _placed(self, packed):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._rows), packed
    )

  def _scores(self, params, packed, used):
    def add(m, logp_MBT):
      micro = _micro(packed, m)
      logp_BT, _ = self._score(params, micro)
      if micro.copies_BTC is not None:
        logp_BT = objective.mixed(logp_BT, micro)
      return logp_MBT.at[m].set(jnp.where(micro.mask_BT, logp_BT, 0.0))

    start = jnp.zeros(packed.tokens_BT.shape, jnp.float32)
    return jax.lax.fori_loop(0, used, add, start)

  def _updated(self, terms, state, packed, used, lr):
    grads, found, diff_MBT = accumulate(self._score, terms, state.params, packed, used)
    if self._opt.offload:
      near = jax.device_put(state.opt_state, self._moments)
      state = dataclasses.replace(state, opt_state=near)
    after, more = optim.update(self._opt, grads, state, lr)
    loss = found["actor/pg_loss"].value()
    finite = jnp.isfinite(loss) & jnp.isfinite(more["grad_norm"])
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
    one = jnp.ones((), jnp.float32)  # over several updates, the mean of
    found["actor/pg_loss"] = metrics.Mean(loss, one)
    found["actor/grad_norm"] = metrics.Mean(more["grad_norm"], one)
    found["actor/skipped"] = metrics.Sum(1.0 - finite.astype(jnp.float32))
    known_MBT = packed.mask_BT & jnp.isfinite(packed.sampler_BT)
    p95 = jnp.nanquantile(jnp.where(known_MBT, diff_MBT, jnp.nan).reshape(-1), 0.95)
    found["training/rollout_probs_diff_p95"] = metrics.mean(
      jnp.nan_to_num(p95), known_MBT.any().astype(jnp.float32)
    )
    return state, found


def _micro(packed: pack.Packed, m) -> pack.Packed:
  return jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, m, 0, keepdims=False), packed
  )
