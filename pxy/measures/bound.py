"""The bound: what the trained model can do that the base could not, and what it lost.

Of n responses to a problem c are right. pass@k (passk.py) asks whether any of k is,

    pass^k      = C(c, k) / C(n, k)                                all of k
    G-pass@k_t  = sum_{j >= max(1, ceil(t k))} C(c,j) C(n-c,k-j) / C(n,k)     2412.13147
    cover(t)    = share of problems that a response has right with probability >= t

cover is read off each problem's posterior Beta(c+1, n-c+1), since c/n >= t counts the
luck of n responses as knowledge (2510.08325; pass@k is its Beta(1, k)-weighted mean).

k is at most n/4 (`ks`): near n all that is left is whether one of n is right, with no
spread within a problem; k = n stands apart. A right answer may be luck: beside pass@k
stands what it would be had the answers been given to other problems of the kind.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from pxy.measures import arrays, estimate, passk


def ks(n: int) -> tuple[int, ...]:
  """Where pass@k is looked at with n responses: 1, 2, 4, ... up to n/4, and n."""
  return tuple(sorted({1, *(2**i for i in range(n.bit_length()) if 2**i <= n // 4), n}))


def pass_at(
  ids: Sequence[str],
  correct_PR,
  k: int,
  *,
  verified: bool = False,
  shuffled: Callable[[np.random.Generator], np.ndarray] | None = None,
) -> estimate.Spec:
  """pass@k, of right answers or (`verified`) of responses right in every step.

  shuffled: rng -> correct_PR by chance, see `shuffle`.
  """

  def null(rng):
    return float(passk.over_problems(passk.pass_P(shuffled(rng), k))[0])

  last = passk.counts(correct_PR)[0].max(initial=0) == k
  method = f"1 - C(n-c,{k})/C(n,{k})"
  if last:
    method += "; k = n, so without spread within a problem"
  if shuffled is not None:
    method += "; null: answers of other problems of the kind"
  return estimate.mean(
    f"bound/{'verified_' * verified}pass@{k}",
    ids,
    passk.pass_P(correct_PR, k),
    method,
    null=shuffled and null,
    least=0,
    most=1,
  )


def shuffle(
  answer_PR: np.ndarray, gold_P: np.ndarray, kind_P: Sequence[str]
) -> Callable[[np.random.Generator], np.ndarray]:
  """A chance for `pass_at`: rng -> correct_PR where each problem has the answers of
  another of its kind. Codes of answers and right answers as of arrays.codes."""
  kind_P = np.asarray(kind_P)
  kinds = [np.flatnonzero(kind_P == kind) for kind in np.unique(kind_P)]

  def shuffled(rng):
    of_P = np.arange(len(gold_P))
    for place in kinds:
      # Round a random circle, so that none keeps its own.
      order = rng.permutation(place)
      of_P[order] = np.roll(order, 1)
    right_PR = (answer_PR == gold_P[of_P][:, None]).astype(np.float64)
    own_P1 = (of_P == np.arange(len(gold_P)))[:, None]  # the only one of its kind
    return np.where((answer_PR == arrays.ABSENT) | own_P1, np.nan, right_PR)

  return shuffled


def pass_all(ids: Sequence[str], correct_PR, k: int) -> estimate.Spec:
  """pass^k: all of k responses are right."""
  value_P = passk.by_counts(correct_PR, lambda n, c: passk.none_of(n, n - c, k))
  method = f"C(c,{k})/C(n,{k})"
  return estimate.mean(f"bound/pass^{k}", ids, value_P, method, least=0, most=1)


def gpass_at(ids: Sequence[str], correct_PR, k: int, tau: float) -> estimate.Spec:
  """G-pass@k_tau: at least tau k of k responses are right; tau in (0, 1]."""
  # A product like .6 * 5 may come out just above its whole number.
  need = max(1, math.ceil(tau * k - 1e-9))

  def of(n, c):
    if k > n:
      return math.nan
    ways = sum(math.comb(c, j) * math.comb(n - c, k - j) for j in range(need, k + 1))
    return ways / math.comb(n, k)

  method = f"hypergeometric, {need} or more of {k}"
  name = f"bound/gpass@{k}_{tau:g}"
  value_P = passk.by_counts(correct_PR, of)
  return estimate.mean(name, ids, value_P, method, least=0, most=1)


def cover(ids: Sequence[str], correct_PR, tau: float) -> estimate.Spec:
  """cover(tau): share of problems with P(right) >= tau; tau in (0, 1)."""

  def of(n, c):
    # P(Beta(c+1, n-c+1) >= tau) = P(Binomial(n+1, tau) <= c).
    if not n:
      return math.nan
    return math.fsum(
      math.exp(
        math.lgamma(n + 2) - math.lgamma(j + 1) - math.lgamma(n + 2 - j)
        + j * math.log(tau) + (n + 1 - j) * math.log1p(-tau)
      )
      for j in range(c + 1)
    )  # fmt: skip

  value_P = np.minimum(passk.by_counts(correct_PR, of), 1)
  method = f"posterior Beta(c+1, n-c+1) above {tau:g}"
  return estimate.mean(f"bound/cover@{tau:g}", ids, value_P, method, least=0, most=1)


# Two models on the same problems.


def crossing(ids: Sequence[str], new_PR, base_PR) -> dict[str, estimate.Measure]:
  """`bound/crossing`, where the new model's curve falls to the base's, and
  `bound/crosses`, how sure it is that it does: of curves that are higher at k = 1 and
  not at n/4. Without both where problems have fewer than 8 grades.

  Null of crosses: the two models exchanged at random, problem by problem.
  """
  ids, new_PR, base_PR = _graded(ids, new_PR, base_PR)
  n = _fewest(new_PR, base_PR)
  grid = [k for k in ks(n) if k <= max(n // 4, 1)]
  if len(grid) < 2:
    return {}  # fewer than 8 responses have no curve that could cross
  diff_PK = np.stack(
    [passk.pass_P(new_PR, k) - passk.pass_P(base_PR, k) for k in grid], 1
  )

  def of(total_BK):
    # Sums that are 0 but for rounding are no lead.
    ahead_BK = total_BK > 1e-9
    last_B = len(grid) - 1 - np.argmax(ahead_BK[:, ::-1], axis=1)
    crosses_B = ahead_BK[:, 0] & ~ahead_BK[:, -1]
    at_B = np.array(grid, float)[np.minimum(last_B + 1, len(grid) - 1)]
    return np.where(crosses_B, at_B, np.nan)

  spec = estimate.Spec(
    "bound/crossing",
    tuple(ids),
    lambda weight_BP: of(weight_BP @ diff_PK),
    f"first of k = {', '.join(map(str, grid))} from which on it is not higher",
  )

  def exchanged(rng):
    sign_P1 = rng.choice([-1.0, 1.0], size=(len(diff_PK), 1))
    mixed = dataclasses.replace(spec, stat=lambda w: of(w @ (sign_P1 * diff_PK)))
    return share(mixed, 200)

  def share(spec, times):
    return float(np.mean(~np.isnan(estimate.draws(spec, times))))

  once = share(spec, estimate.DRAWS)
  found = estimate.measures([spec])
  found["bound/crosses"] = estimate.Measure(
    once,
    once,
    once,
    estimate.simulated(exchanged, len(diff_PK)),
    len(diff_PK),
    f"share of {estimate.DRAWS} resamples, which needs no interval;"
    " null: models exchanged at random by problem",
  )
  return found


def solved(ids: Sequence[str], new_PR, base_PR) -> list[estimate.Spec]:
  """SRR, NDR and NSCR (2507.14843) of the sets P both, E gained, S lost.

  A problem is solved when one of m responses is right, m half the responses: those of
  the base with some numbers, and those of the new model with others, since both may
  have been drawn from one seed, and response r to a problem then is the same as long as
  the models are. What is counted is the mean over all such halves. So the null, the
  base in the place of the new model, is of the same size, and exact. (Of NSCR it is 0.)
  """
  ids, new_PR, base_PR = _graded(ids, new_PR, base_PR)
  both_PR = ~(np.isnan(new_PR) | np.isnan(base_PR))
  new_PR, base_PR = (np.where(both_PR, x_PR, np.nan) for x_PR in (new_PR, base_PR))
  m = _fewest(new_PR) // 2
  both = _apart(new_PR, base_PR, m)
  halves = _apart(base_PR, base_PR, m)
  method = f"solved by one of {m}, over all halves; null: the base's two halves"
  return [
    estimate.Spec(
      name,
      tuple(ids),
      stat,
      method,
      null=None if name == "bound/nscr" else estimate.again(halves[name], len(base_PR)),
      least=-1 if name == "bound/nscr" else 0,
      most=1,
    )
    for name, stat in both.items()
  ]


def _graded(ids: Sequence[str], *models):
  """Without the problems that have less than half the grades of the one with the most:
  every curve would end where theirs do."""
  grades_P = np.min([passk.counts(correct_PR)[0] for correct_PR in models], 0)
  on_P = 2 * grades_P >= max(grades_P.max(initial=0), 1)
  ids = tuple(x for x, on in zip(ids, on_P, strict=True) if on)
  return ids, *(np.asarray(correct_PR)[on_P] for correct_PR in models)


def _fewest(*models) -> int:
  """Graded responses of the problem that has the fewest, over models; 0 of none."""
  counts = (passk.counts(correct_PR)[0] for correct_PR in models)
  return int(min(n_P.min() if len(n_P) else 0 for n_P in counts))


def _apart(new_PR, base_PR, m: int) -> dict[str, estimate.Stat]:
  """The sets of m responses of the base and the new model's m with other numbers; both
  have grades of the same responses."""
  new_P, base_P = (1 - passk.pass_P(x_PR, m) for x_PR in (new_PR, base_PR))
  rows = zip(new_PR == 1, base_PR == 1, ~np.isnan(base_PR), strict=True)
  neither_P = np.array([_neither(*row, m) for row in rows])
  return _sets(1 - new_P - base_P + neither_P, base_P - neither_P, new_P - neither_P)


def _neither(new_R, base_R, graded_R, m: int) -> float:
  """P(no right one among m of the base's responses and m others of the new model's)."""
  n, ours = int(graded_R.sum()), int((new_R & ~base_R).sum())
  theirs, none = int((base_R & ~new_R).sum()), int((graded_R & ~new_R & ~base_R).sum())
  ways = sum(  # the base's m have j that only the new model has right
    math.comb(ours, j) * math.comb(none, m - j) * math.comb(theirs + none - m + j, m)
    for j in range(max(0, m - none), min(ours, m) + 1)
  )
  return ways / (math.comb(n, m) * math.comb(n - m, m))


def _sets(P_P, E_P, S_P) -> dict[str, estimate.Stat]:
  return {
    "bound/srr": estimate.of_sums(P_P, P_P + S_P),
    "bound/ndr": estimate.of_sums(E_P, P_P + E_P),
    "bound/nscr": estimate.of_sums(E_P - S_P, P_P + E_P + S_P),
  }


def perplexity(
  ids: Sequence[str], of: str, logp_PR, tokens_PR, asked_P=None
) -> list[estimate.Spec]:
  """Quartiles of exp(-log p / T) over the responses of the problems `asked_P`, each
  problem counting the same.

  Args:
    of: whose text under whom: `base_base`, `base_new` (the new model's text under the
      base), `new_new`, `base_gold`.
    logp_PR: log p of the responses, nats, nan where there is none; tokens_PR.
    asked_P: bool; `sometimes` gives those that are solved sometimes.
  """
  logp_PR, tokens_PR = np.asarray(logp_PR, float), np.asarray(tokens_PR, float)
  known_PR = ~np.isnan(logp_PR) & (tokens_PR > 0)
  if asked_P is not None:
    known_PR &= np.asarray(asked_P, bool)[:, None]
  on_P = known_PR.any(1)
  known_PR = known_PR[on_P]
  units = tuple(x for x, on in zip(ids, on_P, strict=True) if on)
  problem_N, _ = np.nonzero(known_PR)
  value_N = np.exp(-logp_PR[on_P][known_PR] / tokens_PR[on_P][known_PR])
  order = np.argsort(value_N, kind="stable")
  value_N, problem_N = value_N[order], problem_N[order]
  share_N = 1 / known_PR.sum(1)[problem_N]

  def stat(q):
    def of(weight_BP):
      upto_BN = np.cumsum(weight_BP[:, problem_N] * share_N, axis=1)
      # Sums that should be equal differ in their last bits.
      return value_N[[np.searchsorted(x, q * x[-1] * (1 - 1e-12)) for x in upto_BN]]

    return of

  method = "exp(-log p / T), each problem alike"
  return [
    estimate.Spec(
      f"bound/ppl_{of}_{label}", units, stat(q), method, least=1, size=len(value_N)
    )
    for label, q in {"q25": 0.25, "median": 0.5, "q75": 0.75}.items()
  ]


def sometimes(correct_PR) -> np.ndarray:
  """Problems that are solved sometimes: some responses right, some wrong [P]."""
  n_P, c_P = passk.counts(correct_PR)
  return (c_P > 0) & (c_P < n_P)


def guessed(guess_PR) -> np.ndarray:
  """Problems that answers without reasoning have right at least once [P]."""
  return passk.counts(guess_PR)[1] > 0


def guessable(ids: Sequence[str], guess_PR) -> estimate.Spec:
  """The share of problems that `guessed` marks."""
  value_P = np.where(passk.counts(guess_PR)[0], guessed(guess_PR), np.nan)
  method = "right at least once without reasoning"
  return estimate.mean("bound/guessable", ids, value_P, method, least=0, most=1)
