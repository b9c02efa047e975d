"""What a store's columns allow to be asked, and the two commands over it.

The scripted model's numbers are known by construction: it is right, wrong or silent as
a table says, so every measure that comes out can be reckoned by hand.
"""

import json
import pathlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pxy import config
from pxy.commands import cli
from pxy.evaluate import by_problem, plans, probe, store
from pxy.measures import estimate
from pxy.weights import load

R = 8
OWN = pathlib.Path(__file__).parent / "data" / "own_facts.jsonl"


def stored(problems, answers, **more) -> store.Stored:
  """A store of what a scripted model answered: answers[p] has R entries, None for an
  abstention."""
  right = [
    [float(a == p["answer"]) for a in row]
    for p, row in zip(problems, answers, strict=True)
  ]
  shape = np.array(right).shape
  rows = [
    {"problem": f"{i:03d}", "task": "t", "prompt": f"q{i}", **p}
    for i, p in enumerate(problems)
  ]
  return store.Stored(
    path=pathlib.Path("x.jsonl"),
    about={},
    problems=rows,
    ids=[[np.arange(5, dtype=np.int32)] * R for _ in problems],
    texts=[[f"so {a}" for a in row] for row in answers],
    answers=answers,
    score_PR=np.array(right),
    answer_right_PR=np.array(right),
    verified_PR=more.get("verified_PR", np.full(shape, np.nan)),
    abstained_PR=np.array([[float(a is None) for a in row] for row in answers]),
    length_PR=np.full(shape, 5.0),
    truncated_PR=np.zeros(shape, bool),
    entropy_PR=np.full(shape, 2.5),
    logp={"prompt": -np.array(more.get("nats", np.ones(shape)))},
  )


def measured(found: store.Stored, *parts) -> dict[str, estimate.Measure]:
  return estimate.measures(probe.specs(probe.table(found), parts or tuple(probe.PARTS)))


def values(found: store.Stored, *parts) -> dict[str, float]:
  return {name: one.value for name, one in measured(found, *parts).items()}


def test_the_bound_of_a_scripted_model():
  """Two problems: one right 2 of 8 times, one never."""
  problems = [{"answer": "a"}, {"answer": "b"}]
  found = values(stored(problems, [["a"] * 2 + ["x"] * 6, ["a"] * 8]), "bound")
  assert found["bound/pass@1"] == pytest.approx(0.125)
  assert found["bound/pass@2"] == pytest.approx((1 - 15 / 28) / 2)
  assert found["bound/pass@8"] == 0.5
  assert "bound/pass@4" not in found, "k beyond a quarter of the samples"
  assert "bound/verified_pass@1" not in found, "no grader has told"


def test_chance_is_what_another_problems_answers_give():
  """All answers are right, and each problem's are another's: chance is as good."""
  problems = [{"answer": "a"}] * 6
  specs = probe.specs(probe.table(stored(problems, [["a"] * R] * 6)), ("bound",))
  assert estimate.measures(specs)["bound/pass@1"].null[0] == 1
  problems = [{"answer": name} for name in "abcdef"]
  made = stored(problems, [[name] * R for name in "abcdef"])
  specs = probe.specs(probe.table(made), ("bound",))
  assert estimate.measures(specs)["bound/pass@1"].null[0] == 0


def test_a_grader_of_its_own_has_no_chance():
  """Where right is more than the same text, an answer cannot be dealt out anew."""
  made = stored([{"answer": "1/2"}] * 4, [["0.5"] * R] * 4)
  made.answer_right_PR[:] = 1
  specs = probe.specs(probe.table(made), ("bound",))
  assert estimate.measures(specs)["bound/pass@1"].null is None


def test_hallucination_by_band():
  problems = [
    {"answer": "a", "band": "head"},
    {"answer": "b", "band": "tail"},
    {"answer": "unknown", "band": "seen", "answerable": False},
  ]
  answers = [
    ["a"] * 8, ["b"] * 2 + ["a"] * 4 + [None] * 2, ["a"] * 6 + [None] * 2,
  ]  # fmt: skip
  found = values(stored(problems, answers), "hallucination")
  assert found["hallucination/head_correct"] == 1
  assert found["hallucination/tail_wrong"] == 0.5
  assert found["hallucination/tail_abstained"] == 0.25
  assert found["hallucination/tail_given_attempted"] == pytest.approx(1 / 3)
  assert found["hallucination/unknown_wrong"] == 0.75
  assert found["hallucination/seen_wrong"] == 0.75
  assert "hallucination/unknown_correct" not in found, "nothing is right there"


