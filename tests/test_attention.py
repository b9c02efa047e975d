"""Attention's kernels against a float64 oracle, on one device and on a mesh of eight.

The TPU's is interpreted here, the GPU's replaced by jax.nn's XLA version, with the same
arguments. That the TPU's really compiles, its compiler says, which runs without one.
"""

import collections
import dataclasses
import functools
import importlib
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxy import config, testing
from pxy.model import attention, cudnn, decoder, paged, ragged
from pxy.model import cache as kv
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process

import reference_decoder

FAR = 2**30
SHAPE = {"rows": 4, "tokens": 100, "heads": 4, "kv_heads": 2, "width": 64}
CASES = {
  "64 wide": {},
  "128 wide, softcap": {"width": 128, "tokens": 128, "rows": 1, "softcap": 2.0},
  "window": {"tokens": 300, "window": 70, "width": 16, "heads": 6, "rows": 1},
  "window beyond the row": {"window": 100, "kv_heads": 4, "width": 8, "rows": 1},
  "layer with a window": {"tokens": 150, "window": 40, "windows": (40, FAR)},
  "layer without a window": {"tokens": 150, "window": FAR, "windows": (40, FAR)},
  "large blocks": {"tokens": 1000, "heads": 2, "kv_heads": 1, "rows": 1, "width": 8},
}


def world(rows, tokens, heads, kv_heads, width):
  """Queries, keys, values, a slope for the output, and rows of three segments of which
  the last is padding."""
  rng = np.random.default_rng(0)
  numbers = [
    rng.standard_normal((rows, tokens, n, width)).astype(np.float32)
    for n in (heads, kv_heads, kv_heads, heads)
  ]
  ends_B3 = np.sort(rng.integers(1, tokens, (rows, 3)), 1)
  after_BT3 = np.arange(tokens)[None, :, None] >= ends_B3[:, None]
  segments_BT = np.array([5, 2, 7, 0], np.int32)[after_BT3.sum(-1)]
  numbers[3][segments_BT == 0] = 0
  return *numbers, segments_BT


STATIC = ("window", "windows", "softcap", "most", "mesh", "kernel")


@functools.partial(jax.jit, static_argnames=STATIC)
def run(q, k, v, slope, segments, array, window, **flags):
  """Output and gradients; `array`: the window, if it is one."""
  window = window if array is None else array

  def loss(q, k, v):
    out = attention.packed(q, k, v, segments, scale=0.3, window=window, **flags)
    return (out * slope).sum(), out

  grads, out = jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
  return out, *grads


def check(kernel, mesh=None, softcap=None, window=None, windows=(), most=None, **shape):
  *numbers, segments_BT = world(**SHAPE | shape)
  got = run(
    *numbers, segments_BT, np.int32(window) if windows else None,
    window=None if windows else window, windows=windows,
    softcap=softcap, most=most, mesh=mesh, kernel=kernel,
  )  # fmt: skip
  assert all(np.isfinite(x).all() for x in got), "padding became nan"
  for b, ids_T in enumerate(segments_BT):
    for segment in set(ids_T) - {0}:
      at = np.flatnonzero(ids_T == segment)
      q, k, v, slope = (x[b, at] for x in numbers)
      out, grads = reference_decoder.attend(q, k, v, 0.3, softcap, window, slope)
      for name, mine, want in zip("oqkv", got, [out, *grads], strict=True):
        where = f"{'output' if name == 'o' else 'gradient of ' + name}, row {b}"
        mine = np.asarray(mine[b])[at]
        np.testing.assert_allclose(mine, want, atol=3e-5, rtol=3e-5, err_msg=where)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kernel", ["xla", "splash", "cudnn"])
def test_kernels_agree_with_the_oracle(kernel, name):
  if kernel == "cudnn" and "softcap" in CASES[name]:
    kernel = attention._kernel("gpu", jnp.zeros((1, 2, 1, 8), "bfloat16"), 2.0)
    assert kernel == "xla", "cuDNN has no softcap"
  check(kernel, **CASES[name])


@pytest.mark.parametrize(
  ("kernel", "name"),
  [("splash", "64 wide"), ("splash", "layer with a window"), ("cudnn", "64 wide")],
)
def test_each_device_runs_its_own_rows_and_heads(kernel, name):
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  check(kernel, mesh, **CASES[name])


