"""Robustness: the same question, put in another way.

A group is a plain question with its variants. Groups are what is drawn: the variants of
one are no further evidence. A response to the plain question differs from another to
the same question already, by sampling alone; so what two responses to one question give
(all pairs, or all V-tuples, of different responses to it) is the null of whatever
compares responses to two.

    flip      = a (1 - b) + b (1 - a)     null  2 c (n-c) / (n (n-1))
    worst     = prod_v a_v                null  C(c, V) / C(n, V)
    agreement = sum_x p_v(x) p_w(x)       null  sum_x c_x (c_x - 1) / (n (n-1))

    shift     = (a - b)^2                 0

with the rates a, b of right answers and p of answers. All are unbiased for any number
of responses (in `shift` a^2 is c (c-1) / (n (n-1))). `shift` needs no null: it is flip
without what sampling alone flips. The lowest of V rates is not unbiased: it goes down
with V for equal rates.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from pxy import fields
from pxy.measures import arrays, estimate, passk
from pxy.measures import names as names_lib


def specs(
  groups: Sequence[str],
  variants: Sequence[str],
  correct_PR,
  answer_PR: np.ndarray | None = None,
  gold_P: np.ndarray | None = None,
  *,
  plain: str = "plain",
) -> list[estimate.Spec]:
  """All measures of this page: of each variant, and over all.

  Args:
    groups, variants: of each problem; a group has a variant once at most.
    correct_PR: 1 right, 0 wrong, nan no grade.
    answer_PR, gold_P: codes (arrays.codes), for agreement: of the variants that keep
      the right answer in all groups.
    plain: the variant that the others are held against.
  """
  units, names, row_GV = _table(groups, variants, plain)
  rate_P = np.append(arrays.rates(correct_PR), np.nan)
  rate_GV = rate_P[row_GV]
  n_GV, c_GV = (np.append(x, 0)[row_GV].astype(float) for x in passk.counts(correct_PR))
  both_GV = estimate.divide(c_GV * (c_GV - 1), n_GV * (n_GV - 1))  # right twice
  plain_G = rate_GV[:, 0]
  self_G = 2 * (plain_G - both_GV[:, 0])
  out = [
    estimate.mean(
      f"robust/accuracy_{plain}", units, plain_G, "mean of rates", least=0, most=1
    )
  ]
  said = [names_lib.part(name) for name in names[1:]]
  for name, rate_G, both_G in zip(said, rate_GV.T[1:], both_GV.T[1:], strict=True):
    paired = ~np.isnan(rate_G + plain_G)
    flip_G = rate_G * (1 - plain_G) + plain_G * (1 - rate_G)
    held = f"against {plain}"
    out += [
      estimate.mean(
        f"robust/accuracy_{name}", units, rate_G, "mean of rates", least=0, most=1
      ),
      estimate.mean(f"robust/change_{name}", units, rate_G - plain_G, held),
      estimate.ratio(
        f"robust/pdr_{name}",
        units,
        plain_G - rate_G,
        np.where(paired, plain_G, np.nan),
        f"1 - accuracy / accuracy of {plain}",
        most=1,
      ),
      estimate.mean(
        f"robust/flip_{name}",
        units,
        flip_G,
        f"{held}; null: two responses to {plain}",
        null=_again(np.where(paired, self_G, np.nan)),
        least=0,
        most=1,
      ),
      estimate.mean(
        f"robust/shift_{name}",
        units,
        both_GV[:, 0] + both_G - 2 * plain_G * rate_G,
        f"{held}, unbiased",
      ),
    ]
  out.append(_worst(units, rate_GV, n_GV[:, 0], c_GV[:, 0]))
  if answer_PR is not None and gold_P is not None:
    out += _agreement(units, row_GV, answer_PR, gold_P)
  return out


def _table(groups, variants, plain):
  """(groups, variants with the plain one first, row_GV; -1 where there is none)."""
  units = sorted(set(groups))
  others = sorted(set(variants) - {plain})
  if len(others) == len(set(variants)):
    raise fields.Error(f"no problem has the variant {plain!r}, only {others}")
  names = [plain, *others]
  row_GV = np.full((len(units), len(names)), -1)
  place = {unit: g for g, unit in enumerate(units)}
  for p, (group, name) in enumerate(zip(groups, variants, strict=True)):
    cell = place[group], names.index(name)
    if row_GV[cell] >= 0:
      raise fields.Error(f"group {group!r} has the variant {name!r} twice")
    row_GV[cell] = p
  return units, names, row_GV


def _again(value_G):
  """A null that is the mean over groups; None where no group has one."""
  known_G = value_G[~np.isnan(value_G)]
  if not len(known_G):
    return None
  return estimate.again(estimate.of_sums(known_G, np.ones(len(known_G))), len(known_G))


def _worst(units, rate_GV, n_G, c_G):
  variants = rate_GV.shape[1]
  value_G = rate_GV.prod(1)  # nan where a variant lacks
  pairs = zip(n_G.astype(int), c_G.astype(int), strict=True)
  null_G = np.array([passk.none_of(n, n - c, variants) for n, c in pairs])
  null = _again(np.where(np.isnan(value_G), np.nan, null_G))
  said = f"{variants} responses to one question"
  return estimate.mean(
    "robust/worst",
    units,
    value_G,
    f"product of {variants} rates; "
    + (f"null: {said}" if null else f"without its null, which takes {said}"),
    null=null,
    least=0,
    most=1,
  )


def _agreement(units, row_GV, answer_PR, gold_P):
  """One spec, or none where no variant keeps the answer."""
  there_GV = row_GV >= 0
  gold_GV = np.where(there_GV, np.append(gold_P, -1)[row_GV], -1)
  keeps = [
    v
    for v in range(row_GV.shape[1])
    if v == 0 or (gold_GV[:, v] == gold_GV[:, 0])[there_GV[:, v] & there_GV[:, 0]].all()
  ]
  if len(keeps) < 2:
    return []
  value_G = np.full(len(units), np.nan)
  null_G = np.full(len(units), np.nan)
  for g, row in enumerate(row_GV[:, keeps]):
    shares = [_shares(answer_PR[p]) for p in row[row >= 0]]
    shares = [(share, n) for share, n in shares if n]
    if len(shares) < 2 or row[0] < 0:
      continue
    pairs = [_same(a, b) for (a, _), (b, _) in itertools.combinations(shares, 2)]
    value_G[g] = np.mean(pairs)
    share, n = _shares(answer_PR[row[0]])
    if n > 1:
      # Pairs of different responses: n (n-1) of the n^2.
      square = sum(x * x for x in share.values())
      null_G[g] = (n * square - sum(share.values())) / (n - 1)
  spec = estimate.mean(
    "robust/agreement",
    units,
    value_G,
    f"pairs of {len(keeps)} variants; null: two responses to one question",
    null=_again(null_G),
    least=0,
    most=1,
  )
  return [spec]


def _shares(answer_R) -> tuple[dict[int, float], int]:
  """The share of each answer among the responses, and their number; a response without
  an answer agrees with none."""
  n = int(np.sum(answer_R != arrays.ABSENT))
  kinds, counts = np.unique(answer_R[answer_R >= 0], return_counts=True)
  return dict(zip(kinds.tolist(), (counts / max(n, 1)).tolist(), strict=True)), n


def _same(a: dict[int, float], b: dict[int, float]) -> float:
  return sum(share * b.get(kind, 0.0) for kind, share in a.items())
