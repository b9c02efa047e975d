"""Checkpoints: every bit comes back, and a complete one survives whatever happens."""

import functools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import checkpoint_child
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pxy import config
from pxy.parallel import mesh as mesh_lib
from pxy.train import checkpoint, manifest, optim

AXES = {
  "embed": ("vocab", "d_model"),
  "layers": {"q": ("layers", "d_model", "heads"), "scale": ("layers", "d_model")},
}
OPTIM = config.Optim()


@functools.cache
def values(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {"embed": (8, 16), "layers": {"q": (2, 16, 4), "scale": (2, 16)}}
  return jax.tree.map(
    lambda shape: rng.standard_normal(shape, np.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def world(sizes=(1, -1, 1)):
  """(update, state, abstract state) of a tiny problem on a mesh."""
  mesh = mesh_lib.make(config.Mesh(*sizes))
  state = optim.init(OPTIM, values())
  where = mesh_lib.shardings(mesh, AXES, values())
  where = optim.shardings(state, where, mesh_lib.whole(mesh))
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where
  )

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=where)
  def update(state, lr):
    def loss(params):
      return sum(jnp.sin(x + state.step).sum() for x in jax.tree.leaves(params))

    return optim.update(OPTIM, jax.grad(loss)(state.params), state, lr)[0]

  return update, jax.device_put(state, where), abstract


def same(a, b):
  """Same bits everywhere: also in nan, -0 and the smallest numbers."""
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(
      np.atleast_1d(np.asarray(x)).view(np.uint8),
      np.atleast_1d(np.asarray(y)).view(np.uint8),
    ),
    a,
    b,
  )


def opened(folder, keep=2, best="avg"):
  return checkpoint.Checkpointer(folder, keep, best)


def names(folder):
  return sorted(path.name for path in folder.iterdir())


LR = np.float32(1e-2)


def test_resume_is_bit_for_bit_and_compiles_nothing(tmp_path):
  update, state, abstract = world((2, 2, 2))
  for _ in range(3):
    state = update(state, LR)
  with opened(tmp_path) as checkpoints:
    checkpoints.save(3, state, {"phase": "grpo", "seed": 7})
  for _ in range(3):
    state = update(state, LR)

  with opened(tmp_path) as checkpoints:
    assert checkpoints.latest() == 3
    resumed, meta = checkpoints.restore(None, abstract)
  assert meta == {"phase": "grpo", "seed": 7}
  jax.tree.map(lambda x, a: x.sharding == a.sharding or 1 / 0, resumed, abstract)
  for _ in range(3):
    resumed = update(resumed, LR)
  same(state, resumed)
  assert update._cache_size() == 1, "the restored state compiled the step again"


def test_odd_numbers_survive(tmp_path):
  odd = np.array([np.nan, -np.nan, -0.0, np.inf, 1e-45, 3e38, -1e-39, 0.1], np.float32)
  tree = {"params": {"a": odd, "b": odd.astype(jnp.bfloat16), "n": np.int32(-5)}}
  with opened(tmp_path) as checkpoints:
    checkpoints.save(0, jax.device_put(tree), {})
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    found, _ = checkpoints.restore(0, abstract)
  same(tree, found)


def test_other_meshes_and_parameters_alone(tmp_path):
  update, state, _ = world((1, 8, 1))
  state = update(state, LR)
  with opened(tmp_path) as checkpoints:
    checkpoints.save(1, state, {})
    for sizes in [(1, 1, 1), (2, 2, 2), (8, 1, 1)]:
      _, _, abstract = world(sizes)
      found, _ = checkpoints.restore(1, abstract)
      same(state, found)
      embed = found.params["embed"].sharding
      assert embed == abstract.params["embed"].sharding
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), values())
  params = checkpoint.params(tmp_path, abstract)
  same(state.params, params)
  assert isinstance(params["embed"], np.ndarray), "without a sharding: numpy"