def test_forms_of_a_question_are_drawn_together():
  """Five forms that are answered alike say no more than one."""
  rng = np.random.default_rng(0)
  right = [int(n) for n in rng.integers(0, 9, 40)]
  answers = [["a"] * n + ["b"] * (8 - n) for n in right]
  one = [{"answer": "a", "group": f"g{i:02}"} for i in range(40)]
  five = [row | {"variant": v} for row in one for v in ("plain", *"wxyz")]
  names = ("bound", "calibration")
  alone = measured(stored(one, answers), *names)
  found = measured(stored(five, [row for row in answers for _ in range(5)]), *names)
  for name, single in alone.items():
    several = found[name]
    assert several.n == single.n == 40, name
    assert several.value == pytest.approx(single.value, abs=1e-2), name
    if name.startswith("bound/pass"):
      assert (several.low, several.high) == pytest.approx((single.low, single.high))
    assert (several.null is None) == (single.null is None), name


def test_a_wrong_answer_costs_what_its_prompt_says():
  """One who answers if it pays: abstains where a wrong answer costs 9."""
  problems = [{"answer": "a", "threshold": price} for price in (0.5, 0.9)]
  problems += [{"answer": "unknown", "answerable": False, "threshold": 0.5}]
  answers = [["a"] * 6 + ["b"] * 2, ["a"] * 2 + [None] * 6, ["a"] * 2 + [None] * 6]
  found = values(stored(problems, answers), "hallucination")
  assert found["hallucination/all:0.5_score@0.5"] == (6 - 2) / 8
  assert found["hallucination/all:0.9_score@0.9"] == 2 / 8
  assert found["hallucination/unknown:0.5_score@0.5"] == -2 / 8
  assert found["hallucination/all:0.9_abstained"] == 6 / 8
  assert not any(name.endswith("0.5_score@0.9") for name in found)


def test_a_cue_that_is_followed():
  """Right where the cue agrees; where it contradicts, the cue in three of four."""
  problems = [{"answer": "a", "cue": "a"}] * 4 + [{"answer": "b", "cue": "a"}] * 4
  answers = [["a"] * 8] * 4 + [["a"] * 6 + ["b"] * 2] * 4
  found = values(stored(problems, answers), "bias")
  assert found["bias/cue"] == pytest.approx(0.75)
  assert found["bias/follows"] == pytest.approx(0.75)


def test_the_cues_of_the_file_that_the_docs_show():
  """Right where the nurse is no pilot; else Paul in six of eight, or four of six."""
  rows = [json.loads(line) for line in OWN.read_text("utf-8").splitlines()]
  cued = [row for row in rows if "cue" in row]
  assert [row["cue"] == row["answer"] for row in cued] == [True, False, False]
  answers = [
    ["Paul"] * 8, ["Paul"] * 6 + ["Lena"] * 2, ["Paul"] * 4 + ["Lena"] * 2 + [None] * 2,
  ]  # fmt: skip
  found = values(stored(cued, answers), "bias")
  assert found["bias/cue"] == pytest.approx(1 - 2 / 8), "the last has no answer"
  assert found["bias/follows"] == pytest.approx(10 / 14)
  assert found["bias/s_amb"] == pytest.approx((4 - 2) / 8)


def test_what_is_answered_over_all_questions():
  """Half of the right answers are a; the model says a three times of four."""
  problems = [{"answer": "a"}] * 8 + [{"answer": "b"}] * 8
  answers = [["a"] * 8] * 8 + [["a"] * 4 + ["b"] * 4] * 8
  found = values(stored(problems, answers), "bias")
  assert found["bias/tv"] == pytest.approx(0.25)
  assert found["bias/top_share"] == pytest.approx(0.75)


