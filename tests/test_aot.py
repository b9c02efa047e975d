"""Programs from shapes alone: counts against known programs, and the TPU compiler."""

import dataclasses
import functools
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pxy import config
from pxy.aot import chips, hlo, lengths, measure, programs, whole
from pxy.commands import cli, plan
from pxy.model import attention, decoder, flops, paged, ragged
from pxy.model import cache as kv
from pxy.model.arch import Arch
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import program as program_lib
from pxy.rl import pack
from pxy.sampling import engine as engine_lib
from pxy.sampling import programs as sampler_lib
from pxy.sampling import replay, step
from pxy.show import completions
from pxy.train import step as step_lib
from pxy.weights import load

ARCH = Arch(
  vocab_size=512, layers=6, d_model=64, heads=4, kv_heads=2, head_dim=16, d_ff=128,
  context=256, qk_norm=True,
)  # fmt: skip

tpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="the TPU compiler is not installed: pip install libtpu",
)


def counted(function, *shapes, shardings=None):
  jitted = jax.jit(function) if shardings is None else jax.jit(function, **shardings)
  args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return hlo.count(jitted.lower(*args).compile().as_text())


def test_a_loop_counts_as_often_as_it_turns():
  def scanned(x, ws):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

  found = counted(scanned, (32, 48), (7, 48, 48))
  assert found.flops == 7 * 2 * 32 * 48 * 48, (
    "the FLOPs of a scan of 7 products are not 7 times those of one: hlo.count reads"
    " the loop's turns, or the product's sizes, wrongly"
  )
  once = counted(lambda x, w: x @ w, (32, 48), (48, 48))
  assert once.bytes == 4 * (2 * 32 * 48 + 48 * 48)


def test_a_slice_of_stacked_weights_is_read_once_in_all():
  def scanned(x, ws):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x * w), None), x, ws)[0]

  found = counted(scanned, (256,), (50, 256))
  stacked, state = 4 * 50 * 256, 50 * 4 * 2 * 256
  assert stacked < found.bytes < stacked + 2 * state + 50 * 100, (
    f"{found.bytes} bytes: 50 turns read {stacked} bytes of weights in all, one slice"
    " in each; more means that every turn is charged with all of them"
  )


def test_bytes_that_a_name_or_a_way_round_would_hide():
  """A weight that a fusion sees through another one; a cache that a kernel is given."""
  text = """HloModule m

%inner (p: bf16[8,4]) -> bf16[4,8] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %b = bf16[4,8]{0,1} bitcast(%p)
}

%outer (a: bf16[2,4], w: bf16[8,4]) -> f32[2,8] {
  %a = bf16[2,4]{1,0} parameter(0)
  %w = bf16[8,4]{1,0} parameter(1)
  %f = bf16[4,8]{0,1} fusion(%w), kind=kLoop, calls=%inner
  ROOT %d = f32[2,8]{1,0} dot(%a, %f), lhs_contracting_dims={1}
}

ENTRY %main (x: bf16[2,4], y: bf16[8,4], k: bf16[9,99], v: bf16[9,99]) -> f32[2,8] {
  %x = bf16[2,4]{1,0} parameter(0)
  %y = bf16[8,4]{1,0} parameter(1)
  %k = bf16[9,99]{1,0} parameter(2)
  %v = bf16[9,99]{1,0} parameter(3)
  %t = s32[] constant(0)
  %pxy_ragged.1 = bf16[2,4]{1,0} custom-call(GIVEN, %k, %k, %v, %v), kind=k
  ROOT %o = f32[2,8]{1,0} fusion(%pxy_ragged.1, %y), kind=kOutput, calls=%outer
}
"""
  given = ", ".join(["%t"] * (ragged.GIVEN - 3) + ["%x"] * 3)
  text = text.replace("GIVEN", given)
  kernel, fusion = (ragged.GIVEN - 3) * 4 + 2 * (3 * 8 + 8), 2 * (8 + 32) + 4 * 16
  assert hlo.count(text).bytes == kernel + fusion


