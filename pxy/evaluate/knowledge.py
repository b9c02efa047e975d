"""Knowledge kept: texts that no training has seen, scored by a model, and facts.

  nll     held-out documents of the world, or paragraphs of a file, after each context
  cloze   log p(a | question) - log p(a), of single facts
  kl      exact divergence between two models on what each of them wrote

The documents are those of the pretraining's generator, of another split. Each is scored
as one text in every context, so that a change in one of them is about the context.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pxy import config
from pxy.data import world as world_lib
from pxy.evaluate import divergence, plans, store
from pxy.evaluate import likelihood as likelihood_lib
from pxy.measures import estimate, kept
from pxy.text import template

DOCUMENTS, FACTS, TEXTS = 256, 192, 4
"""Documents and facts that are scored; responses to a problem, for divergences."""


@dataclasses.dataclass(frozen=True)
class Text:
  """What is scored: ids after `prompt`, if it has one, and after lone tokens."""

  name: str
  prompt: tuple[int, ...] | None
  ids: np.ndarray


def documents(plan: plans.Plan, tokenizer, count: int) -> list[Text]:
  """Held-out documents of a plan's world, all of them with their question."""
  corpus = config.Corpus(kind=plan.corpus, question_free=0.0, documents=count)
  out = []
  for i, document in enumerate(plan.world.documents(corpus, 0, "test")):
    if document.context != "question":
      continue
    asked = template.render(tokenizer, [{"role": "user", "content": document.question}])
    said = [*tokenizer.encode(document.trace), tokenizer.end_id]
    out.append(Text(f"{i:06d}", tuple(asked), np.array(said, np.int32)))
  return out


def paragraphs(texts: Sequence[tuple[str, str]], tokenizer, most: int) -> list[Text]:
  """(id, text) of a file by rising id, as a measure has its problems; the first `most`
  tokens of each, without a prompt."""
  coded = ((name, tokenizer.encode(text)[:most]) for name, text in sorted(texts))
  return [Text(name, None, np.array(ids, np.int32)) for name, ids in coded if ids]


def nll(policy, likelihood, texts: Sequence[Text]) -> dict[str, list[float]]:
  """Summed NLL of each text by context: `prompt` if all have one, `start` and
  `document` where the tokenizer has such a token; and `tokens`."""
  there = likelihood_lib.known(policy.tokenizer, ("start", "document"))
  fixed = likelihood_lib.fixed(policy.tokenizer, there)
  asked = {name: [tuple(ids)] * len(texts) for name, ids in fixed.items()}
  if all(text.prompt for text in texts):
    asked["prompt"] = [text.prompt for text in texts]
  out = {"tokens": [len(text.ids) for text in texts]}
  for name, contexts in asked.items():
    rows = [
      (ids, i, text.ids)
      for i, (ids, text) in enumerate(zip(contexts, texts, strict=True))
    ]
    sums = likelihood(policy.params, rows)
    out[name] = [None if logp is None else -logp for logp, _ in sums]
  return out


def facts(policy, likelihood, count: int) -> dict[str, list]:
  """log p of the codes of known entities, head to tail, with their question and
  without it: after `answer`, in a direct prompt and after a lone start token."""
  world, tokenizer = world_lib.make(0), policy.tokenizer
  step = world_lib.KNOWN / count
  entities = [int(i * step) for i in range(count)]
  given, alone, names = [], [], []
  lead = tokenizer.encode("answer")
  for i, e in enumerate(entities):
    question = world_lib.Question("direct", "code", (), e)
    asked = [{"role": "user", "content": world_lib.text(world, question)}]
    value = np.array(tokenizer.encode(world_lib.value(world, "code", e)), np.int32)
    given.append(((*template.render(tokenizer, asked), *lead), i, value))
    alone.append(((tokenizer.start_id, *lead), i, value))
    names.append(f"{e:04d}")
  sums = [likelihood(policy.params, rows) for rows in (given, alone)]
  with_, without = ([logp for logp, _ in found] for found in sums)
  return {"names": names, "with": with_, "without": without}


def specs(found: dict) -> list[estimate.Spec]:
  """Measures of what `nll` and `facts` gave for one model: levels, and their
  differences are paired by document and by fact."""
  out, texts = [], found["texts"]
  for context in ("document", "start", "prompt"):
    if context in texts["nll"]:
      zero = np.zeros(len(texts["names"]))
      tokens, nll = texts["nll"]["tokens"], texts["nll"][context]
      out.append(kept.nll(texts["names"], context, _floats(nll), zero, tokens))
  if "facts" in found:
    some = found["facts"]
    given, alone = _floats(some["with"]), _floats(some["without"])
    out.append(kept.cloze(some["names"], given, alone))
  return out


def _floats(values) -> np.ndarray:
  """nan for None."""
  return np.array(values, np.float64)


def divergences(
  policy, other, stored: store.Stored, prompts: dict[str, np.ndarray], direction: str
) -> list[estimate.Spec]:
  """KL(policy, other) on the first TEXTS responses of `policy` to each problem, after
  its prompt (ids by problem) and after a lone start token.

  Raises config.Error where the two have other vocabularies.
  """
  if policy.arch.vocab_size != other.arch.vocab_size:
    raise config.Error(
      f"{policy.name} and {other.name}: {policy.arch.vocab_size} and"
      f" {other.arch.vocab_size} tokens; KL needs one tokenizer: leave `kept` out of"
      " --what"
    )
  order = np.argsort([row["problem"] for row in stored.problems], kind="stable")
  stored = stored.take(order, TEXTS)
  names = [row["problem"] for row in stored.problems]
  start, out = (policy.tokenizer.start_id,), []
  for label in ("", "_start"):
    rows = [
      (start if label else tuple(prompts[name].tolist()), r, ids)
      for name, group in zip(names, stored.ids, strict=True)
      for r, ids in enumerate(group)
    ]
    sums = divergence.kl(policy, other, rows)
    kl_PR = np.reshape(sums, stored.length_PR.shape)
    out += kept.kl(names, direction + label, kl_PR, stored.length_PR)
  return out
