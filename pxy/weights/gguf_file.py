"""The GGUF container: one file with metadata, a tensor directory, and tensor data.

    "GGUF" version tensors fields | field* | (name dims type offset)* | padding | data

Source: ggml's docs/gguf.md, versions 2 and 3, little-endian. The header is read here
and not by the `gguf` package, whose reader follows an array for as long as its count
says, past the end of the file too, and keeps two arrays for each string: a file of 60
bytes could take all memory, an honest vocabulary 2 s. What the blocks of the quantised
types mean is the package's.

The file is mapped, and nothing in it is believed: sizes are compared with what is there
before anything is made of them, and tensors may not overlap, so that a model takes at
most 13 times its file (2.6 bits of Q2_K become 32).

Left out: files in parts, big-endian files, arrays of arrays, other quantised types.
"""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import struct
from collections.abc import Iterator

import numpy as np
from gguf import constants, quants

from pxy import config

TYPES = (
  "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
  "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
)  # fmt: skip
"""Types of tensors that can be read."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
  0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "u1",
  10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_NAME = 512
"""Bytes of a name; ggml allows 64 for tensors."""


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One entry of the directory."""

  shape: tuple[int, ...]
  """As numpy has it: the file's order of axes reversed."""
  kind: constants.GGMLQuantizationType
  offset: int
  """Of its first byte in the file."""
  size: int
  """Bytes."""


class File:
  """A GGUF file: `fields` (str, int, float, bool, array or list of str) and `tensors`.

  Raises:
    config.Error: it is no sound GGUF file; the text does not name it (see `named`).
  """

  def __init__(self, path: pathlib.Path):
    if not path.is_file():
      raise config.Error("no such file")
    try:
      self._data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: it is empty
      raise config.Error(f"it cannot be read ({error})") from None
    header = _Header(memoryview(self._data))
    if header.take(4) != b"GGUF":
      raise config.Error("not a GGUF file: it does not begin with GGUF")
    version = header.number("<u4")
    if version not in (2, 3):
      raise config.Error(f"GGUF version {version} is not supported; 2 and 3 are")
    tensors, fields = header.number("<u8"), header.number("<u8")
    self.fields: dict = {}
    for _ in range(fields):
      name = header.text(_NAME, "a field's name")
      if name in self.fields:
        raise config.Error(f"field {name!r} is there twice")
      self.fields[name] = header.value(name)
    self.tensors: dict[str, Tensor] = {}
    entries = {}
    for _ in range(tensors):
      name = header.text(_NAME, "a tensor's name")
      if name in entries:
        raise config.Error(f"tensor {name!r} is there twice")
      entries[name] = header.entry(name)
    align = self.fields.get("general.alignment", constants.GGUF_DEFAULT_ALIGNMENT)
    if type(align) is not int or not 8 <= align <= 2**20 or align & (align - 1):
      raise config.Error(f"general.alignment is {align!r}, no power of two from 8 on")
    start = -(-header.at // align) * align
    for name, (shape, kind, offset) in entries.items():
      self.tensors[name] = self._placed(name, shape, kind, start, offset, align)
    self._apart()

  def _placed(self, name, shape, kind, start, offset, align) -> Tensor:
    block, block_bytes = constants.GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
      raise config.Error(
        f"tensor {name!r} is {shape}, its rows are no blocks of {block} ({kind.name})"
      )
    size = math.prod(shape) // block * block_bytes
    if offset % align:
      raise config.Error(f"tensor {name!r}: its offset {offset} is not aligned")
    if start + offset + size > self._data.size:
      raise config.Error(
        f"tensor {name!r} ends at byte {start + offset + size:,}, the file has"
        f" {self._data.size:,}: was it cut off?"
      )
    return Tensor(shape, kind, start + offset, size)

  def _apart(self) -> None:
    """Refuses tensors that share bytes: many of them would be more than the file."""
    order = sorted(self.tensors.items(), key=lambda item: item[1].offset)
    for (one, a), (other, b) in itertools.pairwise(order):
      if a.offset + a.size > b.offset:
        raise config.Error(f"tensors {one!r} and {other!r} overlap")

  def read(self, name: str) -> np.ndarray:
    """float32 array of a tensor; config.Error where a number in it is not finite."""
    tensor = self.tensors[name]
    raw = self._data[tensor.offset : tensor.offset + tensor.size]
    raw = raw.reshape(*tensor.shape[:-1], -1)
    with np.errstate(all="ignore"):  # numbers that are not finite are dealt with below
      value = np.asarray(quants.dequantize(raw, tensor.kind), np.float32)
    if not np.isfinite(value).all():
      raise config.Error(f"tensor {name!r} has numbers that are not finite")
    return value.reshape(tensor.shape)


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
  """Puts the file's name before the text of a config.Error, and makes it one line."""
  try:
    yield
  except config.Error as error:
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    text = text if len(text) <= 400 else text[:400] + " ..."
    raise config.Error(f"{path}: {text}") from None


class _Header:
  """Reads on from `at`, never beyond the end."""

  def __init__(self, data: memoryview):
    self._data, self.at = data, 0

  def take(self, size: int) -> bytes:
    if size > len(self._data) - self.at:
      raise config.Error("it ends within its header: was it cut off?")
    self.at += size
    return bytes(self._data[self.at - size : self.at])

  def number(self, code: str):
    dtype = np.dtype(code)
    return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

  def text(self, most: int | None, what: str) -> str:
    (size,) = struct.unpack("<Q", self.take(8))
    if most is not None and size > most:
      raise config.Error(f"{what} has {size:,} bytes, more than {most}")
    try:
      return self.take(size).decode("utf-8")
    except UnicodeDecodeError:
      raise config.Error(f"{what} is not UTF-8") from None

  def value(self, name: str):
    kind = self.number("<u4")
    if kind == _STRING:
      return self.text(None, f"field {name!r}")
    if kind != _ARRAY:
      value = self._numbers(name, kind, 1)[0]
      # A float32 as its shortest decimal, so that 1e-5 is the 1e-5 of config.json.
      return float(str(value)) if value.dtype == np.float32 else value.item()
    kind, count = self.number("<u4"), self.number("<u8")
    if kind != _STRING:
      return self._numbers(name, kind, count)
    if count > (len(self._data) - self.at) // 8:
      raise config.Error(f"field {name!r} claims {count:,} texts, more than fit")
    return [self.text(None, f"field {name!r}") for _ in range(count)]

  def _numbers(self, name: str, kind: int, count: int) -> np.ndarray:
    if kind not in _SCALARS:
      raise config.Error(f"field {name!r} is of type {kind}, which is not supported")
    dtype = np.dtype(_SCALARS[kind])
    values = np.frombuffer(self.take(count * dtype.itemsize), dtype)
    return values != 0 if kind == _BOOL else values

  def entry(self, name: str):
    dims = self.number("<u4")
    if not 1 <= dims <= 4:
      raise config.Error(f"tensor {name!r} has {dims} axes, not 1 to 4")
    shape = struct.unpack(f"<{dims}Q", self.take(8 * dims))[::-1]
    if 0 in shape:
      raise config.Error(f"tensor {name!r} is {shape}: it is empty")
    code, offset = self.number("<u4"), self.number("<u8")
    known = {kind.value: kind for kind in constants.GGMLQuantizationType}
    kind = known[code] if code in known else None
    if kind is None or kind.name not in TYPES:
      raise config.Error(
        f"tensor {name!r} has type {code if kind is None else kind.name}, which is not"
        f" supported; {', '.join(TYPES)} are"
      )
    return shape, kind, offset
