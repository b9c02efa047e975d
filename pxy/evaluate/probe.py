"""From stored samples to measures: what a task's columns allow to be asked.

  every task                bound, calibration, diversity, and P(y) beside P(y|x)
  group, variant            robustness: one question put in several ways
  band                      hallucination, by how well known what is asked about is
  threshold                 hallucination, by what a wrong answer costs
  answerable (false)        hallucination: there is no answer, so one given is wrong
  cue                       bias: what a surface cue suggests, right or not
  few right answers         bias: what is answered over all questions
  one letter, group         bias: one choice in several orders

Nothing here needs a model: `specs` is of arrays, so that a store that was made on a pod
can be read on a laptop, and a measure that is added later has its numbers at once.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from pxy.evaluate import store
from pxy.measures import (
  arrays,
  bias,
  bound,
  calibration,
  diversity,
  estimate,
  hallucination,
  ranking,
  robust,
)
from pxy.measures import names as names_lib

CONFIDENT = 64
"""Responses that confidences and diversity are taken from: more change little."""
GPASS = ((16, 0.5),)
COVER = (0.1, 0.5, 0.9)
ALL = (4, 16)
"""k of pass^k."""
RIGHT = 8
"""Right responses that solutions are rarefied to."""
BUDGET = 256
"""Tokens that n-grams are counted in."""
FEW = 32
"""Different right answers that a marginal is taken over, at most."""


@dataclasses.dataclass(frozen=True)
class Table:
  """A store with its problems by rising id, and its answers as codes.

  Attributes:
    ids: of the problems.
    problems: rows of the problems.
    right_PR, verified_PR: 1, 0 or nan; verified is all nan where no grader tells.
    answer_PR, gold_P: codes (arrays.codes) of the answers and the right ones.
    gold: the right answers, on one line each.
    stored: with its rows in this order.
  """

  ids: tuple[str, ...]
  problems: list[dict]
  right_PR: np.ndarray
  verified_PR: np.ndarray
  answer_PR: np.ndarray
  gold_P: np.ndarray
  gold: list[str]
  stored: store.Stored

  def column(self, name: str, default=None) -> list:
    """A column of the problems, in their order."""
    return [row.get(name, default) for row in self.problems]

  def those(self, on_P: Sequence[bool]) -> "Table":
    """Some of the problems."""
    return table(self.stored, [bool(x) for x in on_P])


def table(stored: store.Stored, on_P: Sequence[bool] | None = None) -> Table:
  """A store, or those of its problems, by rising id."""
  names = [row["problem"] for row in stored.problems]
  order = [p for p in np.argsort(names, kind="stable") if on_P is None or on_P[p]]
  stored = stored.take(order)
  gold = [" ".join(row["answer"].split()) for row in stored.problems]
  answer_PR, gold_P = arrays.codes(stored.answers, gold)
  return Table(
    tuple(row["problem"] for row in stored.problems),
    stored.problems,
    stored.answer_right_PR,
    stored.verified_PR,
    answer_PR,
    gold_P,
    gold,
    stored,
  )


def _bound(t: Table) -> list[estimate.Spec]:
  chance = None
  if _same_by_text(t):
    # Of one kind are those whose answers could be exchanged.
    kinds = [str(x) for x in t.column("attribute", "")]
    chance = bound.shuffle(t.answer_PR, t.gold_P, kinds)
  return [
    *curve(t, t.right_PR, shuffled=chance),
    *(curve(t, t.verified_PR, verified=True) if _any(t.verified_PR) else ()),
    *_spread(t, best(t)),
  ]


def curve(t: Table, correct_PR, **how) -> list[estimate.Spec]:
  """pass@k for each k that so many responses bear."""
  n = correct_PR.shape[1]
  return [bound.pass_at(t.ids, correct_PR, k, **how) for k in bound.ks(n)]


def best(t: Table) -> np.ndarray:
  """Whether every step is right, where the grader tells; else whether the answer is."""
  return t.verified_PR if _any(t.verified_PR) else t.right_PR


def _spread(t: Table, correct_PR) -> list[estimate.Spec]:
  n = correct_PR.shape[1]
  return [
    *(bound.pass_all(t.ids, correct_PR, k) for k in ALL if k <= n // 4),
    *(bound.gpass_at(t.ids, correct_PR, k, tau) for k, tau in GPASS if k <= n // 4),
    *(bound.cover(t.ids, correct_PR, tau) for tau in COVER),
  ]


def _contexts(t: Table) -> list[estimate.Spec]:
  """P(y|x) and P(y): perplexity of the model's own responses in each context, and
  whether it tells right from wrong."""
  length_PR, out = t.stored.length_PR, []
  for context, logp_PR in t.stored.logp.items():
    out += bound.perplexity(t.ids, context, logp_PR, length_PR)
    out.append(ranking.auroc(t.ids, context, logp_PR / length_PR, t.right_PR))
  return out


def _same_by_text(t: Table) -> bool:
  """Whether right means that the extracted answer is the reference, to the letter: else
  an answer cannot be graded against another problem's."""
  same_PR = t.answer_PR == t.gold_P[:, None]
  known_PR = ~np.isnan(t.right_PR)
  return bool(known_PR.any() and (same_PR == (t.right_PR == 1))[known_PR].all())


