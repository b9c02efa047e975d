"""The demo's job at a small size: whole runs, stopped runs, continued runs."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from pxy import config, loop
from pxy.data import prompts as prompts_lib
from pxy.rl import context as context_lib
from pxy.sampling import engine as engine_lib
from pxy.show import log as log_lib
from pxy.train import checkpoint, remat
from pxy.weights import load

import worlds

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEGATIVES = config.Term(
  space="marginal", select="negative", advantage="mean", coef=0.01, tis="token-mask"
)
SMALL = config.Train(
  phases=(
    config.Phase("nsr-prerl", (NEGATIVES,), steps=2, lr=1e-5, schedule="cosine"),
    config.Phase(
      "grpo", (config.Term(),), lr=2e-4, warmup=4, on_start="reset_optimizer"
    ),
  ),
  steps=4,
  save_every=2,
  data=config.Data(task=worlds.SUMS, prompts=4, responses=4, max_prompt_tokens=32),
  sampling=config.Sampling(max_new_tokens=64, slots=16),
  eval=config.Eval(problems=4, samples=4),
  mesh=config.Mesh(data=1, fsdp=1, tensor=1),
)


def weights(folder):
  """Arrays of a run's last checkpoint."""
  policy = load.load(str(folder))
  return jax.tree.leaves(jax.device_get(policy.params))


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  out = tmp_path_factory.mktemp("whole") / "run"
  summary = loop.train(SMALL, out)
  return out, summary


def test_a_run_leaves_what_it_promises(whole):
  out, summary = whole
  names = {"config.json", "metrics.jsonl", "completions.parquet", "checkpoints",
           "summary.json", "report.md", "report.html"}  # fmt: skip
  assert names <= {p.name for p in out.iterdir()}
  assert json.loads((out / "summary.json").read_text()) == summary
  assert set(summary) == {"before", "after", "steps", "seconds", "tokens", "versions"}
  for name in ("avg@4", "pass@1", "pass@4", "maj@4"):
    assert set(summary["after"][name]) == {"value", "se"}
  records = log_lib.metrics(out)
  steps = [r["step"] for r in records if "eval" not in r]
  assert steps == [1, 2, 3, 4]
  assert [r["phase"] for r in records if "eval" not in r] == ["nsr-prerl"] * 2 + [
    "grpo"
  ] * 2
  assert [r["space"] for r in records if "eval" not in r] == ["marginal"] * 2 + [
    "conditional"
  ] * 2
  table = pq.read_table(out / "completions.parquet").to_pylist()
  assert sum(row["split"] == "train" for row in table) == 4 * 16


def test_metrics_have_the_names_people_have_dashboards_for(whole):
  last = log_lib.metrics(whole[0])[-2]
  wanted = """actor/pg_loss actor/entropy actor/ppo_kl actor/pg_clipfrac actor/grad_norm
    actor/lr critic/score/mean critic/rewards/mean critic/rewards/max critic/rewards/min
    critic/advantages/mean response_length/mean response_length/max response_length/min
    response_length/clip_ratio prompt_length/mean training/global_step training/epoch
    training/rollout_probs_diff_mean training/rollout_probs_diff_p95
    training/rollout_probs_diff_max timing_s/step timing_s/gen timing_s/reward
    timing_s/adv timing_s/update_actor perf/throughput perf/max_memory_allocated_gb
    perf/cpu_memory_used_gb groups/solved groups/unsolved groups/mixed compiles space
    phase""".split()
  assert not [name for name in wanted if name not in last]


def test_evaluations_have_them_too(whole):
  first = log_lib.metrics(whole[0])[0]
  source = "val-core/arithmetic/add3"
  assert first[f"{source}/mean@4"] == first["eval"]["avg@4"]["value"]
  assert first[f"{source}/pass@2"] == first["eval"]["pass@2"]["value"]
  assert first["timing_s/testing"] > 0
  third = next(r for r in log_lib.metrics(whole[0]) if r["step"] == 3)
  assert third["timing_s/save_checkpoint"] > 0, "saved after step 2"


def test_sampler_and_trainer_agree(whole):
  for record in log_lib.metrics(whole[0]):
    if "eval" not in record:
      name = "training/rollout_probs_diff_"
      found = [record[name + how] for how in ("mean", "p95", "max")]
      if record["space"] == "marginal":
        assert None not in found, "compared in every step"
        # Weights are conditional, after a pass of their own: log P(y) is far from it.
        assert record["actor/tis"] == pytest.approx(1, abs=1e-4)
        assert record["actor/tis_capfrac"] == 0 < record["timing_s/old_log_prob"]
      assert all(x is None or x < 1e-4 for x in found), "one forward serves both"