def test_a_fused_scatter_writes_in_place():
  text = """HloModule m

%fused (p: f32[9,99], i: s32[2,1], u: f32[2,99]) -> f32[9,99] {
  %p = f32[9,99]{1,0} parameter(0)
  %i = s32[2,1]{1,0} parameter(1)
  %u = f32[2,99]{1,0} parameter(2)
  ROOT %s = f32[9,99]{1,0} scatter(%p, %i, %u), to_apply=%take
}

ENTRY %main (x: f32[9,99], i: s32[2,1], u: f32[2,99]) -> f32[9,99] {
  %x = f32[9,99]{1,0} parameter(0)
  %i = s32[2,1]{1,0} parameter(1)
  %u = f32[2,99]{1,0} parameter(2)
  ROOT %o = f32[9,99]{1,0} fusion(%x, %i, %u), kind=kCustom, calls=%fused
}
"""
  assert hlo.count(text).bytes == 4 * (2 + 3 * 2 * 99)


@pytest.mark.parametrize(
  "spec, kind, result",
  [
    (P("d"), "all-reduce", 4 * 64 * 64),  # the contracted axis is split
    (P(None, "d"), "all-gather", 4 * 64 * 64),
  ],
)
def test_collectives_are_counted_with_their_bytes(spec, kind, result):
  mesh = jax.make_mesh((8,), ("d",), (jax.sharding.AxisType.Auto,))
  split, whole = NamedSharding(mesh, spec), NamedSharding(mesh, P())
  if kind == "all-gather":
    function, shapes, ins = (lambda x: x * 2), [(64, 64)], (split,)
  else:
    function, shapes = (lambda x, y: x.T @ y), [(64, 64), (64, 64)]
    ins = (split, split)
  found = counted(
    function, *shapes, shardings={"in_shardings": ins, "out_shardings": whole}
  )
  assert found.collectives == {kind: (1, result)}
  share = 7 / 8
  assert found.wire == result * share * (2 if kind == "all-reduce" else 1)


def test_groups_of_devices_as_xla_writes_them():
  for text, devices in [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}, x", 4),
    ("replica_groups=[8,2]<=[16], x", 2),
    ("replica_groups=[2,8]<=[8,2]T(1,0), x", 8),
    ("replica_groups=mesh['a'=8,'b'=4] {'b'}, x", 4),
    ("replica_groups=mesh['a'=8,'b'=4], device_ids=([4,8]T(1,0)) {'a','b'}, x", 32),
  ]:
    assert hlo._group(text) == devices, text


def test_a_train_step_on_a_cpu_costs_what_the_model_says():
  mesh = mesh_lib.make(config.Mesh(fsdp=1), jax.devices()[:1])
  stepper = step_lib.Stepper(
    ARCH, config.Compute(), config.Sampling(), config.Optim(), mesh
  )
  rows, tokens, turns = 2, 128, 3
  packed = pack.shapes((turns, rows, tokens))
  text = stepper.lower_update(packed, (config.Term(),)).compile().as_text()
  model = flops.train(
    ARCH, turns * rows * tokens, flops.causal(ARCH, [tokens] * turns * rows)
  )
  ratio = hlo.count(text, turns).flops / model
  # The head's products are formed again in the backward pass, and so are the scores.
  assert 1.0 < ratio < 1.5, f"compiled FLOPs are {ratio:.2f} x the model's"


@pytest.mark.parametrize(
  "topology", ["v5e", "v9:2x2", "v5e:2", "v5e:2x2x2x2", "v5e:axb", "", "v5e:2x2 "]
)
def test_unknown_topologies_are_refused(topology):
  with pytest.raises(config.Error, match="--topology"):
    chips.chip(topology)


def test_published_architectures_have_their_published_sizes():
  sizes = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
  }
  for name, size in sizes.items():
    assert decoder.size(load.arch(f"hf://{name}")) == size, name


