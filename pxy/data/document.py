"""A document of an embedded world's corpus, and its token ids.

A trace follows its question, as a chat prompt, or else a lone start or separator token:
so P(y) in the contexts `start` and `document` is on the model's distribution.
"""

import dataclasses

from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class Document:
  """A trace, maybe wrong, and what stands before it.

  Attributes:
    context: `question` (as a chat prompt), or the lone token `start` or `document`.
    question, trace: texts; the question is not part of the other contexts' documents.
  """

  context: str
  question: str
  trace: str


def encode(document: Document, tokenizer: tokenizer_lib.Tokenizer) -> list[int]:
  """Token ids: the context, the trace as the assistant's answer, its end token."""
  if document.context == "question":
    context = template.render(
      tokenizer, [{"role": "user", "content": document.question}]
    )
  else:
    start = document.context == "start"
    context = [tokenizer.start_id if start else tokenizer.document_id]
  return [*context, *tokenizer.encode(document.trace), tokenizer.end_id]
