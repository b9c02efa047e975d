"""Five wordings of any task's questions: the answer, the grader and the split stay."""

import json

import pytest

from pxy import config
from pxy.commands import data as check
from pxy.data import prompts, rows, sources, thresholds, variants
from pxy.rewards import tasks
from pxy.text import tokenizer as tokenizer_lib

TOK = tokenizer_lib.Bytes()
GYM = "gym:chain_sum?size=40,min_terms=2,max_terms=3"


def load(task, split="test", **data):
  data = {"template": "plain", "max_prompt_tokens": 999, **data}
  return prompts.load(config.Data(task=task, **data), TOK, split)


def test_each_question_comes_in_each_wording_with_its_answer():
  plain = {p.uid: p for p in load(GYM, "train").prompts[:8]}
  found = load(f"variants:{GYM}", "train").prompts[: 5 * len(plain)]
  assert [p.columns["variant"] for p in found] == list(variants.VARIANTS) * len(plain)
  for p in found:
    mine = plain[p.uid // len(variants.VARIANTS)]
    assert mine.text in p.text and (p.text == mine.text) == (
      p.columns["variant"] == "plain"
    )
    assert (p.answer, p.task) == (mine.answer, mine.task)
    kept = {k: v for k, v in mine.columns.items() if k not in ("group", "variant")}
    assert kept.items() <= p.columns.items()
  groups = [p.columns["group"] for p in found]
  assert len(set(groups)) == len(plain) and groups[0] == groups[4] != groups[5]
  assert len({p.text for p in found}) == len(found)


def test_an_irrelevant_number_or_sentence_is_a_function_of_the_question():
  first, second = (load(f"variants:{GYM}", "train").prompts for _ in range(2))
  assert [p.text for p in first] == [p.text for p in second]
  said = {p.text.partition("\n")[0] for p in first if p.columns["variant"] == "number"}
  assert len(said) > 2, "every question has the same number"
  assert all(any(c.isdigit() for c in text) for text in said)
  said = {
    p.text.partition("\n")[0] for p in first if p.columns["variant"] == "distractor"
  }
  assert not any(c.isdigit() for text in said for c in text)


def test_a_gym_task_grades_its_variants():
  for p in load(f"variants:{GYM}").prompts[:5]:
    item = tasks.Item(f"<answer>{p.answer}</answer>", p.answer, p.text, p.task)
    item.columns.update(p.columns)
    assert tasks.resolve("auto", p.task)(item).score == 1


def test_each_question_comes_at_each_price_of_a_wrong_answer():
  plain = load(GYM, "train").prompts[:4]
  found = load(f"thresholds:{GYM}", "train").prompts[: 3 * len(plain)]
  assert [p.columns["threshold"] for p in found] == [0.5, 0.75, 0.9] * len(plain)
  prices = ("1 point, a wrong one takes away 1,", "away 3,", "away 9,")
  for i, p in enumerate(found):
    mine = plain[i // 3]
    assert p.uid == 3 * mine.uid + i % 3, "samples are keyed by it"
    assert p.text.endswith(f"\n\n{mine.text}") and prices[i % 3] in p.text
    assert (p.answer, p.task) == (mine.answer, mine.task)
    own = {"group": p.columns["group"], "threshold": thresholds.LEVELS[i % 3]}
    assert p.columns == own | mine.columns
    assert p.columns["group"] == found[3 * (i // 3)].columns["group"]
  assert len({p.columns["group"] for p in found}) == len(plain)
  assert check.check(f"thresholds:{GYM}").rows == 3 * check.check(GYM).rows


def test_a_file_s_rows_and_their_group(tmp_path):
  path = tmp_path / "rows.jsonl"
  lines = [
    {"prompt": "1 + 2?", "answer": "3", "group": "sum", "split": "test"},
    {"prompt": [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": "2 + 2?"}], "answer": 4, "split": "train"},
  ]  # fmt: skip
  path.write_text("".join(json.dumps(row) + "\n" for row in lines))
  found = load(f"variants:{path}").prompts
  groups = {p.columns["group"] for p in found}
  assert len(groups) == 1 and groups.pop().startswith("sum "), "its own, and the text's"
  found = load(f"variants:{path}", "train").prompts
  assert all(p.text.startswith("Be brief.\n\n") for p in found), "the system message"
  summary = check.check(f"variants:{path}")
  assert summary.rows == 10 and not summary.problems
  mixed = load(f"0.5 * variants:{path} + 0.5 * {GYM}")
  assert ["variant" in p.columns for p in mixed.first(2)] == [True, False]


def test_variants_of_rows_that_are_variants_have_a_group_for_each():
  columns = {"group": "q", "variant": 2}
  some = [
    rows.Row([{"role": "user", "content": text}], "1", "t", None, own)
    for text in ("q?", "r?")
    for own in (columns, {"group": "q"})  # of one group, as matched questions are
  ]
  groups = [{r.columns["group"] for r in variants.of(row)} for row in some]
  assert all(len(one) == 1 for one in groups)
  assert len(set.union(*groups)) == 4 and groups[0].pop().startswith("q 2 ")


def test_faults_are_those_of_the_task(tmp_path):
  for task, says in (
    ("variants:nothing", "expected arithmetic/LEVEL"),
    ("variants:variants:arithmetic/add3", "variants of variants"),
    ("thresholds:variants:arithmetic/add3", "thresholds of variants; write 'variants:"),
    (f"variants:{tmp_path}/a.jsonl", "no such file"),
    ("variants:gym:chain_sums", "gym"),
  ):
    with pytest.raises(config.Error, match=says):
      sources.read(task, "test", True)
  assert not sources.needs_answer("auto", f"variants:{GYM}")
