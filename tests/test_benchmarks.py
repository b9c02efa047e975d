"""The benchmarks measure what they say, at the sizes that they name."""

import dataclasses
import importlib.util
import json
import math
import pathlib

import jax
import numpy as np
import pytest

from benchmarks import bucket, gpu, growth, replay, run
from pxy.bucket import objects
from pxy.model import arch as arch_lib
from pxy.model import decoder


def test_tiny_qwen_has_the_size_that_others_were_measured_at():
  size = run.SIZES["tiny-qwen"]
  assert decoder.size(size.arch) == 5_245_696
  assert size.tokens == 1024


def test_every_part_is_measured():
  parts = run.measure(run.SIZES["test"], rounds=3)
  assert list(parts) == ["sampling", "scoring", "update", "step"]
  for part in parts.values():
    assert part["seconds"] == np.median(part["rounds"]) > 0
    assert part["tokens_per_second"] == 32 / part["seconds"]
    assert part["compile_seconds"] >= 0


def test_responses_have_their_full_length():
  size = run.SIZES["test"]
  job = run.Job(size)
  assert all(len(s.ids) == size.completion for group in job.sampling() for s in group)
  assert job.packed.scored_tokens == size.tokens


def test_the_gpus_parts_run_at_a_size_for_a_cpu():
  wanted = [*gpu.OWN, "breakdown"]
  rows = list(gpu.measure(gpu.SIZES["toy"], wanted))
  failed = [row.what for row in rows if row.unit == "failed"]
  assert not failed, f"benchmarks/gpu.py: {failed}"
  assert list(dict.fromkeys(row.part for row in rows)) == wanted
  assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
  for row in rows:
    assert gpu.Row(**json.loads(json.dumps(dataclasses.asdict(row)))) == row
  assert len(gpu.table(rows).splitlines()) == 2 + len(rows)


@pytest.mark.slow
def test_the_gpus_table_and_file_are_of_processes_of_its_parts(
  tmp_path, monkeypatch, capsys
):
  """As a newcomer calls it, at a size for a CPU: what is not installed is a row too."""
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec",
    lambda x, *more: None if x == "transformers" else find(x, *more),
  )  # fmt: skip
  monkeypatch.chdir(pathlib.Path(gpu.__file__).parent.parent)
  file = tmp_path / "gpu.json"
  gpu.main(["--toy", "--parts", "card", "decode", "peer", "--json", str(file)])
  made = json.loads(file.read_text())
  rows = made["rows"]
  assert made["versions"]["jax"] == jax.__version__
  assert list(dict.fromkeys(row["part"] for row in rows)) == ["card", "decode", "peer"]
  assert rows[-1]["unit"] == "left out" and "pip install torch" in rows[-1]["what"]
  table = capsys.readouterr().out
  assert all(f"| {row['part']} | {row['what']} |" in table for row in rows)


def test_a_gpus_part_that_fails_is_a_row_of_the_table():
  size = dataclasses.replace(gpu.SIZES["toy"], engine=(4, 500, 100))
  (row,) = gpu.measure(size, ["engine"])
  assert row.unit == "failed" and "exceed the model's context" in row.what


def test_a_wrong_number_stops_the_gpus_part():
  with pytest.raises(RuntimeError, match=r"held: relative error 0.031"):
    gpu.right("held", 0.031)
  with pytest.raises(RuntimeError, match="nan"):
    gpu.right("held", math.nan)
  assert gpu.far([3.0, 4.0], [0.0, 4.0]) == 0.75


def test_a_token_reads_the_weights_and_what_its_row_holds():
  own = gpu.Own(gpu.SIZES["toy"])
  arch = arch_lib.Arch(**own.size.arch)
  cache = 2 * 2 * arch.layers * arch.kv_heads * arch.head_dim
  assert own.read([0]) == 2 * decoder.size(arch)
  assert own.read([3, 4]) - own.read([0]) == 7 * cache


def test_the_gpus_model_has_the_size_of_qwen3():
  arch = arch_lib.Arch(**gpu.SIZES["qwen3-0.6b"].arch)
  assert decoder.size(arch) == 596_049_920


def test_every_cell_of_the_growth_table_is_measured():
  rows = growth.measure(growth.SIZES["test"], rounds=3)
  assert [(x["part"], x["slots"], x["across"]) for x in rows] == [
    ("decode", 16, 32), ("engine", 16, 1), ("engine", 16, 16)
  ]  # fmt: skip
  for row in rows:
    assert row["tokens_per_second"] == 64 / np.median(row["rounds"]) > 0
  assert growth.table(rows).count("| 16 slots |") == 2


@pytest.mark.parametrize("slots", [1, 16, 64])
def test_growths_groups_are_of_the_same_prompts_and_as_many_responses(slots):
  size = growth.SIZES["test"]
  one, many = (
    [tuple(ids) for ids in growth.prompts(size, growth.Cell("engine", slots, group))]
    for group in growth.GROUPS
  )
  assert len(one) == 16 * len(many) == growth.responses(slots)
  assert one == [ids for ids in many for _ in range(16)]


def test_growth_leaves_out_what_is_too_large_and_says_what_is_over_the_first():
  size = dataclasses.replace(growth.SIZES["small"], slots=(8, 512), live=(64, 1024))
  token = 2 * 4 * size.arch.layers * size.arch.kv_heads * size.arch.head_dim
  kept = growth.cells(size, 512 * 100 * token)
  assert [(x.part, x.slots, x.across) for x in kept] == [
    ("decode", 8, 64), ("decode", 8, 1024), ("decode", 512, 64),
    ("engine", 8, 1), ("engine", 8, 16), ("engine", 512, 1), ("engine", 512, 16),
  ]  # fmt: skip
  rates = {
    ("decode", 8, 64): 1000.0,
    ("decode", 8, 1024): 250,
    ("decode", 512, 64): 4e4,
  }
  rows = [
    {"part": p, "slots": s, "across": a, "tokens_per_second": rate}
    for (p, s, a), rate in rates.items()
  ]
  assert growth.table(rows).splitlines() == [
    "| decode, tokens/s | 64 live | 1,024 live |",
    "|---|---|---|",
    "| 8 slots | 1,000 (1.00) | 250 (0.25) |",
    "| 512 slots | 40,000 (40.00) |  |",
  ]


def test_a_checkpoint_is_timed_in_a_folder_and_in_a_bucket(tmp_path, monkeypatch):
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("STORAGE_EMULATOR_HOST", "")  # put back behind the test
  state = bucket.state_of(2)
  with bucket.served(tmp_path / "server") as url:
    for place in (str(tmp_path / "here"), url):
      size, saved, restored = bucket.checkpoints(place, state)
      assert 1e6 < size < 3e6, "of two megabytes that do not compress"
      assert saved > 0 and restored > 0
    other = objects.Bucket(f"{url}-of-mine")
    other.write("kept", b"")
    bucket.removed(url)
    assert not objects.Bucket(url).listed() and "kept" in other.listed()


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="the TPU compiler is not installed: pip install libtpu",
)
def test_a_replay_of_known_lengths_has_their_turns():
  length_PR = np.array([[5, 5], [3, 9]])
  found = replay.replayed("v5e:2x4", 4, 4, length_PR)
  assert str(found).startswith("8 turns, ") and "redone" not in str(found)
  first = replay.replayed("v5e:2x4", 4, 4, length_PR, replay.First)
  assert first.turns == found.turns and first.ratio > found.ratio
  other = replay.alike(length_PR)
  assert sorted(map(tuple, other)) == [(3, 5), (5, 9)]
