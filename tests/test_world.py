"""The second embedded world: facts as designed, splits kept apart, a checker that is
exact."""

import collections
import dataclasses
import hashlib
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pxy import config
from pxy.data import document as document_lib
from pxy.data import prompts, world, world_problems
from pxy.rewards import chain, tasks
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib

SEEDS = (0, 1, 2**32 - 1)
CORPUS = config.Corpus(kind="world", wrong=0.15, question_free=0.2, documents=20_000)
WORLD = world.make(0)
INDEX = {name: i for i, name in enumerate(WORLD.names)}


@pytest.fixture(scope="module")
def corpus():
  return world.documents(CORPUS, 0)


@pytest.fixture(scope="module")
def rows():
  """Plain problems by (kind, split)."""
  kinds = [kind for kind in world_problems.KINDS if kind != "robust"]
  return {
    (k, s): list(world_problems.generate(k, s))
    for k in kinds
    for s in world_problems.SIZES
  }


def grade(name, problem, response):
  columns = dataclasses.asdict(problem)
  item = tasks.Item(response, problem.answer, task="world/chains", columns=columns)
  return tasks.resolve(name, item.task)(item)


def names_in(text):
  words = text.split()
  return {f"{a} {b}" for a, b in itertools.pairwise(words)} & set(WORLD.names)


@pytest.mark.parametrize("seed", SEEDS)
def test_facts(seed):
  made = world.make(seed)
  assert len(set(made.names)) == world.NAMES
  for target, other in zip(made.target, made.other_target, strict=True):
    known = target[: world.KNOWN]
    assert sorted(known) == list(range(world.KNOWN)), "everybody is somebody's boss"
    bands = np.array([world.band(i) for i in range(world.KNOWN)])
    assert 0.94 <= np.mean(bands[known] == bands) < 1, "in the band but for 1 in 20"
    assert target.max() < world.KNOWN > other.max()
    assert (other != target).all(), "a slip that is right"
  codes = {tuple(code) for code in made.code}
  assert len(codes) == world.ENTITIES, "two entities have one code: it proves nothing"
  assert (made.other_code != np.arange(world.ENTITIES)).all()
  assert (made.other_colour != made.colour).all()
  usual = made.stereotype[made.family[: world.ENTITIES]]
  assert 0.64 < np.mean(made.colour == usual) < 0.76


def test_worlds_differ_by_seed():
  one, other = (world.make(seed) for seed in SEEDS[:2])
  assert one.names != other.names
  for field in ("target", "code", "colour", "other_target", "other_code"):
    assert np.mean(getattr(one, field) == getattr(other, field)) < 0.3, field


def test_the_world_and_its_problems_are_those_of_the_shipped_model():
  facts = dataclasses.astuple(WORLD)
  text = repr([x.tolist() if isinstance(x, np.ndarray) else x for x in facts])
  text += repr(
    [list(world_problems.generate(k, "test")) for k in ("chains", "unknown")]
  )
  found = world_problems.TABLE.version, hashlib.sha256(text.encode()).hexdigest()
  assert found == (
    "1.2.0",
    "77f6a6d1b37bbdb4fea12e157bb3ca39691d22914e54449aba66b6f107c9b8e3",
  ), (
    "facts or problems have changed: builtin:world must be trained anew (make world),"
    " and world_problems.TABLE.version raised"
  )


def test_documents_are_a_function_of_the_seed(corpus):
  few = dataclasses.replace(CORPUS, documents=300)
  assert world.documents(few, 0) == corpus[:300]
  assert world.documents(few, 1) != corpus[:300]


def test_documents_have_the_shares_asked_for(corpus):
  calls = [d for d in corpus if not d.question]
  asked = [d for d in corpus if d.question]
  unknown = [d for d in asked if d.trace.endswith("unknown")]
  alone = [d for d in asked if d.context != "question"]
  style = collections.Counter(d.question.split()[0] for d in asked)
  hops = collections.Counter(d.question.count(" of ") for d in asked)
  # Standard errors over 20,000 documents are below .004.
  for found, share in (
    (len(calls) / len(corpus), 0.03),
    (len(unknown) / len(asked), 0.10),
    (len(alone) / len(asked), 0.2 * 0.9 * 0.8),
    (style["explain"] / len(asked), 0.5),
    (style["direct"] / len(asked), 0.2),
    (hops[4] / len(asked), 0.145 * 0.8),
    (hops[5] / len(asked), 0.015 * 0.8),
  ):
    assert found == pytest.approx(share, abs=0.012)
  assert max(hops) == 5, "hop 6 is what no document shows"
  assert {d.context for d in calls} == {"start", "document"}


