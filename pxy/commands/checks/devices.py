"""A matmul on every device, and an all-reduce over all, in a process of their own.

A runtime that is broken ends its process or never answers; here that is a line with a
cure. The process tells of each stage in a line of JSON, and who starts it waits LIMIT
seconds for the next one. Numbers are small integers, exact in bfloat16 with float32
sums: whatever the order, a right device gives the same bits as NumPy.

Left out: several hosts as one (`jax.distributed`); each looks at its own devices. A TPU
slice waits for all of its hosts before it shows any, so there doctor runs on all.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

from pxy.commands.checks import line as line_lib
from pxy.rewards import jail

LIMIT = 180.0
"""Seconds without a word, after which the process is ended."""
STAGES = ("devices", "matmul", "all-reduce", "imports")
_END = 10.0
"""Seconds that its end may take."""
_SIZE = 512
_NOT = "not tried, for what stands above ended it"
_CURES = (
  ("already in use", "another process holds the chips: end it, or wait for its end"),
  ("out of memory", "another process holds the memory: `nvidia-smi` says which"),
  ("RESOURCE_EXHAUSTED", "another process holds the memory: end it"),
  (
    "initialize backend",
    "JAX_PLATFORMS names what JAX cannot start: unset it, or install that platform's"
    " build of JAX",
  ),
  ("Too many open files", "ulimit -n 4096"),
  ("Cannot allocate memory", "end other processes, or take more memory"),
  ("SIGILL", "jaxlib is built for a CPU with AVX: take another machine"),
  ("SIGKILL", "the kernel ended it for want of memory, most likely: dmesg says so"),
)
"""What is in what was said, and what then helps."""
_HANGS = {
  "devices": "on a TPU slice start `pxy doctor` on all hosts at once; else end what"
  " holds the chips, or restart the machine",
  "all-reduce": "between GPUs: NCCL_DEBUG=INFO says where, NCCL_P2P_DISABLE=1 and a"
  " larger /dev/shm often help; TPUs: restart the machine",
}
_AT_IMPORT = ("ImportError", "ModuleNotFoundError", "AttributeError")
_MORE = "PXY_VERBOSE=1 pxy doctor shows all that is said"


def check(hoped: str = "") -> list[line_lib.Line]:
  """The lines of this machine's devices; hoped: see judge."""
  return judge(*watch([sys.executable, "-m", __name__]), hoped)


def watch(argv: list[str], limit: float = LIMIT) -> tuple[list[dict], str, str]:
  """What a process tells on its stdout, how it failed to end well (or nothing), and
  the last of its stderr."""
  from pxy.bucket import hush  # not in the child, which may not import what it needs

  events: list[dict] = []
  with tempfile.TemporaryFile() as said:
    child = subprocess.Popen(
      argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
      stderr=None if hush.verbose() else said,
    )  # fmt: skip
    how = _listen(child, events, limit)
    said.seek(max(0, said.seek(0, os.SEEK_END) - 8192))
    text = said.read().decode(errors="replace")
  return events, how, text


def _listen(child: subprocess.Popen, events: list[dict], limit: float) -> str:
  held, until = b"", time.monotonic() + limit
  with child.stdout as pipe:
    while True:
      wait = max(0.0, until - time.monotonic())
      ready, _, _ = select.select([pipe], [], [], wait)
      piece = os.read(pipe.fileno(), 65536) if ready else b""
      if not piece:
        break
      *rows, held = (held + piece).split(b"\n")
      events += [json.loads(row) for row in rows]
      until = time.monotonic() + limit
  if not ready:
    child.kill()
  try:
    code = child.wait(_END)
  except subprocess.TimeoutExpired:  # in a broken driver's hands nothing ends it
    child.kill()
    code = -signal.SIGKILL
  if not ready:
    return f"no answer in {limit:g} s"
  if code < 0:
    return f"ended by {signal.Signals(-code).name}"
  return f"ended with code {code}" if code else ""


