"""What a report needs of the cells that are done, in one small file.

    pxy study claims --out runs/claims --pack cells.zip
    unzip cells.zip -d elsewhere/claims       # where the same study goes on, or reports

A cell is a folder as before, without its weights, texts and samples: the study finds it
done, and says the same of it. The same cells are the same bytes.
"""

import io
import json
import pathlib
import zipfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pxy import fields, files
from pxy.bucket import mirror
from pxy.evaluate import by_problem
from pxy.show import log
from pxy.study import cell as cell_lib
from pxy.study import names, plan, readings

_DAY = (1980, 1, 1, 0, 0, 0)  # the first that a zip can write


def write(study: plan.Study, out: pathlib.Path, to: pathlib.Path) -> int:
  """Writes the file whole, or not at all; returns how many cells are in it.

  Raises fields.Error where none is done, or one lacks what a report reads.
  """
  readings.fetch(out)
  cells = [c for c in study.cells() if cell_lib.state(c, out)["state"] == cell_lib.DONE]
  fields.need(cells, f"--pack {to}: no cell in {mirror.name(out)} is done")
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
    kept = json.loads((out / "study.json").read_text(encoding="utf-8"))
    named = {cell.name: kept[cell.name] for cell in cells}
    _add(file, "study.json", json.dumps(named, indent=1).encode())
    for cell in cells:
      asked = study.of(cell)
      for name, found in _files(cell, out / cell.name, asked):
        _add(file, f"{cell.name}/{name}", found)
  files.write_bytes(to, data.getvalue())
  return len(cells)


def _add(file: zipfile.ZipFile, name: str, found: bytes) -> None:
  one = zipfile.ZipInfo(name, _DAY)
  one.compress_type, one.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
  file.writestr(one, found)


def _files(
  cell: plan.Cell, folder: pathlib.Path, asked: set[str]
) -> Iterator[tuple[str, bytes]]:
  """What readings.py reads of a cell, by path; of problems what a claim asks."""
  for name in readings.WHOLE:
    if (folder / name).is_file():
      whole = name != "probe.json"
      yield name, (folder / name).read_bytes() if whole else _measures(cell, folder)
  if cell.trains:
    rows = [
      {name: row[name] for name in ("step", *readings.CURVES) if name in row}
      for row in log.metrics(folder / "run")
    ]
    yield "run/metrics.jsonl", "".join(json.dumps(x) + "\n" for x in rows).encode()
    table = io.BytesIO()
    rows = readings.evaluated(folder / "run", any(map(names.looks, asked)))
    pq.write_table(rows, table, compression="zstd")
    yield "run/completions.parquet", table.getvalue()
  if (folder / readings.BY_PROBLEM).is_file():
    rows = by_problem.read(folder / readings.BY_PROBLEM)
    wanted = pa.array(sorted(asked), pa.string())
    rows = rows.filter(pc.field("measure").isin(wanted))
    if len(rows):
      of = rows["base"].to_pylist()
      models = [cell.world.before if base else f"{cell.name}/run" for base in of]
      at = rows.column_names.index("model")
      rows = rows.set_column(at, "model", pa.array(models, pa.string()))
      yield readings.BY_PROBLEM, by_problem.packed(rows)


def _measures(cell: plan.Cell, folder: pathlib.Path) -> bytes:
  """The report of `pxy probe`: what it found of the run, and the base's values. No path
  of a machine is in it."""
  reports = readings.parsed(folder / "probe.json")
  for report in reports if isinstance(reports, list) else [reports]:
    report.pop("figures", None)
    report.pop("difference", None)
    report["model"] = f"{cell.name}/run"
    base = report.get("base_measures", {})
    base.update({name: {"value": one["value"]} for name, one in base.items()})
  return json.dumps(reports).encode()
