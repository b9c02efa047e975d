"""Stored samples: a store grows, survives kills, and refuses what is not its own."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from pxy import config, testing
from pxy.commands import cli
from pxy.data import prompts as prompts_lib
from pxy.evaluate import likelihood as likelihood_lib
from pxy.evaluate import run as evaluate
from pxy.evaluate import samples, store
from pxy.model import decoder
from pxy.rewards import given, pool, tasks
from pxy.run import responses, stored
from pxy.sampling import collect, engine
from pxy.show import progress
from pxy.weights import load

import worlds

ROOT = pathlib.Path(__file__).resolve().parent.parent
ARCH = testing.arch()
ROWS = [
  {"prompt": f"{a} + {b}?", "answer": str(a + b), "group": f"g{a}", "band": "mid"}
  for a in range(6)
  for b in (3, 4)
]
ALL = ["prompt", *likelihood_lib.NAMES]
LIKELIHOOD = likelihood_lib.Likelihood(ARCH)


@pytest.fixture(scope="module")
def policy():
  tokenizer = testing.tokenizer()
  return load.Policy(ARCH, tokenizer, "small", pathlib.Path(), testing.params(ARCH))


@pytest.fixture(scope="module")
def graders():
  with pool.Pool(config.Reward(workers=1), "boxed") as opened:
    yield opened


@pytest.fixture(scope="module")
def fill(policy, graders, tmp_path_factory):
  file = tmp_path_factory.mktemp("task") / "rows.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

  def filled(folder, problems, size, *, slots=8, contexts=(), rows=None, score=None):
    """fill() of a store of that size; rows: another content of the task's file."""
    if rows is not None:
      file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = config.Data(task=str(file), max_prompt_tokens=48, template="plain")
    sampling = config.Sampling(max_new_tokens=12, slots=slots)
    of = samples.identity(samples.of_model(policy), data, "test", sampling, 5)
    name = store.name("a/small", None, of)
    source = prompts_lib.load(data, policy.tokenizer, "test")
    sampler = engine.Engine(
      ARCH, sampling=sampling, stop_ids=policy.tokenizer.stop_ids, max_prompt_tokens=48
    )
    with sampler, store.Writer(folder, name, of) as writer:
      return samples.fill(
        collect.Collector(sampler, graders, policy.tokenizer),
        score or LIKELIHOOD,
        policy,
        source,
        writer,
        problems,
        size,
        seed=5,
        contexts=contexts,
      )

  yield filled


@pytest.fixture(scope="module")
def whole(fill, tmp_path_factory):
  """A store of 12 problems and 10 samples with all contexts."""
  folder = tmp_path_factory.mktemp("whole")
  return fill(folder, 12, 10, contexts=ALL)


def contents(folder):
  return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture
def copy(whole, tmp_path):
  """A folder with the same store."""
  for name, data in contents(whole.path.parent).items():
    (tmp_path / name).write_bytes(data)
  return tmp_path


def same(a, b):
  for field in dataclasses.fields(store.Stored):
    x, y = getattr(a, field.name), getattr(b, field.name)
    if field.name not in ("path", "problems", "about"):
      jax.tree.map(np.testing.assert_array_equal, x, y)
  assert [p["problem"] for p in a.problems] == [p["problem"] for p in b.problems]


# Growth.


def test_a_store_that_grew_is_one_that_was_asked_at_once(fill, whole, tmp_path, capsys):
  fill(tmp_path, 5, 4)
  fill(tmp_path, 5, 9, slots=16, contexts=["other"])
  assert "pxy:" not in capsys.readouterr().err
  fill(tmp_path, 12, 2)
  says = "holds 5 x 9 responses, and grows to 12 x 9: as many to each problem"
  assert says in capsys.readouterr().err
  fill(tmp_path, 1, 10, contexts=["start"])
  found = fill(tmp_path, 3, 3, contexts=["document"])
  assert contents(tmp_path) == contents(whole.path.parent)
  same(found, whole)
  assert len(contents(tmp_path)) == 3, "three files, and no parts, in a whole store"