def judge(
  events: list[dict], how: str, said: str, hoped: str = ""
) -> list[line_lib.Line]:
  """A line for each stage, of what `watch` gives.

  hoped: `gpu` or `tpu` where JAX should have found one.
  """
  out, over = [], False
  told = {event["stage"]: event for event in events}
  for stage in STAGES:
    event = told.get(stage)
    if event is None and over:
      out.append(line_lib.Line(stage, "warn", _NOT, "mend that first"))
    elif event is None:
      out.append(_broken(stage, how, said))
      over = True
    elif error := event.get("error"):
      out.append(line_lib.Line(stage, "fail", error, _cure(stage, error)))
      over = over or stage == STAGES[0]
    elif hoped and event.get("platform", hoped) != hoped:
      found = f"{event['found']}, and no {hoped.upper()}, though there is one"
      out.append(line_lib.Line(stage, "warn", found, _MORE))
    else:
      out.append(line_lib.Line(stage, "ok", event["found"]))
  return out


def _broken(stage: str, how: str, said: str) -> line_lib.Line:
  """Of the stage in which the process ended, or hung."""
  rows = [row for row in said.splitlines() if row[:1] not in ("", " ", "@", "*")]
  last = f": {rows[-1].strip()[:200]}" if rows else ""
  found = f"{how or 'ended without a word'}{last}"
  if how.startswith("no answer"):
    cure = _HANGS.get(stage, _MORE)
  else:
    cure = _cure(stage, how + said)
  return line_lib.Line(stage, "fail", found, cure)


def _cure(stage: str, said: str) -> str:
  if found := next((cure for phrase, cure in _CURES if phrase in said), None):
    return found
  if stage == "imports" or said.startswith(_AT_IMPORT):
    return "pip install --force-reinstall what it names; `packages` has what is too old"
  return _MORE


def main() -> None:
  """The process: tells of each stage."""
  jail.die_with_parent()
  out = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)  # whatever a library prints is no event

  def tell(stage: str, look) -> bool:
    try:
      event = look()
    except Exception as error:
      said = " ".join(str(error).split())[:300]
      event = {"error": f"{type(error).__name__}: {said}"}
    print(json.dumps({"stage": stage} | event), file=out, flush=True)
    return "error" not in event

  if tell("devices", _devices):
    tell("matmul", _matmul)
    tell("all-reduce", _all_reduce)
    tell("imports", _imports)
  os._exit(0)


def _devices() -> dict:
  import jax

  local = jax.local_devices()
  kinds = " and ".join(sorted({device.device_kind for device in local}))
  stats = [device.memory_stats() or {} for device in local]
  least = min(one.get("bytes_limit", 0) for one in stats)
  memory = f", {line_lib.size(least)} each for JAX" if least else ""
  return {
    "found": f"{len(local)} x {kinds}{memory}",
    "platform": local[0].platform,
  }


def _matmul() -> dict:
  import jax
  import jax.numpy as jnp
  import numpy as np

  numbers = np.random.default_rng(0)
  a, b = (numbers.integers(-3, 4, (_SIZE, _SIZE)) for _ in range(2))
  product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type="float32"))
  wrong, local = [], jax.local_devices()
  for device in local:
    for kind in ("float32", "bfloat16"):
      c = product(*(jax.device_put(x.astype(kind), device) for x in (a, b)))
      if not np.array_equal(np.asarray(c), a @ b):
        wrong.append(f"{device} ({kind})")
  if wrong:
    return {"error": f"wrong numbers on {', '.join(wrong)}: do not use them"}
  return {"found": f"right on {len(local)} of {len(local)}, float32 and bfloat16"}


def _all_reduce() -> dict:
  import jax
  import numpy as np
  from jax.sharding import AxisType, NamedSharding
  from jax.sharding import PartitionSpec as P

  local = jax.local_devices()
  n = len(local)
  mesh = jax.make_mesh((n,), ("all",), (AxisType.Auto,), devices=local)
  x = np.arange(n * _SIZE, dtype=np.float32).reshape(n, _SIZE)
  put = jax.device_put(x, NamedSharding(mesh, P("all")))
  total = jax.jit(
    jax.shard_map(
      lambda x: jax.lax.psum(x, "all"), mesh=mesh, in_specs=P("all"), out_specs=P()
    )
  )(put)
  right = x.sum(0, keepdims=True)
  shards = total.addressable_shards
  bad = [str(s.device) for s in shards if not np.array_equal(s.data, right)]
  if bad or len(shards) < n:
    return {"error": f"wrong sums on {', '.join(bad) or 'some'}: do not use them"}
  return {"found": f"right on all, over {n}"}


def _imports() -> dict:
  import orbax.checkpoint  # noqa: F401  what a run imports at its first save

  import pxy.loop  # noqa: F401

  return {"found": "pxy and what it needs can be imported"}


if __name__ == "__main__":
  main()
