"""`pxy study`: every cell of a study, and what they say of its claims."""

import dataclasses
import fnmatch
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from pxy import config, fields, files
from pxy.bucket import mirror
from pxy.commands import cli, experiment
from pxy.show import progress
from pxy.study import cell as cell_lib
from pxy.study import local, names, on_ray, pack, page, plan, results, slurm


def command(options) -> None:
  """`pxy study`; options are options.Study. Exits 1 if a cell failed."""
  study = experiment.study(options.study, plan.Study)
  configs = resolved(study)
  with mirror.own(options.out, "study") as out:
    mirror.refresh(out, _says_how_it_stands)
    _command(options, study, configs, out)


def _says_how_it_stands(name: str) -> bool:
  """Of the names in a study's folder: what is asked before anything else."""
  return name == "study.json" or name.endswith("/cell.json")


def _command(options, study, configs, out: pathlib.Path) -> None:
  """The same, where `out` is a folder of this machine."""
  kept = _identities(study, configs, out)
  left = [cell for cell in _asked(study, options.cell) if not _done(cell, out)]
  if options.print is not None:
    fields.need(left, f"--print {options.print}: every cell is done")
    print(slurm.script(options.study, options.out, left), end="")
    return
  if options.dry_run:
    _show_plan(study, configs, out, options)
    return
  if options.report is not None:
    files.writable(options.report / "results.json", f"--report {options.report}")
    _report(study, out, options.report, options.study)
    return
  if options.pack is not None:
    files.writable(options.pack, f"--pack {options.pack}")
    cells = pack.write(study, out, options.pack)
    print(f"{options.pack}: {cells} cells, {options.pack.stat().st_size:,} bytes")
    return
  if options.ray is None:
    steps = {name: cfg.steps for name, cfg in configs.items()}
    runner = local.Runner(out, options.jobs, steps)
  else:
    runner = on_ray.Runner(options.ray, out, options.jobs)
  files.writable(out / "study.json", f"--out {out}")
  files.write_json(out / "study.json", kept)
  mirror.give(out / "study.json")
  stopped = runner.run(left)
  mirror.refresh(out, _says_how_it_stands)
  if options.cell is None:
    _report(study, out, out, options.study)
  if stopped:
    raise SystemExit(128 + stopped)
  asked = _asked(study, options.cell)
  if any(cell_lib.state(cell, out)["state"] == cell_lib.FAILED for cell in asked):
    raise SystemExit(1)


def _report(study: plan.Study, out: pathlib.Path, to: pathlib.Path, word: str) -> None:
  """Says what the cells in `out` that are done say, and writes it."""
  found = {"command": f"pxy study {word} --out RUNS"}
  found |= results.Results(study, out).to_json()
  for one in found["claims"]:
    print(f"{one['world']}: {one['text']}: {one['verdict']}")
  written = page.write(to, found)
  for name in ("results.json", *page.drawings(found), written.name):
    mirror.give(to / name)
  print(f"report: {mirror.name(written)}")


def resolved(study: plan.Study) -> dict[str, config.Train]:
  """What each cell that trains does, by its name; checked."""
  made, out = {}, {}
  for cell in study.cells():
    if not cell.trains:
      continue
    key = cell.world.name, cell.arm.name  # reading options takes a tenth of a second
    try:
      if key not in made:
        made[key] = cli.chosen("train", cell.training()[1:]).asked()
      out[cell.name] = dataclasses.replace(made[key], seed=cell.seed)
      config.check(out[cell.name])
    except config.Error as error:
      raise config.Error(f"cell {cell.name}: {error}") from None
  for claim in study.claims:
    k = names.tries(claim.measure)
    for name, cfg in out.items():
      world, arm, _ = name.split("/")
      asked = world in study.asked(claim) and arm in (claim.arm, claim.against)
      fields.need(
        not asked or k is None or k <= cfg.eval.samples,
        f"claim {claim.name}: {claim.measure} of cell {name}, which is evaluated with"
        f" --eval.samples {cfg.eval.samples}",
      )
  return out