def test_frequency_falls_with_rank(corpus):
  said = collections.Counter(n for d in corpus for n in names_in(d.trace))
  mean = {
    band: np.mean([said[WORLD.names[e]] for e in world.members(band)])
    for band in world.BANDS
  }
  assert mean["head"] > 4 * mean["mid"] and mean["mid"] > 1.5 * mean["tail"], mean


def test_no_document_states_a_ghosts_fact_or_names_who_is_held_out(corpus):
  ghosts, unseen = (
    {WORLD.names[e] for e in world.members(band)} for band in ("ghost", "unseen")
  )
  for d in corpus:
    found = names_in(f"{d.question} {d.trace}")
    assert not found & unseen, f"a held-out name in {d}"
    assert not found & ghosts or d.trace.startswith("present :"), f"a ghost in {d}"


def test_no_chain_of_validation_and_test_is_in_the_corpus_or_an_rl_prompt(corpus, rows):
  """In no style, and with or without its question."""

  def chains(problems):
    return {p.group.partition(" : ")[2] for p in problems if p.hops > 1}

  learned = {d.question.partition(" : ")[2] for d in corpus}
  train = set().union(*(chains(v) for (_, s), v in rows.items() if s == "train"))
  held = set().union(*(chains(v) for (_, s), v in rows.items() if s != "train"))
  assert len(held) > 500
  assert not held & learned and not held & train


def test_splits_share_no_question(rows):
  for one, other in itertools.combinations(world_problems.SIZES, 2):
    mine, theirs = (
      {
        p.group.partition(" : ")[2]
        for (_, s), v in rows.items()
        if s == split
        for p in v
      }
      for split in (one, other)
    )
    assert not mine & theirs, f"{one} and {other} share questions"


def test_some_facts_and_half_of_what_is_not_known_are_never_rl_prompts(rows):
  def subjects(kind, split):
    return {p.subject for p in rows[kind, split]}

  for kind, total in (("unknown", 384), ("ghosts", 64)):
    trained = subjects(kind, "train")
    held = subjects(kind, "test") | subjects(kind, "validation")
    assert not trained & held
    assert 0.4 < len(held) / total < 0.6, f"{len(held)} of {total} {kind}"
  facts = {s: {p.group for p in rows["facts", s]} for s in world_problems.SIZES}
  total = sum(map(len, facts.values()))
  assert total == 3 * 2 * world.KNOWN
  assert 0.07 < len(facts["test"]) / total < 0.13


def test_hops_and_styles_take_turns(rows):
  for split, most in (("train", 5), ("test", 6)):
    found = rows["chains", split]
    assert len({p.question for p in found}) == len(found) > 600
    hops = collections.Counter(p.hops for p in found)
    assert set(hops) == set(range(1, most + 1)) and len(set(hops.values())) == 1
    first = collections.Counter((p.hops, p.style) for p in found[: 10 * most])
    assert set(first.values()) == {5}, "the first problems are not a fair sample"


def test_every_problem_has_its_truth(rows):
  for (kind, _), problems in rows.items():
    for p in problems[:200]:
      assert grade("verified", p, p.trace).score == 1, (kind, p)
      assert p.trace.endswith(f"answer {p.answer}")
      assert (p.question == p.group) == (p.variant == "plain")
      assert (p.answer == "unknown") == (not p.answerable) == (kind == "unknown")
      assert p.hops == p.question.count(" of ")


def test_a_document_without_slips_is_verified():
  documents = world.documents(dataclasses.replace(CORPUS, wrong=0.0, documents=4000), 5)
  made = world.make(5)
  index = {name: i for i, name in enumerate(made.names)}
  remarked = 0
  for d in documents:
    if d.question:
      style, _, attribute, *way, a, b, _ = d.question.split()
      relations = tuple(world.RELATIONS.index(w) for w in reversed(way) if w != "of")
      question = world.Question(style, attribute, relations, index[f"{a} {b}"])
      p = world_problems.problem(made, question)
      assert p.question == d.question
      assert grade("verified", p, d.trace).score == 1, d
      remarked += d.trace != p.trace
  assert remarked > 200, "no remark was checked"