def test_variants_of_a_question():
  """Right in the plain wording, never in the other."""
  problems = [
    {"answer": "a", "group": f"g{g}", "variant": v}
    for g in range(4)
    for v in ("plain", "other")
  ]
  answers = [["a"] * 8, ["x"] * 8] * 4
  found = values(stored(problems, answers), "robust")
  assert found["robust/change_other"] == -1 and found["robust/worst"] == 0
  assert found["robust/flip_other"] == 1 and found["robust/agreement"] == 0


def test_columns_that_are_missing_ask_nothing():
  found = values(stored([{"answer": "a"}] * 3, [["a"] * R] * 3))
  kinds = {name.partition("/")[0] for name in found}
  assert kinds == {"bound", "calibration", "diversity"}, sorted(found)


def test_a_table_by_problem_has_the_measures_again(tmp_path):
  """Value, interval and difference, bit for bit, and groups as wholes."""
  rng = np.random.default_rng(0)
  # So many that sums in other blocks would not be the same to the bit.
  answers = [chr(97 + p % 20) for p in range(300)]
  problems = [
    {"answer": answer, "group": f"g{p // 3:03}", "variant": f"v{p % 3}"}
    for p, answer in enumerate(answers)
  ]
  found = [
    stored(
      problems,
      [
        [x if rng.random() < right else rng.choice([*answers[:20], None])] * 2
        + rng.choice([*answers[:20], None], R - 2).tolist()
        for x in answers
      ],
      nats=rng.random((300, R)),
    )
    for right in (0.5, 0.3)
  ]
  specs = [probe.specs(probe.table(one), tuple(probe.PARTS)) for one in found]
  path = tmp_path / "rows.parquet"
  of = (("base", None, True, "t"), ("m", 20, False, "other"), ("m", 40, False, "t"))
  tables = [specs[0], specs[0], specs[1]]  # what is read is the last of a model
  by_problem.write(
    path, [by_problem.table(*who, x) for who, x in zip(of, tables, strict=True)]
  )
  rows = by_problem.read(path)
  base, new = ({spec.name: spec for spec in x} for x in specs)
  kinds = set()
  assert [name for name, spec in new.items() if not spec.units], "some have no problem"
  for name, spec in new.items():
    again = by_problem.spec(rows, name), by_problem.spec(rows, name, base=True)
    kept = spec.made is not None and bool(spec.units)
    assert (again[0] is not None) == kept
    if not kept:
      continue
    kinds.add(spec.made.kind)
    assert again[0].units == spec.units
    assert np.array_equal(estimate.draws(again[0]), estimate.draws(spec), True)
    if set(spec.units) & set(base[name].units):
      pairs = ([[again[0]], [again[1]]], [[spec], [base[name]]])
      here, there = (estimate.difference(*pair) for pair in pairs)
      assert here == there, name
  assert kinds >= {"sums", "auroc", "aurc", "accuracy@50", "ece", "tv", "kl"}
  assert not by_problem.spec(rows, "bound/none")
  path.write_text("{}")
  with pytest.raises(config.Error, match=r"rows\.parquet: no table of `pxy probe --by"):
    by_problem.read(path)
  pq.write_table(rows.select(["measure", "kind", "a"]), path)
  with pytest.raises(config.Error, match=r"rows\.parquet: no table of `pxy probe --by"):
    by_problem.read(path)
  odd = rows.set_column(rows.column_names.index("kind"), "kind", [["x"] * len(rows)])
  with pytest.raises(config.Error, match="rows by problem make no 'x'"):
    by_problem.spec(odd, "bound/pass@1")


def test_order_and_what_stands_beside_change_nothing():
  problems = [{"answer": name} for name in "abcdef"]
  answers = [[name] * 3 + ["x"] * 5 for name in "abcdef"]
  whole = stored(problems, answers)
  moved = whole.take([5, 2, 0, 4, 1, 3])
  assert values(whole) == values(moved)