@pytest.mark.parametrize("first", [1, 2, 3])
def test_n_plus_n_steps_equal_2n_bit_for_bit(whole, tmp_path, first):
  # 2 is the switch of phases, 1 and 3 are inside one.
  out = tmp_path / "run"
  loop.train(dataclasses.replace(SMALL, steps=first), out)
  loop.train(SMALL, out)
  assert same(out, whole[0]), "a continued run differs from one that never stopped"
  steps = [r["step"] for r in log_lib.metrics(out) if "eval" not in r]
  assert steps == [1, 2, 3, 4]
  rows = pq.read_table(out / "completions.parquet").to_pylist()
  want = pq.read_table(whole[0] / "completions.parquet").to_pylist()
  train = [[r["completion"] for r in x if r["split"] == "train"] for x in (rows, want)]
  assert train[0] == train[1]


def test_each_record_has_the_learning_rate_of_its_step(whole):
  found = [r["actor/lr"] for r in log_lib.metrics(whole[0]) if "eval" not in r]
  np.testing.assert_allclose(found, [1e-5, 5e-6, 5e-5, 1e-4], rtol=1e-14)


def test_across_an_epoch_boundary(tmp_path, monkeypatch):
  orders, order = [], engine_lib.Engine._order

  def noted(engine, uids):
    if len(uids) == 4:  # of training
      orders.append(order(engine, uids))
    return order(engine, uids)

  monkeypatch.setattr(engine_lib.Engine, "_order", noted)
  file = tmp_path / "six.jsonl"
  lines = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)]
  file.write_text("".join(json.dumps(line) + "\n" for line in lines))
  cfg = dataclasses.replace(
    SMALL,
    data=dataclasses.replace(SMALL.data, task=str(file)),
    eval=config.Eval(task=str(file), split="train", problems=2, samples=2),
  )
  loop.train(cfg, tmp_path / "a")
  whole, orders[:] = list(orders), []
  loop.train(dataclasses.replace(cfg, steps=1), tmp_path / "b")
  loop.train(cfg, tmp_path / "b")
  assert same(tmp_path / "a", tmp_path / "b")
  assert any(one != sorted(one) for one in whole), "none was known to be longer"
  assert orders == whole, "what is sampled first hangs on a stop: its bits may, too"
  epochs = [
    r["training/epoch"] for r in log_lib.metrics(tmp_path / "a") if "eval" not in r
  ]
  assert epochs[0] < 1 < epochs[-1]
  lines[0]["answer"] = "1"
  file.write_text("".join(json.dumps(line) + "\n" for line in lines))
  more = dataclasses.replace(cfg, steps=5)
  with pytest.raises(config.Error, match=r"six\.jsonl\).*: --accept data$"):
    loop.train(more, tmp_path / "a")
  assert loop.train(more, tmp_path / "a", accept=["data"])["steps"] == 5
  noted = json.loads((tmp_path / "a" / "used.json").read_text())["accepted"]
  assert [(note["name"], note["step"]) for note in noted] == [("data", 4)]
  assert "Accepted in a: another data" in (tmp_path / "a" / "report.md").read_text()


def test_several_updates_per_batch(tmp_path):
  cfg = dataclasses.replace(SMALL, updates=2, steps=3)
  loop.train(cfg, tmp_path / "run")
  last = [r for r in log_lib.metrics(tmp_path / "run") if "eval" not in r][-1]
  assert 0 < last["timing_s/old_log_prob"] < last["timing_s/step"]
  assert last["timing_s/update_actor"] > 0
  assert last["actor/ppo_kl"] is not None


def test_memory_decides_what_is_computed_again(whole, tmp_path, monkeypatch, capfd):
  """With none to spare all of it is; the run says so, and learns the same."""
  monkeypatch.setattr(remat, "limit", lambda mesh: 2**20)
  compute = dataclasses.replace(SMALL.compute, remat="auto")
  loop.train(dataclasses.replace(SMALL, compute=compute, steps=1), tmp_path / "run")
  assert "remat auto: full" in capfd.readouterr().err
  first, got = (
    next(r for r in log_lib.metrics(out) if "eval" not in r)
    for out in (whole[0], tmp_path / "run")
  )
  for name in ("actor/grad_norm", "actor/entropy", "actor/pg_loss"):
    assert got[name] == pytest.approx(first[name], rel=1e-4), name


def test_evaluations_may_have_a_grader_of_their_own(whole, tmp_path):
  data = dataclasses.replace(SMALL.data, grader="form")
  cfg = dataclasses.replace(SMALL, data=data, steps=0)
  found = []
  for name in ("", "arithmetic"):
    asked = dataclasses.replace(cfg.eval, grader=name)
    loop.train(dataclasses.replace(cfg, eval=asked), tmp_path / (name or "form"))
    found.append(log_lib.metrics(tmp_path / (name or "form"))[0]["eval"])
  right = log_lib.metrics(whole[0])[0]["eval"]
  assert found[1]["avg@4"] == right["avg@4"] != found[0]["avg@4"]


