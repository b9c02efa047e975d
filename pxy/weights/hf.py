"""Hugging Face folders: config.json and safetensors <-> Arch and params.

Strict in both directions. Every tensor of a checkpoint is used once and every parameter
is set once; names, types and shapes are compared with what config.json implies before
anything is allocated. A folder counts as a model once it has config.json, which is
therefore removed first and written last: a save that is killed leaves no model, never
half of one.

Both ways go parameter by parameter: on the host is, besides what is read or written,
one parameter (of all layers) or one shard.

Left out: pickled weights, quantised tensors.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
import re
import sys

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from pxy import config, files
from pxy.model.arch import Arch
from pxy.weights import families, names

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = _WEIGHTS + ".index.json"
_DTYPES = {
  "float32": np.dtype(np.float32),
  "float16": np.dtype(np.float16),
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {"F32", "F16", "BF16"}
_TOLD = 60
"""Fields that are named, of those that a config.json has to no effect."""
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def arch(folder) -> Arch:
  """The Arch of a folder's config.json; config.Error if it is not supported."""
  path = pathlib.Path(folder) / _CONFIG
  try:
    values = _json(path)
    model, ignored = families.read(values), families.ignored(values)
  except config.Error as error:
    raise config.Error(f"{path.parent}: {_line(error)}") from None
  if ignored:
    _tell(path, ignored)
  return model


@functools.cache
def _tell(path: pathlib.Path, fields: tuple[str, ...]) -> None:
  """Says once in a process what a config.json has that is not looked at."""
  said = [_line(name) for name in fields[:_TOLD]]
  said += [f"and {len(fields) - _TOLD} more"] if len(fields) > _TOLD else []
  text = f"{path}: fields without effect are ignored: {', '.join(said)}"
  print(f"pxy: {text}", file=sys.stderr)


def load(folder, put: names.Put = lambda path, value: value) -> tuple[Arch, dict]:
  """Arch and params of a folder.

  put(path, value) is given each parameter, float32 and with all its layers, as soon as
  it is whole, and what it returns stands in params: values on a device, say.

  Raises config.Error where a tensor is missing, unknown, of another shape or type than
  config.json implies, or has a number that is not finite.
  """
  folder = pathlib.Path(folder)
  model = arch(folder)
  with contextlib.ExitStack() as stack:
    held = _open(folder, stack)
    # Before the list is made: its length is what config.json claims.
    if len(held) < model.layers:
      raise config.Error(
        f"{folder}: config.json says {model.layers} layers, the checkpoint has"
        f" {len(held)} tensors"
      )
    wanted = {tensor.name: tensor for tensor in names.tensors(model)}
    for name, tensor in wanted.items():
      _check(folder, held, name, tensor.shape)
    for name in sorted(set(held) - set(wanted)):
      _check_superfluous(folder, model, held, name)

  @contextlib.contextmanager
  def reading():
    # Opened for each anew: what was read of a file stays mapped until it is closed.
    with contextlib.ExitStack() as stack:
      held = _open(folder, stack)
      yield functools.partial(_tensor, folder, held)

  return model, names.gather(wanted.values(), reading, put)


def save_arch(folder, model: Arch, tokenizer=None, dtype: str = "float32") -> None:
  """Writes config.json, and with `tokenizer` generation_config.json before it;
  config.Error if no known family has this Arch."""
  ids = {}
  if tokenizer is not None:
    ids = _ids(tokenizer)
    path = pathlib.Path(folder) / "generation_config.json"
    files.write_json(path, {"do_sample": True} | ids)
    ids["eos_token_id"] = ids["eos_token_id"][0]
  values = families.write(model) | ids | {"dtype": dtype}
  files.write_json(pathlib.Path(folder) / _CONFIG, values)