def test_what_is_there_is_not_drawn_again(fill, copy, monkeypatch):
  monkeypatch.setattr(collect, "collect", lambda *_, **__: pytest.fail("it draws"))
  before = contents(copy)
  fill(copy, 7, 3, contexts=["start"])
  assert contents(copy) == before


def test_scoring_is_told_as_it_goes(fill, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(progress, "EVERY", 0.0)
  fill(tmp_path, 4, 2, contexts=ALL)
  lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("score ")]
  assert lines and lines[0].endswith(f"/{4 * 2 * len(ALL)}"), "a silent wait"


def test_a_call_that_broke_off_goes_on_at_its_chunk(fill, whole, tmp_path):
  calls = []

  def breaks(params, asked, told):
    calls.append(len(asked))
    if len(calls) == 3:
      raise KeyboardInterrupt
    return LIKELIHOOD(params, asked, told)

  with pytest.raises(KeyboardInterrupt):
    fill(tmp_path, 12, 10, contexts=ALL, score=breaks)
  assert len(list(tmp_path.glob("*.parts/*.jsonl"))) == 2
  with pytest.raises(config.Error, match=r"not finished.* run the same pxy eval"):
    store.read(tmp_path)
  calls.clear()

  def counted(*args):
    calls.append(args)
    return LIKELIHOOD(*args)

  fill(tmp_path, 12, 10, contexts=ALL, score=counted)
  assert len(calls) == 2, "two chunks of four were there"
  assert contents(tmp_path) == contents(whole.path.parent)