@pytest.mark.parametrize(
  "context", [name for name in context_lib.CONTEXTS if name != "start"]
)
def test_every_context_trains(tmp_path, context):
  term = dataclasses.replace(NEGATIVES, context=context, copies=2)
  cfg = dataclasses.replace(
    SMALL, phases=(config.Phase("p", (term,), lr=1e-5),), steps=1
  )
  loop.train(cfg, tmp_path / "run")


def test_a_context_longer_than_the_prompts_trains(tmp_path, monkeypatch):
  long = dataclasses.replace(
    context_lib.CONTEXTS["document"], ids=lambda tokenizer: [tokenizer.start_id] * 40
  )
  monkeypatch.setitem(context_lib.CONTEXTS, "document", long)
  term = dataclasses.replace(NEGATIVES, context="document")
  phases = (config.Phase("p", (term,), lr=1e-5),)
  loop.train(dataclasses.replace(SMALL, phases=phases, steps=1), tmp_path / "run")
  last = [r for r in log_lib.metrics(tmp_path / "run") if "eval" not in r][-1]
  assert last["samples/scored"] > 0 and np.isfinite(last["actor/pg_loss"])


def test_sigterm_saves_and_exits_with_0_and_the_run_goes_on(whole, tmp_path):
  out = tmp_path / "run"
  code = (
    "import sys; sys.path[:0] = [{tests!r}]; import pathlib, test_loop;"
    " test_loop.loop.train(test_loop.SMALL, pathlib.Path({out!r}))"
  ).format(tests=str(ROOT / "tests"), out=str(out))
  env = os.environ | {"PYTHONPATH": str(ROOT)}
  child = subprocess.Popen(
    [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE
  )
  deadline = time.monotonic() + 240
  metrics = out / "metrics.jsonl"
  while not (metrics.exists() and '"phase": "nsr-prerl"' in metrics.read_text()):
    assert time.monotonic() < deadline and child.poll() is None, child.stderr.read()
    time.sleep(0.02)
  child.send_signal(signal.SIGTERM)
  _, err = child.communicate(timeout=60)
  assert child.returncode == 0, err.decode()
  with checkpoint.Checkpointer(out / "checkpoints", 2, "") as found:
    assert found.latest() is not None, "a signal must leave a checkpoint"
  loop.train(SMALL, out, resume="must")
  assert same(out, whole[0])


def test_resume_refuses_what_it_cannot_continue(whole, tmp_path):
  out, _ = whole
  with pytest.raises(config.Error, match="holds a run: give another folder"):
    loop.train(SMALL, out, resume="never")
  with pytest.raises(config.Error, match="no run to resume"):
    loop.train(SMALL, tmp_path / "empty", resume="must")
  other = dataclasses.replace(SMALL, seed=5)
  with pytest.raises(config.Error, match=r"\(seed differ\)"):
    loop.train(other, out)
  assert not (tmp_path / "empty").exists(), "nothing half-written"


def test_another_config_goes_on_when_asked_to(tmp_path, capfd):
  out = tmp_path / "run"
  loop.train(dataclasses.replace(SMALL, steps=1), out)
  other = dataclasses.replace(SMALL, steps=2, seed=5)
  assert loop.train(other, out, accept=["seed"])["steps"] == 2
  assert "another config (seed differ): going on" in capfd.readouterr().err
  noted = json.loads((out / "used.json").read_text())["accepted"]
  assert noted == [{"step": 1, "name": "seed", "was": 0, "now": 5}]
  assert json.loads((out / "config.json").read_text())["seed"] == 5


def test_a_failing_verifier_stops_the_run_and_says_why(tmp_path):
  grader = tmp_path / "broken.py"
  grader.write_text(
    "def compute_score(data_source, solution_str, ground_truth, extra_info):\n"
    "  raise RuntimeError('no such service')\n"
  )
  cfg = dataclasses.replace(
    SMALL, data=dataclasses.replace(SMALL.data, grader=f"{grader}:compute_score")
  )
  with pytest.raises(config.Error, match="no such service"):
    loop.train(cfg, tmp_path / "run")


def test_the_prompts_of_a_step_are_a_function_of_the_step():
  policy = load.load("builtin:tiny")
  one = prompts_lib.load(SMALL.data, policy.tokenizer, "train", 7)
  two = prompts_lib.load(SMALL.data, policy.tokenizer, "train", 7)
  assert [p.uid for p in one.batch(5, 4)] == [p.uid for p in two.batch(5, 4)]
