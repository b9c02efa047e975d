"""What an update keeps of its forward pass is counted, and chosen by what there is."""

import dataclasses
import functools

import jax
import pytest

from pxy import config, testing
from pxy.parallel import mesh as mesh_lib
from pxy.rl import objective, pack
from pxy.train import remat, step

ARCH = testing.arch(layers=6, d_model=64, head_dim=16, d_ff=192)
OF = {"sampling": config.Sampling(), "opt": config.Optim()}
ROWS = 4, 64


@functools.cache
def mesh():
  return mesh_lib.make(config.Mesh(fsdp=1), jax.devices()[:1])


def compute(how):
  return config.Compute(remat=how, vocab_chunk=64)


@functools.cache
def counted(how, rows=4):
  return remat.of_rows(ARCH, compute(how), OF["sampling"], (rows, ROWS[1]), mesh())


@functools.cache
def reserved(how, rows):
  """Bytes that XLA reserves for an update beside its arguments and results."""
  stepper = step.Stepper(ARCH, compute(how), *OF.values(), mesh())
  packed = pack.shapes((1, rows, ROWS[1]))
  made = stepper.lower_update(packed, (objective.CONDITIONAL,)).compile()
  return made.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("how", ["none", "dots", "full"])
def test_a_row_takes_what_the_compiler_reserves_for_it(how):
  """The compiler uses places again that the count does not, and has some besides."""
  more = reserved(how, 24) - reserved(how, 8)
  ratio = more / (counted(how, 24) - counted(how, 8))
  assert 0.6 < ratio < 1.6, (
    f"remat {how}: 16 rows more take {more:,} bytes, {ratio:.2f} x what is counted;"
    " auto would choose by wrong numbers"
  )


def test_the_less_is_kept_the_less_it_takes():
  none, dots, attention, full = map(counted, ("none", *remat.ORDER))
  assert none > 1.5 * dots > 1.5 * attention
  # On a CPU attention is no kernel, and keeps nothing of its own.
  assert attention == full
  assert counted("dots", 8) == 2 * counted("dots", 4), "rows are alike"


def test_the_first_that_fits_is_chosen(monkeypatch):
  def chosen(memory, how="auto", **more):
    given = ARCH, compute(how), ROWS, mesh()
    return remat.chosen(*given, **OF, memory=memory, **more).remat

  assert chosen(None) == "none", "a CPU does not say what it has"
  assert chosen(1, "dots") == "dots", "what was asked for stays"
  monkeypatch.setattr(mesh_lib, "platform", lambda mesh: "gpu")
  assert chosen(None) == "full", "a GPU that does not say"
  monkeypatch.undo()
  assert chosen(2**40) == "dots"
  assert chosen(1) == "full", "what takes least, where nothing fits"
  abstract = step.Stepper(ARCH, compute("none"), *OF.values(), mesh()).abstract
  params = mesh_lib.device_bytes(abstract.params)
  # Weights, two moments and a count; gradients of a micro-batch, and their sum.
  least = (mesh_lib.device_bytes(abstract) + 2 * params + counted("dots")) / remat.SHARE
  assert chosen(int(least) + 1) == "dots" and chosen(int(least) - 1) != "dots"
  assert chosen(int(least) + 1, reference=True) != "dots", "its weights count"


def test_rows_are_those_of_one_device():
  devices = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=1), jax.devices()[:4])
  given = ARCH, compute("dots"), OF["sampling"], (16, ROWS[1]), devices
  assert remat.of_rows(*given) == pytest.approx(counted("dots", 4), rel=0.02)


def test_unsettled_nothing_is_computed_again():
  packed = pack.shapes((1, *ROWS))
  texts = {
    how: step.Stepper(ARCH, compute(how), *OF.values(), mesh())
    .lower_update(packed, (objective.CONDITIONAL,))
    .as_text()
    for how in ("auto", "none", "full")
  }
  assert texts["auto"] == texts["none"] != texts["full"]


def test_the_memory_is_that_of_the_smallest_device(monkeypatch):
  class Device:
    def __init__(self, stats):
      self.memory_stats = lambda: stats

  def limit(*stats):
    local = dataclasses.make_dataclass("Mesh", ["local_devices"])
    return remat.limit(local([Device(x) for x in stats]))

  assert limit({"bytes_limit": 5 * 2**30}, {"bytes_limit": 3 * 2**30}) == 3 * 2**30
  assert limit(None) is None and limit({"bytes_in_use": 1}) is None
