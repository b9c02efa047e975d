"""What measures are made of, in one table: `pxy probe --by-problem`.

A row is of a measure and a problem, and of all rows of a measure its value is

    kind                      a                       b
    sums                      a number                a number: sum(a) / sum(b)
    auroc, aurc, ece,         scores of the           1 right, 0 wrong, nan
      accuracy@50, @80        responses
    tv, kl, entropy,          share of each answer    1 at the right one
      top_share

and so is that of any draw of problems: runs can be compared problem by problem when
they are gone, and what pxy does not compute can be. Rows with one `unit`, forms of one
question, are drawn as a whole. Left out are measures of more than that: quantiles, a
count of kinds, cues, choices, and what is held against answers to no prompt.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pxy import fields, files
from pxy.bucket import mirror
from pxy.measures import bias, calibration, estimate, ranking

_POOLED = ("auroc", "aurc", *(f"accuracy@{c}" for c in ranking.COVERAGES))
KINDS = ("sums", *_POOLED, "ece", *bias.MARGINAL)
"""What a statistic may be; docs/measures.md has them."""
SCHEMA = pa.schema([
  ("model", pa.string()),
  ("step", pa.int64()),  # of its checkpoint, where several are asked
  ("base", pa.bool_()),  # that the others are held against
  ("task", pa.string()),
  ("measure", pa.string()),
  ("method", pa.string()),
  ("kind", pa.string()),
  ("unit", pa.string()),
  ("a", pa.list_(pa.float64())),
  ("b", pa.list_(pa.float64())),
])  # fmt: skip


def table(
  model: str, step: int | None, base: bool, task: str, specs: Sequence[estimate.Spec]
) -> pa.Table:
  """The rows of those specs that say what they are made of."""
  tables = [SCHEMA.empty_table()]
  for spec in specs:
    if spec.made is None or not spec.units:
      continue
    kind, units, a, b = spec.made
    said = (model, step, base, task, spec.name, spec.method, kind)
    tables.append(pa.table(
      [
        *([x] * len(units) for x in said), units,
        *(list(np.reshape(x, (len(units), -1))) for x in (a, b)),
      ],
      schema=SCHEMA,
    ))  # fmt: skip
  return pa.concat_tables(tables)


def write(path: pathlib.Path, tables: Sequence[pa.Table]) -> None:
  """Writes the file whole, or not at all."""
  files.write_bytes(path, packed(pa.concat_tables(tables)))


def packed(rows: pa.Table) -> bytes:
  """As the file has it; the same rows are the same bytes."""
  sink = pa.BufferOutputStream()
  pq.write_table(rows, sink, compression="zstd")
  return sink.getvalue().to_pybytes()


def read(path: pathlib.Path) -> pa.Table:
  """What `write` wrote. Raises fields.Error where it is none, or is not there."""
  try:
    rows = pq.read_table(path)
    return rows.cast(SCHEMA)
  except (pa.ArrowException, ValueError, FileNotFoundError) as error:
    why = str(error).split("\n")[0]
    raise fields.Error(
      f"{mirror.name(path)}: no table of `pxy probe --by-problem` ({why})"
    ) from None


def spec(rows: pa.Table, measure: str, base: bool = False) -> estimate.Spec | None:
  """A measure of the last model in a table, or of its base; None: it has none.

  It has the values and draws of the spec that was written, and neither null nor bounds.
  """
  those = (pc.field("measure") == measure) & (pc.field("base") == base)
  rows = rows.filter(those)
  if not len(rows):
    return None
  for name in ("model", "step", "task"):
    last = rows[name][-1]
    of = rows[name].is_null() if last.as_py() is None else pc.equal(rows[name], last)
    rows = rows.filter(of)
  kind, units = rows["kind"][0].as_py(), tuple(rows["unit"].to_pylist())
  try:
    a, b = (np.array(rows[name].to_pylist(), np.float64) for name in ("a", "b"))
    stat, size = _stat(kind, a, b)
  except (ValueError, TypeError, KeyError):
    raise fields.Error(f"{measure}: its rows by problem make no {kind!r}") from None
  made = estimate.Made(kind, units, a, b)
  if len(set(units)) < len(units):
    size = max(size, len(units))
    units, stat = estimate.as_wholes(units, stat)
  return estimate.Spec(
    measure, units, stat, rows["method"][0].as_py(),
    biased=kind == "ece" or kind in bias.MARGINAL, size=size, made=made,
  )  # fmt: skip


def _stat(kind: str, a: np.ndarray, b: np.ndarray) -> tuple[estimate.Stat, int]:
  """The statistic, and numbers that it makes of a draw: as many as of the first, whose
  sums are the same to the last bit for that."""
  if kind == "sums":
    return estimate.of_sums(a[:, 0], b[:, 0]), 0
  if kind in bias.MARGINAL:
    return bias.against(kind, a, b), 0
  order = ranking.ranked(a, b)
  if kind == "ece":
    return functools.partial(calibration.ece_B, order), len(order.problem_M)
  return ranking.pooled(kind, order), len(order.problem_M)