def test_what_is_done_once_counts_as_its_share_of_a_turn():
  """A product before a loop of 8 turns is an eighth of one in each of them."""

  def run(x, w, turns):
    carry = jax.lax.while_loop(
      lambda c: (c[0] < turns) & (c[1].sum() < 1e9),
      lambda c: (c[0] + 1, c[1] @ w),
      (0, x @ w),
    )
    return carry[1]

  shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  lowered = jax.jit(run).lower(shape, shape, jax.ShapeDtypeStruct((), jnp.int32))
  text = lowered.compile().as_text()
  described = program_lib.Program("decode", lambda: lowered, trips=8, turns=8)
  said = {"text": text, "peak_bytes": 1, "argument_bytes": 1}
  found = measure._measured(described, said, chips.CHIPS["v5e"], 1)
  assert found.compiled_flops == 2 * 64**3 * (1 + 1 / 8)


def test_a_turn_takes_what_its_rows_hold_where_that_is_all_that_is_read(monkeypatch):
  monkeypatch.setattr(attention, "_ragged", lambda *_: True)
  sampler = engine_lib.Engine(
    ARCH, sampling=config.Sampling(max_new_tokens=200, slots=4), stop_ids=(3,),
    max_prompt_tokens=56,
  )  # fmt: skip
  sizes = sampler.largest(4, 1)
  assert (sizes.rows, sizes.room) == (4, 256)
  said = {
    "text": "ENTRY %main () -> f32[] {\n}\n",
    "peak_bytes": 1,
    "argument_bytes": 1,
  }
  described = program_lib.Program("decode", None, cache_flops=8, cache_bytes=4096)
  full = measure._measured(described, said, chips.CHIPS["v5e"], 1)
  assert (full.hbm_bytes_moved, full.compiled_flops) == (4096, 8)
  call = replay.Call("decode", rows=4, width=256, turns=2, read=2 * 4 * 256 / 8)
  seconds, moved = whole._turn(sampler, [full], sizes, call, chips.CHIPS["v5e"])
  assert moved == 4096 / 8 and seconds == pytest.approx(moved / 0.819e12)


def test_lengths_have_the_mean_and_the_point_that_were_asked_for():
  length_PR, prompt_P = lengths.of("mean=1500,p95=5000,max=8192,prompt=300", 128, 8)
  assert length_PR.shape == (128, 8) and set(prompt_P) == {300}
  assert length_PR.mean() == pytest.approx(1500, rel=0.01)
  assert np.percentile(length_PR, 95) == pytest.approx(5000, rel=0.02)
  assert length_PR.min() >= 1 and length_PR.max() <= 8192
  again, _ = lengths.of("mean=1500,p95=5000,max=8192", 128, 8)
  np.testing.assert_array_equal(again, length_PR)


@pytest.mark.parametrize(
  ("word", "says"),
  [
    ("mean=1500", "expected mean=M,p95=Q,max=L"),
    ("mean=9,p95=5,max=8", "expected 0 < mean < p95 <= max"),
    ("mean=9,p95=x,max=8", "'p95=x' is no NAME=NUMBER from 1 on"),
    ("mean=50,p95=5000,max=8192", "with that 95 % point the mean is 912 or more"),
    ("nowhere", "no run's completions"),
  ],
)
def test_lengths_that_are_none_are_one_line(word, says):
  with pytest.raises(config.Error) as error:
    lengths.of(word, 4, 2)
  assert says in str(error.value) and "\n" not in str(error.value)


def test_lengths_of_a_run_are_those_of_its_last_step(tmp_path):
  table = completions.Table(tmp_path, 0, False)
  rows = [(1, "train", 5), (2, "train", 7), (2, "train", 9), (2, "eval", 1)]
  texts = {"prompt": "", "completion": ""}
  table.add(
    [
      {"step": step, "split": split, "tokens": tokens} | texts
      for step, split, tokens in rows
    ]
  )
  table.flush()
  table.join()
  file = tmp_path / "completions.parquet"
  for word in (str(tmp_path), str(file)):
    drawn_PR, prompt_P = lengths.of(word, 1, 2)
    assert sorted(drawn_PR[0]) == [7, 9] and prompt_P is None
  assert set(lengths.of(str(tmp_path), 4, 2)[0].flat) == {7, 9}
  lines = [{"step": n, "prompt_length/mean": 10.0 * n + 1.6} for n in (1, 2)]
  text = "".join(json.dumps(line) + "\n" for line in (*lines, {"step": 2, "eval": {}}))
  (tmp_path / "metrics.jsonl").write_text(text)
  assert lengths.of(str(file), 3, 2)[1].tolist() == [22, 22, 22]