def test_rows_that_the_mesh_does_not_divide():
  check("splash", mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2)), rows=3)


def test_heads_that_the_mesh_does_not_divide_are_refused_by_name():
  mesh = mesh_lib.make(config.Mesh(data=1, fsdp=2, tensor=4))
  with pytest.raises(config.Error, match=r"mesh.tensor 4 does not divide kv_heads 2"):
    check("splash", mesh)


def test_gpus_without_what_cudnn_asks_for_take_xla(capsys):
  process.say_once.cache_clear()

  def kernel(platform, *shape, dtype="bfloat16"):
    return attention._kernel(platform, jax.ShapeDtypeStruct(shape, dtype), None)

  assert kernel("gpu", 1, 2, 4, 64) == kernel("gpu", 1, 2, 4, 128) == "cudnn"
  assert kernel("gpu", 1, 2, 4, 64, dtype="float32") == "xla"
  assert kernel("gpu", 1, 3, 4, 64) == kernel("gpu", 1, 2, 4, 256) == "xla"
  assert kernel("gpu", 1, 2, 4, 64, dtype="float32") == "xla"
  said = capsys.readouterr().err.splitlines()
  assert [line.split(": with ")[1].split(" cuDNN")[0] for line in said] == [
    "float32, which is not of 16 bits", "3 tokens, an odd number,", "heads of 256",
  ], "once each"  # fmt: skip
  assert kernel("tpu", 1, 3, 4, 256) == "splash" and kernel("cpu", 1, 2, 4, 64) == "xla"


def test_runs_say_where_sequences_start_and_whether_all_have_a_place():
  segments_BT = jnp.array([[5, 5, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
  found = cudnn.runs(segments_BT, 4)
  np.testing.assert_array_equal(found.length_BM, [[2, 3, 1, -1], [6, -1, -1, -1]])
  np.testing.assert_array_equal(found.start_BM, [[0, 2, 5, -1], [0, -1, -1, -1]])
  assert found.fit and cudnn.runs(segments_BT, 3).fit
  assert not cudnn.runs(segments_BT, 2).fit, "three sequences in two places"


@pytest.mark.parametrize("places", [2, 4, 8])
def test_more_sequences_than_places_take_the_mask(monkeypatch, places):
  """Rows of `world` are of four runs at most."""
  monkeypatch.setattr(cudnn, "_RUNS", places)
  check("cudnn", **CASES["64 wide"] | {"tokens": 60 + places})  # not traced before


def test_who_knows_how_many_sequences_there_are_needs_no_mask():
  check("cudnn", most=4, tokens=59)


@pytest.mark.parametrize(
  ("remat", "times"), [("full", 2), ("attention", 1), ("dots", 1)]
)
def test_what_cudnns_attention_gave_is_kept_where_remat_says_so(
  monkeypatch, remat, times
):
  """Traced as if there were a card: its primitives have no name that JAX promises."""
  monkeypatch.setattr(attention.mesh_lib, "platform", lambda mesh: "gpu")
  monkeypatch.setattr(cudnn, "_takes_runs", lambda how: True)
  library = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
  for name in ("check_cudnn_version", "check_compute_capability"):
    monkeypatch.setattr(library, name, lambda *_: 92000)

  @functools.partial(jax.checkpoint, policy=decoder._REMAT[remat])
  def out(q, k, v):
    segments_BT = jnp.ones((1, 64), int)
    out = attention.packed(q, k, v, segments_BT, scale=1.0, kernel="cudnn")
    return out.astype(float).sum()

  inputs = [jnp.zeros((1, 64, n, 64), jnp.bfloat16) for n in (2, 1, 1)]
  made = str(jax.make_jaxpr(jax.grad(out, argnums=(0, 1, 2)))(*inputs))
  # By where sequences start, and under a mask if there are too many.
  assert made.count("dot_product_attention_fwd_wrapper[") == 2 * times


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1), (2, 2)])
def test_what_a_gpu_decodes_from_its_whole_cache_is_cached(heads, kv_heads):
  """With XLA in the place of cuDNN."""
  rng = np.random.default_rng(0)
  layers, rows, room, width = 3, 4, 12, 8  # three pages a row
  made = (rng.standard_normal((layers, rows, room, kv_heads, width)) for _ in range(2))
  k_LBSKH, v_LBSKH = (np.float32(x) for x in made)
  q_BNH = np.float32(rng.standard_normal((rows, heads, width)))
  length_B = np.array([0, 3, 9, 5])  # without the token itself
  row_B = np.arange(rows)
  for layer in range(layers):
    k_BSKH, v_BSKH = k_LBSKH[layer], v_LBSKH[layer]
    cache = kv.of(k_LBSKH, v_LBSKH, jnp.asarray(length_B))
    new = k_BSKH[row_B, length_B], v_BSKH[row_B, length_B]
    want_BNH = attention.cached(q_BNH, *new, cache, layer, scale=0.3)
    turned = kv.Cache(k_LBSKH, v_LBSKH, jnp.asarray(length_B), turned=True)
    out_BNH = attention.cached(q_BNH, *new, turned, layer, scale=0.3)
    np.testing.assert_allclose(out_BNH, want_BNH, atol=1e-5, err_msg=f"layer {layer}")


