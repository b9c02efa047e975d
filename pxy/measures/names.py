"""The names of all measures, with a sentence each; a name never changes its meaning.

`{k}`, `{tau}`, `{band}` ... stand for what the caller puts there, `[...]` may be left
out: `calibration/ece` is of agreement, `calibration/ece_p_true` of P(True). A spec with
a name that is not here is refused, and docs/measures.md shows this table.
"""

import functools
import re

from pxy import fields

NAMES = {
  "bound/pass@{k}": "chance that at least one of k responses is right",
  "bound/verified_pass@{k}": "chance that one of k responses is right in every step",
  "bound/pass^{k}": "chance that all of k responses are right",
  "bound/gpass@{k}_{tau}": "chance that at least tau k of k responses are right",
  "bound/cover@{tau}": "share of problems whose responses are right at least so often",
  "bound/crossing": "smallest k from which on the new model's pass@k is not higher",
  "bound/crosses": "share of resamples in which a curve that starts higher ends lower",
  "bound/srr": "of what the base solves, the share that the new model solves too",
  "bound/ndr": "of what the new model solves, the share that the base does not",
  "bound/nscr": "gained minus lost, over all that one of the two solves",
  "bound/ppl_{of}_{quantile}": "perplexity of a text under a model, a quantile",
  "bound/guessable": "share of problems that are right once without reasoning",
  "robust/accuracy_{variant}": "accuracy on the questions in a variant",
  "robust/change_{variant}": "accuracy in a variant minus that on the same plain ones",
  "robust/pdr_{variant}": "share of the plain accuracy that a variant takes away",
  "robust/flip_{variant}": "chance that of two responses, one to each, one is right",
  "robust/shift_{variant}": "mean square of the change of a question's rate",
  "robust/worst": "chance that a response to each of the variants is right in all",
  "robust/agreement": "chance that responses to two variants give the same answer",
  "calibration/brier[_{confidence}]": "mean square of confidence minus correctness",
  "calibration/auroc[_{confidence}]": "chance that a right response is above a wrong",
  "calibration/aurc[_{confidence}]": "error rate of the surest, mean over coverages",
  "calibration/accuracy@{coverage}[_{confidence}]": "accuracy of the surest percent",
  "calibration/ece[_{confidence}]": "distance of confidence from accuracy, by bins",
  "hallucination/{band}_correct": "share of responses that are right",
  "hallucination/{band}_wrong": "share of responses that give a wrong answer",
  "hallucination/{band}_abstained": "share of responses that give none",
  "hallucination/{band}_given_attempted": "accuracy of the answers that are given",
  "hallucination/{band}_f": "harmonic mean of accuracy and of that of given answers",
  "hallucination/{band}_score@{t}": "1 right, -t/(1-t) wrong, 0 without an answer",
  "bias/tv": "total variation between what is answered and what is true, over all",
  "bias/kl": "divergence of what is answered from what is true, nats",
  "bias/entropy": "entropy of all answers, nats",
  "bias/top_share": "share of the answer that is given most",
  "bias/other": "of the answers given, the share that is right to no question",
  "bias/tv_{prior}": "total variation between all answers and those without a prompt",
  "bias/kl_{prior}": "divergence of all answers from those without a prompt, nats",
  "bias/cue": "accuracy where a cue agrees with the answer minus where it contradicts",
  "bias/follows": "of the answers given, the share that follows the stereotype",
  "bias/s_amb": "how one-sided the answers to ambiguous questions are, -1 to 1",
  "bias/choice_sd": "spread of recall over the letters of a choice",
  "kept/nll_{context}": "nats per token of the same text; of two models, new - base",
  "kept/kl_{direction}": "nats per token between base and new model",
  "kept/sequence_kl_{direction}": "nats per sequence between base and new model",
  "kept/cloze": "nats by which its question makes a fact's answer likelier",
  "diversity/distinct@{m}": "different right solutions among m right ones",
  "diversity/chao1": "different right solutions there are, seen and unseen",
  "diversity/distinct_{n}@{tokens}": "share of n-grams that differ, in so many tokens",
  "diversity/answer_entropy": "entropy of the answers to a problem, nats",
  "diversity/token_entropy": "entropy of the next token, nats",
}

OF_RUNS = {
  "thoughts/{kind}": "of a run's last evaluation: paragraphs of a kind in a response",
  "length/mean": "of a run's last evaluation: tokens of a response",
  "train/steps@{score}": "steps until the score of ten steps is that high, or all",
  "train/entropy": "entropy of drawn tokens in a run's last ten steps, nats",
  "align/{name}": "cosine, inner product or share negative of the two gradients",
}
"""Of a run's own files: what a study asks besides (docs/study.md)."""


@functools.cache
def sentence(name: str) -> str:
  """What a measure's name means. Raises fields.Error if it is none of them."""
  for pattern, meaning in (NAMES | OF_RUNS).items():
    if re.fullmatch(_regex(pattern), name):
      return meaning
  raise fields.Error(f"{name!r} is no measure: pxy/measures/names.py lists them")


def part(text) -> str:
  """A user's word, such as a band, as a part of a name: what none can hold is a `-`."""
  return re.sub(r"[^\w.=:-]+", "-", str(text).strip()) or "-"


def of_run(name: str) -> bool:
  """Whether it is one of OF_RUNS."""
  return any(re.fullmatch(_regex(pattern), name) for pattern in OF_RUNS)


def _regex(pattern: str) -> str:
  parts = re.split(r"(\{\w+\}|\[|\])", pattern)
  signs = {"[": "(?:", "]": ")?"}
  return "".join(
    r"[\w.=:-]+" if part.startswith("{") else signs.get(part) or re.escape(part)
    for part in parts
  )