def agreement(t: Table) -> tuple[calibration.Confidence, np.ndarray] | None:
  """The confidence that every model has, and right_PR; None where nothing is
  answered, or but once."""
  right_PR, answer_PR = t.right_PR[:, :CONFIDENT], t.answer_PR[:, :CONFIDENT]
  if right_PR.shape[1] < 2 or not (answer_PR >= 0).any():
    return None
  return calibration.agreement(answer_PR), right_PR


def _calibration(t: Table) -> list[estimate.Spec]:
  held = agreement(t)
  if held is None:
    return []
  confidence, right_PR = held
  logp_PR = t.stored.logp["prompt"][:, :CONFIDENT]
  sequence_PR = calibration.sequence(logp_PR, t.stored.length_PR[:, :CONFIDENT])
  given = calibration.given("sequence", sequence_PR, t.answer_PR[:, :CONFIDENT])
  return [
    *calibration.specs(t.ids, confidence, right_PR),
    *calibration.specs(t.ids, given, right_PR),
  ]


def _diversity(t: Table) -> list[estimate.Spec]:
  best_PR = best(t)
  texts = [
    [
      " ".join(text.split()) if right == 1 else None
      for text, right in zip(*rows, strict=True)
    ]
    for rows in zip(t.stored.texts, best_PR, strict=True)
  ]
  solution_PR, _ = arrays.codes([row[:CONFIDENT] for row in texts], [])
  stored, few = t.stored, slice(CONFIDENT)
  entropy_PR, length_PR = stored.entropy_PR[:, few], stored.length_PR[:, few]
  return [
    diversity.distinct(t.ids, solution_PR, RIGHT),
    diversity.chao1(t.ids, solution_PR),
    diversity.answer_entropy(t.ids, t.answer_PR[:, few]),
    diversity.token_entropy(t.ids, entropy_PR, length_PR),
    diversity.ngrams(t.ids, [row[few] for row in stored.ids], 2, BUDGET),
  ]


def _robust(t: Table) -> list[estimate.Spec]:
  if not varied(t):
    return []
  groups, variants = t.column("group"), t.column("variant")
  return robust.specs(groups, variants, best(t), t.answer_PR, t.gold_P)


def varied(t: Table) -> bool:
  """Whether questions stand in it in several ways, `plain` among them."""
  groups, variants = t.column("group"), t.column("variant")
  return "plain" in variants and len(set(variants)) > 1 and None not in groups


