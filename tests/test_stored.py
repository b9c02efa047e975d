"""Training on stored samples: the same update as on drawn ones, the same bits after a
stop, and a line for each file that cannot be used."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pxy import config, loop
from pxy.commands import plan
from pxy.run import stored
from pxy.sampling import collect
from pxy.show import log as log_lib
from pxy.weights import load

import test_loop

POLICY = load.about("builtin:tiny")
NEGATIVES = dataclasses.replace(test_loop.NEGATIVES, tis="none")
"""Rows need not say how likely a token was."""
SMALL = dataclasses.replace(
  test_loop.SMALL,
  phases=(
    config.Phase("joint", (NEGATIVES, config.Term()), steps=1, lr=1e-4),
    config.Phase("grpo", (config.Term(),), lr=2e-4),
  ),
  steps=1,
)


def of(file, cfg=SMALL, **data):
  data = dataclasses.replace(cfg.data, rollouts=str(file), **data)
  return dataclasses.replace(cfg, data=data)


def written(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def steps(out):
  return [line for line in log_lib.metrics(out) if "eval" not in line]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  """(rows, record) of an ordinary step: what it drew, and what it found."""
  kept, out = [], tmp_path_factory.mktemp("drawn") / "run"

  def step(*args, right=collect.step, **given):
    kept.append(right(*args, **given))
    return kept[-1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect, "step", step)
    loop.train(SMALL, out)
  rows = [
    {
      "prompt_ids": a.prompt.ids.tolist(),
      "prompt": a.prompt.text,
      "answer": a.prompt.answer,
      "data_source": a.prompt.task,
      "ids": a.sample.ids.tolist(),
      "text": a.text,
      "logps": a.sample.logp.tolist(),
      "stop": a.sample.stop,
      "reward": a.outcome.score,
    }
    for a in kept[0].flat
  ]
  return rows, steps(out)[0]


SAME = (
  "actor/pg_loss", "actor/grad_norm", "actor/entropy", "critic/score/mean",
  "critic/advantages/max", "response_length/mean", "rollout/entropy", "samples/scored",
  "tokens/scored", "groups/mixed",
)  # fmt: skip


def test_what_the_policy_drew_gives_the_update_of_the_ordinary_run(drawn, tmp_path):
  rows, want = drawn
  loop.train(of(written(tmp_path / "rows.jsonl", rows)), tmp_path / "run")
  (found,) = steps(tmp_path / "run")
  for name in SAME:
    np.testing.assert_allclose(found[name], want[name], rtol=2e-4, err_msg=name)
  assert found["training/rollout_probs_diff_max"] < 1e-4
  assert found["timing_s/old_log_prob"] > 0, "scored under the weights of the start"
  assert "rollout/idle" in want
  assert "rollout/idle" not in found, "nothing was drawn, so no slot was idle or busy"
  assert (tmp_path / "run" / "summary.json").is_file()


def text_rows(problems=6, responses=9, **more):
  """Rows as another model's samples are: text alone, and no log-probs."""
  return [
    {"prompt": f"What is {i} + {i}?", **(more or {"reward": r % 3 == 0}),
     "response": f"{i} + {i}\n\n\\boxed{{{2 * i + r % 3}}}"}
    for i in range(problems)
    for r in range(responses)
  ]  # fmt: skip


