"""A study is data: worlds x arms x seeds, and the comparisons that are asked.

    STUDY = plan.Study(
      worlds=(plan.World("add3", "add3", ("--steps", "60")),),
      arms=(plan.Arm("dsrl"), plan.Arm("grpo")),
      seeds=(0, 1, 2),
      claims=(plan.Claim("end", "DSRL ends higher", "bound/pass@1", "dsrl", "grpo"),),
    )

Each world x arm x seed is a cell: one `pxy train BASE:METHOD`, and what is asked of the
run afterwards, all in a folder of its own. Arms of one world see the same prompts in
the same order for as many updates, since data follow from the seed alone.
"""

import collections
import dataclasses
import re
from typing import Literal

from pxy import fields, methods
from pxy.study import names

BEFORE = "before"
"""Stands for an arm in a claim: the model that all began with."""
ZERO = "zero"
"""Stands for the other arm in a claim: no run, the number 0."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class World:
  """A model on a task: an experiment that takes a method; and what is asked of runs."""

  name: str
  base: str
  """An experiment that takes a method: `add3`, `world`, `my.py`."""
  options: tuple[str, ...] = ()
  """Of `pxy train`, for every cell: `--steps 120`."""
  probes: tuple[str, ...] = ()
  """Of `pxy probe` after training: `--quick`. Empty: no probe."""
  before: str = ""
  """The model that all begin with, to hold probes against (their `--against`)."""
  align: tuple[str, ...] = ()
  """Of `pxy align` on `before`, once a seed: `--task world/chains --n 64`. Empty: not
  asked."""
  resources: tuple[tuple[str, float], ...] = ()
  """Of a Ray's node, for each cell, by Ray's names: `(("CPU", 8), ("GPU", 1))`. Without
  CPU: its share of the smallest node's."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """A method, and what differs from the base's own settings."""

  name: str
  method: str = ""
  """Of methods.METHODS; empty: the name."""
  options: tuple[str, ...] = ()
  """Of `pxy train`, after the world's: `--phases.0.lr 2e-5`."""
  worlds: tuple[str, ...] = ()
  """Where it runs; empty: everywhere."""
  at: tuple[tuple[str, tuple[str, ...]], ...] = ()
  """(world, options there), after the others: `(("add3", ("--phases.0.lr", "2e-5")),)`.
  """
  probes: tuple[str, ...] | None = None
  """Of `pxy probe`, instead of the world's where that has any; None: the world's."""


@dataclasses.dataclass(frozen=True)
class Claim:
  """A comparison that is asked, before its answer is known."""

  name: str
  text: str
  """One sentence that is true or not."""
  measure: str
  """A name of docs/measures.md; `bound/pass@K` is of the run's last evaluation."""
  arm: str
  """Which is trained; `before` only of `align/...`."""
  against: str = BEFORE
  """Another arm, `before`, or `zero`."""
  expects: Literal["more", "less", "same"] = "more"
  """Which difference bears the sentence out."""
  margin: float = 0.02
  """A difference no larger than this is none that matters."""
  paper: str = ""
  """What the paper reports, and where."""
  worlds: tuple[str, ...] = ()
  """Where it is asked; empty: everywhere that has both arms."""


