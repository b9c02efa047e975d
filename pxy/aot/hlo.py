"""What a compiled program does, read from its text: FLOPs, bytes, collectives.

XLA's own count takes the body of a loop once, so 36 scanned layers count as one. Here
the text of the optimised module is walked from its entry, and whatever stands in the
body of a loop counts as often as the loop runs:

  FLOPs        of matrix products (dot, and convolution, which a TPU makes of them: only
               products with real elements), and of the splash kernels by name
  bytes        read from and written to HBM by each operation outside of fusions; a
               fusion that takes a slice of an array reads the slice; what the compiler
               keeps in on-chip memory (S(1) in a layout) is free, and so is the cache
               that ragged.py is given: what it reads, the program's description says
  collectives  by kind: how many, and the bytes of the whole result on each device

A loop's turns are what the compiler notes, or the constant that its condition compares
with; the `trips` given where only the data knows. Of the branches of a conditional the
one with most FLOPs counts.

Left out: elementwise FLOPs; what happens inside other kernels.
"""

import dataclasses
import math
import re

from pxy.model import ragged

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
  "partition-id", "replica-id", "while", "conditional", "call", "opt-barrier",
}  # fmt: skip
_MATMULS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


@dataclasses.dataclass
class Counts:
  """What a program does on each device."""

  flops: float = 0.0
  bytes: float = 0.0
  collectives: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  """kind -> (how many, bytes of the results)."""
  wire: float = 0.0
  """Bytes that each device sends in them, if each goes around a ring."""
  moved: list[tuple[str, str, float]] = dataclasses.field(default_factory=list)
  """(kind, result, how often) of each."""
  largest: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  """(bytes, shape) of the results in HBM, the largest first."""

  def add(self, other: "Counts", times: float) -> None:
    """Adds `other` as often as said."""
    self.flops += times * other.flops
    self.bytes += times * other.bytes
    self.wire += times * other.wire
    for kind, (count, size) in other.collectives.items():
      have = self.collectives.get(kind, (0, 0))
      self.collectives[kind] = have[0] + times * count, have[1] + times * size
    self.moved += [(kind, shape, times * n) for kind, shape, n in other.moved]
    self.largest = sorted({*self.largest, *other.largest}, reverse=True)[:20]


@dataclasses.dataclass(frozen=True)
class _Leaf:
  dtype: str
  dims: tuple[int, ...]
  space: int

  @property
  def size(self) -> int:
    bits = _BITS.get(self.dtype) or int(re.sub(r"^\D+", "", self.dtype)[:2] or 0)
    if self.dtype in ("token", "opaque"):
      return 0
    return math.prod(self.dims) * bits // 8

  @property
  def text(self) -> str:
    return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class _Op:
  name: str
  leaves: tuple[_Leaf, ...]
  code: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def called(self, key: str) -> list[str]:
    found = re.search(rf"\b{key}=(\{{[^}}]*\}}|%[\w.\-]+)", self.rest)
    return re.findall(r"%([\w.\-]+)", found[1]) if found else []


def count(text: str, trips: int = 1) -> Counts:
  """Counts of an optimised HLO module; `trips`: of loops that the text does not tell.

  Raises:
    ValueError: no entry computation.
  """
  computations, entry = _parse(text)
  if entry is None:
    raise ValueError("HLO text without an ENTRY computation")
  return _Walk(computations, trips).of(entry)


def _parse(text):
  computations, entry, ops = {}, None, None
  for line in text.splitlines():
    if line.startswith(("%", "ENTRY ")) and line.rstrip().endswith("{"):
      name = re.search(r"%([\w.\-]+)", line)[1]
      ops = computations[name] = {}
      entry = name if line.startswith("ENTRY") else entry
    elif ops is not None and " = " in line:
      op = _op(line.strip())
      ops[op.name] = op
  return computations, entry


