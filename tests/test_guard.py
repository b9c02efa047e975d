"""Numbers that go wrong, made to go wrong in real runs."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from pxy import config, loop, pretrain
from pxy.run import session as session_lib
from pxy.run import step as run_step
from pxy.safety import guard
from pxy.sampling import collect
from pxy.show import log as log_lib
from pxy.train import checkpoint
from pxy.train import step as step_lib

import worlds

ROOT = pathlib.Path(__file__).resolve().parent.parent
CFG = config.Train(
  steps=6,
  save_every=2,
  data=config.Data(task=worlds.SUMS, prompts=2, responses=4, max_prompt_tokens=32),
  sampling=config.Sampling(max_new_tokens=16, slots=8),
  eval=config.Eval(problems=1, samples=2),
  mesh=config.Mesh(data=1, fsdp=1, tensor=1),
  guard=config.Guard(bad_steps=2),
  # Every response differs in length, so that there is a gradient in every step.
  phases=(config.Phase(terms=(config.Term(advantage="reinforce"),)),),
)


@pytest.fixture(autouse=True)
def always_something_to_learn(monkeypatch):
  # 16 tokens are too few for an answer: score responses by their first token instead.
  def scores(graded):
    return np.array([[a.sample.ids[0] % 2 + 1.0 for a in g] for g in graded.answers])

  monkeypatch.setattr(collect.Graded, "scores_PR", property(scores))


def poison(monkeypatch, steps, times=1):
  """Before these steps one weight is infinite; it is itself again after the step."""
  left, kept = dict.fromkeys(steps, times), []
  entered, record = run_step.entered, session_lib.Session.record

  def enter(cfg, state, step):
    state = entered(cfg, state, step)
    if not left.get(step):
      return state
    left[step] -= 1
    scale = state.params["norm"]["scale"]
    kept.append((np.asarray(scale), scale.sharding))
    return with_scale(state, scale.at[0].set(np.inf))

  def mended(session, state, done):
    if kept:
      state = with_scale(state, jax.device_put(*kept.pop()))
    record(session, state, done)

  monkeypatch.setattr(run_step, "entered", enter)
  monkeypatch.setattr(session_lib.Session, "record", mended)


def with_scale(state, scale):
  params = state.params | {"norm": {"scale": scale}}
  return dataclasses.replace(state, params=params)


def trained(out):
  return [r for r in log_lib.metrics(out) if "eval" not in r]


def test_one_bad_step_is_skipped_counted_and_written_for_inspection(
  monkeypatch, tmp_path, capsys
):
  poison(monkeypatch, [2])
  loop.train(dataclasses.replace(CFG, steps=4), tmp_path)
  lines = trained(tmp_path)
  assert [r["rollout/nonfinite"] > 0 for r in lines] == [False, False, True, False]
  assert "step 3 is not finite" in capsys.readouterr().err
  (file,) = (tmp_path / "bad").iterdir()
  with np.load(file) as held:  # no pickles
    assert json.loads(str(held["metrics"]))["step"] == 3
    assert held["0/tokens_BT"].shape == held["0/adv_BT"].shape
    assert held["0/mask_BT"].any()
  with checkpoint.Checkpointer(tmp_path / "checkpoints", 2, "") as found:
    assert found.metas()[4]["updates"] == 3


def test_bad_steps_in_a_row_end_the_run_and_leave_the_last_good_checkpoint(
  monkeypatch, tmp_path
):
  poison(monkeypatch, [3, 4])
  with pytest.raises(config.Error, match="step 5: 2 steps in a row had a loss"):
    loop.train(CFG, tmp_path)
  assert checkpoint.steps(tmp_path / "checkpoints") == [2]
  assert len(list((tmp_path / "bad").iterdir())) == 2


def test_a_run_goes_back_to_its_last_good_checkpoint_and_on_with_other_data(
  monkeypatch, tmp_path
):
  # Step 4 is bad whatever comes before; it gets better after the second return.
  poison(monkeypatch, [3, 4], times=2)
  back = config.Guard(bad_steps=2, on_bad="rollback")
  drawn = record_prompts(monkeypatch)
  loop.train(dataclasses.replace(CFG, guard=back), tmp_path)
  assert [r["step"] for r in trained(tmp_path)] == [1, 2, 3, 4, 5, 6]
  assert all(r["rollout/nonfinite"] == 0 for r in trained(tmp_path))
  returns = json.loads((tmp_path / "returns.json").read_text())
  assert returns == [{"from": 5, "to": 2}] * 2
  assert trained(tmp_path)[-1]["training/returns"] == 2
  assert checkpoint.steps(tmp_path / "checkpoints")[-2:] == [4, 6]
  rows = pq.read_table(tmp_path / "completions.parquet").to_pylist()
  assert sum(row["split"] == "train" for row in rows) == 6 * 8, "none twice, none lost"
  orders = np.array(drawn).reshape(-1, 2)[[2, 5, 8]].tolist()
  assert len(set(map(tuple, orders))) == 3, f"third step's prompts: {orders}"


def record_prompts(monkeypatch):
  drawn, real = [], collect.step

  def step(*args, **more):
    graded = real(*args, **more)
    drawn.extend(prompt.uid for prompt in graded.prompts)
    return graded

  monkeypatch.setattr(collect, "step", step)
  return drawn


def test_returns_are_bounded_and_survive_the_process(monkeypatch, tmp_path):
  poison(monkeypatch, [0, 1], times=9)
  back = config.Guard(bad_steps=2, on_bad="rollback", rollbacks=1)
  cfg = dataclasses.replace(CFG, guard=back)
  for _ in range(2):  # without a checkpoint it goes back to the start
    with pytest.raises(config.Error, match=r"in a row .* after 1 returns"):
      loop.train(cfg, tmp_path)
  assert json.loads((tmp_path / "returns.json").read_text()) == [{"from": 2, "to": 0}]


def test_a_sampler_that_differs_from_the_trainer_ends_the_run(monkeypatch, tmp_path):
  real = step_lib.Stepper.__init__

  def init(self, arch, compute, sampling, *rest):  # scores at another temperature
    real(self, arch, compute, dataclasses.replace(sampling, temperature=2.0), *rest)

  monkeypatch.setattr(step_lib.Stepper, "__init__", init)
  with pytest.raises(config.Error, match=r"probs_diff_mean.* at another temperature"):
    loop.train(CFG, tmp_path)


@pytest.mark.parametrize(
  "change, cause",
  [
    ({"compute": config.Compute(dtype="bfloat16")}, "bfloat16 rounds"),
    ({"sampling": config.Sampling(top_p=0.9)}, "at the edge of sampling.top_p"),
    ({}, "other weights"),
  ],
)
def test_drift_names_its_likely_cause(change, cause):
  cfg = dataclasses.replace(CFG, **change)
  names = [f"training/rollout_probs_diff_{how}" for how in ("mean", "max")]
  nothing = {"step": 3} | dict(zip(names, (float("nan"), -np.inf), strict=True))
  guard.refuse_drift(cfg, nothing)  # of a marginal phase
  guard.refuse_drift(cfg, {"step": 3} | dict.fromkeys(names, 0.01))
  with pytest.raises(config.Error, match=f"step 3: .*_max is 0.9.*{cause}"):
    guard.refuse_drift(cfg, {"step": 3, names[0]: 0.01, names[1]: 0.9})


def test_entropy_warns_once_per_crossing_and_says_what_it_means():
  series = [0.6, 0.5, 0.11, 0.05, 0.15, 0.6, 0.1, float("nan"), 2.0, 1.5, 0.6, 3.0]
  known, said = None, []
  for now in series:
    known, warning = guard.entropy(known, now)
    said.append(warning and warning.split(" has ")[1].split(":")[0])
  want = {2: "collapsed", 6: "collapsed", 8: "exploded", 11: "exploded"}
  assert said == [want.get(i) for i in range(len(series))]
  sure, _ = guard.entropy(None, 0.01)
  assert guard.entropy(sure, 0.2)[1] is None, "a sure policy may triple its entropy"


def test_only_the_latest_bad_batches_are_kept(tmp_path):
  for step in range(guard.BAD_KEPT + 3):
    guard.write_bad(tmp_path, [], {"step": step})
  kept = sorted(path.name for path in (tmp_path / "bad").iterdir())
  assert kept == [f"{step:08d}.npz" for step in range(3, guard.BAD_KEPT + 3)]


@pytest.mark.slow
def test_soak_memory_is_flat_and_nothing_compiles_again(tmp_path):
  """As a user would run it: another process, a grader of one's own, checkpoints."""
  (tmp_path / "own.py").write_text(
    "def score(data_source, solution_str, ground_truth, extra_info):\n"
    "  return 1.0 + len(solution_str) % 2\n"
  )
  out, steps, early = tmp_path / "run", 400, 100
  command = f"""train {ROOT}/experiments/grpo.py --out {out} --steps {steps}
    --save-every 50 --data.prompts 2 --data.responses 4 --data.max-prompt-tokens 32
    --data.grader {tmp_path}/own.py:score --sampling.max-new-tokens 4
    --sampling.slots 8 --eval.problems 1 --eval.samples 2
    --phases.0.terms.0.advantage reinforce""".split()
  child = subprocess.run(
    [sys.executable, ROOT / "tests" / "soak_child.py", *command],
    env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
  )
  assert child.returncode == 0, child.stderr[-3000:]
  lines = trained(out)
  compiles = np.array([r["compiles"] for r in lines])
  assert not compiles[1:].any(), f"steps that compile: {np.flatnonzero(compiles) + 1}"
  assert sum(r["actor/grad_norm"] > 0 for r in lines) == steps
  alive = [int(n) for n in re.findall(r"^alive (\d+)$", child.stdout, re.M)]
  assert len(alive) == steps and alive[-1] <= alive[early], (
    f"arrays are left on the device: {alive[early]}, then {alive[-1]}"
  )
  rss = [1e3 * r["perf/cpu_memory_used_gb"] for r in lines]
  grown = growth(rss[early:])
  assert grown < 4, f"{grown:.1f} MB more with every 50 steps: something is kept"