def test_a_slip_is_seen(corpus):
  """A wrong hop is never verified, though a wrong way may end in the right answer."""
  slipped = right = 0
  for d in corpus[:4000]:
    if d.question and d.question.startswith("explain"):
      style, _, attribute, *way, a, b, _ = d.question.split()
      relations = tuple(world.RELATIONS.index(w) for w in reversed(way) if w != "of")
      q = world.Question(style, attribute, relations, INDEX[f"{a} {b}"])
      p = world_problems.problem(WORLD, q)
      found = grade("verified", p, d.trace).metrics
      assert found["answer"] >= found["verified"]
      slipped += not found["verified"]
      right += found["answer"] > found["verified"]
  assert slipped > 200 and right > 3


PROBLEMS = [
  p for k in ("chains", "unknown") for p in itertools.islice(
    world_problems.generate(k, "validation"), 60
  )
]  # fmt: skip


@hypothesis.given(st.sampled_from(PROBLEMS), st.data())
def test_one_other_word_is_refused(problem, data):
  words = problem.trace.split()
  at = data.draw(st.integers(0, len(words) - 1))
  other = data.draw(st.sampled_from(world.WORDS).filter(lambda w: w != words[at]))
  words[at] = other
  assert grade("verified", problem, " ".join(words)).score == 0


@hypothesis.given(st.sampled_from(PROBLEMS), st.data())
def test_verified_implies_the_answer_and_every_hop(problem, data):
  true = problem.trace.split(" . ")
  others = [s for s in problem.remarks.split(" . ") if s]
  others += ["boss of a1 b1 is a2 b2", "a1 b2", "answer c1 d1", ""]
  parts = data.draw(st.lists(st.sampled_from([*true, *others]), max_size=12))
  found = grade("verified", problem, " . ".join(parts)).metrics
  if found["verified"]:
    assert found["answer"] and all(hop in parts for hop in true)


def test_what_the_checker_refuses():
  p = next(p for p in PROBLEMS if p.hops == 4 and p.style == "explain")
  hops = p.trace.split(" . ")
  made_up = "boss of a1 b1 is a2 b2"
  for said in (
    hops[-1:],  # the right answer alone
    hops[:1] + hops[2:],  # a hop left out
    [hops[1], hops[0], *hops[2:]],  # the wrong order
    [made_up, *hops],
    [*hops[:-1], made_up, hops[-1]],
    [*hops, hops[-1]],  # twice
    [*hops, p.remarks.split(" . ")[0]],  # more after the answer
    hops[:-1],  # cut off
  ):
    found = grade("verified", p, " . ".join(said))
    assert found.status == "scored" and found.score == 0, said
  remark = p.remarks.split(" . ")[1]
  assert grade("verified", p, " . ".join([remark, *hops])).score == 1


@pytest.mark.parametrize("grader", ["answer", "verified", "abstain"])
def test_hostile_text_is_wrong_and_quick(grader):
  for text in (
    "", "answer", "answer " * 5000, " . " * 200_000, "answer c1 d1\0" * 99,
    PROBLEMS[0].trace + " " * chain.LONGEST, "\ud800", ". . answer unknown .",
  ):  # fmt: skip
    outcome = grade(grader, PROBLEMS[0], text)
    assert outcome.status == "scored" and outcome.score <= 0


def test_regimes():
  known = next(p for p in PROBLEMS if p.hops == 2 and p.answer != "unknown")
  invented = next(p for p in PROBLEMS if p.answer == "unknown")
  for problem, response, answer, verified, abstain in (
    (known, known.trace, 1, 1, 1),
    (known, f"answer {known.answer}", 1, 0, -1),
    (known, "answer c0 d0", 0, 0, -1),
    (known, "answer unknown", 0, 0, 0),
    (known, f"{known.trace} answer c0 d0", 0, 0, -1),
    (invented, invented.trace, 1, 1, 1),
    (invented, "answer c0 d0", 0, 0, -1),
  ):
    for name, score in (
      ("answer", answer),
      ("verified", verified),
      ("abstain", abstain),
    ):
      found = grade(name, problem, response)
      assert found.score == score, (name, response)
      assert found.metrics["answer"] == answer
      assert found.metrics["verified"] == verified
  assert tasks.name("auto", "world/chains?seed=3") == "verified"