def test_a_run_on_rows_goes_on_bit_for_bit(tmp_path, capfd):
  rows = text_rows(4, answer="4", data_source="arithmetic/add3")  # to be graded
  file = written(tmp_path / "rows.jsonl", rows)
  cfg = dataclasses.replace(of(file), steps=3)
  loop.train(cfg, tmp_path / "whole")
  assert "36 responses to 4 problems, 8 groups of 4 (4 " in capfd.readouterr().err
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")  # as if killed after step 2
  shutil.rmtree(tmp_path / "cut" / "checkpoints" / "00000003")
  loop.train(cfg, tmp_path / "cut")
  assert len(steps(tmp_path / "cut")) == 3
  weights = tmp_path / "whole", tmp_path / "cut"
  assert test_loop.same(*weights), "other bits than without a stop"
  found = steps(tmp_path / "whole")
  assert [line["phase"] for line in found] == ["joint"] + ["grpo"] * 2
  assert found[0]["training/rollout_probs_diff_max"] is None, "none is stored"
  assert found[0]["rollout/entropy"] is None and found[0]["rollout/nonfinite"] == 0
  assert found[-1]["actor/ppo_kl"] != 0, "the ratio is to the start of the run"
  mixed = sum(line["groups/mixed"] for line in found[:2])
  assert mixed == 4, "1 + 1 and 2 + 2 are answered by 4, once in three responses"
  assert [line["training/epoch"] for line in found] == [0, 0.5, 1]
  file.write_text(file.read_text().replace("add3", "add4"))
  with pytest.raises(config.Error, match=r"rows\.jsonl\).*: --accept data$"):
    loop.train(dataclasses.replace(cfg, steps=4), tmp_path / "whole")


def read(file, **data):
  tokenizer, vocab = POLICY.tokenizer, POLICY.arch.vocab_size
  return stored.load(of(file, **data), tokenizer, vocab)


def test_a_row_of_ids_says_what_is_trained_on(tmp_path):
  encode, end = POLICY.tokenizer.encode, POLICY.tokenizer.end_id
  ids = [*encode("3 + 4 = 7"), end]
  mask = [1] * (len(ids) - 1) + [0]
  row = {"prompt_ids": [5, 6], "ids": ids, "reward": 0.5}
  row |= {"mask": mask, "advantages": [0.25] * len(ids), "logps": [None] * len(ids)}
  found = read(written(tmp_path / "rows.jsonl", [row] * 16))
  graded = collect.Graded(found.groups)
  assert graded.mask_BT.tolist() == [[bool(x) for x in mask]] * 16
  assert (graded.adv_BT == 0.25).all() and (graded.scores_PR == 0.5).all()
  assert graded.rollouts().response_BT[0].tolist() == ids
  assert graded.prompts[0].ids.tolist() == [5, 6]