def asked_of_a_gpu(monkeypatch):
  """What decoding a token is traced to, as if there were a card, and its caches."""
  library = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
  for name in ("check_cudnn_version", "check_compute_capability"):
    monkeypatch.setattr(library, name, lambda *_: 92000)
  cache = jax.ShapeDtypeStruct((3, 4, 128, 2, 64), jnp.bfloat16)
  given = jax.ShapeDtypeStruct((4, 2, 64), jnp.bfloat16), cache, cache
  length_B = jax.ShapeDtypeStruct((4,), jnp.int32)
  run = functools.partial(cudnn.held, scale=0.3)
  return jax.make_jaxpr(run)(*given, jnp.int32(1), length_B)


def test_a_gpu_reads_the_whole_cache_and_no_copy_of_a_layer(monkeypatch):
  made = asked_of_a_gpu(monkeypatch)
  assert str(made).count("dot_product_attention_fwd_wrapper[") == 1
  layer = 4 * 128 * 2 * 64
  for equation in made.eqns:
    if "dot_product_attention" not in str(equation.primitive):
      large = [x for x in equation.outvars if x.aval.size >= layer]
      assert not large or equation.primitive.name == "reshape", f"a copy: {equation}"


def test_what_is_asked_of_later_versions_of_jax_is_by_name(monkeypatch):
  """jax 0.12 has two more arguments, between others."""
  asked = {}

  def later(
    query, key, value, bias, q_seqlen, kv_seqlen, q_offsets, kv_offsets, page_table_k,
    page_table_v, score_mod_args, scale, seed, dropout_rate, variadic_args, mask_type,
    layout, sliding_window_length, score_mod, cudnn_version, return_residual,
  ):  # fmt: skip
    asked.update(locals())
    return query

  library = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
  monkeypatch.setattr(library, "_dot_product_attention", later)
  asked_of_a_gpu(monkeypatch)
  assert asked["score_mod_args"] == () and asked["score_mod"] is None
  assert asked["scale"] == 0.3 and asked["cudnn_version"] == 92000
  assert asked["page_table_k"].shape == (4, 1, 1, 1), "a page of 128 tokens a row"
  assert asked["mask_type"] == library.MaskType.PADDING


def test_only_one_gpu_that_can_holds(monkeypatch):
  arch = testing.arch(head_dim=64)
  assert not cudnn.holds(arch, "bfloat16", None), "this is a CPU"
  monkeypatch.setattr(attention.mesh_lib, "platform", lambda mesh: "gpu")
  monkeypatch.setattr(cudnn, "_KNOWN", True)
  assert cudnn.holds(arch, "bfloat16", None)
  assert not cudnn.holds(arch, "float32", None)
  assert not cudnn.holds(arch, "bfloat16", mesh_lib.make(config.Mesh()))
  for flags in ({"window": 5}, {"attn_softcap": 2.0}, {"head_dim": 256}):
    assert not cudnn.holds(testing.arch(**flags), "bfloat16", None), flags