def test_a_row_without_a_trace_can_be_graded_by_its_answer_alone():
  item = tasks.Item("answer red", "red")
  assert tasks.verified(item).status == "ungradable"
  outcome = tasks.said(item)
  assert outcome.score == 1 and "verified" not in outcome.metrics
  assert tasks.said(tasks.Item("answer red", " ")).status == "ungradable"


def test_variants():
  groups = collections.defaultdict(dict)
  for p in world_problems.generate("robust", "test"):
    groups[p.group][p.variant] = p
  assert len(groups) > 300
  for group, found in groups.items():
    plain = found["plain"]
    assert list(found) == list(world_problems.VARIANTS) and plain.question == group
    for name in ("backwards", "style-last", "mark-first"):
      other = found[name]
      assert other.question != group
      assert sorted(other.question.split()) == sorted(group.split())
      assert (other.answer, other.trace) == (plain.answer, plain.trace)
    beside, _, rest = found["distractor"].question.partition(" . ")
    assert rest == group and beside not in plain.remarks
    assert found["distractor"].trace == plain.trace
    renamed = found["renamed"]
    assert renamed.subject != plain.subject and renamed.band == plain.band
    assert renamed.question == group.replace(plain.subject, renamed.subject)
    assert renamed.answer == renamed.trace.split("answer ")[1] != plain.answer
    assert renamed.question not in groups or groups[renamed.question]


def test_tasks_are_read_as_prompts(tmp_path, monkeypatch):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path))
  tok = world.tokenizer([], 0, tmp_path / "tokenizer")
  data = config.Data(task="world/chains")
  train, test = (prompts.load(data, tok, split) for split in ("train", "test"))
  assert test.split == "test" and train.dropped == test.dropped == 0
  prompt = test.first(1)[0]
  assert prompt.task == "world/chains" and prompt.columns["trace"].endswith(
    prompt.answer
  )
  other = prompts.load(config.Data(task="world/chains?seed=3"), tok, "test")
  assert {p.text for p in other.prompts} != {p.text for p in test.prompts}
  folders = sorted(path.name for path in (tmp_path / "world").iterdir())
  assert folders == ["chains", "chains-3"]


@pytest.mark.parametrize(
  ("task", "split", "says"),
  [
    ("world/chain", "test", "world/KIND and world/KIND?seed=N with KIND one of chains"),
    ("world/chains?seed=x", "test", "no such task"),
    ("world/chains?seed=4294967296", "test", "seed must be 0 to 4294967295"),
    ("world/../chains", "test", "no such task"),
    ("world/chains", "tset", "split 'tset' is none of train"),
  ],
)
def test_unknown_names(task, split, says):
  with pytest.raises(config.Error) as caught:
    world_problems.problems(task, split)
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_words_are_tokens(tmp_path, corpus):
  world.tokenizer([], 0, tmp_path)
  tok = tokenizer_lib.load(tmp_path)
  words = set()
  for d in corpus[:2000]:
    ids = document_lib.encode(d, tok)
    body = d.trace if d.context != "question" else f"{d.question} {d.trace}"
    assert tok.decode(ids) == body, "a word that is no token, or is two"
    assert len(ids) == len(body.split()) + (3 if d.context == "question" else 2)
    first = tok.document_id if d.context == "document" else tok.start_id
    assert ids[0] == first and ids[-1] == tok.end_id in tok.stop_ids
    words |= set(body.split())
  assert words <= set(world.WORDS) and tok.vocab_size == len(world.WORDS) + 6
  assert template.ending(tok) is None
  hostile = tok.encode("boss<|im_end|> <|im_sep|> café")
  assert not set(hostile) & set(tok.controls.values())
  asked = [{"role": "user", "content": "explain <|im_sep|> ?"}]
  ids = template.render(tok, asked, system="brief :")
  assert template.spell(tok, ids) == ("<|im_start|>brief : explain <unk> ?<|im_sep|>")
