"""The embedded world: sums over integers, with step-by-step traces.

A problem has a question, an answer and a clean trace that reasons column by column (see
trace.py).

Documents for pre-training are problems with noise. A step goes wrong with probability
`corpus.wrong`; the wrong digit goes into the answer, unless the trace notices (share
`corpus.noticed`) and does the step again after "Wait," or, less often, "Alternatively,
another way:". So accuracy has something to gain, and reflection exists to be found. A
share of `corpus.question_free` documents has no question: they follow the lone start or
separator token, so that P(y) in those contexts is on the model's distribution.

Train, validation and test are disjoint by construction: a hash of the operator and the
unordered pair of operands names the split, in all levels alike. Problems come from a
counter through the same hash: no random generator whose stream may change.
"""

import dataclasses
import pathlib
import random
from collections.abc import Iterator, Sequence

import numpy as np

from pxy import config
from pxy.data import document as document_lib
from pxy.data import mix, table, trace
from pxy.text import tokenizer as tokenizer_lib

# Level: operator, digits of the first operand, digits of the second.
LEVELS = {
  **{f"add{n}": ("+", n, n) for n in range(1, 5)},
  **{f"sub{n}": ("-", n, n) for n in range(1, 5)},
  **{f"mul{m}x{n}": ("*", m, n) for m, n in ((1, 1), (2, 1), (3, 1), (2, 2), (3, 2))},
}
MIXED = ("add1", "add2", "add3", "sub1", "sub2", "sub3", "mul1x1", "mul2x1", "mul2x2")
SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}
_SPLIT_OF_BUCKET = ("test", "validation", *["train"] * 8)  # 10, 10 and 80 %
_ENUMERATED = 1 << 20  # levels with up to this many pairs are enumerated, others drawn
_ANOTHER_SHARE = 0.25  # of the noticed steps are done another way


@dataclasses.dataclass(frozen=True)
class Problem:
  """One sum. `answer` is in decimal digits, `trace` is clean."""

  question: str
  answer: str
  level: str
  trace: str
  operator: str
  a: int
  b: int


def split_of(operator: str, a: int, b: int) -> str:
  """The split that owns a problem, the same for both orders of the operands."""
  return _SPLIT_OF_BUCKET[int(_bucket(operator, np.array([a]), np.array([b]))[0])]


def generate(level: str, split: str) -> Iterator[Problem]:
  """The problems of a level and split, in a fixed pseudo-random order, no two the same.

  At most SIZES[split]; small levels have fewer. Raises config.Error for unknown names.
  """
  _check(level, split)
  if level == "mixed":
    each = SIZES[split] // len(MIXED)
    sums = [s for part in MIXED for s in _sums(part, split, each)]
    sums = [sums[i] for i in np.argsort(mix.mix(np.arange(len(sums))))]
  else:
    sums = _sums(level, split, SIZES[split])
  for part, operator, a, b in sums:
    thoughts, answer = trace.solve(operator, a, b, trace.clean)
    question = f"What is {a} {operator} {b}?"
    yield Problem(question, answer, part, "\n\n".join(thoughts), operator, a, b)


TABLE = table.Table(
  name="Arithmetic",
  version="1.0.1",
  description="Sums over integers with step-by-step traces.",
  record=Problem,
  splits=tuple(SIZES),
  generate=generate,
)


def builder(level: str):
  """The level's TFDS builder with its files in place."""
  _check(level, "train")
  return table.builder(TABLE, level)


def problems(level: str, split: str) -> Sequence[Problem]:
  """All problems of a split, read from the level's files."""
  _check(level, split)
  return table.read(TABLE, level, split)


def document(
  problem: Problem, rng: random.Random, corpus: config.Corpus
) -> document_lib.Document:
  """One noisy document of a problem; a function of the generator's state alone."""
  context = "question"
  if rng.random() < corpus.question_free:
    context = rng.choice(("start", "document"))

  def slip(right, high):
    if rng.random() >= corpus.wrong:
      return right, ""
    near = [right + d for d in (-10, -1, 1, 10) if 0 <= right + d <= high]
    wrong = rng.choice(near)
    if rng.random() >= corpus.noticed:
      return wrong, ""
    return wrong, trace.ANOTHER if rng.random() < _ANOTHER_SHARE else trace.WAIT

  thoughts, _ = trace.solve(problem.operator, problem.a, problem.b, slip)
  return document_lib.Document(context, problem.question, "\n\n".join(thoughts))


def documents(
  corpus: config.Corpus, seed: int, split: str = "train"
) -> list[document_lib.Document]:
  """`corpus.documents` documents: passes over the problems, each with new noise."""
  rng = random.Random(seed)
  pool, order, out = problems(corpus.level, split), [], []
  while len(out) < corpus.documents:
    if not order:
      order = list(range(len(pool)))
      rng.shuffle(order)
    out.append(document(pool[order.pop()], rng, corpus))
  return out


def tokenizer(
  documents: list[document_lib.Document], vocab: int, folder: str | pathlib.Path
) -> tokenizer_lib.Tokenizer:
  """One trained on the documents, of at most `vocab` pieces, saved to folder."""
  roles = ["user\n", "assistant\n"]  # of the chat template, once a document
  texts = (text for d in documents for text in (*roles, d.question, d.trace))
  return tokenizer_lib.train(texts, vocab, folder)


def task(corpus: config.Corpus, seed: int) -> str:
  """By which a model of the corpus is examined."""
  del seed
  return f"arithmetic/{corpus.level}"


def _check(level: str, split: str) -> None:
  if level not in LEVELS and level != "mixed":
    known = ", ".join([*LEVELS, "mixed"])
    raise config.Error(f"arithmetic/{level}: no such level; there are {known}")
  if split not in SIZES:
    raise config.Error(f"arithmetic: split {split!r} is none of {', '.join(SIZES)}")


def _sums(level: str, split: str, size: int) -> list[tuple[str, str, int, int]]:
  """(level, operator, a, b) of the first `size` problems of a level in a split."""
  operator, digits_a, digits_b = LEVELS[level]
  first_a, first_b = (10 ** (d - 1) if d > 1 else 0 for d in (digits_a, digits_b))
  count_a, count_b = 10**digits_a - first_a, 10**digits_b - first_b
  pairs = count_a * count_b
  if pairs <= _ENUMERATED:
    drawn = np.argsort(mix.mix(np.arange(pairs)))
  else:
    drawn = mix.mix(np.arange(_ENUMERATED)) % np.uint64(pairs)
    drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])].astype(np.int64)
  a, b = first_a + drawn // count_b, first_b + drawn % count_b
  bucket = np.array(_SPLIT_OF_BUCKET)[_bucket(operator, a, b)]
  mine = (bucket == split) & ((a >= b) | (operator != "-"))
  kept = zip(a[mine][:size].tolist(), b[mine][:size].tolist(), strict=True)
  return [(level, operator, x, y) for x, y in kept]


def _bucket(operator: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Hash bucket of (operator, {a, b}); operands below 10**6."""
  low, high = np.minimum(a, b), np.maximum(a, b)
  # 30 offsets the key so that one-digit levels have at least 5 problems in each split.
  key = ((30 + "+-*".index(operator)) * 10**6 + low) * 10**6 + high
  return (mix.mix(key) % np.uint64(len(_SPLIT_OF_BUCKET))).astype(np.int64)