def _op(line) -> _Op:
  name, right = line.split(" = ", 1)
  end = _close(right, 0) + 1 if right[0] == "(" else right.index(" ")
  kind, right = right[:end], right[end:].lstrip()
  start = right.index("(")
  stop = _close(right, start)
  leaves = tuple(
    _Leaf(
      dtype,
      tuple(int(n) for n in dims.split(",") if n),
      int((re.search(r"S\((\d+)\)", layout or "") or (0, 0))[1]),
    )
    for dtype, dims, layout in _SHAPE.findall(kind)
  )
  return _Op(
    name.removeprefix("ROOT ").lstrip("%"),
    leaves,
    right[:start],
    tuple(re.findall(r"%([\w.\-]+)", right[start:stop])),
    right[start:],
    name.startswith("ROOT "),
  )


def _close(text, start):
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for match in re.finditer(r"[()]", text[start:]):
    depth += 1 if match[0] == "(" else -1
    if depth == 0:
      return start + match.start()
  raise ValueError(f"unbalanced parentheses in HLO: {text[:80]}")


class _Walk:
  """One module's computations, each counted once."""

  def __init__(self, computations, trips):
    self.computations, self.trips = computations, trips
    self.known = {}

  def of(self, name) -> Counts:
    """Counts of one run of a computation that is no fusion."""
    if name in self.known:
      return self.known[name]
    ops, out, channels = self.computations[name], Counts(), set()
    for op in ops.values():
      if op.code == "while":
        inside = Counts()
        inside.add(self.of(op.called("body")[0]), 1)
        inside.add(self.of(op.called("condition")[0]), 1)
        out.add(inside, self._turns(op))
      elif op.code == "conditional":
        branches = [
          self.of(branch)
          for key in ("branch_computations", "true_computation", "false_computation")
          for branch in op.called(key)
        ]
        out.add(max(branches, key=lambda c: (c.flops, c.bytes)), 1)
      elif op.code == "call":
        out.add(self.of(op.called("to_apply")[0]), 1)
      else:
        out.flops += self._flops(op, ops)
        out.bytes += self._bytes(op, ops)
        self._collect(op, ops, out, channels)
        if op.code not in _FREE and not op.code.endswith("-done"):
          sizes = {(leaf.size, leaf.text) for leaf in op.leaves if not leaf.space}
          out.largest = sorted({*out.largest, *sizes}, reverse=True)[:20]
    self.known[name] = out
    return out

  def _turns(self, loop) -> int:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
      return int(known[1])
    ops = self.computations[loop.called("condition")[0]]
    compare = next(op for op in ops.values() if op.root)
    if compare.code != "compare" or "direction=LT" not in compare.rest:
      return self.trips
    counter, limit = (ops[name] for name in compare.operands)
    if counter.code != "get-tuple-element" or limit.code != "constant":
      return self.trips
    return -(-_number(limit) // self._stride(loop, counter))

  def _stride(self, loop, counter) -> int:
    """What a loop's body adds to its counter: 2 in a ring that goes both ways."""
    body = self.computations[loop.called("body")[0]]
    root = next(op for op in body.values() if op.root)
    place = int(re.search(r"index=(\d+)", counter.rest)[1])
    after = body[root.operands[place]]
    terms = [body[name] for name in after.operands] if after.code == "add" else []
    return next((_number(op) for op in terms if op.code == "constant"), 1)

  def _nested(self, op) -> list[dict]:
    """The computations that an operation is made of, as far as work is done there."""
    if op.code in ("fusion", "async-start", "custom-call"):
      return [
        self.computations[name]
        for key in ("calls", "called_computations")
        for name in op.called(key)
      ]
    return []

  # FLOPs.

  def _flops(self, op, ops) -> float:
    if op.code == "dot":
      left = ops[op.operands[0]].leaves[0].dims
      axes = _ints(op.rest, r"lhs_contracting_dims=\{([\d,]*)\}")
      return 2.0 * math.prod(op.leaves[0].dims) * math.prod(left[a] for a in axes)
    if op.code == "convolution":
      return _convolution(op, ops)
    if op.code == "custom-call" and "tpu_custom_call" in op.rest:
      return _attention(op)
    return sum(
      self._flops(inner, nested)
      for nested in self._nested(op)
      for inner in nested.values()
    )

  # Bytes.

  def _bytes(self, op, ops) -> float:
    if op.code in _FREE or op.code.endswith(("-done", "-update")):
      return 0.0
    read = [ops[name].leaves for name in op.operands if name in ops]
    if op.name.startswith(ragged.NAME):
      read = read[: ragged.GIVEN]

    def size(leaves):
      return sum(leaf.size for leaf in leaves if not leaf.space)

    if op.code in ("dynamic-slice", "slice", "gather"):
      return 2.0 * size(op.leaves)
    if op.code == "dynamic-update-slice":
      return 2.0 * size(read[1])
    if op.code == "scatter":
      return 3.0 * size(read[-1])
    if op.code.endswith("-start"):  # its result holds the operand as well
      return size(op.leaves[: 2 * len(read)])
    if op.code == "fusion":
      return self._of_fusion(op, read)
    return size(op.leaves) + sum(map(size, read))

  def _of_fusion(self, op, read) -> float:
    name = op.called("calls")[0]
    inner, total = self.computations[name], 0
    for inside in inner.values():
      if inside.code == "parameter":
        number = _number(inside)
        leaves = read[number] if number < len(read) else ()
        sizes = [leaf.size for leaf in leaves if not leaf.space]
        total += sum(self._taken(name, inside.name, size) for size in sizes)
    roots = [inside for inside in inner.values() if inside.root]
    if roots[0].code == "tuple":
      roots = [inner[name] for name in roots[0].operands]
    for leaf, root in zip(op.leaves, roots, strict=False):
      while root.code == "bitcast":
        root = inner[root.operands[0]]
      if leaf.space:
        continue
      if root.code == "dynamic-update-slice":
        total += inner[root.operands[1]].leaves[0].size
      elif root.code == "scatter":  # in place as well: what was there, and what comes
        total += 2 * inner[root.operands[-1]].leaves[0].size
      else:
        total += leaf.size
    return float(total)

  def _taken(self, computation, name, size) -> int:
    """Bytes that a fusion reads of an array: its slices, if it uses no more."""
    total = 0
    for user in self.computations[computation].values():
      if name not in user.operands:
        continue
      first = user.operands[0] == name
      if user.code in ("dynamic-slice", "slice", "gather") and first:
        total += user.leaves[0].size
      elif user.code == "bitcast":
        total += self._taken(computation, user.name, size)
      elif user.code in ("dynamic-update-slice", "scatter") and first:
        continue  # written in place
      elif user.code == "fusion":
        callee = user.called("calls")[0]
        for inside in self.computations[callee].values():
          if inside.code == "parameter" and user.operands[_number(inside)] == name:
            total += self._taken(callee, inside.name, size)
            if self._through(callee, inside.name):
              total += self._taken(computation, user.name, size)
      else:
        return size
    return min(total, size)

  def _through(self, computation, name) -> bool:
    """Whether a fusion gives an array back, seen otherwise at most."""
    ops = self.computations[computation]
    root = next(op for op in ops.values() if op.root)
    while root.code == "bitcast":
      root = ops[root.operands[0]]
    return root.name == name

  # Collectives.

  def _collect(self, op, ops, out, channels) -> None:
    kind = op.code.removesuffix("-start")
    if kind in KINDS:
      channel = re.search(r"channel_id=(\d+)", op.rest)
      channel = channel[1] if channel else op.name
      if channel in channels:  # one that is spread over several fusions
        return
      channels.add(channel)
      size = sum(
        leaf.size for name in op.operands if name in ops for leaf in ops[name].leaves
      )
      devices = _group(op.rest)
      shape = op.leaves[-1].text
      if kind == "all-gather":
        size *= devices
        shape = (
          op.leaves[min(1, len(op.leaves) - 1)].text if "-start" in op.code else shape
        )
      elif kind == "all-reduce" and _scattered(op, ops):
        kind = "reduce-scatter"
      have = out.collectives.get(kind, (0, 0))
      out.collectives[kind] = have[0] + 1, have[1] + size
      out.moved.append((kind, shape, 1.0))
      share = (devices - 1) / devices
      out.wire += size * {"all-reduce": 2 * share, "collective-permute": 1}.get(
        kind, share
      )
    for nested in self._nested(op):
      for inner in nested.values():
        self._collect(inner, nested, out, channels)


def _number(op) -> int:
  """That of a parameter or a constant."""
  return int(re.match(r"\((\d+)\)", op.rest)[1])


def _ints(text, pattern):
  found = re.search(pattern, text)
  return [int(n) for n in found[1].split(",") if n] if found else []


def _group(rest) -> int:
  """Devices that take part in a collective together."""
  named = re.search(r"replica_groups=mesh\[([^\]]*)\](.*?)\{([^{}]*)\}", rest)
  if named:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    axes = re.findall(r"'(\w+)'", named[3])
    return math.prod(int(sizes[axis]) for axis in axes)
  tiled = re.search(r"replica_groups=\[([\d,]+)\]<=", rest)
  if tiled:
    return int(tiled[1].split(",")[-1])
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
  return max(1, len(listed[1].split(","))) if listed and listed[1] else 2


def _scattered(op, ops) -> bool:
  """Whether only a slice of an all-reduce is used: then it is a reduce-scatter."""
  users = [user for user in ops.values() if op.name in user.operands]
  return bool(users) and all(user.code == "dynamic-slice" for user in users)


def _convolution(op, ops) -> float:
  left, right = (ops[name].leaves[0].dims for name in op.operands[:2])
  out = op.leaves[0].dims
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.rest)
  window = re.search(r"window=\{([^}]*)\}", op.rest)
  window = dict(re.findall(r"(\w+)=([\w\-]+)", window[1])) if window else {}

  def values(key, default):
    return window[key].split("x") if key in window else [default] * 8

  pairs = 1
  for axis in range(len(left) - 2):
    n = left[labels[1].index(str(axis))]
    k = right[labels[2].index(str(axis))]
    m = out[labels[3].index(str(axis))]
    stride, from_left, from_right = (
      int(values(key, "1")[axis]) for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    low = int(re.match(r"-?\d+", values("pad", "0")[axis])[0])
    pairs *= _real(n, k, m, stride, from_left, from_right, low)
  inside = right[labels[2].index("i")]
  return 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * inside * pairs


def _real(n, k, m, stride, dilate, rhs_dilate, low) -> int:
  """Pairs (output, tap) that meet a real element, not padding or a hole."""
  if n == k == 1 or (k == 1 and dilate == stride == 1):
    return m if k == 1 else 1
  total = 0
  for tap in range(k):
    for o in range(m):
      at = o * stride + tap * rhs_dilate - low
      total += 0 <= at <= (n - 1) * dilate and at % dilate == 0
  return total


def _attention(op) -> float:
  """Of a splash kernel, from its operands: the blocks of the mask that it visits."""
  matmuls = next((n for name, n in _MATMULS.items() if op.name.startswith(name)), 0)
  found = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", op.rest)
  if not matmuls or not found:
    return 0.0
  shapes = [
    (dtype, [int(n) for n in dims.split(",") if n])
    for dtype, dims, _ in _SHAPE.findall(found[1])
  ]
  blocks = next(dims for dtype, dims in shapes if dtype == "s8")[-2:]
  queries = next(dims for dtype, dims in shapes if dtype in ("bf16", "f32"))
  batch, (heads, tokens, width) = math.prod(queries[:-3]), queries[-3:]
  rows, columns = blocks
  size = tokens / rows
  visited = sum(min(row + 1, columns) for row in range(rows))
  return matmuls * 2.0 * batch * heads * width * visited * size * size
