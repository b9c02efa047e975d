"""Gradient alignment against its definition, and `pxy align` as a user calls it."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.commands import cli
from pxy.evaluate import align
from pxy.model import decoder
from pxy.report import align_plot, page, plot
from pxy.rl import pack, view
from pxy.train import step

import test_report
import worlds

START = [1]


@functools.cache
def rows():
  """Five responses of 1 to 7 tokens, each as a row in both views."""
  given = worlds.rollouts(seed=3, prompts=3, responses=2, empty=False)
  ones_B = np.ones(6)
  views = view.conditional(given), view.marginal(given, START)
  packed = [pack.rows(v, given, ones_B, ones_B) for v in views]
  return [
    [jax.tree.map(lambda x, b=b: x[b : b + 1], p) for p in packed] for b in range(5)
  ]


def forward_score():
  compute = config.Compute(vocab_chunk=13)
  return step.scorer(worlds.ARCH, compute, config.Sampling(), forward_mode=True)


@functools.cache
def meter(one_gradient=False):
  more = (forward_score(),) if one_gradient else ()
  return align.Meter(worlds.score(), *more, step=1e-3)


def mean_logp(params, packed):
  logp_BT, _ = worlds.score()(params, packed)
  return jnp.sum(logp_BT * packed.mask_BT) / packed.mask_BT.sum()


@pytest.mark.parametrize("one_gradient", [False, True])
def test_it_measures_what_the_definitions_say(one_gradient):
  params = worlds.params()
  grad = jax.jit(jax.grad(mean_logp))
  for conditional, marginal in rows():
    (found,) = meter(one_gradient)(params, conditional, marginal)
    assert (found["blocks"] == {}) == one_gradient, "blocks want both gradients"
    g_c, g_m = grad(params, conditional), grad(params, marginal)
    flat_c, flat_m = (
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]).astype(np.float64)
      for g in (g_c, g_m)
    )
    inner = flat_c @ flat_m
    size = np.linalg.norm(flat_c), np.linalg.norm(flat_m)
    np.testing.assert_allclose(found["inner"], inner, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["cosine"], inner / size[0] / size[1], rtol=1e-4)
    assert found["tokens"] == conditional.mask_BT.sum()
    logp = [worlds.score()(params, p)[0] for p in (conditional, marginal)]
    for name, of, p in zip(
      ("conditional", "marginal"), logp, (conditional, marginal), strict=True
    ):
      np.testing.assert_allclose(
        found[f"logp_{name}"], np.asarray(of)[p.mask_BT], rtol=1e-5
      )
    # The step is taken along g_m, and makes the change of log P(y) that was asked for.
    eta = 1e-3 / size[1] ** 2
    np.testing.assert_allclose(found["predicted"], eta * inner, rtol=1e-4, atol=1e-8)
    moved = jax.tree.map(lambda w, g, eta=eta: w + eta * g, params, g_m)
    change = mean_logp(moved, conditional) - mean_logp(params, conditional)
    np.testing.assert_allclose(found["measured"], change, atol=2e-6)
    assert abs(found["measured"] - found["predicted"]) < 0.1 * abs(eta * inner) + 5e-6


def test_blocks_add_up_and_layers_are_apart():
  params = worlds.params()
  (found,) = meter()(params, *rows()[0])
  names = ["embed", "layers.0", "layers.1", "norm"]
  assert sorted(found["blocks"]) == names
  total = sum(block["inner"] for block in found["blocks"].values())
  np.testing.assert_allclose(total, found["inner"], rtol=1e-5)
  grad = jax.jit(jax.grad(mean_logp))
  g_c, g_m = (grad(params, packed) for packed in rows()[0])
  pick = functools.partial(jax.tree.map, lambda x: np.asarray(x[1], np.float64))
  pairs = zip(*(jax.tree.leaves(pick(g["layers"])) for g in (g_c, g_m)), strict=True)
  second = sum(float(np.vdot(x, y)) for x, y in pairs)
  np.testing.assert_allclose(found["blocks"]["layers.1"]["inner"], second, rtol=1e-3)


def test_with_the_prompt_as_context_everything_agrees():
  params = worlds.params()
  for conditional, _ in rows():
    (found,) = meter()(params, conditional, conditional)
    np.testing.assert_allclose(found["cosine"], 1, rtol=1e-5)
    np.testing.assert_allclose(found["predicted"], 1e-3, rtol=1e-4)
    np.testing.assert_allclose(found["measured"], 1e-3, rtol=0.02)
    assert (align.gap(found) == 0).all()


def test_a_mixture_is_measured_as_a_mixture():
  given = worlds.rollouts(seed=3, prompts=3, responses=2, empty=False)
  ones_B, params = np.ones(6), worlds.params()
  both = [
    pack.rows(v, given, ones_B, ones_B)
    for v in (view.conditional(given), view.mixture(given, [1, 2]))
  ]
  found, *others = meter()(params, *both)
  assert len(others) == 5
  logs = []
  for v in (view.conditional(given), view.shuffled(given, 1), view.shuffled(given, 2)):
    packed = jax.tree.map(lambda x: x[:1], pack.rows(v, given, ones_B, ones_B))
    logs.append(float(np.sum(worlds.score()(params, packed)[0] * packed.mask_BT)))
  want = np.logaddexp.reduce(logs) - math.log(3)
  np.testing.assert_allclose(found["logp_marginal"].sum(), want, rtol=1e-5)


def test_one_gradient_needs_the_memory_of_one():
  """Weights of 15 MB, rows of 8 tokens: what is needed beside the weights is gradients.

  Two gradients take 30 MB; one, and its tangents of the activations, 15 and a little.
  """
  arch = worlds.ARCH.__class__(
    vocab_size=31, layers=6, d_model=128, heads=4, kv_heads=4, head_dim=32, d_ff=1024,
    context=64,
  )  # fmt: skip
  params = decoder.abstract(arch)
  size = sum(x.size * 4 for x in jax.tree.leaves(params))
  make = functools.partial(step.scorer, arch, config.Compute(), config.Sampling())
  packed = [jax.eval_shape(lambda p=p: p) for p in rows()[0]]

  def peak(meter):
    return max(
      program.lower(params, *packed).compile().memory_analysis().temp_size_in_bytes
      for program in meter._programs
    )

  two, one = (
    peak(align.Meter(make())),
    peak(align.Meter(make(), make(forward_mode=True))),
  )
  assert two > 1.9 * size, f"{two / size:.2f} of the weights"
  assert one < two - 0.7 * size, f"{one / size:.2f} against {two / size:.2f} weights"


def made(tokens, inner, score, problem, gap=0.5):
  logp = np.full(tokens, -1.0)
  row = {
    "tokens": tokens,
    "inner": inner,
    "cosine": inner / 10,
    "predicted": inner * 1e-3,
    "measured": inner * 9e-4,
    "logp_conditional": logp,
    "logp_marginal": logp - gap * np.arange(tokens),
    "entropy": np.linspace(0, 2, tokens),
    "blocks": {"a": {"inner": inner, "cosine": 0.5}},
  }
  return row, (problem, score)


def test_the_summary_by_hand():
  """Problem 0: inner 4 (right), -2 (wrong); problem 1: 1 (right), ungraded 7.

  All: mean 10/4 = 2.5, one of four below zero. Over problems the sums are 2 and 8, the
  deviations 2 - 5 and 8 - 5, so the error is sqrt(2 (9 + 9)) / 4 = 1.5.
  """
  table = [
    made(2, 4.0, 1.0, 0), made(3, -2.0, 0.0, 0),
    made(1, 1.0, 1.0, 1), made(4, 7.0, math.nan, 1), made(0, 0.0, 1.0, 1),
  ]  # fmt: skip
  found = align.summary(*zip(*table, strict=True))
  every, right, wrong = (found["splits"][n] for n in ("all", "correct", "wrong"))
  assert [s["responses"] for s in (every, right, wrong)] == [4, 2, 1]
  assert every["inner"] == {"value": 2.5, "se": 1.5, "min": -2.0, "max": 7.0}
  assert every["negative"]["value"] == 0.25 and wrong["negative"]["value"] == 1
  assert right["inner"]["value"] == 2.5 and wrong["inner"]["value"] == -2
  # 4 * 2^2, -2 * 3^2, 1, 7 * 4^2
  np.testing.assert_allclose(every["inner_sum"]["value"], (16 - 18 + 1 + 112) / 4)
  np.testing.assert_allclose(found["one_step"]["slope"], 0.9)
  np.testing.assert_allclose(found["one_step"]["correlation"], 1.0)
  # Gaps of 0.5 per place; places 2 and 3 are held by lengths 3 and 4.
  shape = [(b["from"], b["to"], b["tokens"]) for b in found["position"]]
  assert shape == [(0, 1, 4), (1, 2, 3), (2, 4, 3)]
  np.testing.assert_allclose([b["gap"] for b in found["position"]], [0, 0.5, 3.5 / 3])
  assert sum(b["tokens"] for b in found["entropy"]) == 10
  assert found["blocks"] == {"a": {"inner": 2.5, "cosine": 0.5}}
  assert align.summary([], [])["splits"]["all"]["inner"]["value"] is None


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  folder = tmp_path_factory.mktemp("align")
  cli.main(
    ["align", "builtin:tiny", "--n", "7", "--responses", "2", "--max-new-tokens", "48",
     "--json", f"{folder}/a.json", "--plot", f"{folder}/a.png"]
  )  # fmt: skip
  return folder


def test_the_command_measures_so_many_responses_and_draws(measured):
  report = json.loads((measured / "a.json").read_text())
  assert len(report["responses"]) == 7
  assert len({row["uid"] for row in report["responses"]}) == 4
  assert {"model", "task", "context", "splits", "one_step", "blocks"} <= report.keys()
  for row in report["responses"]:
    assert -1 <= row["cosine"] <= 1 and row["norm_conditional"] > 0
    total = sum(block["inner"] for block in row["blocks"].values())
    np.testing.assert_allclose(total, row["inner"], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(report["one_step"]["slope"], 1, atol=0.05)
  assert (measured / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_of_a_run_shows_its_alignment(measured, tmp_path):
  folder = test_report.make(tmp_path / "run")
  (folder / "align").mkdir()
  report = (measured / "a.json").read_text()
  (folder / "align" / "00000004.json").write_text(report)
  page.write([folder], folder)
  text = (folder / "report.md").read_text()
  assert "Alignment at step 4, 7 responses" in text
  assert "Alignment of the two gradients" in (folder / "report.html").read_text()
  other = test_report.make(tmp_path / "other", gain=0.03, phases=test_report.DSRL[1:])
  page.write([folder, other], tmp_path / "both")
  panels = align_plot.panels([("a", json.loads(report)), ("b", json.loads(report))])
  assert plot.png([], panels).startswith(b"\x89PNG")


@pytest.mark.parametrize(
  "argv, words",
  [
    (["--n", "0"], "--n: must be > 0"),
    (["--step-size", "0"], "--step-size: must be > 0"),
    (
      ["--n", "8", "--context", "mixture"],
      "--context mixture needs 4 problems, there are 2: raise --n",
    ),
    (["--context", "nothing"], "invalid choice 'nothing'"),
    (["--json", "/nowhere/x/a.json", "--n", "x"], "invalid"),
  ],
)
def test_what_cannot_work_is_refused_at_once(argv, words, capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main(["align", "builtin:tiny", *argv])
  assert stop.value.code == 2
  said = capsys.readouterr().err
  assert words in said and said.count("\n") == 1
