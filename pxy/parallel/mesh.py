"""Logical axes -> mesh axes -> shardings. One rule set to train, one to sample.

A parameter names its axes by what they mean ("d_model", "heads"); a rule set says over
which mesh axis each is split, and the compiler derives every collective from that.

  data    copies of everything, rows split
  fsdp    rows split, and with them parameters and optimizer along d_model (ZeRO-3)
  tensor  heads, MLP width and vocabulary split (Megatron)

Rows of a batch are split over (data, fsdp) together. To sample, weights are whole in
each tensor group, so that no decoded token waits for a gather. Vectors (norm scales)
stay whole: gathering one costs a latency and keeping it nothing. Left out: sequence and
pipeline axes.
"""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pxy import config

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")

_TENSOR = {"heads": "tensor", "kv_heads": "tensor", "d_ff": "tensor", "vocab": "tensor"}
_WHOLE = {"layers": None, "head_dim": None}
TRAIN = {"d_model": "fsdp"} | _TENSOR | _WHOLE
SAMPLE = {"d_model": None} | _TENSOR | _WHOLE


def make(cfg: config.Mesh, devices=None) -> Mesh:
  """The mesh of a config, with axes (data, fsdp, tensor).

  Args:
    cfg: sizes; -1 once: as many as are left. Without a -1 the first devices are used
      and the others stay idle.
    devices: default: all.

  Raises:
    config.Error: the devices do not divide, or there are too few.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [getattr(cfg, name) for name in AXES]
  shown = " x ".join(f"{n} {s}" for n, s in zip(AXES, sizes, strict=True))
  known = math.prod(size for size in sizes if size != -1)
  if -1 in sizes:
    if len(devices) % known:
      raise config.Error(
        f"mesh {shown}: {len(devices)} devices do not divide by {known}; choose sizes"
        " whose product divides the number of devices"
      )
    sizes[sizes.index(-1)] = len(devices) // known
  elif known > len(devices):
    raise config.Error(
      f"mesh {shown} needs {known} devices, there are {len(devices)}; set one size to"
      " -1: as many as are left"
    )
  used = devices[: math.prod(sizes)]
  if len({d.process_index for d in devices}) > 1 and len(used) < len(devices):
    raise config.Error(
      f"mesh {shown} uses {len(used)} of {len(devices)} devices; of several processes,"
      " all have to take part: set one size to -1"
    )
  return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=used)


def sampling(mesh: Mesh, tensor: int) -> Mesh:
  """The same devices in the same order, `tensor` of which share the weights.

  Training and sampling want different splits: one update gathers each layer once for
  many tokens, a decoded token would wait for it. With the order kept, one program can
  take weights from either mesh to the other.

  Args:
    tensor: 0: as in `mesh`.

  Raises:
    config.Error: it does not divide the devices.
  """
  if tensor in (0, mesh.shape["tensor"]):
    return mesh
  if mesh.size % tensor:
    raise config.Error(
      f"sampling.tensor {tensor} does not divide the mesh's {mesh.size} devices: set it"
      " to a divisor, or to 0 for mesh.tensor"
    )
  devices = mesh.devices.reshape(1, mesh.size // tensor, tensor)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def platform(mesh: Mesh | None) -> str:
  """Of the mesh's devices: `cpu`, `gpu` or `tpu`; without a mesh, of JAX's own."""
  return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def needed(mesh: Mesh | None) -> Mesh | None:
  """None where the mesh tells a program nothing: one device, and that JAX's own. The
  constraints would mean nothing either, but make programs of their own."""
  if mesh is None or mesh.size > 1:
    return mesh
  return None if platform(mesh) == jax.default_backend() else mesh


def row_shards(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in ROWS)


def rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Array whose dimension `axis` counts rows: split over (data, fsdp)."""
  return NamedSharding(mesh, P(*[None] * axis, ROWS))


def whole(mesh: Mesh) -> NamedSharding:
  """Array that every device holds."""
  return NamedSharding(mesh, P())


def at(shapes, shardings):
  """The tree `shapes` as jax.ShapeDtypeStruct with these shardings."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )


def device_bytes(tree) -> int:
  """Bytes on each device of arrays, or of shapes (whole where they have no sharding);
  what waits in the host's memory has none."""
  total = 0
  for x in jax.tree.leaves(tree):
    shape = x.shape
    if x.sharding is not None:
      if x.sharding.memory_kind not in (None, "device"):
        continue
      shape = x.sharding.shard_shape(shape)
    total += math.prod(shape) * x.dtype.itemsize
  return total


def shardings(mesh: Mesh, axes, shapes, rules: dict[str, str | None] = TRAIN):
  """A sharding per parameter.

  Args:
    axes: tree of tuples of logical names, as decoder.axes gives.
    shapes: the same tree of arrays or shapes, as decoder.abstract gives.
    rules: mesh axis (or None) of each logical name.

  Raises:
    config.Error: a mesh axis does not divide a dimension, or a name has no rule.
  """

  def one(path, shape, names):
    where = jax.tree_util.keystr(path, simple=True, separator=".")
    return NamedSharding(mesh, _spec(mesh, where, names, np.shape(shape), rules))

  return jax.tree_util.tree_map_with_path(one, shapes, axes)


def _spec(mesh, where, names, shape, rules) -> P:
  if len(names) != len(shape):
    raise ValueError(f"{where}: axes {names} do not name the dimensions of {shape}")
  if len([name for name in names if name != "layers"]) < 2:
    return P()
  spec = []
  for name, size in zip(names, shape, strict=True):
    if name not in rules:
      raise ValueError(f"{where}: no sharding rule for the axis {name!r}")
    axis = rules[name]
    if axis is not None and size % mesh.shape[axis]:
      fits = [n for n in range(1, mesh.shape[axis]) if size % n == 0]
      # A split that both meshes have was refused when the trainer's was made.
      field = f"sampling.{axis}" if rules is SAMPLE else f"mesh.{axis}"
      raise config.Error(
        f"{field} {mesh.shape[axis]} does not divide {name} {size} ({where}): set"
        f" {field} to {fits[-1]}, or to another divisor"
      )
    spec.append(None if axis is None or mesh.shape[axis] == 1 else axis)
  while spec and spec[-1] is None:  # as the compiler writes it; P(None) != P() to jit
    spec.pop()
  return P(*spec)
