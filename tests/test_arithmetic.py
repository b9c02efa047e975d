"""The embedded world: disjoint splits, fixed problems, noise as asked for."""

import hashlib
import itertools
import random
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pxy import config
from pxy.data import arithmetic
from pxy.data import document as document_lib
from pxy.text import tokenizer as tokenizer_lib

SMALL = ("add1", "sub1", "mul1x1", "add2", "sub2", "mul2x1")


def key(problem):
  return problem.operator, frozenset((problem.a, problem.b))


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


def test_splits_share_no_problem():
  levels = (*SMALL, "add3", "mixed")
  keys = {
    split: {key(p) for level in levels for p in arithmetic.generate(level, split)}
    for split in arithmetic.SIZES
  }
  for one, other in itertools.combinations(keys, 2):
    assert not keys[one] & keys[other], f"{one} and {other} share problems"


@hypothesis.given(
  st.sampled_from("+-*"), st.integers(0, 999_999), st.integers(0, 999_999)
)
def test_both_orders_of_a_pair_are_of_one_split(operator, a, b):
  assert arithmetic.split_of(operator, a, b) == arithmetic.split_of(operator, b, a)


@pytest.mark.parametrize("level", SMALL)
def test_small_levels_are_complete(level):
  operator, digits_a, digits_b = arithmetic.LEVELS[level]
  found = [p for split in arithmetic.SIZES for p in arithmetic.generate(level, split)]
  wanted = {
    (a, b)
    for a in range(10 ** (digits_a - 1) if digits_a > 1 else 0, 10**digits_a)
    for b in range(10 ** (digits_b - 1) if digits_b > 1 else 0, 10**digits_b)
    if a >= b or operator != "-"
  }
  assert {(p.a, p.b) for p in found} == wanted
  assert len(found) == len(wanted), "a problem comes twice"
  for split in arithmetic.SIZES:
    rows = list(arithmetic.generate(level, split))
    assert len(rows) >= 5, f"{level} has {len(rows)} {split} problems"
    assert all(arithmetic.split_of(p.operator, p.a, p.b) == split for p in rows)


def test_levels_too_large_to_enumerate():
  rows = list(arithmetic.generate("add4", "validation"))
  assert len({(p.a, p.b) for p in rows}) == len(rows) == 2000
  assert all(1000 <= x <= 9999 for p in rows for x in (p.a, p.b))
  assert 4000 < np.mean([p.a for p in rows]) < 7000


def test_problems_are_pinned():
  """Who changes the problems must raise FILES_VERSION, or old files are read."""
  text = "\n".join(
    f"{p.question} {p.answer} {p.trace}"
    for level in ("add1", "sub2", "mul2x1")
    for p in arithmetic.generate(level, "test")
  )
  found = arithmetic.TABLE.version, hashlib.sha256(text.encode()).hexdigest()
  assert found == (
    "1.0.1",
    "d8edd1285ff522357ffc325d6e26567b37e3c4bc69c22d4dbec2181c1e622fda",
  ), "problems changed: raise FILES_VERSION, then pin both again"


def test_builder_writes_and_reads_the_problems(cache, capfd):
  for split in arithmetic.SIZES:
    read = arithmetic.problems("sub2", split)
    assert list(read) == list(arithmetic.generate("sub2", split))
  assert capfd.readouterr().out == "", "stdout is for results"
  left = [path.name for path in cache.iterdir()]
  assert left == ["arithmetic"], f"left over in the cache: {left}"
  source = arithmetic.builder("sub2").as_data_source(split="test")
  assert source[0]["answer"].decode() == arithmetic.problems("sub2", "test")[0].answer


def python(code):
  return subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)


def test_processes_that_make_it_at_once(cache):
  code = (
    "from pxy.data import arithmetic; print(len(arithmetic.problems('add1', 'train')))"
  )
  for worker in [python(code) for _ in range(2)]:
    out, err = worker.communicate(timeout=120)
    assert out.strip() == "75", err
  assert [path.name for path in cache.iterdir()] == ["arithmetic"]