LENGTHS = np.array([0, 1, 15, 16, 17, 40, 32, 48])  # 40: all there is room for
ROWS = {
  "groups": {"heads": 6, "softcap": 2.0},
  "bfloat16": {"heads": 2, "dtype": "bfloat16"},
  "window, on a mesh": {"window": 18, "split": True},
  "itself alone, of two windows": {"windows": (1, None), "window": 1},
  "the other of two": {"windows": (1, None)},
}


def held_rows(heads=4, dtype="float32", lengths=LENGTHS, room=40, seed=0):
  """Queries, keys and values of a token, and a cache of three layers."""
  rng = np.random.default_rng(seed)
  kv_heads, width, rows = 2, 8, len(lengths)

  def made(*shape):
    return jnp.asarray(rng.standard_normal(shape), dtype)

  new = (made(rows, n, width) for n in (heads, kv_heads, kv_heads))
  k, v = (made(3, rows, kv_heads, *tail) for tail in ((width, room), (room, width)))
  return *new, kv.Cache(k, v, jnp.asarray(lengths))


@functools.partial(jax.jit, static_argnames=(*STATIC[:3], "mesh", "kernel"))
def run_rows(
  q, k, v, cache, *,
  window=None, windows=None, softcap=None, mesh=None, kernel="ragged",
):  # fmt: skip
  plan = attention.planned(cache, windows or (window,), mesh, kernel)
  if windows:
    window = jnp.int32(window or FAR)
  return attention.cached(
    q, k, v, cache, 1, scale=0.3, softcap=softcap, window=window, plan=plan, mesh=mesh
  )


def pooled(cache, parts=1, page=4, behind=0.0, seed=0):
  """The same rows in pages, in any order; what nothing stands in has `behind`."""
  rng = np.random.default_rng(seed)
  length_B = np.asarray(cache.length_B)
  rows, pages = len(length_B), cache.room // page
  each = rows // parts
  size = paged.Size((each * pages + 3) * parts, page, parts)
  layers, _, kv_heads, width, _ = cache.k_LBKHS.shape
  k = np.full((layers, size.pages, kv_heads, width, page), behind, np.float32)
  v = np.full((layers, size.pages, kv_heads, page, width), behind, np.float32)
  page_BP, own = np.zeros((rows, pages), np.int32), size.pages // parts
  for b in range(rows):
    if b % each == 0:
      free = list(rng.permutation(own))
    for p in range(-(-min(length_B[b], cache.room) // page)):
      page_BP[b, p] = free.pop()
      there = b // each * own + page_BP[b, p]
      end = min(page, length_B[b] - p * page)
      of = slice(p * page, p * page + end)
      k[:, there, ..., :end] = cache.k_LBKHS[:, b, :, :, of]
      v[:, there, :, :end] = cache.v_LBKSH[:, b, :, of]
  dtype = cache.k_LBKHS.dtype
  return paged.Pool(
    jnp.asarray(k, dtype), jnp.asarray(v, dtype), jnp.asarray(page_BP),
    jnp.asarray(length_B), jnp.zeros(rows, bool), parts,
  )  # fmt: skip


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(ragged, "_MOST", 16)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_tpu_reads_of_rows_gives_what_all_of_them_do(small_blocks, name):
  """Interpreted; what lies behind a row's last token is no number."""
  flags = dict(ROWS[name])
  split, dtype = flags.pop("split", False), flags.get("dtype", "float32")
  made = {key: flags.pop(key) for key in ("heads", "dtype") if key in flags}
  *token, cache = held_rows(**made)
  want_BNH = run_rows(*token, cache, **flags)
  if split:
    flags["mesh"] = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  near = 2e-2 if dtype == "bfloat16" else 1e-5
  for kernel, behind in (("ragged", np.nan), ("xla", 0.0)):
    pool = pooled(cache, parts=4 if split else 1, behind=behind)
    out_BNH = run_rows(*token, pool, kernel=kernel, **flags)
    assert out_BNH.dtype == dtype
    got, want = (np.asarray(x, np.float32) for x in (out_BNH, want_BNH))
    np.testing.assert_allclose(got, want, atol=near, rtol=near, err_msg=kernel)


def test_what_a_row_gives_is_its_own_to_the_bit(small_blocks):
  """Among other rows, in another place, in other pages, on a mesh."""
  *token, cache = held_rows()
  first = np.asarray(run_rows(*token, pooled(cache)))
  order = np.array([5, 2, 7, 0, 1, 3, 6, 4])
  moved = kv.Cache(cache.k_LBKHS[:, order], cache.v_LBKSH[:, order], LENGTHS[order])
  token = [x[order] for x in token]
  short = kv.Cache(moved.k_LBKHS, moved.v_LBKSH, jnp.asarray([40, *[1] * 7]))
  one, few = (pooled(x, seed=1) for x in (moved, short))
  np.testing.assert_array_equal(run_rows(*token, one), first[order])
  np.testing.assert_array_equal(run_rows(*token, few)[0], first[order][0])
  mesh, split = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2)), pooled(moved, 4)
  np.testing.assert_array_equal(run_rows(*token, split, mesh=mesh), first[order])


