"""A study is data: worlds x arms x seeds, and the comparisons that are asked.

    STUDY = plan.Study(
      worlds=(plan.World("add3", "add3", problems=256),),
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
from pxy.measures import estimate
from pxy.measures import names as names_lib

MOST = int(0.05 * (estimate.DRAWS + 1) / 2)
"""Comparisons of one study: the smallest p is 2 of the draws, and Holm's rule
multiplies it by their number."""
BEFORE = "before"
"""Stands for an arm in a claim: the model that all began with."""
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


@dataclasses.dataclass(frozen=True)
class Claim:
  """A comparison that is asked, before its answer is known."""

  name: str
  text: str
  """One sentence that is true or not."""
  measure: str
  """`bound/pass@K` of the run's last evaluation, or a name of docs/measures.md."""
  arm: str
  against: str = BEFORE
  """Another arm, or `before`."""
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
      names = [x.name for x in getattr(self, what)]
      _once(what, names)
      for name in names:
        fields.need(
          _NAME.fullmatch(name) and name != BEFORE,
          f"{what}: the name {name!r} is a folder's: small letters, digits, `_.-`, and"
          f" not {BEFORE!r}",
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
    for claim in self.claims:
      _known(f"claim {claim.name}", (claim.arm, claim.against), arms | {BEFORE})
      fields.need(
        claim.arm != BEFORE and claim.arm != claim.against,
        f"claim {claim.name}: {claim.arm} against {claim.against} says nothing: its arm"
        " is one that is trained, against another or `before`",
      )
      names_lib.sentence(claim.measure)
      fields.need(claim.margin > 0, f"claim {claim.name}: margin must be above 0")
      fields.need(self.asked(claim), f"claim {claim.name}: no world has both its arms")
      blind = [
        w.name for w in self.worlds if not w.probes and w.name in self.asked(claim)
      ]
      fields.need(
        not blind or claim.measure.startswith("bound/pass@"),
        f"claim {claim.name}: {claim.measure} is of `pxy probe`, which is not asked in"
        f" world {blind[:1] and blind[0]!r}: give that `probes`, or the claim `worlds`",
      )
    asked = sum(len(self.asked(claim)) for claim in self.claims)
    fields.need(
      asked <= MOST,
      f"claims: {asked} comparisons, of which {estimate.DRAWS} draws could see none"
      f" after Holm's correction: at most {MOST}; part the study",
    )

  def cells(self) -> tuple["Cell", ...]:
    """All of them: seeds outermost, so that what is there first is a whole study of
    fewer seeds."""
    return tuple(
      Cell(world, arm, seed)
      for seed in self.seeds
      for world in self.worlds
      for arm in self.arms
      if self.runs(arm, world.name)
    )

  def runs(self, arm: Arm, world: str) -> bool:
    """Whether the arm has a cell in that world."""
    return not arm.worlds or world in arm.worlds

  def asked(self, claim: Claim) -> tuple[str, ...]:
    """The worlds in which a claim is asked."""
    there = {arm.name: arm for arm in self.arms}
    sides = [there[x] for x in (claim.arm, claim.against) if x != BEFORE]
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

  def training(self) -> list[str]:
    """The words after `pxy` that train it, but for --out."""
    word = f"{self.world.base}:{self.arm.method or self.arm.name}"
    return [
      "train",
      word,
      *self.world.options,
      *self.arm.options,
      "--seed",
      str(self.seed),
    ]


def _once(what, names):
  twice = [name for name, n in collections.Counter(names).items() if n > 1]
  fields.need(
    not twice, f"{what}: {twice[:1] and twice[0]!r} comes twice; name it once"
  )


def _known(what, names, there):
  lost = [name for name in names if name not in there]
  fields.need(
    not lost, f"{what}: there is no {lost[:1] and lost[0]!r}; there are"
    f" {', '.join(sorted(there))}",
  )  # fmt: skip