def test_neither_tensorflow_nor_jax_is_imported(cache):
  code = (
    "import sys; from pxy.data import arithmetic; arithmetic.problems('add1', 'test');"
    "print([m for m in ('tensorflow', 'jax') if m in sys.modules])"
  )
  out, err = python(code).communicate(timeout=120)
  assert out.strip() == "[]", err


def test_unknown_names_and_places(cache, monkeypatch):
  with pytest.raises(config.Error, match="arithmetic/add33: no such level; there are"):
    arithmetic.problems("add33", "train")
  with pytest.raises(config.Error, match="split 'tset' is none of train"):
    arithmetic.problems("add1", "tset")
  cache.write_text("a file")
  with pytest.raises(config.Error, match="set PXY_CACHE"):
    arithmetic.problems("add1", "test")


def some(level="add3", n=4000, **corpus):
  """Noisy documents of the level's test problems, with their problems."""
  rng = random.Random(0)
  problems = itertools.islice(itertools.cycle(arithmetic.generate(level, "test")), n)
  corpus = config.Corpus(level=level, **corpus)
  return [(p, arithmetic.document(p, rng, corpus)) for p in problems]


def test_noise_free_documents_are_the_clean_traces():
  for problem, document in some(wrong=0.0, n=500):
    assert document.trace == problem.trace
    assert document.question == problem.question


def test_noise_has_the_rates_asked_for():
  made = some(wrong=0.2, noticed=0.4, question_free=0.3)
  again = sum(d.trace.count(w) for _, d in made for w in ("Wait", "Alternatively"))
  another = sum(d.trace.count("Alternatively, another way") for _, d in made)
  steps = sum(p.trace.count("=") for p, _ in made)
  # Standard errors over 12,000 steps: below 0.003.
  assert again / steps == pytest.approx(0.2 * 0.4, abs=0.01)
  assert another / again == pytest.approx(0.25, abs=0.05)
  right = np.mean([f"boxed{{{p.answer}}}" in d.trace for p, d in made])
  assert right == pytest.approx((1 - 0.2 * 0.6) ** 3, abs=0.03)
  contexts = [d.context for _, d in made]
  for context, share in (("question", 0.7), ("start", 0.15), ("document", 0.15)):
    assert contexts.count(context) / len(made) == pytest.approx(share, abs=0.03)


def test_all_slips_noticed_leave_right_answers():
  for level in ("sub2", "mul2x1", "mixed"):
    for problem, document in some(level, n=200, wrong=0.9, noticed=1.0):
      assert document.trace.endswith(f"\\boxed{{{problem.answer}}}"), document


def test_documents_are_a_function_of_the_seed(cache):
  corpus = config.Corpus(level="add1", documents=200)
  one = arithmetic.documents(corpus, 0)
  assert len(one) == 200
  assert one == arithmetic.documents(corpus, 0)
  assert one != arithmetic.documents(corpus, 1)
  questions = {d.question for d in one}
  assert questions == {p.question for p in arithmetic.problems("add1", "train")}
  assert not questions & {p.question for p in arithmetic.problems("add1", "test")}


def test_encoded_documents():
  tok = tokenizer_lib.Bytes()
  for context, before in (
    ("question", "user\nWhat is 1 + 2?\nassistant\n"),
    ("start", ""),
    ("document", ""),
  ):
    ids = document_lib.encode(
      document_lib.Document(context, "What is 1 + 2?", "3"), tok
    )
    assert tok.decode(ids) == before + "3"
    first = tok.document_id if context == "document" else tok.start_id
    assert ids[0] == first and ids[-1] == tok.end_id


def test_documents_are_short(tmp_path):
  made = [document for _, document in some(n=1000)]
  texts = [text for d in made for text in (d.question, d.trace)]
  tok = tokenizer_lib.train(texts, 384, tmp_path)
  lengths = [len(tok.encode(d.trace)) + 1 for d in made]
  assert 45 <= np.mean(lengths) <= 55, f"{np.mean(lengths):.1f} tokens a trace"
  assert max(lengths) <= 96, "config.Sampling.max_new_tokens would cut it"
