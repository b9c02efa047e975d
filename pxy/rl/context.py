"""What may stand before a response in its prompt's place: one record for each.

Packed shape, views, checks of a config, programs for a pod and `pxy align` ask the
record and know no name, so a new context is a line of CONTEXTS. A context is of one
of two kinds: fixed token ids, of the tokenizer, or prompts of the batch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def _view():
  from pxy.rl import view  # it needs jax, for which readers of a config must not wait

  return view


@dataclasses.dataclass(frozen=True)
class Context:
  """What stands before a response when its likelihood is taken.

  Attributes:
    what: in words, with the likelihood; a line of docs/objectives.md.
    view: (rollouts, ids, key, term) -> view.View; ids are those of a fixed context,
      key draws other prompts.
    ids: tokenizer -> token ids of a fixed context, at least one; it raises fields.Error
      where the tokenizer has none. None: the context is made of prompts of the batch.
    copies: term -> contexts before each response.
    groups: term -> prompts that a batch needs at least.
  """

  what: str
  view: Callable
  ids: Callable | None = None
  copies: Callable = lambda term: 1
  groups: Callable = lambda term: 1

  def tokens(
    self, term: Any, ids: Sequence[int] | None, prompt: int, response: int
  ) -> int:
    """Places that a response takes in a packed row, with all copies of its context.

    Args:
      ids: of the fixed context; None: of prompts, or not known, and then assumed to be
        no longer than a prompt.
      prompt, response: most tokens of each.
    """
    context = prompt if ids is None else len(ids)
    return self.copies(term) * (context + response - 1)


PROMPT = Context(
  "its prompt x: log pi(y|x)",
  view=lambda rollouts, ids, key, term: _view().conditional(rollouts),
)
"""The context of the conditional space."""


def _fixed(rollouts, ids, key, term):
  return _view().marginal(rollouts, ids)


def _shuffled(rollouts, ids, key, term):
  view = _view()
  return view.shuffled(rollouts, int(view.shifts(key, rollouts.groups, 1)[0]))


def _mixture(rollouts, ids, key, term):
  view = _view()
  shifts = view.shifts(key, rollouts.groups, term.copies - 1)
  return view.mixture(rollouts, shifts.tolist())


CONTEXTS = {
  "start": Context(
    "the chat start token, at position 0 (the paper's choice): log pi(y|c)",
    view=_fixed,
    ids=lambda tokenizer: [tokenizer.start_id],
  ),
  "document": Context(
    "the separator of pre-training documents: log pi(y|c)",
    view=_fixed,
    ids=lambda tokenizer: [tokenizer.document_id],
  ),
  "shuffled": Context(
    "the prompt of another group, all groups rotated by one random number of places:"
    " log pi(y|x')",
    view=_shuffled,
    groups=lambda term: 2,
  ),
  "mixture": Context(
    "`copies` prompts of the batch, its own among them: log mean_k pi(y|x_k)",
    view=_mixture,
    copies=lambda term: term.copies,
    groups=lambda term: term.copies,
  ),
}
"""Contexts of the marginal space, by the name that a term gives."""


def of(term: Any) -> Context:
  """The context that a term asks for."""
  return PROMPT if term.space == "conditional" else CONTEXTS[term.context]


def ids(term: Any, known: Mapping[str, Sequence[int]]) -> Sequence[int] | None:
  """Token ids of the term's context, out of the fixed ones that are known by name; None
  if it is made of prompts, or not known."""
  return None if of(term).ids is None else known.get(term.context)