def test_rows_read_the_pages_that_they_share(small_blocks):
  """Two rows with the same first 20 tokens, which stand once."""
  *token, cache = held_rows(lengths=np.array([33, 27]))
  k = cache.k_LBKHS.at[:, 1, :, :, :20].set(cache.k_LBKHS[:, 0, :, :, :20])
  v = cache.v_LBKSH.at[:, 1, :, :20].set(cache.v_LBKSH[:, 0, :, :20])
  cache = kv.Cache(k, v, cache.length_B)
  apart = pooled(cache)
  page_BP = np.array(apart.page_BP)
  pages = page_BP[1, :5].copy()
  page_BP[1, :5] = page_BP[0, :5]
  gone = apart.k_LNKHS.at[:, pages].set(np.nan)  # what row 1 had for itself
  shared = dataclasses.replace(apart, page_BP=jnp.asarray(page_BP), k_LNKHS=gone)
  want = run_rows(*token, apart)
  np.testing.assert_array_equal(run_rows(*token, shared), want)
  np.testing.assert_array_equal(
    run_rows(*token, shared, kernel="xla"), run_rows(*token, apart, kernel="xla")
  )


@pytest.mark.parametrize("window", [1, 7, 16, FAR])
def test_steps_are_the_blocks_that_hold_what_rows_see(window):
  size, room = 16, 40
  page_BP = np.arange(8 * 10).reshape(8, 10)
  found = ragged.steps(jnp.asarray(LENGTHS), window, size, page_BP, 4)
  want = [
    (b, i)
    for b, length in enumerate(LENGTHS)
    for i in range(3)
    if any(
      length - s < window for s in range(i * size, min(length, room, (i + 1) * size))
    )
  ]
  count, pairs = (
    int(found.count_1[0]),
    list(zip(found.row_I, found.block_I, strict=True)),
  )
  assert [(int(b), int(i)) for b, i in pairs[:count]] == (want or pairs[:1])
  assert len(pairs) == 3 * len(LENGTHS), "as long as can be"