WEIGHED = config.Term(space="marginal", tis="token")


@pytest.mark.parametrize(
  ("terms", "how", "asked", "told"),
  [
    ((config.Term(tis="token"),), {}, (), []),  # its ratio is of the update's own pass
    ((WEIGHED,), {}, ("gap",), ["p: importance weights (1 forward pass a step)"]),
    (
      (config.Term(kl="k3", kl_coef=0.1), WEIGHED),
      {"updates": 2},
      ("old", "ref", "gap"),
      [
        "p: old log-probs and a reference's log-probs and importance weights"
        " (3 forward passes a step)"
      ],
    ),
    ((config.Term(),), {"data": config.Data(rollouts="rows.jsonl")}, ("old",), None),
    ((config.Term(clip="none"),), {"data": config.Data(rollouts="x")}, (), []),
  ],
)
def test_what_a_step_scores_beside_its_updates_is_told(terms, how, asked, told):
  cfg = config.Train(phases=(config.Phase("p", terms),), **how)
  assert config.passes(cfg, cfg.phases[0]) == asked
  if told is not None:
    assert plan.scored(cfg) == told


@tpu
def test_what_is_computed_again_is_settled_by_the_chips_memory():
  cfg = config.Train(compute=config.Compute(remat="auto"))
  _, chip = chips.chip("v5e:2x2")
  for memory, remat in ((chip.hbm_bytes, "dots"), (2**20, "full")):
    found = programs.settled(cfg, ARCH, chips.devices("v5e:2x2"), memory)
    assert found.compute.remat == remat
    assert dataclasses.replace(found, compute=cfg.compute) == cfg


@tpu
@pytest.mark.slow
@pytest.mark.parametrize("topology, chip", [("v5e:2x2", "v5e"), ("v5p:2x2x1", "v5p")])
def test_every_program_of_a_run_compiles_for_a_pod(
  tmp_path, monkeypatch, topology, chip
):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  argv = [
    "compile", "experiments/dsrl.py", "--topology", topology, "--json",
    str(tmp_path / "out.json"), "--mesh.fsdp", "2", "--mesh.tensor", "2",
    "--compute.dtype", "bfloat16", "--compute.remat", "full", "--data.prompts", "8",
  ]  # fmt: skip
  cli.main(argv)
  found = json.loads((tmp_path / "out.json").read_text())
  assert (found["topology"], found["chip"]) == (topology, chip)
  names = [program["name"] for program in found["programs"]]
  assert names == [
    "reshard", "prefill", "admit", "decode", "carry", "evaluate", "score",
    "update nsr-prerl", "update grpo",
  ]  # fmt: skip
  assert found["passes"] == {"nsr-prerl": [], "grpo": []}
  assert found["remat"] == "full"
  by_name = {program["name"]: program for program in found["programs"]}
  for name, one in by_name.items():
    assert one["fits"] and 0 < one["argument_bytes"] <= one["peak_bytes"], name
    assert one["seconds_bound"] > 0 and one["bound"] in ("compute", "memory", "links")
  for name in ("prefill", "decode", "score", "update grpo"):
    one = by_name[name]
    ratio = one["compiled_flops"] / one["model_flops"]
    assert 0.9 < ratio < 6, f"{name}: compiled FLOPs are {ratio:.2f} x the model's"
  assert by_name["update grpo"]["collectives"], "a split train step must communicate"
  kept = sorted((tmp_path / "cache" / "compile").iterdir())
  times = [path.stat().st_mtime_ns for path in kept]
  cli.main(argv)
  assert [path.stat().st_mtime_ns for path in kept] == times, "compiled again"
  cli.main([*argv, "--lengths", "mean=40,p95=80,max=96"])
  told = json.loads((tmp_path / "out.json").read_text())
  step, programs = told["step"], {one["name"]: one for one in told["programs"]}
  parts = ("reshard", "prefill", "admit", "decode", "carry", "update")
  seconds = [step[f"{name}_seconds_bound"] for name in parts]
  assert step["seconds_bound"] == pytest.approx(sum(seconds)) and min(seconds) >= 0
  most = max(one["seconds_bound"] for name, one in programs.items() if "decode" in name)
  each = step["decode_seconds_bound"] / step["decode_turns"]
  weights = step["decode_bytes_least"] / step["decode_turns"] / 2
  assert 95 <= step["decode_turns"] and 0 < each <= most
  assert weights < step["decode_bytes"] / step["decode_turns"]
  assert 0 < step["update_seconds_bound"] < programs["update grpo"]["seconds_bound"]