def _hallucination(t: Table) -> list[estimate.Spec]:
  nothing_P = np.array([not x for x in t.column("answerable", True)])
  prices = [_price(x) for x in t.column("threshold")]
  bands = [
    (None if price is None or nothing else "all")
    if band in (None, "")
    else names_lib.part(band)
    for band, price, nothing in zip(t.column("band"), prices, nothing_P, strict=True)
  ]
  if not nothing_P.any() and not any(bands):
    return []
  attempted_PR = _attempted(t)
  # Where there is no answer, not to give one is right, but it is none that is given.
  right_PR = np.where(nothing_P[:, None] & (attempted_PR == 1), 0.0, t.right_PR)
  named_P = np.array([bool(band) for band in bands])
  out = []
  for names, on_P, kinds in (
    (bands, named_P & ~nothing_P, None),
    (bands, named_P & nothing_P, ("wrong", "abstained")),
    (["unknown"] * len(bands), nothing_P, ("wrong", "abstained")),
  ):
    for price in dict.fromkeys(itertools.compress(prices, on_P)):
      at_P = on_P & np.array([x == price for x in prices])
      some = list(itertools.compress(names, at_P))
      if price is not None:
        some = [f"{name}:{price:g}" for name in some]
      grades = right_PR[at_P], attempted_PR[at_P]
      ids = list(itertools.compress(t.ids, at_P))
      found = hallucination.specs(ids, some, *grades)
      out += [s for s in found if kinds is None or s.name.rpartition("_")[2] in kinds]
      if price is not None:
        out += hallucination.score(ids, some, *grades, price)
  return out


def _price(threshold) -> float | None:
  """The chance above which an answer pays, where a row's prompt names one."""
  known = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
  return float(threshold) if known and 0 <= threshold < 1 else None


def _attempted(t: Table) -> np.ndarray:
  """1 where an answer is given, by the grader's word if it has one."""
  told_PR = t.stored.abstained_PR
  return np.where(np.isnan(told_PR), t.answer_PR >= 0, 1 - told_PR).astype(float)


def _bias(t: Table) -> list[estimate.Spec]:
  return [*_marginal(t), *_cues(t), *_choices(t)]


def _marginal(t: Table) -> list[estimate.Spec]:
  few = marginal_of(t)
  if few is None:
    return []
  known = set(few.gold)
  given, others = (
    [[on(answer) for answer in row] for row in few.stored.answers]
    for on in (lambda a: a is not None, lambda a: a is not None and a not in known)
  )
  return [
    *bias.marginal(few.ids, few_shares(few), few.gold_P),
    bias.other(few.ids, given, others),
  ]


def marginal_of(t: Table) -> Table | None:
  """The problems of the one attribute whose right answers are few, or None: what is
  answered over all questions is then a distribution that can be looked at."""
  attributes = np.array([str(x) for x in t.column("attribute", "")])
  answerable_P = np.array([bool(x) for x in t.column("answerable", True)])
  for name in sorted(set(attributes.tolist())):
    on_P = (attributes == name) & answerable_P
    kinds = len(np.unique(t.gold_P[on_P]))
    if 1 < kinds <= FEW and sum(on_P) >= 4 * kinds:
      few = t.those(on_P)
      # Right answers have the first codes, whatever else is answered.
      code = {answer: i for i, answer in enumerate(few_answers(few))}
      answer_PR = np.array(
        [
          [-1 if a is None else code.get(a, -1) for a in row]
          for row in few.stored.answers
        ]
      )
      gold_P = np.array([code[a] for a in few.gold])
      return dataclasses.replace(few, answer_PR=answer_PR, gold_P=gold_P)
  return None


def few_answers(few: Table) -> list[str]:
  """The right answers of `marginal_of`, by code."""
  return sorted(set(few.gold))


def counted(stored: store.Stored, answers: Sequence[str]) -> np.ndarray:
  """How often each of some answers is given, over all responses."""
  found = [answer for group in stored.answers for answer in group]
  return np.array([found.count(answer) for answer in answers], float)


