"""What a model says of its own answers, asked about each of them once they are given.

  p_true   p(True) / (p(True) + p(False)) as the answer to whether it is true
  stated   the mean of 0 %, 10 % ... 100 % by their probabilities, as the answer to how
           likely it is to be right

Nothing is drawn: both are log-probs of short continuations of a second prompt, which
holds the question and the proposed answer, so they are functions of the weights. The
same answer has one confidence, whichever response gave it. P(True) is that of
2207.05221, for one proposed answer; a word may be several tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pxy import config
from pxy.text import template as template_lib

_TRUE = (
  "{question}\n\nProposed answer: {answer}\n"
  "Is the proposed answer true or false? Answer with True or False alone.\nAnswer:"
)
_STATED = (
  "{question}\n\nProposed answer: {answer}\n"
  "How likely is it that the proposed answer is right? Answer with a percentage from 0%"
  " to 100% alone.\nAnswer:"
)
_WORDS = {
  "p_true": (_TRUE, ("True", "False"), (1.0, 0.0)),
  "stated": (
    _STATED,
    tuple(f"{percent}%" for percent in range(0, 101, 10)),
    tuple(percent / 100 for percent in range(0, 101, 10)),
  ),
}
KINDS = tuple(_WORDS)
_AT_ONCE = 16


def pairs(answers: Sequence[Sequence[str | None]]) -> list[tuple[int, str]]:
  """(problem, answer) of all different answers, those of a problem by the alphabet."""
  return [(p, a) for p, row in enumerate(answers) for a in sorted({*row} - {None})]


def confidences(
  policy,
  likelihood,
  data: config.Data,
  questions: Sequence[str],
  asked: Sequence[tuple[int, str]],
  done: Callable[[int], None] = lambda n: None,
) -> dict[str, list[float | None]]:
  """Confidences, by KINDS, in each of `asked` (pairs).

  Args:
    policy: a model with its tokenizer.
    likelihood: likelihood.Likelihood of its architecture.
    data: how the second prompt is put, as the first was: template, system, arguments.
    questions: of each problem, as it was put.
    asked: (problem, answer).
    done: called with how many pairs were asked about, for each kind.

  Raises:
    config.Error: a second prompt does not fit into the model's context.
  """
  tokenizer, template = template_lib.prepared(policy.tokenizer, data.template)
  room = policy.arch.context
  # A text goes on with a space, an assistant's turn begins without.
  lead = " " if template == "plain" else ""
  out = {kind: [] for kind in KINDS}
  for kind, (form, words, values) in _WORDS.items():
    said = [np.array(tokenizer.encode(lead + word), np.int32) for word in words]
    for first in range(0, len(asked), _AT_ONCE):
      rows = []
      for p, answer in asked[first : first + _AT_ONCE]:
        text = form.format(question=questions[p], answer=" ".join(answer.split()))
        ids = template_lib.render(
          tokenizer,
          [{"role": "user", "content": text}],
          template,
          data.system,
          data.template_arguments,
        )
        if len(ids) + max(map(len, said)) > room:
          raise config.Error(
            f"--p-true: a question with an answer has {len(ids)} tokens, the model's"
            f" context {room}: lower --max-prompt-tokens or --max-new-tokens"
          )
        rows += [(tuple(ids), r, one) for r, one in enumerate(said)]
      logps = [logp for logp, _ in likelihood(policy.params, rows)]
      out[kind] += [_mean(some, values) for some in _of_each(logps, len(said))]
      done(len(rows) // len(said))
  return out


def _of_each(values: Sequence, n: int) -> list:
  return [values[first : first + n] for first in range(0, len(values), n)]


def _mean(logps: Sequence[float | None], values: Sequence[float]) -> float | None:
  """The mean of values, by their probabilities."""
  if None in logps:
    return None
  weights = np.exp(np.array(logps) - max(logps))
  return float(weights @ values / weights.sum())


def table(
  answers: Sequence[Sequence[str | None]],
  asked: Sequence[tuple[int, str]],
  found: Sequence[float | None],
) -> np.ndarray:
  """conf_PR of the responses; nan without an answer."""
  of = {pair: np.nan if x is None else x for pair, x in zip(asked, found, strict=True)}
  return np.array(
    [[np.nan if a is None else of[p, a] for a in row] for p, row in enumerate(answers)]
  )
