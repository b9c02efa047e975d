"""`pxy compile`: what every program of a run would need on a topology, as a table; and,
by the lengths of its responses, the bound of a whole step."""

import dataclasses
import pathlib

import jax
import numpy as np
from rich import console, status, table

from pxy import config, files
from pxy.aot import chips, measure, programs, whole
from pxy.aot import lengths as lengths_lib
from pxy.commands import plan
from pxy.model import decoder
from pxy.sampling import replay
from pxy.train import remat
from pxy.weights import load

COLUMNS = ("GB", "left", "TFLOP", "x model", "moved", "sent", "seconds")


def command(options) -> None:
  """`pxy compile`; options are options.Compile. Exits 1 if a program does not fit."""
  jax.config.update("jax_platforms", "cpu")  # the pod's chips are described, not used
  if not show(options.cfg, options.topology, options.json, options.lengths):
    raise SystemExit(1)


def show(
  cfg: config.Train,
  topology: str,
  json_to: pathlib.Path | None,
  lengths: str | None = None,
) -> bool:
  """Prints the table, writes the JSON; returns whether everything fits."""
  if json_to is not None:
    files.writable(json_to, "--json")
  config.check(cfg)
  _, chip = chips.chip(topology)
  arch = load.arch(cfg.model)
  asked = cfg
  cfg = programs.settled(cfg, arch, chips.devices(topology), chip.hbm_bytes)
  step = None if lengths is None else _Step(cfg, arch, topology, lengths)
  out, told = console.Console(), console.Console(stderr=True)
  with status.Status("", console=told) as waiting:
    smaller = step.smaller if step else ()
    found = list(measure.all_of(cfg, arch, topology, waiting.update, smaller))
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
  for note in remat.notes(asked.compute, cfg.compute):
    out.print(note, highlight=False)
  for line in plan.scored(cfg):
    out.print(f"score is run beside the update of {line}", highlight=False)
  for one in found:
    if one.spare(chip) < 0:
      out.print(f"{one.name} does not fit: {suggestion(one, cfg)}", highlight=False)
  fits = all(one.spare(chip) >= 0 for one in found)
  made = to_json(cfg, found, topology)
  if step is not None and fits:
    parts = step.parts(chip, found)
    made["step"] = whole.to_json(step.engine, parts, step.calls)
    _show_step(out, parts, made["step"])
  if json_to is not None:
    files.write_json(json_to, made)
  return fits


class _Step:
  """A step of such lengths, replayed."""

  def __init__(self, cfg, arch, topology: str, lengths: str):
    self.cfg = cfg
    prompts, responses = cfg.data.prompts, cfg.data.responses
    self.length_PR, self.prompt_P = lengths_lib.of(lengths, prompts, responses)
    if self.prompt_P is None:
      self.prompt_P = np.full(prompts, cfg.data.max_prompt_tokens)
    devices = chips.devices(topology)
    self.engine = programs.engine(cfg, arch, devices)
    self.row_shards = whole.row_shards(cfg, devices)
    self.calls = replay.calls(self.engine, self.prompt_P, self.length_PR)
    sizes = self.engine.largest(prompts, responses)
    self.smaller = whole.smaller(self.calls, sizes)

  def parts(self, chip, found) -> list[whole.Part]:
    """What each kind of program costs."""
    return whole.parts(
      self.cfg, self.engine, self.row_shards, chip, self.calls, self.prompt_P,
      self.length_PR, found,
    )  # fmt: skip


def _show_step(out: console.Console, parts, step: dict) -> None:
  total = step["seconds_bound"]
  shown = table.Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
  for name in ("part", "runs", "seconds", "share"):
    shown.add_column(name, justify="left" if name == "part" else "right")
  for part in parts:
    share = f"{100 * part.seconds / total:.1f} %"
    shown.add_row(part.name, f"{part.runs:,}", f"{part.seconds:.3g}", share)
  out.print(f"a whole step: {total:.3g} s at least", highlight=False)
  out.print(shown)
  out.print(
    f"{step['decode_turns']:,} turns of decoding in {step['decode_dispatches']:,}"
    f" dispatches; {100 * step['slots_busy']:.0f} % of the slots draw, and"
    f" {100 * step['cache_held']:.0f} % of the cache that is read is theirs; it moves"
    f" {step['decode_bytes'] / step['decode_bytes_least']:.2f} x the bytes of the"
    " weights and of what their rows hold",
    highlight=False,
  )


def to_json(cfg: config.Train, found: list[measure.Measured], topology: str) -> dict:
  """What --json writes; FLOPs and bytes are of one device, `passes` how `score` is run
  in a step of each phase."""
  name, chip = chips.chip(topology)
  return {
    "topology": topology,
    "chip": name,
    "hbm_bytes": chip.hbm_bytes,
    "remat": cfg.compute.remat,
    "passes": {phase.name: config.passes(cfg, phase) for phase in cfg.phases},
    "programs": [
      {**dataclasses.asdict(one), "fits": one.spare(chip) >= 0} for one in found
    ],
  }


def suggestion(one: measure.Measured, cfg: config.Train) -> str:
  """What to change where a program does not fit."""
  if one.name.startswith(("update", "score")):
    steps = [
      "set compute.micro_rows to the number of devices, or nearer to it",
      "" if cfg.compute.remat in ("auto", "full") else "set compute.remat to full",
      f"lower compute.vocab_chunk ({cfg.compute.vocab_chunk})",
      "raise mesh.tensor, or take more chips",
    ]
  else:
    held = cfg.sampling.cache_tokens
    steps = [
      f"lower sampling.cache_tokens ({held})"
      if held
      else f"lower sampling.slots ({cfg.sampling.slots}), or set sampling.cache_tokens"
      " below what these can have together",
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
