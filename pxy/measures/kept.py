"""Knowledge kept: what the trained model still says of what the base said.

    nll = (sum_d NLL_new(d) - NLL_base(d)) / sum_d tokens(d)        texts, paired
    KL  = sum_y sum_t KL(base(.|y_<t) || new(.|y_<t)) / sum_y T     y of the base

Forward KL (y of the base, base first) is what forgetting goes along with; reverse KL
has the new model's texts, and the new model first (2509.04259). Both sums over the
vocabulary are exact, so that only problems and responses are drawn. A cloze fact is
known as far as its question makes its answer likelier: log p(a|q) - log p(a).

Of one model `pxy probe` has the level, NLL per token with a base of 0; of two the
difference of levels, paired by document. Differences and KL are 0 for two equal models
(cloze: for an answer that the question does not help), so there is no null. Documents
and facts are what is drawn.
"""

from collections.abc import Sequence

import numpy as np

from pxy.measures import arrays, estimate


def nll(ids: Sequence[str], context: str, new_P, base_P, tokens_P) -> estimate.Spec:
  """`kept/nll_{context}` from the documents' summed NLL and their tokens."""
  above_P = np.asarray(new_P, np.float64) - np.asarray(base_P, np.float64)
  method = f"sum of differences / tokens, after {context}"
  return estimate.ratio(f"kept/nll_{context}", ids, above_P, tokens_P, method)


def kl(ids: Sequence[str], direction: str, kl_PR, tokens_PR) -> list[estimate.Spec]:
  """KL per token and per sequence.

  Args:
    direction: `forward` or `reverse`, with the context if it is not the prompt
      (`forward_start`).
    kl_PR: the sum over a response's tokens; nan where there is none.
  """
  kl_P = arrays.rates(kl_PR)
  known_PR = np.where(np.isnan(np.asarray(kl_PR, float)), np.nan, tokens_PR)
  tokens_P, exact = arrays.rates(known_PR), "exact over the vocabulary"
  return [
    estimate.ratio(f"kept/kl_{direction}", ids, kl_P, tokens_P, exact, least=0),
    estimate.mean(
      f"kept/sequence_kl_{direction}", ids, kl_P, f"{exact}, summed", least=0
    ),
  ]


def cloze(ids: Sequence[str], with_P, without_P) -> estimate.Spec:
  """From log p(a|q) and log p(a) of each fact, nats."""
  value_P = np.asarray(with_P, np.float64) - np.asarray(without_P, np.float64)
  return estimate.mean("kept/cloze", ids, value_P, "log p(a|q) - log p(a)")
