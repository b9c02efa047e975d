"""Sources by name: reasoning-gym, TFDS builders, and mixtures of sources by weight."""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pxy import config
from pxy.commands import data as check
from pxy.data import builders, gym, prompts, sources
from pxy.rewards import gym as gym_lib
from pxy.rewards import pool, tasks
from pxy.text import tokenizer as tokenizer_lib

TOK = tokenizer_lib.Bytes()
CHAIN = "gym:chain_sum?size=120,min_terms=2,max_terms=3"


class PxyTinyQa(tfds.core.GeneratorBasedBuilder):
  """Ten questions, under names that rows.py does not know."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    text = tfds.features.Text()
    features = {"problem": text, "gold": text, "n": np.int64, "blob": np.uint8}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(8), "test": self._generate_examples(2)}

  def _generate_examples(self, n):
    for i in range(n):
      yield i, {"problem": f"{n}, {i}?", "gold": f"so\n#### {i}", "n": i, "blob": 1}


def load(task, split="train", seed=0, **data):
  data = {"template": "plain", "max_prompt_tokens": 999, **data}
  return prompts.load(config.Data(task=task, **data), TOK, split, seed)


# --- reasoning-gym


@pytest.fixture(scope="module")
def graders():
  with pool.Pool(config.Reward(workers=1), "auto") as p:
    yield p


def test_a_gym_task_has_disjoint_splits_that_are_a_function_of_its_name():
  train, test = load(CHAIN), load(CHAIN, "test")
  assert {p.text for p in train.prompts}.isdisjoint(p.text for p in test.prompts)
  assert len(train) > 60 and len(test) > 3 and train.split == "train"
  gym._all.cache_clear()
  assert [p.text for p in load(CHAIN).prompts] == [p.text for p in train.prompts]
  other = load(CHAIN + ",seed=7")
  assert {p.text for p in other.prompts} != {p.text for p in train.prompts}
  with pytest.raises(config.Error, match="split 'dev' is none of train, validation"):
    load(CHAIN, "dev")


@pytest.mark.parametrize(
  ("response", "score"),
  [
    (r"so \boxed{ANSWER}", 1),
    ("so <answer> ANSWER </answer>", 1),
    ("the sum is ANSWER.", 1),
    (r"\boxed{ANSWER} no, \boxed{x}", 0),
    ("<answer>ANSWER</answer> and <answer>x</answer>", 0),
    ("", 0),
    ("no number", 0),
  ],
)
def test_gym_answers_are_scored_by_the_task_in_the_pool(graders, response, score):
  prompt = load(CHAIN).first(1)[0]
  text = response.replace("ANSWER", prompt.answer)
  item = pool.Item(text, prompt.answer, "", prompt.task, columns=prompt.columns)
  outcome = graders.submit(item).result(60)
  assert (outcome.status, outcome.score) == ("scored", score), outcome


@pytest.mark.filterwarnings("ignore")  # some tasks leave their files open
def test_every_gym_task_gives_its_own_answer_full_marks():
  """Through JSON, as an entry travels to the worker."""
  import reasoning_gym

  slow = {"composite", "knight_swap", "intermediate_integration", "zebra_puzzles"}
  wrong = []
  for name in sorted(set(reasoning_gym.factory.DATASETS) - slow):
    for _, row in gym._all(f"gym:{name}?size=1"):
      columns = json.loads(json.dumps(row.columns, default=str))
      item = tasks.Item(
        f"<answer>{row.answer}</answer>", row.answer, task=row.task, columns=columns
      )
      if row.answer and gym_lib.grade(item).score != 1:
        wrong.append(name)
  assert not wrong, f"the right answer gets no full marks: {wrong}"


def test_a_hostile_answer_to_a_gym_task_costs_its_deadline_and_itself():
  rows = {}
  for name in ("chain_sum", "countdown", "simple_equations", "polynomial_equations"):
    _, rows[name] = gym._all(f"gym:{name}?size=1")[0]
  hostile = ["9**9**9", "__import__('os')._exit(0)", "(" * 9000, "1/0", "9" * 9000]
  with pool.Pool(config.Reward(workers=2, deadline=1.5), "auto") as p:
    for row in rows.values():

      def item(text, row=row):
        return pool.Item(text, row.answer, "", row.task, columns=row.columns)

      futures = [p.submit(item(f"<answer>{text}</answer>")) for text in hostile]
      good = p.submit(item(f"<answer>{row.answer}</answer>"))
      for future in futures:
        outcome = future.result(30)
        assert outcome.status == "failed" or outcome.score < 0.5, (row.task, outcome)
      assert good.result(30).score == 1
    assert p.replaced == 0


@pytest.mark.parametrize(
  ("task", "says"),
  [
    ("gym:chain_som", "no task 'chain_som'; is it chain_sum"),
    ("gym:chain_sum?terms=2", "'terms' is no option of chain_sum; there are min_terms"),
    ("gym:chain_sum?min_terms", "'min_terms' is no option"),
    ("gym:chain_sum?min_terms=2.5", "min_terms: expected int, found 2.5"),
    ("gym:chain_sum?min_terms=true", "min_terms: expected int, found True"),
    ("gym:chain_sum?min_terms=5,max_terms=2", "gym:chain_sum: it refuses"),
    ("gym:chain_sum?allow_negation=1", "allow_negation: expected bool, found 1"),
    ("gym:basic_arithmetic?operators=+", "operators: expected a list"),
  ],
)
def test_gym_names_and_options_are_checked(task, says):
  with pytest.raises(config.Error) as caught:
    load(task)
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_gym_options_may_be_lists():
  _, options = gym_lib.parse('gym:basic_arithmetic?operators=["+","-"],min_digits=2')
  assert options == {"operators": ["+", "-"], "min_digits": 2}


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "reasoning_gym", None)
  with pytest.raises(config.Error, match=r"pip install reasoning-gym"):
    load("gym:chain_sum?size=9")


# --- TFDS


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tfds")
  return f"tfds:pxy_tiny_qa?prompt=problem,answer=gold,data_dir={folder}"


def test_a_builder_is_made_and_read_by_name(tiny):
  source = load(tiny)
  assert len(source) == 8 and len(load(tiny, "test")) == 2
  by_text = {p.text: p for p in source.prompts}
  assert by_text["8, 3?"].answer == "3" and source.split == "train"
  assert by_text["8, 3?"].columns["n"] == 3
  assert source.prompts[0].task == "tfds:pxy_tiny_qa"
  assert check.check(tiny).splits == {"train": 8, "test": 2}


def test_files_are_read_without_the_builder_and_without_tensorflow(tiny):
  load(tiny)
  code = (
    "import sys\nfrom pxy.data import builders\n"
    f"print(len(builders.read({tiny!r}, 'train', True)), 'tensorflow' in sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.stdout.strip() == "8 False", done


def test_gsm8k_is_known_by_name():
  builders._register("gsm8k")
  assert "question" in tfds.builder("gsm8k", try_gcs=False).info.features


@pytest.mark.parametrize(
  ("change", "says"),
  [
    (("problem,", "problems,"), "train example 0: no feature 'problems' for prompt"),
    (("prompt=problem,", ""), "train example 0: field 'prompt': expected it"),
    (("prompt=", "question="), "'question=problem' is no option; write prompt=FEATURE"),
    (("pxy_tiny_qa", "pxy_no_qa"), "no such builder"),
    (("pxy_tiny_qa", "pxy_tiny_qa:9.9.9"), "pxy_tiny_qa:9.9.9"),
    (("pxy_tiny_qa", "../etc"), "expected tfds:NAME"),
  ],
)
def test_what_is_wrong_with_a_builder_is_one_line(tiny, change, says):
  load(tiny)
  with pytest.raises(config.Error) as caught:
    load(tiny.replace(*change))
  assert says in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(config.Error, match="no split 'dev'; there are train, test"):
    load(tiny, "dev")


# --- mixtures


def plain(tmp_path, name, n, split=None):
  path = tmp_path / f"{name}.jsonl"
  row = {"split": split} if split else {}
  lines = [
    json.dumps({"prompt": f"{name} {i}", "answer": str(i), **row}) for i in range(n)
  ]
  path.write_text("\n".join(lines))
  return str(path)


def test_a_mixture_has_its_sources_in_proportion_at_every_place(tmp_path):
  a, b = plain(tmp_path, "a", 10), plain(tmp_path, "b", 7)
  source = load(f"0.7 * {a} + 0.3 * {b}")
  for step in (0, 5, 10**6):
    counts = collections.Counter(p.task for p in source.batch(step, 100))
    assert abs(counts["a"] - 70) <= 1 and counts["a"] + counts["b"] == 100
  assert len(source) == 17 and len({p.uid for p in source.prompts}) == 17
  drawn = [p.text for step in range(10) for p in source.batch(step, 10)]
  epoch = [text for text in drawn if text.startswith("a")][:10]
  assert len(set(epoch)) == 10, "each source has epochs of its own"


def test_batches_of_a_mixture_are_a_function_of_seed_and_step(tmp_path):
  task = f"2 * {plain(tmp_path, 'a', 9)} + 1 * {plain(tmp_path, 'b', 9)}"
  one, two = load(task), load(task)
  forward = [[p.uid for p in one.batch(step, 4)] for step in range(12)]
  backward = [[p.uid for p in two.batch(step, 4)] for step in reversed(range(12))]
  assert forward == backward[::-1]
  assert [p.uid for p in load(task, seed=1).batch(0, 12)] != [
    u for b in forward[:3] for u in b
  ]


def test_an_evaluation_of_a_mixture_has_the_first_of_each(tmp_path):
  task = f"1 * {plain(tmp_path, 'a', 9)} + 1 * {plain(tmp_path, 'b', 3)}"
  first = [p.text for p in load(task).first(6)]
  assert sorted(first) == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"]
  assert len(load(task).first(99)) == 6, "until one has no more"


def test_a_mixture_of_kinds_has_the_split_of_each_and_their_graders():
  source = load(f"0.5 * {CHAIN} + 0.5 * arithmetic/add1", "test")
  assert source.split == "test"
  found = source.batch(0, 8)
  assert {p.task for p in found} == {CHAIN, "arithmetic/add1"}
  with pool.Pool(config.Reward(workers=1), "auto") as p:
    futures = [
      p.submit(
        pool.Item(f"\\boxed{{{x.answer}}}", x.answer, x.text, x.task, None, x.columns)
      ) for x in found
    ]  # fmt: skip
    assert [f.result(60).score for f in futures] == [1.0] * 8


@pytest.mark.parametrize(
  "task", ["0.7 * a.jsonl + b.jsonl", "0 * a.jsonl", "-1 * a.jsonl + 1 * b.jsonl",
           "1e999 * a.jsonl", "1.2.3 * a.jsonl"]
)  # fmt: skip
def test_weights_are_numbers_above_zero(task):
  with pytest.raises(config.Error, match=r"no weight above 0; write a mixture as"):
    sources.parts(task)


def test_a_task_without_weights_is_one_source():
  assert sources.parts("runs/a + b.jsonl") == [(1.0, "runs/a + b.jsonl")]
  assert sources.parts("1 * a.jsonl") == [(1.0, "a.jsonl")]


def test_the_source_that_fails_is_named(tmp_path):
  a = plain(tmp_path, "a", 3)
  with pytest.raises(config.Error, match=r"none\.jsonl: no such file"):
    load(f"1 * {a} + 1 * none.jsonl")
  with pytest.raises(config.Error, match=r"a\.jsonl: all 3 prompts are longer"):
    load(f"1 * {a} + 1 * {CHAIN}", max_prompt_tokens=2)