def save(
  folder,
  model: Arch,
  params,
  *,
  dtype: str = "float32",
  tokenizer=None,
  shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a folder that HF software can load; with `tokenizer`, also that.

  params: arrays this process can read whole. dtype: of the tensors in the files.
  shard_bytes: no file has more in tensors, but one of a single tensor; where one file
  is not enough, an index says which has what.

  Raises:
    config.Error: no known family has this Arch, or a number is beyond the dtype.
  """
  if dtype not in _DTYPES:
    raise config.Error(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
  families.write(model)  # Refuses before anything is touched.
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / _CONFIG).unlink(missing_ok=True)
  (folder / _INDEX).unlink(missing_ok=True)
  shards = _shards(model, _DTYPES[dtype].itemsize, shard_bytes)
  for path in folder.glob("model*.safetensors"):
    if path.name == _WEIGHTS or _SHARD.fullmatch(path.name):
      if path.name not in shards:
        path.unlink()
  whole = _Whole(params)
  for name, tensors in shards.items():
    out = {tensor.name: _export(whole, tensor, dtype) for tensor in tensors}
    _write(folder / name, out)
  if len(shards) > 1:
    weight_map = {t.name: name for name, tensors in shards.items() for t in tensors}
    sizes = [math.prod(t.shape) for tensors in shards.values() for t in tensors]
    total = {"total_size": sum(sizes) * _DTYPES[dtype].itemsize}
    files.write_json(folder / _INDEX, {"metadata": total, "weight_map": weight_map})
  if tokenizer is not None:
    tokenizer.save(folder)
  save_arch(folder, model, tokenizer, dtype)


def _shards(model, itemsize: int, most: int) -> dict[str, list[names.Tensor]]:
  """The tensors of each file, in order."""
  parts: list[list[names.Tensor]] = [[]]
  size = 0
  for tensor in names.tensors(model):
    more = math.prod(tensor.shape) * itemsize
    if parts[-1] and size + more > most:
      parts.append([])
      size = 0
    parts[-1].append(tensor)
    size += more
  if len(parts) == 1:
    return {_WEIGHTS: parts[0]}
  count = len(parts)
  return {
    f"model-{i:05d}-of-{count:05d}.safetensors": part for i, part in enumerate(parts, 1)
  }


class _Whole:
  """Parameters as numpy arrays, of which the last one asked for is kept."""

  def __init__(self, params):
    self._params, self._path, self._value = params, None, None

  def __call__(self, path):
    if path != self._path:
      self._value = None
      tree = self._params
      for key in path:
        tree = tree[key]
      self._path, self._value = path, np.asarray(tree)
    return self._value


def _export(whole, tensor: names.Tensor, dtype: str):
  value = whole(tensor.path)
  value = value if tensor.layer is None else value[tensor.layer]
  if value.shape != tensor.ours:
    raise config.Error(f"{tensor.name}: {value.shape} is not {tensor.ours}")
  value = tensor.export(value)
  # A copy, for a shard outlives the parameter it is cut from.
  with np.errstate(over="ignore"):
    out = np.array(value, dtype=_DTYPES[dtype], order="C")
  if np.isfinite(out).all() or np.array_equal(np.isfinite(out), np.isfinite(value)):
    return out
  largest = np.abs(value[np.isfinite(value)]).max()
  raise config.Error(
    f"dtype {dtype}: {tensor.name} has {largest:.3g}, which is beyond it: use bfloat16"
    " or float32"
  )


def _write(path: pathlib.Path, tensors: dict) -> None:
  """Writes a file of tensors that is there whole or not at all."""
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})
    os.chmod(temporary, 0o644)
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _ids(tokenizer) -> dict:
  return {
    "bos_token_id": tokenizer.bos_id,
    "eos_token_id": list(tokenizer.stop_ids),
    "pad_token_id": tokenizer.pad_id,
  }


def _json(path: pathlib.Path) -> dict:
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise config.Error(f"no {path.name}: not an HF-style model folder") from None
  except (OSError, ValueError, RecursionError) as error:
    raise config.Error(f"{path.name} cannot be read: {error}") from None
  if not isinstance(values, dict):
    raise config.Error(f"{path.name}: expected an object")
  return values


def _open(folder, stack) -> dict:
  """Tensor name -> open file that has it."""
  shards = [_WEIGHTS]
  if (folder / _INDEX).is_file():
    weight_map = _json(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
      raise config.Error(f"{folder}: {_INDEX} has no weight_map")
    shards = sorted(set(map(str, weight_map.values())))
  there = {path.name for path in folder.iterdir() if path.is_file()}
  held = {}
  for shard in shards:
    # The index is data from elsewhere: it may not name files outside the folder.
    if shard not in there:
      raise config.Error(f"{folder}: no {_line(shard)}")
    try:
      file = stack.enter_context(safetensors.safe_open(folder / shard, "numpy"))
    except (OSError, safetensors.SafetensorError) as error:
      raise config.Error(f"{folder}: {shard} cannot be read: {_line(error)}") from None
    for name in file.keys():
      if name in held:
        raise config.Error(f"{folder}: tensor {_line(name)} is there twice")
      held[name] = file
  return held


def _check(folder, held, name, shape) -> None:
  if name not in held:
    raise config.Error(f"{folder}: tensor {name} is missing")
  header = held[name].get_slice(name)
  found = tuple(header.get_shape())
  if found != shape:
    raise config.Error(
      f"{folder}: tensor {name} is {found}, config.json implies {shape}"
    )
  if header.get_dtype() not in _CODES:
    raise config.Error(
      f"{folder}: tensor {name} has type {header.get_dtype()}; only"
      f" {', '.join(_DTYPES)} can be read"
    )


def _tensor(folder, held, tensor: names.Tensor):
  value = held[tensor.name].get_tensor(tensor.name)
  if not _finite(value):
    raise config.Error(
      f"{folder}: tensor {tensor.name} has numbers that are not finite"
    )
  return value


def _finite(value) -> bool:
  """Whether all numbers of a float array are, by their bits, without another array: of
  either sign those of nan and infinity are the largest integers."""
  size = value.dtype.itemsize
  signed, unsigned = value.view(f"i{size}"), value.view(f"u{size}")
  infinity = int(np.array(np.inf, value.dtype).view(unsigned.dtype))
  sign = 1 << (8 * size - 1)
  return signed.max() < infinity and unsigned.max() < (sign | infinity)


def _check_superfluous(folder, model, held, name) -> None:
  twin = names.superfluous(model, name)
  if twin is None:
    raise config.Error(f"{folder}: tensor {_line(name)} is not known")
  if twin:
    _check(folder, held, name, tuple(held[twin].get_slice(twin).get_shape()))
    if not np.array_equal(held[name].get_tensor(name), held[twin].get_tensor(twin)):
      raise config.Error(
        f"{folder}: config.json ties {name} to {twin}, but they differ"
      )


def _line(text) -> str:
  """What a file says, fit for a terminal: one line, not long, no control characters."""
  text = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
  return text if len(text) <= 400 else text[:400] + " ..."
