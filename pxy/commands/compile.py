"""`pxy compile`: what every program of a run would need on a topology, as a table."""

import dataclasses
import pathlib

import jax
from rich import console, status, table

from pxy import config, files
from pxy.aot import chips, measure
from pxy.model import decoder
from pxy.weights import load

COLUMNS = ("GB", "left", "TFLOP", "x model", "moved", "sent", "seconds")


def command(options) -> None:
  """`pxy compile`; options are options.Compile. Exits 1 if a program does not fit."""
  jax.config.update("jax_platforms", "cpu")  # the pod's chips are described, not used
  # Their programs can be kept and not be read again; measure.py keeps what it is told.
  jax.config.update("jax_enable_compilation_cache", False)
  if not show(options.cfg, options.topology, options.json):
    raise SystemExit(1)


def show(cfg: config.Train, topology: str, json_to: pathlib.Path | None) -> bool:
  """Prints the table, writes the JSON; returns whether everything fits."""
  if json_to is not None:
    files.writable(json_to, "--json")
  config.check(cfg)
  _, chip = chips.chip(topology)
  arch = load.arch(cfg.model)
  out, told = console.Console(), console.Console(stderr=True)
  with status.Status("", console=told) as waiting:
    found = list(measure.all_of(cfg, arch, topology, waiting.update))
  shown = table.Table(
    title=f"{cfg.model} ({decoder.size(arch):,} parameters) on {topology}, each of"
    f" {chip.hbm_bytes / 1e9:.1f} GB",
    caption="GB needed and left, moved through HBM, sent by collectives",
    box=None,
    padding=(0, 1, 0, 0),
    pad_edge=False,
  )
  shown.add_column("program", no_wrap=True)
  for column in COLUMNS:
    shown.add_column(column, justify="right", no_wrap=True)
  shown.add_column("bound")
  for one in found:
    shown.add_row(*_row(one, chip))
  out.print(shown)
  for one in found:
    if one.spare(chip) < 0:
      out.print(f"{one.name} does not fit: {suggestion(one, cfg)}", highlight=False)
  if json_to is not None:
    files.write_json(json_to, to_json(found, topology))
  return all(one.spare(chip) >= 0 for one in found)


def to_json(found: list[measure.Measured], topology: str) -> dict:
  """What --json writes; FLOPs and bytes are of one device."""
  name, chip = chips.chip(topology)
  return {
    "topology": topology,
    "chip": name,
    "hbm_bytes": chip.hbm_bytes,
    "programs": [
      {**dataclasses.asdict(one), "fits": one.spare(chip) >= 0} for one in found
    ],
  }


def suggestion(one: measure.Measured, cfg: config.Train) -> str:
  """What to change where a program does not fit."""
  if one.name.startswith(("update", "score")):
    steps = [
      "set compute.micro_rows to the number of devices, or nearer to it",
      "set compute.remat to full" if cfg.compute.remat != "full" else "",
      f"lower compute.vocab_chunk ({cfg.compute.vocab_chunk})",
      "raise mesh.tensor, or take more chips",
    ]
  else:
    steps = [
      f"lower sampling.slots ({cfg.sampling.slots})",
      f"raise sampling.tensor ({cfg.sampling.tensor or cfg.mesh.tensor})",
      "take more chips",
    ]
  return "; ".join(step for step in steps if step)


def _row(one, chip):
  return (
    one.name,
    f"{one.needed_bytes / 1e9:.2f}",
    f"{one.spare(chip) / 1e9:.2f}",
    f"{one.compiled_flops / 1e12:.3g}",
    f"{one.ratio:.2f}" if one.ratio else "",
    f"{one.hbm_bytes_moved / 1e9:.3g}",
    f"{one.sent_bytes / 1e9:.2g}",
    f"{one.seconds_bound:.2g}",
    one.bound,
  )