def _identities(study, configs, out: pathlib.Path) -> dict[str, dict]:
  """What study.json holds of each cell, those of before included.

  Raises config.Error for two cells that are one run, and for a cell that is there as
  another.
  """
  made = {c.name: cell_lib.identity(c, configs.get(c.name)) for c in study.cells()}
  seen: dict[str, str] = {}
  for name, one in made.items():
    other = seen.setdefault(one["config"], name)
    fields.need(
      other == name,
      f"cells {other} and {name} are one and the same run: let their options differ, or"
      " leave one out",
    )
  before = {}
  if (out / "study.json").is_file():
    before = json.loads((out / "study.json").read_text(encoding="utf-8"))
  for name, one in made.items():
    fields.need(
      name not in before or before[name] == one,
      f"cell {name} is another than {mirror.name(out)} has results of: give the changed"
      f" study its own --out, or delete {mirror.name(out / name)} and its line in"
      " study.json",
    )
  return before | made


def _asked(study: plan.Study, pattern: str | None) -> tuple[plan.Cell, ...]:
  cells = study.cells()
  if pattern is None:
    return cells
  found = tuple(cell for cell in cells if fnmatch.fnmatchcase(cell.name, pattern))
  fields.need(found, f"--cell {pattern}: there is none; the first is {cells[0].name}")
  return found


def _done(cell: plan.Cell, out: pathlib.Path) -> bool:
  return cell_lib.state(cell, out)["state"] == cell_lib.DONE


def _show_plan(study, configs, out: pathlib.Path, options) -> None:
  """Cells, time and disk."""
  total, disk = 0.0, 0
  for world in study.worlds:
    there = [c for c in study.cells() if c.world == world]
    if before := [c for c in there if not c.trains]:
      total += _show_before(world.name, before, out)
    if not (cells := [c for c in there if c.trains]):
      continue  # only something before training is asked of it
    left = [cell for cell in cells if not _done(cell, out)]
    seconds, size, how = _cost(cells, left or cells, configs, out)
    total, disk = total + seconds * len(left), disk + size * len(left)
    print(
      f"{world.name}: {len(cells)} cells, {len(left)} to do; each about"
      f" {progress.clock(seconds)} and {size / 1e6:.0f} MB, {how}"
    )
  print(
    f"in all {progress.clock(total / options.jobs)} with --jobs {options.jobs}, and"
    f" {disk / 1e9:.1f} GB in {options.out}"
  )


def _show_before(world: str, cells, out: pathlib.Path) -> float:
  """What is asked of a world's model before training; seconds that it will take."""
  took = [cell_lib.state(c, out)["seconds"] for c in cells if _done(c, out)]
  said = f"{world}, before training: {len(cells)} cells, {len(cells) - len(took)} to do"
  if not took:
    print(f"{said}; none is done yet, so their time is not known")
    return 0.0
  each = statistics.fmean(took)
  print(f"{said}; each about {progress.clock(each)}")
  return each * (len(cells) - len(took))


def _cost(cells, left, configs, out: pathlib.Path) -> tuple[float, int, str]:
  """Seconds and bytes of a cell of those that are left, and where they are from."""
  done = [cell for cell in cells if _done(cell, out)]
  if done:
    took = [(cell.probes, cell_lib.state(cell, out)["seconds"]) for cell in done]
    each = []
    for cell in left:
      alike = [seconds for probes, seconds in took if probes == cell.probes]
      each.append(statistics.fmean(alike or [seconds for _, seconds in took]))
    size = sum(mirror.size(out / cell.name) for cell in done) // len(done)
    return statistics.fmean(each), size, f"as the {len(done)} that are done"
  with tempfile.TemporaryDirectory() as folder:
    run, start = pathlib.Path(folder, "run"), time.monotonic()
    words = [*cells[0].training(), "--steps", "3", "--out", str(run)]
    made = subprocess.run(
      cell_lib.argv(words), capture_output=True, text=True, check=False
    )
    whole = time.monotonic() - start
    if made.returncode:
      said = [line for line in made.stderr.splitlines() if line.strip()]
      raise config.Error(
        f"cell {cells[0].name}, 3 steps: {(said or ['it said nothing'])[-1]}"
      )
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [x for x in map(json.loads, lines) if x["step"] and "timing_s/step" in x]
    each, size = steps[-1]["timing_s/step"], files.size(run)
  more = configs[cells[0].name].steps - 3
  beside = ", and its probes on top" if any(cell.probes for cell in left) else ""
  return whole + more * each, size, f"by 3 steps, {each:.1f} s each{beside}"