@dataclasses.dataclass(frozen=True)
class Study:
  """What is run, and what is asked of it.

  Raises fields.Error, one line, for names that come twice or are not there.
  """

  worlds: tuple[World, ...]
  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  claims: tuple[Claim, ...] = ()

  def __post_init__(self):
    for what in ("worlds", "arms", "claims"):
      given = [x.name for x in getattr(self, what)]
      _once(what, given)
      for name in given:
        fields.need(
          _NAME.fullmatch(name) and name not in (BEFORE, ZERO),
          f"{what}: the name {name!r} is a folder's: small letters, digits, `_.-`, and"
          f" neither {BEFORE!r} nor {ZERO!r}",
        )
    _once("seeds", self.seeds)
    for what in ("worlds", "arms", "seeds"):
      fields.need(getattr(self, what), f"a study without {what} has no cells")
    for arm in self.arms:
      fields.need(
        (arm.method or arm.name) in methods.METHODS,
        f"arm {arm.name}: unknown method {arm.method or arm.name!r}; there are"
        f" {', '.join(methods.METHODS)}",
      )
    worlds, arms = ({x.name for x in xs} for xs in (self.worlds, self.arms))
    for one in (*self.arms, *self.claims):
      _known(f"{one.name}: worlds", one.worlds, worlds)
    for arm in self.arms:
      _known(f"{arm.name}: at", [world for world, _ in arm.at], worlds)
    for world in self.worlds:
      _once(f"world {world.name}: resources", [name for name, _ in world.resources])
      fields.need(
        all(number > 0 for _, number in world.resources),
        f"world {world.name}: resources are numbers above 0",
      )
      fields.need(
        world.before or not world.align,
        f"world {world.name}: `align` is of the model `before`: name that",
      )
    for claim in self.claims:
      self._check(claim, arms)

  def _check(self, claim: Claim, arms: set[str]) -> None:
    what = f"claim {claim.name}"
    _known(what, (claim.arm, claim.against), arms | {BEFORE, ZERO})
    names.check(claim.measure)
    aligned = names.aligned(claim.measure)
    fields.need(
      claim.arm not in (claim.against, ZERO)
      and (claim.arm == BEFORE) == aligned
      and (claim.against == ZERO or not aligned),
      f"{what}: {claim.measure} of {claim.arm} against {claim.against} says nothing:"
      " an arm is one that is trained, against another, `before` or `zero`; `align/...`"
      " is of `before`, against `zero`",
    )
    fields.need(
      claim.against not in (BEFORE, ZERO) or not claim.measure.startswith("train/"),
      f"{what}: {claim.measure} is of training: hold it against another arm, not"
      f" `{claim.against}`",
    )
    fields.need(claim.margin > 0, f"{what}: margin must be above 0")
    fields.need(self.asked(claim), f"{what}: no world has both its arms")
    for world in self.worlds:
      if world.name in self.asked(claim):
        fields.need(
          world.align or not aligned,
          f"{what}: {claim.measure} is of `pxy align`, which is not asked in world"
          f" {world.name!r}: give that `align`, or the claim `worlds`",
        )
        fields.need(
          world.probes or not names.probed(claim.measure),
          f"{what}: {claim.measure} is of `pxy probe`, which is not asked in world"
          f" {world.name!r}: give that `probes`, or the claim `worlds`",
        )
        fields.need(
          world.before or claim.against != BEFORE or not names.probed(claim.measure),
          f"{what}: {claim.measure} of the model before is asked where `pxy probe` is"
          f" told of it: give world {world.name!r} `before`, or the claim `worlds`",
        )

  def cells(self) -> tuple["Cell", ...]:
    """All of them: seeds outermost, so that what is there first is a whole study of
    fewer seeds."""
    return tuple(
      Cell(world, arm, seed)
      for seed in self.seeds
      for world in self.worlds
      for arm in ((_BASE,) if world.align else ()) + self.arms
      if self.runs(arm, world.name)
    )

  def runs(self, arm: Arm, world: str) -> bool:
    """Whether the arm has a cell in that world."""
    return not arm.worlds or world in arm.worlds

  def of(self, cell: "Cell") -> set[str]:
    """The measures that claims ask of a cell."""
    return {
      claim.measure
      for claim in self.claims
      if cell.arm.name in (claim.arm, claim.against)
      and cell.world.name in self.asked(claim)
    }

  def asked(self, claim: Claim) -> tuple[str, ...]:
    """The worlds in which a claim is asked."""
    there = {arm.name: arm for arm in self.arms}
    sides = [there[x] for x in (claim.arm, claim.against) if x in there]
    return tuple(
      world.name
      for world in self.worlds
      if all(self.runs(arm, world.name) for arm in sides)
      and (not claim.worlds or world.name in claim.worlds)
    )


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of a study."""

  world: World
  arm: Arm
  seed: int

  @property
  def name(self) -> str:
    """Its folder in the study's."""
    return f"{self.world.name}/{self.arm.name}/seed{self.seed}"

  @property
  def trains(self) -> bool:
    """Whether it is a run; else it is what is asked of the model before them."""
    return self.arm.name != BEFORE

  @property
  def probes(self) -> tuple[str, ...]:
    """Options of `pxy probe`; empty: no probe."""
    own = self.arm.probes
    return self.world.probes if own is None or not self.world.probes else own

  def training(self) -> list[str]:
    """The words after `pxy` that train it, but for --out."""
    word = f"{self.world.base}:{self.arm.method or self.arm.name}"
    here = dict(self.arm.at).get(self.world.name, ())
    options = (*self.world.options, *self.arm.options, *here)
    return ["train", word, *options, "--seed", str(self.seed)]


_BASE = Arm(BEFORE)
"""Stands where nothing is trained."""


def _once(what, given):
  twice = [name for name, n in collections.Counter(given).items() if n > 1]
  fields.need(
    not twice, f"{what}: {twice[:1] and twice[0]!r} comes twice; name it once"
  )


def _known(what, given, there):
  lost = [name for name in given if name not in there]
  fields.need(
    not lost, f"{what}: there is no {lost[:1] and lost[0]!r}; there are"
    f" {', '.join(sorted(there))}",
  )  # fmt: skip