@settings(max_examples=60, deadline=None)
@given(
  lengths=st.lists(st.integers(0, 44), min_size=5, max_size=5),
  window=st.sampled_from([1, 7, 16, FAR]),
)
def test_each_page_that_a_row_sees_is_fetched_once_and_no_other(lengths, window):
  """A step's j-th page is on its way if it is another than that of the step before."""
  size, page, pages, each = 16, 4, 10, 4
  length_B, page_BP = np.array(lengths), np.arange(5 * pages).reshape(5, pages)
  found = ragged.steps(jnp.asarray(length_B), window, size, page_BP, page)
  found = jax.tree.map(np.asarray, found)
  tables = [found.row_I, found.block_I, found.first_B, found.end_B]
  tables += [found.stays_BJ.reshape(-1), page_BP.reshape(-1)]
  fetched = []
  for j in range(each):
    there = None
    for i in range(found.count_1[0]):
      at = int(ragged.page_at(j, i, pages, each, page, tables))
      place = int(found.block_I[i]) * each + j
      if place * page < found.end_B[found.row_I[i]]:
        assert at == page_BP[found.row_I[i], place], "a page that the row sees"
      fetched += [at] * (at != there)
      there = at
  first_B, end_B, count_B = ragged.spans(length_B, window, size, pages * page)
  want = [
    int(page_BP[b, p])
    for b in range(5)
    for p in range(first_B[b] // size * each, -(-end_B[b] // page))
    if count_B[b]
  ]
  assert len(fetched) < len(want) + each + 1, "but the first step, which must"
  assert not collections.Counter(want) - collections.Counter(fetched)


def test_a_step_reads_as_much_as_hides_it_and_fits_the_core():
  for heads, size in ((1, 512), (2, 256), (8, 128), (32, 128)):
    assert ragged.block(heads, 128, "bfloat16", 128, 9216) == size, heads
    assert ragged.fits(heads, 128, "bfloat16"), heads
  assert ragged.block(1, 128, "bfloat16", 128, 384) == 384, "no more than there is"
  assert ragged.block(1, 128, "bfloat16", 1024, 2048) == 1024, "whole pages"
  assert not ragged.fits(64, 256, "float32")


def test_a_tpu_whose_kernel_cannot_says_so_once(monkeypatch, capsys):
  monkeypatch.setattr(attention.mesh_lib, "platform", lambda mesh: "tpu")
  wide, fine = testing.arch(kv_heads=64, heads=64, head_dim=256), testing.arch()
  for _ in range(2):
    assert not attention.fills(wide, "float32", None, pool=True)
  told = capsys.readouterr().err
  assert told.count("\n") == 1 and "64 key-value heads of 256 in float32" in told
  assert attention.fills(fine, "bfloat16", None, pool=True)
  assert not capsys.readouterr().err


@pytest.mark.parametrize(
  ("window", "want"), [(None, [0, 4, 20, 40]), (3, [0, 4, 4, 8])]
)
def test_what_is_read_is_counted_by_pages(monkeypatch, small_blocks, window, want):
  of = testing.arch(window=window), np.array([0, 2, 18, 40]), 40, "float32", None
  np.testing.assert_array_equal(attention.read(*of, page=4), 40)
  monkeypatch.setattr(attention.mesh_lib, "platform", lambda mesh: "tpu")
  np.testing.assert_array_equal(attention.read(*of, page=4), want)


GEMMA = testing.arch(
  layers=5, window=40, local_pattern=(True, True, False), rope_local_theta=7.0,
  attn_softcap=2.0, attn_scale=0.3, qk_norm=True, post_norm=True, norm_plus_one=True,
  embed_scale=True, activation="gelu_tanh", head_dim=16,
)  # fmt: skip


def packed_rows(rows, tokens):
  """Ids, positions and segments of rows with a sequence of 90 tokens, one of the rest,
  and 7 of padding."""
  ids_BT = np.random.default_rng(1).integers(GEMMA.vocab_size, size=(rows, tokens))
  lengths = [90, tokens - 97, 7]
  positions_T = np.concatenate([np.arange(n) for n in lengths])
  segments_T = np.repeat([1, 2, 0], lengths)
  return (np.int32(x) for x in np.broadcast_arrays(ids_BT, positions_T, segments_T))


def test_a_model_with_two_windows_is_the_same_with_the_kernel_on_a_mesh():
  inputs = ids_BT, *_ = [*packed_rows(4, 150)]
  params = testing.params(GEMMA, spread=0.1)
  slope_BTD = np.random.default_rng(2).standard_normal((*ids_BT.shape, GEMMA.d_model))
  slope_BTD = np.float32(slope_BTD * (inputs[2] > 0)[..., None])

  @functools.partial(jax.jit, static_argnames=("rows", "kernel"))
  def grad(params, inputs, **flags):
    def loss(params):
      hidden_BTD = decoder.forward(GEMMA, params, *inputs, remat="dots", **flags)
      return (hidden_BTD * slope_BTD).sum(), hidden_BTD

    return jax.grad(loss, has_aux=True)(params)

  want = grad(params, inputs, kernel="xla")
  mesh = mesh_lib.make(config.Mesh(data=2, fsdp=2, tensor=2))
  axes, shapes = decoder.axes(GEMMA), decoder.abstract(GEMMA)
  params = jax.device_put(params, mesh_lib.shardings(mesh, axes, shapes))
  rows = mesh_lib.rows(mesh)
  got = grad(params, jax.device_put(inputs, rows), kernel="splash", rows=rows)
  real = inputs[2] > 0
  np.testing.assert_allclose(got[1][real], want[1][real], atol=1e-4, rtol=1e-4)
  for path, leaf in jax.tree_util.tree_leaves_with_path(want[0]):
    other = functools.reduce(lambda tree, key: tree[key.key], path, got[0])
    far = np.abs(other - leaf).max() / np.abs(leaf).max()
    assert far < 1e-4, f"{jax.tree_util.keystr(path)} differs by {far:.1e} of its size"


@pytest.fixture(scope="module")
def tpus():
  """Four v5e chips, as the TPU's compiler knows them."""
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("the TPU compiler is missing: pip install libtpu")
  from jax.experimental import topologies

  with pytest.MonkeyPatch.context() as patch:
    for name, value in {
      "TPU_SKIP_MDS_QUERY": "1",  # nobody to ask
      "TPU_ACCELERATOR_TYPE": "v5litepod-4",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # the lock guards chips, of which none is used
    }.items():
      patch.setenv(name, value)
    yield topologies.get_topology_desc("v5e:2x2", "tpu").devices


@pytest.mark.slow
def test_the_tpu_compiler_decodes_without_a_copy_of_the_cache(tpus):
  dtype = "bfloat16"
  arch = testing.arch(
    d_model=128, head_dim=128, layers=5, window=200, local_pattern=(True, False)
  )
  mesh = mesh_lib.make(config.Mesh(data=1, fsdp=2, tensor=2), tpus)
  params = decoder.abstract(arch)
  rules = mesh_lib.shardings(mesh, decoder.axes(arch), params, mesh_lib.SAMPLE)
  size = paged.Size(80, 128, parts=2)
  cache = jax.eval_shape(lambda: paged.empty(arch, 8, 1152, size, dtype))
  inputs = mesh_lib.at(params, rules), mesh_lib.at(cache, kv.placed(cache, mesh))
  token_B = jax.ShapeDtypeStruct((8,), jnp.int32, sharding=mesh_lib.rows(mesh))

  @functools.partial(jax.jit, donate_argnums=1)
  def decode(params, cache, token_B):
    return decoder.decode(arch, params, token_B, cache, dtype=dtype, mesh=mesh)

  compiled = decode.lower(*inputs, token_B).compile()
  text, each = compiled.as_text(), mesh_lib.device_bytes(inputs[1])
  assert f"%{ragged.NAME}" in text, "no kernel"
  assert compiled.memory_analysis().temp_size_in_bytes < each / 4, "a copy of the cache"
  copied = re.findall(r"= \w+\[[\d,]*,40,[\d,]*\]\S* (?:copy|transpose)\(", text)
  assert not copied, copied


@pytest.mark.slow
def test_the_tpu_compiler_takes_the_kernel(tpus):
  """No array of T x T, forward or backward, of a program lowered on a CPU."""
  tokens = 384
  arch = testing.arch(
    d_model=128, head_dim=64, layers=5, window=200, local_pattern=(True, False)
  )
  mesh = mesh_lib.make(config.Mesh(data=1, fsdp=2, tensor=2), tpus)
  rows, shapes = mesh_lib.rows(mesh), decoder.abstract(arch)
  params = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    mesh_lib.shardings(mesh, decoder.axes(arch), shapes),
  )
  inputs = [jax.ShapeDtypeStruct((4, tokens), jnp.int32, sharding=rows)] * 3

  @jax.jit
  def grad(params, inputs):
    def loss(params):
      hidden_BTD = decoder.forward(
        arch, params, *inputs, rows=rows, remat="full", dtype="bfloat16"
      )
      return jnp.square(hidden_BTD.astype(jnp.float32)).mean()

    return jax.grad(loss)(params)

  text = grad.lower(params, inputs).compile().as_text()
  for kernel in ("fwd", "dq", "dkv"):
    assert f"splash_mha_{kernel}_segmented" in text, f"no {kernel} kernel"
  square = re.findall(rf"\w+\[[\d,]*\b{tokens},{tokens}\]", text)
  assert not square, f"scores as a whole: {set(square)}"