def test_groups_are_cut_from_the_responses_to_a_problem(tmp_path):
  rows = text_rows(problems=5, responses=8) + text_rows(problems=1, responses=3)
  rows[0]["prompt"] = "long " * 40
  found = read(written(tmp_path / "rows.jsonl", rows))
  # Problem 0 has 7 + 3 responses to its prompt, the long one is left out alone.
  assert len(found.groups) == 2 + 4 * 2 and found.dropped == 1
  assert "(2 responses over, 1 prompts over 32 tokens left out)" in found.told
  assert [group[0].prompt.uid for group in found.groups] == list(range(10))
  order = [found.source(7).batch(step, 4) for step in range(3)]
  again = [found.source(7).batch(step, 4) for step in range(3)]
  assert [[p.uid for p in x] for x in order] == [[p.uid for p in x] for x in again]
  named = [row | {"problem": i // 4} for i, row in enumerate(text_rows(6, 4))]
  assert len(read(written(tmp_path / "named.jsonl", named)).groups) == 6


GOOD = text_rows(4, 4)
IDS = [*POLICY.tokenizer.encode("ok"), POLICY.tokenizer.end_id]
OF_IDS = {"prompt": "What is 1 + 1?", "ids": IDS, "reward": 1.0}
REFUSED = {
  "no response": ({"prompt": "x", "reward": 1}, "field 'response': expected text, or"),
  "an empty one": ({"prompt": "x", "response": "", "reward": 1}, "field 'response'"),
  "no id": (OF_IDS | {"ids": []}, "field 'ids': expected a list of"),
  "an id of another": (OF_IDS | {"ids": [9999]}, "9999 is no id of the .* of 384"),
  "text of another": (OF_IDS | {"text": "no"}, "'ok' with this .* ids of another tok"),
  "no end": (OF_IDS | {"ids": IDS[:-1]}, "no token that ends .*stop: length"),
  "no reward": ({"prompt": "x", "response": "y"}, "no field 'reward', but .*line 1"),
  "a reward of nan": (OF_IDS | {"reward": float("nan")}, "'reward': expected a finite"),
  "a reward of 400 digits": (OF_IDS | {"reward": 10**400}, "'reward': expected a fin"),
  "advantages no float32 holds": (
    OF_IDS | {"advantages": [1e39] * len(IDS)}, "'advantages': expected finite",
  ),
  "a mask of text": (
    {"prompt": "x", "response": "y", "reward": 1, "mask": [1]}, "'mask': of tokens, so",
  ),
  "a short mask": (OF_IDS | {"mask": [1]}, "'mask': expected a list of"),
  "a mask of 2": (OF_IDS | {"mask": [2] * len(IDS)}, "'mask': expected 0 and 1"),
  "log-probs above 0": (OF_IDS | {"logps": [1.0] * len(IDS)}, "none above 0"),
  "some advantages": (
    OF_IDS | {"advantages": [1.0] * len(IDS)}, "line 1: no field 'advantages', but",
  ),
  "a long response": (
    {"prompt": "x", "response": "word " * 200, "reward": 1}, "max_new_tokens is 64: ra",
  ),
  "no prompt": ({"response": "y", "reward": 1}, "field 'prompt': expected it"),
  "no object": (3, "expected an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_cannot_be_used_is_named(tmp_path, name):
  row, said = REFUSED[name]
  file = written(tmp_path / "rows.jsonl", [*GOOD, row])
  with pytest.raises(config.Error, match=said) as error:
    read(file)
  assert "rows.jsonl, line" in str(error.value) and "\n" not in str(error.value)


def test_what_does_not_fit_the_run_is_refused(tmp_path):
  file = written(tmp_path / "rows.jsonl", GOOD)
  with pytest.raises(config.Error, match=r"4 groups of 4 .*too few .* data.prompts 5"):
    read(file, prompts=5)
  with pytest.raises(config.Error, match=r"0 groups of 8 .*too few"):
    read(file, responses=8)
  with pytest.raises(config.Error, match="no such file"):
    read(tmp_path / "none.jsonl")
  bare = written(tmp_path / "bare.jsonl", text_rows(4, 4, task="sums"))
  with pytest.raises(config.Error, match="line 1: neither `reward` nor `answer`"):
    read(bare)
  two = [row | {"problem": "one"} for row in GOOD]
  with pytest.raises(config.Error, match=r"another prompt than .* the same problem"):
    read(written(tmp_path / "two.jsonl", two))
  tis = config.Phase(terms=(config.Term(tis="token"),))
  cfg = dataclasses.replace(of(file), phases=(tis,))
  with pytest.raises(config.Error, match=r"phases.0.terms.0.tis 'token' .* `logps`"):
    stored.load(cfg, POLICY.tokenizer, POLICY.arch.vocab_size)
  down = config.Phase(terms=(config.Term(control="all-down"),))
  own = [row | {"advantages": [1.0] * len(row["ids"])} for row in [OF_IDS] * 16]
  cfg = of(written(tmp_path / "own.jsonl", own))
  with pytest.raises(
    config.Error, match=r"advantages.*control 'all-down' makes its own"
  ):
    stored.load(
      dataclasses.replace(cfg, phases=(down,)), POLICY.tokenizer, POLICY.arch.vocab_size
    )
  sampling = dataclasses.replace(SMALL.sampling, top_p=0.9)
  with pytest.raises(config.Error, match="set top_p 1"):
    config.check(dataclasses.replace(of(file), sampling=sampling))


def test_a_dry_run_tells_what_a_file_holds(tmp_path):
  file = written(tmp_path / "rows.jsonl", GOOD)
  told = plan.of_train(of(file))["stored samples"]
  assert (
    "16 responses to 4 problems, 4 groups of 4" in told and "none are drawn" in told
  )
  assert "stored samples" not in plan.of_train(SMALL)