def growth(rss, window=50):
  """MB from each window to the next: the median, of medians.

  What is kept in every step, or with every checkpoint, is in all of them; an allocator
  that takes another region, at a moment that chance chooses, is in one.
  """
  medians = np.median(np.reshape(rss, (-1, window)), axis=1)
  return float(np.median(np.diff(medians)))


@pytest.mark.parametrize(
  "kept, leaks",
  [
    (lambda n: 0 * n, False),
    (lambda n: 40 * (n > 130), False),  # a region more
    (lambda n: 40 * (n > 20) + 30 * (n > 299), False),
    (lambda n: 0.1 * n, True),  # 100 kB in each step
    (lambda n: 5 * (n // 50), True),  # 5 MB with each checkpoint
    (lambda n: 0.1 * n - 40 * (n > 200), True),
  ],
)
def test_growth_tells_a_leak_from_a_jump(kept, leaks):
  n = np.arange(300)
  noise = np.random.default_rng(0).normal(0, 3, 300)
  assert (growth(800 + kept(n) + noise) > 4) == leaks


def test_pretraining_that_diverges_ends_with_one_line(tmp_path, capfd):
  cfg = config.Pretrain(
    lr=1e30,
    warmup=0,
    steps=20,
    rows=8,
    row_tokens=64,
    corpus=config.Corpus(documents=200),
    width=config.Width(layers=1, d_model=16, heads=2, head_dim=8, d_ff=16),
    compute=config.Compute(remat="auto"),
  )
  with pytest.raises(config.Error, match=r"step [45]: 3 steps in a row .* not finite"):
    pretrain.pretrain(cfg, tmp_path)
  assert "compute.remat auto: none" in capfd.readouterr().err, "a CPU keeps all"