def test_after_a_large_call_broke_off_a_small_one_draws_no_more(fill, tmp_path):
  def breaks(params, asked, told):
    if list(tmp_path.glob("*.parts/*.jsonl")):
      raise KeyboardInterrupt
    return LIKELIHOOD(params, asked, told)

  with pytest.raises(KeyboardInterrupt):
    fill(tmp_path, 12, 10, score=breaks)
  found = fill(tmp_path, 2, 4, score=lambda *_: pytest.fail("it scores"))
  assert found.score_PR.shape == store.read(tmp_path)[0].score_PR.shape == (2, 4)
  kept = [len(p.read_text().splitlines()) for p in tmp_path.glob("*.parts/*.jsonl")]
  assert kept == [3 * 10 - 2 * 4], "what was drawn stays for a larger call"


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path):
  command = [
    *(sys.executable, "-m", "pxy", "eval", "builtin:tiny", "--task", "arithmetic/add3"),
    *"--problems 24 --samples 4 --slots 8 --max-new-tokens 24".split(),
    *"--contexts start,other --save".split(),
  ]
  env = os.environ | {"PYTHONPATH": str(ROOT)}
  folder, once = tmp_path / "killed", tmp_path / "once"
  for parts in (1, 2):  # twice, at another place each time
    child = subprocess.Popen([*command, folder], env=env, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while len(list(folder.glob("*.parts/0*.jsonl"))) < parts:
      assert child.poll() is None and time.monotonic() < limit, "it ended too early"
      time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(config.Error, match="not finished"):
      store.read(folder)
  for where in (folder, once):
    subprocess.run(
      [*command, where], env=env, check=True, capture_output=True, timeout=300
    )
  assert contents(folder) == contents(once)


WAITS = """
import sys
from pxy.evaluate import store
with store.Writer(sys.argv[1], sys.argv[2], {}) as writer:
  print(sorted(writer.folder.glob("*.parts")))
  writer.begin("m", None, [])
"""


def test_a_second_process_waits_for_the_first(tmp_path):
  with store.Writer(tmp_path, "s", {}):
    second = subprocess.Popen(
      [sys.executable, "-c", WAITS, tmp_path, "s"], stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = next(line for line in second.stderr if "another process" in line)
    assert said.endswith("works on these samples; waiting for it\n")
    assert second.poll() is None
  out, _ = second.communicate(timeout=120)
  assert second.returncode == 0 and "s.parts" in out, "the folder was not made anew"


# What is in it.


def test_read_gives_what_was_drawn(whole, policy):
  (found,) = store.read(whole.path.parent)
  same(found, whole)
  same(store.read(whole.path)[0], whole)
  assert found.score_PR.shape == (12, 10) and found.problems[3]["band"] == "mid"
  assert [p["place"] for p in found.problems] == list(range(12))
  assert found.about["of"]["seed"] == 5 and found.about["contexts"] == ALL
  length_PR = np.array([[len(ids) for ids in group] for group in found.ids])
  np.testing.assert_array_equal(found.length_PR, length_PR)
  np.testing.assert_array_equal(found.truncated_PR & (length_PR != 12), False)
  assert found.texts[2][1] == policy.tokenizer.decode(found.ids[2][1].tolist())
  assert np.isnan(found.verified_PR).all(), "this grader tells no `verified`"
  part = found.first(2, 3)
  assert part.logp["start"].shape == (2, 3) and len(part.texts[1]) == 3


def test_order_and_duplicates_of_rows_do_not_matter(whole, copy):
  for path in copy.glob("*.jsonl"):
    lines = path.read_text().splitlines()
    lines += lines[:7]
    random.Random(0).shuffle(lines)
    path.write_text("\n".join(lines) + "\n\n")
  same(store.read(copy)[0], whole)


def test_log_probs_are_the_models(whole, policy):
  """Against a forward pass of one sequence, and a softmax over all its logits."""

  @jax.jit
  def logp(params, tokens_1T, length):
    positions_1T = np.arange(tokens_1T.shape[1], dtype=np.int32)[None]
    segments_1T = (positions_1T < length).astype(np.int32)
    hidden_1TD = decoder.forward(ARCH, params, tokens_1T, positions_1T, segments_1T)
    return jax.nn.log_softmax(hidden_1TD[0] @ decoder.head(ARCH, params))

  fixed = likelihood_lib.fixed(policy.tokenizer, ALL)
  by_id = {p["problem"]: p["prompt"] for p in whole.problems}
  for p, r in ((0, 0), (3, 9), (11, 4)):
    problem, response = whole.problems[p], whole.ids[p][r].tolist()
    for name in ALL:
      text = problem["prompt"] if name == "prompt" else by_id[problem["other"]]
      before = fixed.get(name) or policy.tokenizer.encode(text)
      sequence = before + response[:-1]
      tokens_1T = np.zeros((1, 64), np.int32)
      tokens_1T[0, : len(sequence)] = sequence
      logp_TV = np.asarray(logp(policy.params, tokens_1T, len(sequence)))
      logp_TV = logp_TV[len(before) - 1 : len(sequence)]
      want = logp_TV[np.arange(len(response)), response].sum()
      assert whole.logp[name][p, r] == pytest.approx(want, abs=1e-3), (name, p, r)
      if name == "prompt":
        entropy = -(np.exp(logp_TV) * logp_TV).sum()
        assert whole.entropy_PR[p, r] == pytest.approx(entropy, abs=1e-3)


def test_long_responses_beside_it_change_no_bit_of_one():
  """The head may not leave out places here: how many others count would tell."""
  rng = np.random.default_rng(0)
  score, params = likelihood_lib.Likelihood(worlds.ARCH), worlds.params()

  def response(tokens):
    return rng.integers(0, worlds.ARCH.vocab_size, tokens)

  context = [3, 1, 4, 1, 5]
  beside = [(context, r, response(24)) for r in range(8) if r != 3]
  for n in range(24):
    asked = (context, 3, response(24 - n % 3))
    assert score(params, [asked, *beside])[0] == score(params, [asked])[0], (
      f"response {n} beside seven of 24 tokens, and by itself"
    )


def test_a_log_prob_does_not_depend_on_what_is_scored_with_it(policy):
  rng = np.random.default_rng(0)
  asked = [
    (rng.integers(0, 250, n % 3 + 1), n, rng.integers(0, 250, n % 40 + 1))
    for n in range(60)
  ]
  told = []
  together = LIKELIHOOD(policy.params, asked, told.append)
  assert told == sorted(set(told)) and told[-1] == 60, "how many are done, as it goes"
  for n in (0, 7, 30, 59):
    assert LIKELIHOOD(policy.params, asked[n : n + 1]) == together[n : n + 1]
  same_place = [([7], 3, response) for _, _, response in asked[8:16]]
  together = LIKELIHOOD(policy.params, same_place)
  for n, one in enumerate(same_place):
    assert LIKELIHOOD(policy.params, [one]) == together[n : n + 1]


def test_the_other_prompt_is_another_question():
  def prompts(n, groups):
    return [
      prompts_lib.Prompt(
        ids=np.array([i], np.int32), text=str(i), answer="", task="t", uid=i,
        columns={"group": i // groups} if groups else {},
      )
      for i in range(n)
    ]  # fmt: skip

  for n in (2, 3, 5, 12, 60):
    asked = prompts(n, 0)
    other = [found.uid for found in samples.others(asked)]
    assert sorted(other) == list(range(n)), "each prompt is used once"
    assert all(i != j for i, j in enumerate(other))
  for n in (12, 24):  # variants of a question stand side by side
    found = samples.others(prompts(n, 6))
    assert all(i // 6 != p.uid // 6 for i, p in enumerate(found))
  assert samples.others(prompts(1, 0)) == [None]
  assert samples.others(prompts(6, 6)) == [None] * 6


def test_names_of_problems_are_of_the_problem_alone(fill, tmp_path):
  def prompt(text, uid, task="t"):
    return prompts_lib.Prompt(np.array([1]), text, "3", task, uid, {})

  a, b = prompt("a", 0), prompt("b", 1)
  assert store.ids([a, b]) == store.ids([b, a])[::-1]
  assert store.ids([a, b])[0] == store.ids([prompt("a", 9)])[0]
  twice = store.ids([a, b, a])
  assert twice[2] == f"{twice[0]}-2" and len(set(twice)) == 3
  assert store.ids([a]) != store.ids([prompt("a", 0, "u")])


def test_columns_come_back_as_they_were():
  columns = {"prompt": [{"role": "user", "content": "x"}], "answer": "3", "check": 1}
  columns |= {"hops": 2, "x": (1, np.float32(2.5)), "columns": {"a": None}}
  prompt = prompts_lib.Prompt(np.array([1]), "x", "3", "t", 7, columns)
  row = store.problem(prompt, 0, "p", None)
  assert (row["prompt"], row["hops"], row["x"]) == ("x", 2, [1, 2.5])
  item = store.item(json.loads(json.dumps(row)), {"text": "y", "ids": [1]})
  wanted = {k: v for k, v in columns.items() if k != "answer"} | {"x": [1, 2.5]}
  assert item.columns == wanted and item.answer == "3" and item.prompt == "x"


def test_the_page_reads_a_store_as_it_says(whole, monkeypatch, tmp_path, capsys):
  page = (ROOT / "docs/samples.md").read_text(encoding="utf-8")
  (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  shutil.copytree(whole.path.parent, tmp_path / "samples")
  monkeypatch.chdir(tmp_path)
  exec(compile(code, "docs/samples.md", "exec"), {})
  assert capsys.readouterr().out.startswith(whole.path.name)
  own = [*json.loads(whole.path.read_text().splitlines()[0]), *whole.problems[0]]
  own += [*whole.about, *ALL]
  lacks = [name for name in own if f"`{name}`" not in page]
  assert set(lacks) <= {"band", "format", "pxy"}, f"docs/samples.md: say {lacks}"


# What does not belong.


def damage(kind, folder, path):
  """Does that to a store; the file that is to be named."""
  lines = path.read_text().splitlines()
  about = path.with_suffix(".json")
  problems = path.with_suffix(".problems.jsonl")
  row = json.loads(lines[4])
  if kind == "half a line":
    path.write_text("\n".join(lines)[:-40])
  elif kind == "edited":
    path.write_text("\n".join([*lines[:4], json.dumps(row | {"score": 1.0})]))
  elif kind == "no row of ours":
    path.write_text('{"response": "x"}\n')
  elif kind == "another seed's":
    of = json.loads(about.read_text())["of"] | {"seed": 6}
    path.write_text(store._line(store.digest(of), row))
  elif kind == "valid nonsense":
    key = store.digest(json.loads(about.read_text())["of"])
    path.write_text(store._line(key, row | {"ids": "x", "r": -1}))
  elif kind == "a row lacks":
    path.write_text("\n".join(lines[:4] + lines[5:]))
  elif kind == "a huge number":
    path = about
    path.write_text(path.read_text().replace('"samples": 10', '"samples": 1e99'))
  elif kind == "another rule":
    path = about
    path.write_text(path.read_text().replace('"temperature": 1.0', '"temperature": 2'))
  elif kind == "no about":
    path = about
    path.unlink()
  elif kind == "half about":
    path = about
    path.write_text(path.read_text()[:50])
  elif kind == "nested":
    path.write_text("[" * 100_000)
  elif kind == "problem edited":
    path = problems
    path.write_text(path.read_text().replace('"answer":"3"', '"answer":"4"'))
  return path


READING = {
  "half a line": "remove the line",
  "edited": "line 5: edited, or of another model",
  "no row of ours": "no row of stored samples",
  "another seed's": "of another model, task, rule or seed",
  "valid nonsense": "edited",
  "a row lacks": "not finished, 119 of 12 x 10",
  "a huge number": "bring it back",
  "another rule": "edited, or of another store",
  "no about": "missing; bring it back",
  "half about": "not readable",
  "nested": "remove the line",
  "problem edited": "edited",
}


@pytest.mark.parametrize("kind", READING)
def test_damage_is_one_line_that_names_the_file(kind, whole, copy):
  path = damage(kind, copy, copy / whole.path.name)
  with pytest.raises(config.Error) as error:
    store.read(copy)
  said = str(error.value)
  assert str(path) in said and READING[kind] in said and "\n" not in said, said
  assert len(said) < 400


@pytest.mark.parametrize("kind", READING)
def test_asking_again_mends_what_lacks_and_refuses_the_rest(kind, fill, whole, copy):
  damage(kind, copy, copy / whole.path.name)
  if kind in ("a row lacks", "no about"):
    fill(copy, 12, 10, contexts=ALL)
    assert contents(copy) == contents(whole.path.parent)
    return
  with pytest.raises(config.Error) as error:
    fill(copy, 12, 10, contexts=ALL)
  assert str(copy) in str(error.value), error.value


@pytest.mark.parametrize(
  "change",
  [
    {"ids": []}, {"ids": [2**31]}, {"ids": [True]}, {"ids": "12"}, {"ids": None},
    {"r": -1}, {"r": 2.0}, {"score": 10**400}, {"score": "1"}, {"metrics": [1]},
    {"metrics": {"answer": "1"}}, {"logp": {"prompt": [1]}}, {"logp": 3}, {"text": 7},
    {"stop": "end"}, {"problem": {}}, {"extracted": 5},
  ],
)  # fmt: skip
def test_a_row_with_a_right_check_is_still_looked_at(change, whole, copy):
  path = copy / whole.path.name
  lines = path.read_text().splitlines()
  lines[4] = store._line(store.digest(whole.about["of"]), json.loads(lines[4]) | change)
  path.write_text("\n".join(lines))
  with pytest.raises(config.Error, match="line 5: edited"):
    store.read(copy)


def test_samples_of_a_task_that_changed_are_not_extended(fill, copy):
  try:
    with pytest.raises(config.Error, match=r"problems\.jsonl: problem 0 of the task"):
      fill(copy, 12, 11, rows=[ROWS[0] | {"answer": "8"}, *ROWS[1:]])
  finally:
    fill(copy, 1, 1, rows=ROWS)


def test_an_empty_folder_and_one_without_samples(tmp_path):
  with pytest.raises(config.Error, match="no stored samples; make some with"):
    store.read(tmp_path)
  with pytest.raises(config.Error, match="no such file or folder"):
    store.read(tmp_path / "x")


def test_a_context_that_is_none(fill, tmp_path):
  assert likelihood_lib.names("other, start") == ["prompt", "start", "other"]
  for asked, says in (("none", "`start` has"), ("starts", "there are start, document")):
    with pytest.raises(config.Error, match=says):
      likelihood_lib.names(asked)
  try:
    with pytest.raises(config.Error, match="no other prompt"):
      fill(tmp_path, 1, 1, contexts=["other"], rows=ROWS[:1])
  finally:
    fill(tmp_path / "b", 1, 1, rows=ROWS)


def test_names_of_stores(whole):
  of = whole.about["of"]
  assert whole.path.name.startswith("small.") and ".test.t1.seed5." in whole.path.name
  name = store.name("runs/s 1/", 60, of | {"task": "../x/*.jsonl"})
  assert name.startswith("s-1@60.") and not set(name) & set("/ *")
  other = [of | {"weights": "x"}, of | {"sampling": of["sampling"] | {"top_k": 3}}]
  assert len({store.name("m", 1, x) for x in [of, *other]}) == 3


# Graders.


def test_pxy_score_grades_a_store_again(whole, copy, capsys, monkeypatch):
  monkeypatch.chdir(copy)
  pathlib.Path("mine.py").write_text(
    "def f(completions, completion_ids, answer, group, **_):\n"
    "  assert len(completions) > 1, 'all responses to a problem at once'\n"
    "  return [len(ids) + int(a) + 100 * (g == 'g3')\n"
    "          for ids, a, g in zip(completion_ids, answer, group)]\n"
  )
  cli.main(["score", str(copy / whole.path.name), "--task", "mine.py:f"])
  found = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
  want = [
    len(ids) + int(problem["answer"]) + 100 * (problem["group"] == "g3")
    for problem, group in zip(whole.problems, whole.ids, strict=True)
    for ids in group
  ]
  assert found == want
  cli.main(["score", str(copy / whole.path.name), "--task", "boxed"])
  found = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
  assert found == whole.score_PR.ravel().tolist(), "the grades that are stored"
  damage("edited", copy, copy / whole.path.name)
  with pytest.raises(SystemExit), contextlib.redirect_stdout(None):
    cli.main(["score", str(copy / whole.path.name)])
  assert "line 5: edited" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("grader", "task", "response", "said"),
  [
    ("auto", "arithmetic/add3", r"7 \boxed{ 012 }", "12"),
    ("auto", "arithmetic/add3", r"12 + 3 = \boxed{", None),
    ("auto", "gsm8k", "so #### 1,024", "1,024"),
    ("auto", "world/chains", "code of a1 b2 is c1 d2 . answer c1 d2", "c1 d2"),
    ("abstain", "x", "answer unknown", "unknown"),
    ("auto", "world/chains", "code of a1 b2 is c1 d2 .", None),
    ("math", "x", r"<think>\boxed{1}</think> it is $\frac12$", r"\frac12"),
    ("auto", "whatever", r"<think>\boxed{1}</think> \boxed{x  +1}", "x +1"),
    ("gym", "gym:chain_sum", "<answer>5</answer>", "5"),
    ("short", "x", "It is **Paris**.", "it is paris"),
    ("choice", "x", "(b) Rome", None),
    ("choice", "x", "(b)", "B"),
    ("mine.py:f", "x", r"\boxed{5}", None),
  ],
)
def test_an_answer_is_what_its_grader_reads(grader, task, response, said):
  outcome = tasks.scored(0.0)
  assert given.of(grader, task, response, "7", outcome) == said
  assert given.known(grader, task) == (grader != "mine.py:f")
  told = dataclasses.replace(outcome, answer="told")
  assert given.of(grader, task, response, "7", told) == "told"


@pytest.mark.parametrize("told", [False, True])
def test_no_vote_where_a_grader_knows_no_answers(told, policy, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  value = '{"score": 1, "pred": solution_str[:1]}' if told else "1"
  pathlib.Path("mine.py").write_text(
    f"def f(data_source, solution_str, ground_truth, extra_info):\n  return {value}\n"
  )
  prompts = [
    prompts_lib.Prompt(np.array([65 + i], np.int32), "A", "", "t", i, {})
    for i in range(2)
  ]
  sampling = config.Sampling(max_new_tokens=12, slots=8)
  sampler = engine.Engine(
    ARCH, sampling=sampling, stop_ids=policy.tokenizer.stop_ids, max_prompt_tokens=48
  )
  with pool.Pool(config.Reward(workers=1), "mine.py:f") as mine, sampler:
    drawer = collect.Collector(sampler, mine, policy.tokenizer)
    found = evaluate.evaluate(drawer, policy.params, prompts, 4, seed=0)
  assert found.scores["avg@4"][0] == 1
  assert ("maj@4" in found.scores) == told, "what is undefined is absent, and no 0.0"
  if told:
    answers = [a.outcome.answer for a in found.graded.flat]
    assert answers == [a.text[:1] for a in found.graded.flat]
    assert found.scores["maj@4"][0] == 1


# The command.


def test_eval_of_several_models_and_tasks(tmp_path, capsys):
  copy = tmp_path / "copy"
  shutil.copytree(load.place("builtin:tiny"), copy)
  levels = ["arithmetic/add3", "arithmetic/add2"]
  limits = "--problems 3 --samples 2 --max-new-tokens 8 --slots 8 --json".split()

  def run(*argv):
    path = tmp_path / "found.json"
    cli.main(["eval", *map(str, argv), *limits, str(path)])
    return json.loads(path.read_text())

  both = [word for level in levels for word in ("--task", level)]
  found = run("builtin:tiny", copy, *both, "--save", tmp_path / "s")
  capsys.readouterr()
  assert [(x["model"], x["task"]) for x in found] == [
    (model, level) for model in ("builtin:tiny", str(copy)) for level in levels
  ]
  stores = {str(s.path): s for s in store.read(tmp_path / "s")}
  assert len(stores) == 4, "a store each"
  for x in found:
    scores = evaluate.of_stored(stores[x["saved"]], "auto")
    assert x["scores"]["length/mean"]["value"] == scores["length/mean"][0]
    assert (x["problems"], x["samples"]) == (3, 2)
  assert found[0]["scores"] == found[2]["scores"], "the same weights, the same draws"
  alone = run("builtin:tiny", "--task", levels[0])
  assert alone["scores"] == found[0]["scores"], "not saved, the same numbers"
  assert list(alone) == "model task split problems samples scores".split()


def rollouts(folder, policy, **data):
  """The groups that a run would train on."""
  own = config.Data(rollouts=str(folder), prompts=4, responses=4, **data)
  sampling = config.Sampling(max_new_tokens=12)
  cfg = config.Train(data=own, sampling=sampling)
  return stored.load(cfg, policy.tokenizer, policy.arch.vocab_size)


def test_a_store_is_trained_on_as_it_was_drawn(whole, policy):
  found = rollouts(whole.path, policy)
  assert len(found.groups) == 12 * 2 and "24 responses over" in found.told
  assert not found.ungraded and {
    len(responses.files(str(path))) for path in (whole.path, whole.path.parent)
  } == {3}
  graded = collect.Graded(found.groups)
  for p, r in ((0, 3), (11, 7)):
    answer = graded.answers[2 * p + r // 4][r % 4]
    assert answer.sample.ids.tolist() == whole.ids[p][r].tolist()
    assert answer.text == whole.texts[p][r]
    np.testing.assert_equal(answer.outcome.score, whole.score_PR[p, r])
    assert answer.sample.total == whole.logp["prompt"][p, r]
    digest = store.digest(answer.prompt.ids.tolist())
    assert digest == whole.problems[p]["digest"]
  assert graded.truncated_PR.reshape(-1)[:4].tolist() == (
    whole.truncated_PR[0, :4].tolist()
  )


def test_a_store_of_another_tokenizer_is_not_trained_on(whole, policy):
  class Other(type(policy.tokenizer)):
    def _encode(self, text):
      return [i ^ 1 for i in super()._encode(text)]

  other = dataclasses.replace(policy, tokenizer=Other())
  with pytest.raises(config.Error, match=r"prompt of problem 0 is of other ids"):
    rollouts(whole.path.parent, other)