def test_p_of_y_tells_apart_what_its_logs_tell_apart():
  problems = [{"answer": "a"}] * 4
  answers = [["a"] * 4 + ["x"] * 4] * 4
  nats = [[1.0] * 4 + [2.0] * 4] * 4
  found = values(stored(problems, answers, nats=nats), "contexts")
  assert found["calibration/auroc_prompt"] == 1
  assert found["bound/ppl_prompt_q25"] == pytest.approx(np.exp(1 / 5))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  """A user's own file, with all columns that are asked for."""
  folder = tmp_path_factory.mktemp("own")
  rows = [
    {
      "prompt": f"What is {i} + {j}?" + " Thank you." * (name == "polite"),
      "answer": str(i + j),
      "group": f"{i}+{j}",
      "variant": name,
      "band": "small" if i < 3 else "large",
      "cue": "3",
      "split": "test",
    }
    for i in range(1, 5)
    for j in (1, 2)
    for name in ("plain", "polite")
  ]
  (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder / "own.jsonl"


SMALL = "--samples 4 --problems 16 --max-new-tokens 8 --grader arithmetic --slots 64"


def run(*words) -> None:
  cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def itself(task, tmp_path_factory):
  """(options, report) of a model that was probed against itself."""
  folder = tmp_path_factory.mktemp("itself")
  words = ["builtin:tiny", "--against", "builtin:tiny", "--task", task, *SMALL.split()]
  words += ["--text", _prose(folder), "--save", folder / "s"]
  own = ["--by-problem", folder / "x.parquet", "--json", folder / "x.json"]
  run("probe", *words, *own)
  rows = by_problem.read(folder / "x.parquet")
  return words, json.loads((folder / "x.json").read_text()), rows


def test_probe_of_a_file_and_of_a_model_against_itself(itself):
  _, found, rows = itself
  kinds = {name.partition("/")[0] for name in found["measures"]}
  assert {"robust", "hallucination", "bias", "kept", "diversity"} <= kinds
  assert len(found["measures"]) >= 25
  for name, one in found["difference"].items():
    zero = one["value"], one["low"], one["high"]
    assert zero == (0, 0, 0), f"{name}: a model differs from itself by {zero}"
  for name, one in found["measures"].items():
    assert one["low"] <= one["value"] <= one["high"], (name, one)
    assert one["n"] > 0 and one["method"], (name, one)
  for base, key in ((False, "measures"), (True, "base_measures")):
    again = {name: by_problem.spec(rows, name, base) for name in found[key]}
    told = {x: estimate.measure(spec).value for x, spec in again.items() if spec}
    assert len(told) > 20 and told == {x: found[key][x]["value"] for x in told}
  kl = found["measures"]["kept/kl_forward"]["value"]
  assert kl == pytest.approx(0, abs=1e-6), f"KL of a model from itself is {kl}"


def test_gates_have_the_numbers_of_the_probe_and_draw_nothing(
  itself, tmp_path, monkeypatch
):
  """A model passes against itself where the margin is 0."""
  monkeypatch.setattr(
    "pxy.sampling.engine.Engine.run",
    lambda *_, **__: pytest.fail("drew again what the store has"),
  )
  words, probed, _ = itself
  (tmp_path / "g.py").write_text(
    "from pxy.measures.gate import Gate\n"
    "def gates():\n"
    "  same = {'at_least': 0.0, 'at_most': 0.0}\n"
    "  return [\n"
    "    Gate('robust/worst', at_least=0.0),\n"
    "    Gate('diversity/token_entropy', **same),\n"
    "    Gate('diversity/token_entropy', of='value', at_least=0.0),\n"
    "    Gate('bound/ppl_start_median', **same),\n"
    "    Gate('bound/nscr', of='value', undecided='passes', **same),\n"
    "    Gate('kept/nll_start', at_most=0.0),\n"
    "    Gate('kept/kl_forward', of='value', at_most=1e-6),\n"
    "  ]\n"
  )
  with pytest.raises(SystemExit) as stop:
    run("gate", *words, tmp_path / "g.py", "--json", tmp_path / "g.json")
  rows = json.loads((tmp_path / "g.json").read_text())["gates"]
  by = {(row["measure"], row["of"]): row for row in rows}
  solved = by.pop(("bound/nscr", "value"))
  assert solved["verdict"] == "no number", "it has solved something in 8 tokens"
  assert stop.value.code == 1, "what has no number lets nobody through"
  for (name, of), row in by.items():
    assert row["verdict"] == "passes", row["line"]
    known = probed["measures" if of == "value" else "difference"][name]
    assert {key: row[key] for key in known} == known, f"{name}: another number"


def _prose(folder) -> pathlib.Path:
  path = folder / "prose.txt"
  path.write_text("The sea was calm.\n\nThey rowed on.\n")
  return path


def test_the_store_gives_the_same_numbers_again(task, tmp_path, monkeypatch):
  words = ["probe", "builtin:tiny", "--task", task, *SMALL.split()]
  words += ["--what", "robust,calibration", "--save", tmp_path / "s"]
  run(*words, "--json", tmp_path / "first.json")
  monkeypatch.setattr(
    "pxy.sampling.engine.Engine.run",
    lambda *_, **__: pytest.fail("drew again what the store has"),
  )
  run(*words, "--json", tmp_path / "again.json")
  first, again = (
    json.loads((tmp_path / name).read_text()) for name in ("first.json", "again.json")
  )
  assert first == again


def test_bound_of_a_copy(task, tmp_path):
  """The same weights under another name gain nothing, lose nothing, and write what is
  as likely to the base as to themselves."""
  shutil.copytree(load.place("builtin:tiny"), tmp_path / "copy")
  words = ["bound", "builtin:tiny", tmp_path / "copy", "--task", task, *SMALL.split()]
  run(*words, "--save", tmp_path / "s", "--json", tmp_path / "x.json",
      "--plot", tmp_path / "x.png")  # fmt: skip
  base, copy = json.loads((tmp_path / "x.json").read_text())
  assert base["model"] == "builtin:tiny" and copy["against"] == "builtin:tiny"
  assert copy["difference"]["bound/pass@1"]["value"] == 0
  assert copy["measures"]["bound/pass@1"] == base["measures"]["bound/pass@1"]
  assert copy["measures"].get("bound/nscr", {"value": 0})["value"] == 0
  for name, one in copy["measures"].items():
    if name.startswith("bound/ppl_base_new"):
      same = copy["measures"][name.replace("base_new", "new_new")]
      assert one["value"] == same["value"], name
  assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (["probe"], "name a MODEL"),
    (["bound"], "name a BASE"),
    (["probe", "builtin:tiny", "--what", "beauty"], "--what beauty: there are bound"),
    (["probe", "builtin:tiny", "--task", "no.jsonl"], "no.jsonl"),
    (["probe", "builtin:tiny", "--p-true"], "--p-true: the embedded worlds have no"),
    (["probe", "builtin:tiny", "--step", "all"], "--step all: builtin:tiny has no"),
    (
      ["bound", "builtin:tiny", "--task", "arithmetic/add1", "--samples", "2"],
      "--samples 2: pass@k is looked at up to a quarter",
    ),
    (
      [
        "probe",
        "builtin:tiny",
        "--task",
        "arithmetic/add1",
        "--samples",
        "4",
        "--problems",
        "2",
        "--max-new-tokens",
        "4",
        "--grader",
        "nothing.py:f",
      ],
      "nothing.py",
    ),
  ],
)
def test_wrong_words_are_one_line(words, said, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as stop:
    cli.main(words)
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert said in error and error.count("\n") == 1, error


def test_a_task_without_answers_is_refused(tmp_path, capsys):
  rows = [{"prompt": f"{i} + 1?", "answer": "", "split": "test"} for i in range(2)]
  path = tmp_path / "no.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  with pytest.raises(SystemExit):
    run("probe", "builtin:tiny", "--task", path, *SMALL.split(), "--save", tmp_path)
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert "answer" in error and str(path) in error, error


def test_another_tokenizer_is_no_base(task, tmp_path, capsys):
  words = ["bound", "builtin:tiny", "builtin:world", "--task", task, *SMALL.split()]
  with pytest.raises(SystemExit):
    run(*words, "--save", tmp_path)
  assert "different tokenizers" in capsys.readouterr().err


def test_plans_ask_for_tasks_and_parts_that_there_are():
  for plan in plans.PLANS.values():
    for ask in plan.asks:
      assert set(ask.parts) <= set(probe.PARTS)
      config.check(config.Train(data=config.Data(task=ask.task)))
      assert ask.smaller().problems < ask.problems