def test_what_was_saved_is_what_was_there(tmp_path):
  # The buffers are donated and the meta changed while the save is under way.
  update, state, abstract = world()
  kept, meta = jax.device_get(state), {"step": 0}
  with opened(tmp_path) as checkpoints:
    checkpoints.save(0, state, meta)
    meta["step"] = 99
    for _ in range(20):
      state = update(state, LR)
    found, about = checkpoints.restore(0, abstract)
  same(kept, found)
  assert about == {"step": 0}


def scores(value):
  return None if value is None else {"avg@4": {"value": value, "se": 0.1}}


@pytest.mark.parametrize(
  "keep, best, found, left",
  [
    (1, "avg", {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2}, [2, 4]),
    (2, "avg@4", {1: 0.5, 2: None, 3: None, 4: None}, [1, 3, 4]),
    (2, "pass@2", {1: 0.5, 2: 0.4, 3: 0.3}, [2, 3]),
    (1, "avg", {1: 0.5, 2: 0.5, 3: 0.1}, [2, 3]),
    (1, "avg", {1: 0.5, 2: float("nan"), 3: None}, [1, 3]),
  ],
)
def test_keeps_the_newest_and_the_best(tmp_path, keep, best, found, left):
  _, state, _ = world((1, 1, 1))
  with opened(tmp_path, keep, best) as checkpoints:
    for step, value in found.items():
      checkpoints.save(step, state, {}, scores(value))
  assert checkpoint.steps(tmp_path) == left
  assert names(tmp_path) == [f"{step:08d}" for step in left], "something is left over"


def test_what_a_run_gives_up_can_be_told_from_its_meta_and_forgotten(tmp_path):
  _, state, abstract = world()
  with checkpoint.Checkpointer(tmp_path, 9, "") as kept:
    assert kept.metas() == {}
    for step in (2, 4, 6):
      kept.save(step, state, {"bad": int(step > 2)})
    (tmp_path / "00000004" / "meta.json").write_text("{")
    assert kept.metas() == {2: {"bad": 0}, 6: {"bad": 1}}
    kept.forget(2)
    assert checkpoint.steps(tmp_path) == [2]
    assert kept.restore(None, abstract)[1] == {"bad": 0}
    kept.forget(0)
    assert kept.latest() is None


def test_going_back_neither_loses_nor_counts_later_ones(tmp_path):
  _, state, _ = world((1, 1, 1))
  with opened(tmp_path, keep=1) as checkpoints:
    checkpoints.save(10, state, {"line": "old"})
    checkpoints.save(4, state, {"line": "new"})
    checkpoints.wait()
    assert checkpoint.steps(tmp_path) == [4, 10]
    checkpoints.save(10, state, {"line": "new"})
    assert checkpoints.latest() == 10
    _, meta = checkpoints.restore(10, world((1, 1, 1))[2])
  assert meta == {"line": "new"} and checkpoint.steps(tmp_path) == [10]


