"""Diversity: how many ways there are, from a sample that does not hold them all.

Every count of kinds grows with the sample, so none is compared as it is:

    distinct@m  = sum_s 1 - C(n-c_s, m) / C(n, m)         kinds in m of n, rarefied
    Chao1       = S + f1 (f1 - 1) / (2 (f2 + 1))          a lower bound of all there are
    entropy     = -sum_s Cp log(Cp) / (1 - (1 - Cp)^n)    Chao-Shen, C = 1 - f1 / n

S kinds were seen, f1 of them once, f2 twice, c_s times each; p = c_s / n. The plug-in
entropy is too small by about (S-1) / 2n.

Solutions are codes of a right response's normalised steps, below 0 for any other
response: m right ones are compared with m right ones. A problem with fewer has no
distinct@m, and estimate.difference leaves out what one model lacks; so the difference
is about problems that both solve m times.
"""

from collections.abc import Sequence

import numpy as np

from pxy.measures import arrays, estimate, passk


def distinct(ids: Sequence[str], solution_PR: np.ndarray, m: int) -> estimate.Spec:
  """`diversity/distinct@{m}`: different solutions among m right responses."""
  value_P = [
    sum(1 - passk.none_of(int(c.sum()), int(one), m) for one in c)
    if c.sum() >= m
    else np.nan
    for c in _counts(solution_PR)
  ]
  method = f"rarefied to {m} right responses"
  name = f"diversity/distinct@{m}"
  return estimate.mean(name, ids, value_P, method, least=1, most=m)


def chao1(ids: Sequence[str], solution_PR: np.ndarray) -> estimate.Spec:
  """`diversity/chao1`, the mean over problems that are solved at all."""
  value_P = [chao1_of(c) if len(c) else np.nan for c in _counts(solution_PR)]
  return estimate.mean("diversity/chao1", ids, value_P, "S + f1 (f1-1) / 2 (f2+1)")


def chao1_of(counts: np.ndarray) -> float:
  """From how often each kind was seen."""
  once, twice = np.sum(counts == 1), np.sum(counts == 2)
  return float(len(counts) + once * (once - 1) / (2 * (twice + 1)))


def answer_entropy(ids: Sequence[str], answer_PR: np.ndarray) -> estimate.Spec:
  """`diversity/answer_entropy` of the answers that are given to a problem."""
  value_P = [chao_shen(c) if len(c) else np.nan for c in _counts(answer_PR)]
  return estimate.mean("diversity/answer_entropy", ids, value_P, "Chao-Shen", least=0)


def chao_shen(counts: np.ndarray) -> float:
  """Entropy, nats, from how often each kind was seen."""
  n, once = int(np.sum(counts)), int(np.sum(counts == 1))
  once = min(once, n - 1)  # all seen once: as if one had been seen again
  if n < 2:
    return np.nan
  p = (1 - once / n) * np.asarray(counts) / n
  return float(-np.sum(p * np.log(p) / (1 - (1 - p) ** n))) + 0.0


def token_entropy(ids: Sequence[str], entropy_PR, tokens_PR) -> estimate.Spec:
  """`diversity/token_entropy` from each response's summed entropies and its tokens."""
  known_PR = np.where(np.isnan(np.asarray(entropy_PR, float)), np.nan, tokens_PR)
  return estimate.ratio(
    "diversity/token_entropy",
    ids,
    arrays.rates(entropy_PR),
    arrays.rates(known_PR),
    "sum of entropies / tokens",
    least=0,
  )


def ngrams(
  ids: Sequence[str], tokens: Sequence[Sequence[Sequence[int]]], n: int, budget: int
) -> estimate.Spec:
  """`diversity/distinct_{n}@{budget}`: the share of n-grams that differ in the first
  `budget` tokens of a problem's responses, in their order; none reaches across two.

  tokens[p][r] are the ids of response r; a problem with fewer tokens is left out.
  """
  value_P = [_differ(group, n, budget) for group in tokens]
  method = f"of the first {budget} tokens of a problem's responses"
  name = f"diversity/distinct_{n}@{budget}"
  return estimate.mean(name, ids, value_P, method, least=0, most=1)


def _differ(group, n: int, budget: int) -> float:
  found, left = [], budget
  for row in group:
    row = list(map(int, row[:left]))
    left -= len(row)
    found += [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
  return len(set(found)) / len(found) if found and not left else np.nan


def _counts(code_PR: np.ndarray) -> list[np.ndarray]:
  """How often each code of 0 and above occurs, for each problem."""
  return [np.unique(row[row >= 0], return_counts=True)[1] for row in code_PR]