@tpu
@pytest.mark.slow
def test_what_does_not_fit_is_said_with_a_cure(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path))
  with pytest.raises(SystemExit) as stop:
    cli.main([
      "compile", "experiments/dsrl.py", "--topology", "v5e:2x2",
      "--data.prompts", "65536", "--sampling.slots", "524288",
    ])  # fmt: skip
  assert stop.value.code == 1
  told = re.sub(r"\s+", " ", capsys.readouterr().out)
  assert "decode does not fit: lower sampling.slots (524288)" in told, told


@tpu
def test_jax_keeps_no_program_of_a_chip_that_is_not_there(tmp_path):
  """It could not read it again, and would warn each time."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  where = jax.sharding.SingleDeviceSharding(chips.devices("v5e:2x2")[0])
  shape = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=where)
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    for _ in range(2):
      said = measure._compiled(jax.jit(lambda x: x * 7 + 5).lower(shape))
      assert "ENTRY" in said["text"]
    assert not list(tmp_path.iterdir())
    jax.jit(lambda x: x * 7 + 6)(2.0)
    assert list(tmp_path.iterdir()), "others are kept as before"
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_without_the_compiler_one_line_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "libtpu", None)
  with pytest.raises(config.Error, match=r"pip install 'jax\[tpu\]'"):
    chips.devices("v5e:2x2")


def test_moments_on_the_host_or_in_bfloat16_change_what_they_should():
  """Offloaded moments give the same bits; a bfloat16 first moment nearly the same."""
  mesh, arch = mesh_lib.make(config.Mesh()), dataclasses.replace(ARCH, layers=1)
  rng = np.random.default_rng(0)
  packed = jax.tree.map(
    lambda x: (
      rng.normal(size=x.shape).astype(np.float32)
      if x.dtype == np.float32
      else rng.integers(0, 2, x.shape).astype(x.dtype)
    ),
    pack.shapes((1, 8, 16)),
  )
  out = {}
  for name, opt in {
    "plain": config.Optim(),
    "host": config.Optim(offload=True),
    "bfloat16": config.Optim(mu_dtype="bfloat16"),
  }.items():
    stepper = step_lib.Stepper(arch, config.Compute(), config.Sampling(), opt, mesh)
    state = stepper.init(decoder.init(arch, jax.random.key(0)))
    for _ in range(2):
      state, _ = stepper.update(state, packed, 1, 1e-3, (config.Term(),))
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state)}
    assert kinds == ({"pinned_host"} if name == "host" else {"device"})
    out[name] = jax.device_get(state.params)
  plain, host, low = (jax.tree.leaves(out[name]) for name in out)
  assert all(np.array_equal(a, b) for a, b in zip(plain, host, strict=True))
  worst = max(float(np.abs(a - b).max()) for a, b in zip(plain, low, strict=True))
  assert 0 < worst < 1e-4, worst


def test_the_sampler_can_split_the_devices_otherwise():
  mesh = mesh_lib.make(config.Mesh())
  assert mesh_lib.sampling(mesh, 0) is mesh
  other = mesh_lib.sampling(mesh, 4)
  assert dict(other.shape) == {"data": 1, "fsdp": 2, "tensor": 4}
  assert list(other.devices.flat) == list(mesh.devices.flat)
  with pytest.raises(config.Error, match=r"sampling.tensor 3 does not divide"):
    mesh_lib.sampling(mesh, 3)


def test_responses_do_not_depend_on_how_the_sampler_splits_the_devices():
  """Trained on 8 x 1, sampled on 4 x 2: the same tokens as on one device."""
  mesh = mesh_lib.make(config.Mesh())
  other = mesh_lib.sampling(mesh, 2)
  params = decoder.init(ARCH, jax.random.key(0))
  where = mesh_lib.shardings(mesh, decoder.axes(ARCH), decoder.abstract(ARCH))
  prompts = [np.arange(1, 9), np.arange(20, 25)]
  drawn = []
  for weights, on in [(params, None), (jax.device_put(params, where), other)]:
    sampler = engine_lib.Engine(
      ARCH, sampling=config.Sampling(max_new_tokens=12, slots=8), stop_ids=(3,),
      max_prompt_tokens=16, mesh=on,
    )  # fmt: skip
    found = sampler.run(weights, prompts, 4, key=jax.random.key(1))
    drawn.append([sample for group in found for sample in group])
  for one, two in zip(*drawn, strict=True):
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_allclose(one.logp, two.logp, atol=2e-5)


def pool(pages=9, parts=1, page=4, rows=4, room=8):
  """A pool of any numbers, in which rows have pages of their own."""
  rng = np.random.default_rng(0)
  size = paged.Size(pages * parts, page, parts)
  made = paged.empty(dataclasses.replace(ARCH, layers=2), rows, room, size)
  k, v = (
    jnp.asarray(rng.normal(size=x.shape).astype(x.dtype))
    for x in (made.k_LNKHS, made.v_LNKSH)
  )
  own = [rng.permutation(pages)[: rows // parts * room // page] for _ in range(parts)]
  page_BP = np.reshape(own, made.page_BP.shape).astype(np.int32)
  return dataclasses.replace(made, k_LNKHS=k, v_LNKSH=v, page_BP=jnp.asarray(page_BP))


def test_a_pool_takes_a_token_row_by_row_as_at_once():
  """The two ways, and the place: of a row that is full, and of one that takes none."""
  rng = np.random.default_rng(1)
  lengths, still = np.array([0, 5, 8, 3], np.int32), np.array([0, 0, 0, 1], bool)
  before = dataclasses.replace(
    pool(), length_B=jnp.asarray(lengths), still_B=jnp.asarray(still)
  )
  k, v = rng.normal(size=(2, 2, 4, 2, 16)).astype(np.float32)
  one, two = paged._scattered(before, k, v), paged._written(before, k, v)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(one.length_B, [1, 6, 9, 3])
  want_k, want_v = np.array(before.k_LNKHS), np.array(before.v_LNKSH)
  for row, at in ((0, 0), (1, 5)):
    page = before.page_BP[row, at // 4]
    want_k[:, page, ..., at % 4], want_v[:, page, :, at % 4] = k[:, row], v[:, row]
  np.testing.assert_array_equal(one.k_LNKHS, want_k)
  np.testing.assert_array_equal(one.v_LNKSH, want_v)


@pytest.mark.parametrize("split", [False, True])
def test_pages_are_filled_from_prompts(split):
  """In each part of the pool for itself; the last lane of each fills none."""
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2)) if split else None
  parts = 4 if split else 1
  rng = np.random.default_rng(2)
  arch = dataclasses.replace(ARCH, layers=2)
  source = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape).astype(x.dtype)),
    kv.empty(arch, 4, 10),  # the third page of a row is half a page
  )
  before = pool(parts=parts)
  page_RA = np.stack([rng.permutation(9)[:4] for _ in range(parts)]).astype(np.int32)
  page_RA[:, -1] = 9 * parts
  row_RA, block_RA = rng.integers(0, (4, 3), (parts, 4, 2)).astype(np.int32).T
  row_RA, block_RA = row_RA.T, block_RA.T
  want_k, want_v = np.array(before.k_LNKHS), np.array(before.v_LNKSH)
  for part, a in np.ndindex(parts, 3):
    page, row = part * 9 + page_RA[part, a], row_RA[part, a]
    of = slice(4 * block_RA[part, a], 4 * block_RA[part, a] + 4)
    new_k, new_v = source.k_LBKHS[:, row, ..., of], source.v_LBKSH[:, row, :, of]
    want_k[:, page], want_v[:, page] = 0, 0
    want_k[:, page, ..., : new_k.shape[-1]] = new_k
    want_v[:, page, :, : new_v.shape[-2]] = new_v
  lanes = page_RA, row_RA, block_RA
  if split:
    before, source = (jax.device_put(x, kv.placed(x, mesh)) for x in (before, source))
    lanes = jax.device_put(lanes, mesh_lib.whole(mesh))
  found = jax.jit(functools.partial(paged.fill, mesh=mesh))(before, source, *lanes)
  np.testing.assert_array_equal(found.k_LNKHS, want_k)
  np.testing.assert_array_equal(found.v_LNKSH, want_v)


def test_pages_are_carried_from_one_part_to_another():
  """Bit for bit, also -0 and what is no number; the last lane carries none."""
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  before = pool(parts=4)
  odd = jnp.array([-0.0, jnp.nan, jnp.inf, 1e-40])
  before = dataclasses.replace(
    before, k_LNKHS=before.k_LNKHS.at[1, 9 + 5, 1, 3].set(odd)
  )
  before = jax.device_put(before, kv.placed(before, mesh))
  want_k, want_v = np.array(before.k_LNKHS), np.array(before.v_LNKSH)
  for want in (want_k, want_v):
    want[:, 27 + np.array([8, 0])] = want[:, 9 + np.array([5, 3])]
  lanes = np.int32([5, 3, 36]), np.int32([8, 0, 36])
  given = jax.device_put((np.int32(1), np.int32(3), *lanes), mesh_lib.whole(mesh))
  carry = functools.partial(step.carry, mesh=mesh)
  for one, want in zip(
    carry(before.k_LNKHS, before.v_LNKSH, *given), (want_k, want_v), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(one).view(np.int32), want.view(np.int32))


@tpu
@pytest.mark.slow
def test_a_pods_slots_are_filled_without_copies_of_their_rows():
  arch = dataclasses.replace(ARCH, layers=24, head_dim=128, context=4096)
  devices = chips.devices("v5e:2x2")
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=1, tensor=2), devices)
  engine = engine_lib.Engine(
    arch, sampling=config.Sampling(max_new_tokens=3072, slots=64), stop_ids=(3,),
    max_prompt_tokens=1024, mesh=mesh, dtype="bfloat16",
  )  # fmt: skip
  params = mesh_lib.at(
    decoder.abstract(arch),
    mesh_lib.shardings(mesh, decoder.axes(arch), decoder.abstract(arch)),
  )
  sizes = engine.largest(16, 4)
  programs = {one.name: one for one in sampler_lib.of(engine, params, 16, 4)}
  assert "move" not in programs and sizes.pool.parts == 2
  with measure._unkept():
    compiled = programs["admit"].lower().compile()
  held = compiled.memory_analysis().temp_size_in_bytes
  static = {"dtype": "bfloat16"}
  whole = step.cache_bytes(arch, sizes.lanes, sizes.width, **static) // 2
  assert held < whole / 4, (
    f"{held:,} bytes of temporaries on each device, and the rows that it copies have"
    f" {whole:,}: they are gathered of all layers at once"
  )
  with measure._unkept():
    compiled = programs["carry"].lower().compile()
  held = compiled.memory_analysis().temp_size_in_bytes
  each = 32 * arch.kv_heads * 128 * 128 * 2  # of keys, of one layer
  assert held <= 2 * each, f"{held:,} bytes of temporaries: more than a layer's pages"