def few_shares(few: Table) -> np.ndarray:
  """P(a|x) over the right answers of `marginal_of`."""
  return bias.shares(few.answer_PR, int(few.gold_P.max()) + 1)


def _cues(t: Table) -> list[estimate.Spec]:
  cued = t.those([x not in (None, "") for x in t.column("cue")])
  if not cued.ids:
    return []
  cues = [" ".join(str(x).split()) for x in cued.column("cue")]
  agrees_P = np.array(cues) == np.array(cued.gold)
  out = []
  # Where nothing can be known no answer is right, whatever the cue.
  known_P = np.array([bool(x) for x in cued.column("answerable", True)])
  if (agrees_P & known_P).any() and (~agrees_P & known_P).any():
    right_PR = np.where(known_P[:, None], cued.right_PR, np.nan)
    out.append(bias.cue(_groups(cued), right_PR, agrees_P))
  if all(a is None for row in cued.stored.answers for a in row):
    return out  # the grader tells of no answers, and 0 would read as none that follows
  follows_PR = np.array(
    [
      [a == cue for a in row]
      for row, cue in zip(cued.stored.answers, cues, strict=True)
    ],
    float,
  )
  heard_P = np.array([b != "ghost" for b in cued.column("band", "")])
  for name, on_P in (
    ("bias/follows", ~agrees_P & heard_P),
    ("bias/s_amb", ~heard_P | ~known_P),
  ):
    if on_P.any():
      specs = bias.ambiguous(
        list(itertools.compress(cued.ids, on_P)),
        _attempted(cued)[on_P],
        follows_PR[on_P],
      )
      out += [spec for spec in specs if spec.name == name]
  return out


def _choices(t: Table) -> list[estimate.Spec]:
  letters = [row["answer"].strip() for row in t.problems]
  groups = t.column("group")
  if None in groups or not all(len(x) == 1 and "A" <= x <= "Z" for x in letters):
    return []
  letter_P = np.array([ord(x) - ord("A") for x in letters])
  return [bias.choices(groups, letter_P, t.right_PR)]


def _any(x_PR) -> bool:
  return bool((~np.isnan(x_PR)).any())


PARTS: dict[str, Callable[[Table], list[estimate.Spec]]] = {
  "bound": _bound,
  "robust": _robust,
  "calibration": _calibration,
  "contexts": _contexts,
  "hallucination": _hallucination,
  "bias": _bias,
  "diversity": _diversity,
}
"""What is asked of a store."""


def specs(t: Table, parts: Sequence[str]) -> list[estimate.Spec]:
  """All measures of some PARTS that the task's columns allow.

  Where questions stand in it in several forms (`group`), a question is what is drawn;
  nulls are of one form of each.
  """
  found = [spec for part in parts for spec in PARTS[part](t)]
  one = singles(t)
  if one is t:
    return found
  group_of = dict(zip(t.ids, _groups(t), strict=True))
  nulls = {spec.name: spec.null for part in parts for spec in PARTS[part](one)}

  def several(spec):  # robustness and choices are of groups as they are
    groups = {group_of.get(x, x) for x in spec.units}
    return len(groups) < len(spec.units)

  return [
    estimate.grouped(spec, group_of, nulls.get(spec.name)) if several(spec) else spec
    for spec in found
  ]


def singles(t: Table) -> Table:
  """One problem of each group, the plain one where there is; t where each is alone."""
  groups, plain = _groups(t), [x == "plain" for x in t.column("variant")]
  if len(set(groups)) == len(groups):
    return t
  first = {}
  for p in sorted(range(len(groups)), key=lambda p: not plain[p]):
    first.setdefault(groups[p], p)
  return t.those([first[group] == p for p, group in enumerate(groups)])


def _groups(t: Table) -> list[str]:
  """The group of each problem; its own id where it is in none."""
  pairs = zip(t.column("group"), t.ids, strict=True)
  return [own if group is None else str(group) for group, own in pairs]