def biggest(folder):
  files = [path for path in folder.rglob("*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip(folder):
  file = biggest(folder)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


DAMAGE = {
  "a bit": flip,
  "cut": lambda folder: os.truncate(biggest(folder), 100),
  "a file": lambda folder: biggest(folder).unlink(),
  "meta": lambda folder: (folder / "meta.json").write_text("{}"),
  "manifest": lambda folder: (folder / "manifest.json").write_text('{"a": 1}'),
  "no manifest": lambda folder: (folder / "manifest.json").unlink(),
  "empty": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


def test_a_damaged_one_is_named_and_passed_over(tmp_path, capfd):
  update, state, abstract = world((1, 1, 1))
  with opened(tmp_path / "good") as checkpoints:
    checkpoints.save(1, state, {"step": 1})
    state = update(state, LR)
    checkpoints.save(2, state, {"step": 2})
  for name, harm in DAMAGE.items():
    folder = tmp_path / name
    shutil.copytree(tmp_path / "good", folder)
    harm(folder / "00000002")
    capfd.readouterr()
    with opened(folder) as checkpoints:
      _, meta = checkpoints.restore(None, abstract)
      assert meta == {"step": 1}, name
      said = capfd.readouterr()
      assert "00000002 is damaged" in said.err and said.err.count("\n") == 1, name
      with pytest.raises(config.Error, match=r"00000002 is damaged .*choose another"):
        checkpoints.restore(2, abstract)
      harm(folder / "00000001")
      with pytest.raises(config.Error, match="every checkpoint is damaged"):
        checkpoints.restore(None, abstract)


def test_only_complete_ones_are_seen(tmp_path):
  _, state, abstract = world((1, 1, 1))
  folder = tmp_path / "deep" / "checkpoints"
  folder.parent.mkdir()
  with opened(folder) as checkpoints:
    assert checkpoints.latest() is None
    with pytest.raises(config.Error, match="no checkpoint yet"):
      checkpoints.restore(None, abstract)
    checkpoints.save(5, state, {})
  shutil.copytree(folder / "00000005", folder / ".00000006.partial")
  shutil.copytree(folder / "00000005", folder / ".00000004.old")
  (folder / "notes").mkdir()
  assert checkpoint.steps(folder) == [5]
  with opened(folder) as checkpoints:
    assert checkpoints.latest() == 5
    with pytest.raises(config.Error, match=r"no checkpoint of step 6; there are: 5"):
      checkpoints.restore(6, abstract)
  assert names(folder) == ["00000005", "notes"], "what a dead process left is removed"


STORM = """
import asyncio, gc, pathlib, shutil, sys, time
import numpy as np
from pxy import config
from pxy.train import checkpoint
folder, state = pathlib.Path(sys.argv[1]), {}
for i in range(40):
  state[str(i)] = np.random.default_rng(i).normal(size=(300, 400))
for i in range(6):
  try:
    with checkpoint.Checkpointer(folder, 2, "") as checkpoints:
      checkpoints.save(i, state, {})
      time.sleep(0.01 * i)
      shutil.rmtree(folder)
  except (config.Error, OSError) as error:
    print(error, file=sys.stderr)

async def write(fail):  # as Orbax does where the timing is unlucky: fails, unawaited
  await asyncio.sleep(0)
  fail()

def lose(fail):
  async def gone():
    asyncio.ensure_future(write(fail))
    await asyncio.sleep(0.01)
  asyncio.run(gone())
  gc.collect()

orbaxs = {"pathlib": pathlib}
code = "def fail(): pathlib.Path('/no/1').read_text()"
exec(compile(code, "orbax/write.py", "exec"), orbaxs)
lose(orbaxs["fail"])
lose(lambda: pathlib.Path("/no/2").read_text())
"""


def test_a_folder_that_vanishes_under_a_save_is_no_storm_of_tracebacks(tmp_path):
  child = subprocess.run(
    [sys.executable, "-c", STORM, tmp_path / "checkpoints"],
    env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert child.returncode == 0 and "could not be saved" in child.stderr, child.stderr
  storm, _, strange = child.stderr.partition("ERROR:asyncio")
  assert "Traceback" not in storm and "Event loop" not in storm, storm
  assert "/no/1" not in strange, "what Orbax's other writes die of is told"
  assert "/no/2" in strange, "what is not Orbax's is no longer told"


def test_another_model_is_refused_by_name(tmp_path):
  _, state, abstract = world((1, 1, 1))
  with opened(tmp_path) as checkpoints:
    checkpoints.save(0, state, {})

    def refused(params, match):
      changed = type(abstract)(params, abstract.opt_state, abstract.step)
      with pytest.raises(config.Error, match=match) as caught:
        checkpoints.restore(0, changed)
      assert "\n" not in str(caught.value)

    params = abstract.params
    embed = params["embed"]
    wide = jax.ShapeDtypeStruct((8, 32), embed.dtype, sharding=embed.sharding)
    half = jax.ShapeDtypeStruct((8, 16), jnp.bfloat16, sharding=embed.sharding)
    refused(params | {"embed": wide}, r"params.embed is float32\[8, 16\], .*\[8, 32\]")
    refused(params | {"embed": half}, "expected bfloat16")
    refused(params | {"head": embed}, r"lacks params\.head")
    refused({"layers": params["layers"]}, r"has params\.embed besides")


def test_what_cannot_be_saved_is_said_in_one_line(tmp_path):
  _, state, _ = world((1, 1, 1))
  (tmp_path / "file").write_text("in the way")
  with opened(tmp_path / "file" / "checkpoints") as checkpoints:
    with pytest.raises(config.Error, match="step 3 could not be saved") as caught:
      checkpoints.save(3, state, {})
  assert "\n" not in str(caught.value)
  with opened(tmp_path / "none") as checkpoints, pytest.raises(TypeError):
    checkpoints.save(0, state, {"a set": {1}})
  assert not (tmp_path / "none").exists(), "refused, but half written"
  with pytest.raises(config.Error, match=r"save\.keep 0"):
    opened(tmp_path, keep=0)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
  _, state, _ = world((1, 1, 1))
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  with opened(tmp_path) as checkpoints:
    checkpoints.save(0, state, {})
    checkpoints.wait()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (size, 0, size - 1))
    with pytest.raises(config.Error, match=r"step 1 .* disk .* complete one is 0"):
      checkpoints.save(1, state, {})
  assert names(tmp_path) == ["00000000"]


def child(*args):
  tests = pathlib.Path(__file__).parent
  return subprocess.Popen(
    [sys.executable, tests / "checkpoint_child.py", *map(str, args)],
    env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(tests.parent)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def intact(folder, since: int) -> int:
  """Step of the newest checkpoint, not before `since`; all of them are whole."""
  found = checkpoint.steps(folder)
  for step in found:
    assert manifest.damage(folder / f"{step:08d}") == "", f"step {step} is damaged"
    with opened(folder, keep=1) as checkpoints:
      state, meta = checkpoints.restore(step, checkpoint_child.ABSTRACT)
    assert meta["step"] == step
    same(state, checkpoint_child.state(step))
  assert found and found[-1] >= since, f"{found}: the checkpoint of {since} is lost"
  return found[-1]


@pytest.mark.slow
def test_killed_at_any_moment_the_last_good_one_is_there(tmp_path):
  # keep=1: the old one is removed as soon as the new one is there, and not before.
  rng, last = random.Random(0), 0
  for _ in range(3):
    process = child(tmp_path)
    first = int(process.stdout.readline())
    for line in process.stdout:
      if int(line) == first + 2:
        break
    time.sleep(0.15 * rng.random())
    process.send_signal(signal.SIGKILL)
    rest, noise = process.communicate()
    assert noise == "", "Orbax or absl reached the terminal"
    begun = int((rest.split() or [line])[-1])
    last = intact(tmp_path, since=max(last, begun - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
  "event, count, left",
  [
    ("os.rename", 8, [0]),  # 1 has all its files, but not yet its name
    ("os.rename", 9, [0, 1]),  # 1 is published, 0 about to go
    ("shutil.rmtree", 7, [2]),  # 2 is published, 1 is being removed
  ],
)
def test_killed_at_a_chosen_moment(tmp_path, event, count, left):
  process = child(tmp_path, event, count)
  _, noise = process.communicate(timeout=120)
  assert process.returncode == -signal.SIGKILL, noise
  assert checkpoint.steps(tmp_path) == left
  intact(tmp_path, since=left[-1])


@pytest.mark.slow
def test_a_failing_disk_leaves_the_last_good_one(tmp_path):
  process = child(tmp_path)
  for line in process.stdout:
    if int(line) == 2:
      break
  process.kill()
  process.communicate()
  last = intact(tmp_path, since=1)
  process = child(tmp_path, "limit", 50_000)
  _, noise = process.communicate(timeout=120)
  assert process.returncode == 2, noise
  assert noise.count("pxy:") == 1, f"one line, please: {noise}"
  assert f"step {last + 1} could not be saved" in noise and "File too large" in noise
  assert f"the newest complete one is {last}" in noise
  assert intact(tmp_path, since=last) == last


def test_imports_are_light():
  code = """
import sys
from pxy.parallel import mesh, process
from pxy.train import checkpoint, optim, state
assert "orbax.checkpoint" not in sys.modules, "Orbax is slow: import it when needed"
from jax._src import xla_bridge
assert not xla_bridge._backends, "importing touched a backend"
"""
  subprocess.run([sys.executable, "-c", code], check=True)
