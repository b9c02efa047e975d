"""What one GPU makes of pxy: each part beside the card's own peaks, and transformers.

    make gpu                                     # everything; a table, and gpu.json
    python -m benchmarks.gpu --parts card decode --json FILE
    python -m benchmarks.gpu --toy               # the same at a size for a CPU

The model has Qwen3-0.6B's shape, random weights, and activations in bfloat16.

  card    a large product of matrices and a large copy: the peaks that the rest is held
          against, measured in the same process
  right   attention on this card, for training and for decoding, against float32
  decode  a token of every slot by the sampler's program alone: by slots and live length
  engine  tokens per second of sampling, the host's part and prefill included
  update  forward, backward and AdamW: rows of one sequence, and rows of several
  score   log-probs in one forward pass
  demo    `make demo`'s run, without and with the programs it compiled before
  peer    transformers' generate and a plain torch update, where they are installed
  breakdown  of a micro-batch: its layers, and its head with the log-probs, each by
          itself, forward and with the gradient; an update adds up such gradients, and
          has AdamW besides

A bound is the time that the bytes or FLOPs which cannot be spared take at the measured
peak; `of it` is the share of the bound in the time that was taken. `first call` is what
came before the first result: tracing, compiling, and that result.

A child measures (card to score one after the other in one process, so that one card's
numbers stand beside each other), and what it has found stays if it must be stopped:
`--seconds` is what the whole may take. The bare machine needs jax and what pxy imports.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from pxy.imports import later

# This process starts others, of which one has the card's memory.
jax = later("jax")
jnp = later("jax.numpy")
np = later("numpy")
config = later("pxy.config")
arch_lib = later("pxy.model.arch")
attention = later("pxy.model.attention")
decoder = later("pxy.model.decoder")
kv = later("pxy.model.cache")
flops = later("pxy.model.flops")
mesh_lib = later("pxy.parallel.mesh")
rollout = later("pxy.rl.rollout")
logprob = later("pxy.rl.logprob")
batch = later("pxy.run.batch")
folder_lib = later("pxy.run.folder")
engine_lib = later("pxy.sampling.engine")
schedule = later("pxy.sampling.schedule")
step_lib = later("pxy.sampling.step")
train_lib = later("pxy.train.step")

OWN = ("card", "right", "decode", "engine", "update", "score")
PARTS = (*OWN, "demo", "peer", "breakdown")
DTYPE = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Size:
  """What is measured."""

  arch: dict
  matrix: int
  """Rows and columns of the product of two."""
  copied: int
  """Numbers that are copied, 4 bytes each."""
  decode: tuple[tuple[int, int], ...]
  """Slots, and live tokens of each."""
  engine: tuple[int, int, int]
  """Responses, tokens of a prompt, tokens of a response."""
  updates: tuple[tuple[int, int, int], ...]
  """Sequences, rows of a micro-batch, tokens of a row; the first is scored as well."""
  prompt: int
  right: int
  """Tokens of the rows whose numbers are checked."""
  chunk: int
  """Vocabulary entries per chunk of the log-probs."""
  demo: tuple[str, ...]
  """Flags of the demo's run."""


SIZES = {
  "qwen3-0.6b": Size(
    arch=dict(
      vocab_size=151936, layers=28, d_model=1024, heads=16, kv_heads=8, head_dim=128,
      d_ff=3072, context=40960, qk_norm=True,
    ),
    matrix=8192,
    copied=1 << 29,
    decode=((128, 1024), (256, 1024), (1, 1024)),
    engine=(128, 512, 512),
    updates=((16, 4, 4096), (4, 1, 16_384)),
    prompt=512,
    right=1024,
    chunk=75968,
    demo=(),
  ),
  "toy": Size(
    arch=dict(
      vocab_size=300, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=16, d_ff=48,
      context=512, qk_norm=True,
    ),
    matrix=64,
    copied=1 << 12,
    decode=((4, 64), (1, 64)),
    engine=(4, 16, 24),
    updates=((4, 2, 64), (2, 1, 128)),
    prompt=16,
    right=64,
    chunk=128,
    demo=("--steps", "1", "--eval.problems", "2", "--eval.samples", "1"),
  ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table."""

  part: str
  what: str
  value: float
  unit: str
  share: float | None = None
  """Of the bound at the measured peak."""
  first: float | None = None
  """Seconds of the first call."""
  more: dict = dataclasses.field(default_factory=dict)


def timed(call: Callable[[], object], times: int) -> tuple[float, float]:
  """Seconds of the first call, and the median of `times` after it."""
  start = time.perf_counter()
  call()
  first, taken = time.perf_counter() - start, []
  for _ in range(times):
    start = time.perf_counter()
    call()
    taken.append(time.perf_counter() - start)
  return first, statistics.median(taken)


class Own:
  """The parts that need the model; each yields its rows."""

  def __init__(self, size: Size):
    self.size, self.arch = size, arch_lib.Arch(**size.arch)
    self.flops = self.bytes = float("nan")  # a second, at most: as `card` finds them
    self._steppers = {}

  @functools.cached_property
  def params(self):
    return jax.block_until_ready(decoder.init(self.arch, jax.random.key(0)))

  def card(self) -> Iterator[Row]:
    """The peaks, of which the other parts' shares are: the best of five, each of ten
    on the device, since a launch is neither a product nor a copy."""
    n, kind = self.size.matrix, jax.devices()[0].device_kind
    one = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
    big = jax.random.normal(jax.random.key(0), (self.size.copied,), jnp.float32)

    def best(step, x) -> tuple[float, float]:
      ten = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, x: step(x), x))
      call = functools.partial(lambda x: ten(x).block_until_ready(), x)
      first, _ = timed(call, 1)
      return first, min(timed(call, 1)[1] for _ in range(5)) / 10

    first, seconds = best(lambda x: one @ x, one)
    self.flops = 2 * n**3 / seconds
    peak = flops.peak(kind)
    yield Row(
      "card", f"{kind}: {n} x {n} bfloat16 product", self.flops / 1e12, "TFLOP/s",
      self.flops / peak if peak else None, first, {"maker": peak},
    )  # fmt: skip
    first, seconds = best(lambda x: x + 1, big)
    self.bytes = 2 * big.nbytes / seconds
    yield Row("card", "copy, read + written", self.bytes / 1e12, "TB/s", None, first)

  def right(self) -> Iterator[Row]:
    """Relative errors, of bfloat16 against float32 from the same numbers."""
    tokens = self.size.right
    arch = dataclasses.replace(self.arch, layers=2)
    rng = np.random.default_rng(0)
    for name, runs in {"by where sequences start": 5, "by a mask": 20}.items():
      cuts = np.sort(rng.permutation(np.arange(1, tokens))[: runs - 1])
      ids_T = (np.arange(tokens)[:, None] >= cuts).sum(-1)
      segments_BT = jnp.array([ids_T, np.minimum(ids_T, 1)])
      yield right(f"attention and its gradient, {name}", self.packed_error(segments_BT))
    length_B = np.array([tokens // 2, 1, tokens // 3, 7])
    yield right("prefill and 4 tokens from the cache", forced(arch, length_B, tokens))

  def packed_error(self, segments_BT) -> float:
    """The worst of attention's output and gradients."""
    arch = self.arch
    shape = (*segments_BT.shape, arch.head_dim)
    q, k, v, slope = (
      jax.random.normal(jax.random.key(i), (*shape[:2], n, shape[2]), jnp.bfloat16)
      for i, n in enumerate([arch.heads, arch.kv_heads, arch.kv_heads, arch.heads])
    )

    def run(kernel, *inputs):
      def out(q, k, v):
        return attention.packed(
          q, k, v, segments_BT, scale=arch.scale, kernel=kernel
        ).astype(slope.dtype)

      found, back = jax.vjp(out, *inputs)
      return found, *back(slope)

    run = jax.jit(run, static_argnums=0)
    wide = [x.astype(jnp.float32) for x in (q, k, v)]
    want, got = run("xla", *wide), run("cudnn", q, k, v)
    return max(far(a, b) for a, b in zip(got, want, strict=True))

  def decode(self) -> Iterator[Row]:
    """The sampler's program, which draws a stretch of tokens; no host, no prefill."""
    weights = step_lib.weights(self.arch, self.params, dtype=DTYPE)
    for rows, live in self.size.decode:
      yield from self.decoded(weights, rows, live)

  def decoded(self, weights, rows: int, live: int) -> Iterator[Row]:
    """Full rows, and rows of every length up to that: what is read should be theirs."""
    tokens = schedule.STRETCH
    rule = step_lib.Rule(1.0, 0, 1.0, (), 1 << 20)
    slots = step_lib.empty(self.arch, rows=rows, length=live, dtype=DTYPE)
    hold = [dataclasses.replace(slots, idle_B=jnp.zeros(rows, bool))]
    del slots

    def call(length_B):
      slots = hold.pop()
      cache = dataclasses.replace(slots.cache, length_B=jnp.array(length_B))
      slots, _ = step_lib.decode(
        self.arch, weights, dataclasses.replace(slots, cache=cache),
        np.int32(rows + 1), np.int32(tokens), rule=rule, tokens=tokens, live=live,
        dtype=DTYPE,
      )  # fmt: skip
      hold.append(jax.block_until_ready(slots))

    ways = {"": np.full(rows, live - tokens, np.int32)}
    if rows > 1:
      ways[" at most"] = np.linspace(1, live - tokens, rows, dtype=np.int32)
    for name, length_B in ways.items():
      first, seconds = timed(functools.partial(call, length_B), 3)
      bound = self.read(length_B + tokens / 2) / self.bytes
      yield Row(
        "decode", f"{rows} slots,{name} {live:,} live", 1e3 * seconds / tokens,
        "ms/token", bound / (seconds / tokens), None if name else first,
        {"bound_ms": 1e3 * bound, "gb": memory()},
      )  # fmt: skip

  def read(self, length_B) -> float:
    """Bytes that a token of all slots must read: the weights, and what rows hold."""
    arch = self.arch
    token = 2 * 2 * arch.layers * arch.kv_heads * arch.head_dim
    return 2 * decoder.size(arch) + token * float(np.sum(length_B))

  def engine(self) -> Iterator[Row]:
    """A whole run of the engine, to the full length of all responses."""
    responses, prompt, new = self.size.engine
    n = max(1, responses // 32)
    engine = engine_lib.Engine(
      self.arch, sampling=config.Sampling(max_new_tokens=new, slots=responses),
      stop_ids=(), max_prompt_tokens=prompt, dtype=DTYPE,
    )  # fmt: skip
    prompts = list(self.ids(responses // n, prompt))
    with engine:
      first, seconds = timed(
        lambda: engine.run(self.params, prompts, n, key=jax.random.key(1)), 1
      )
    lengths = prompt + np.arange(new)
    bound = sum(self.read([at] * responses) for at in lengths) / self.bytes
    tokens = responses * new
    yield Row(
      "engine", f"{responses} x ({prompt} + {new})", tokens / seconds, "tokens/s",
      bound / seconds, first, {"seconds": seconds, "gb": memory()},
    )  # fmt: skip

  def ids(self, *shape):
    """Random tokens."""
    rng = np.random.default_rng(0)
    return rng.integers(0, self.arch.vocab_size, shape, np.int32)

  def stepper(self, update: tuple[int, int, int]):
    """(config, programs, shape) of an update, made once."""
    if update in self._steppers:
      return self._steppers[update]
    sequences, rows, tokens = update
    cfg = config.Train(
      data=config.Data(
        prompts=sequences // 2, responses=2, max_prompt_tokens=self.size.prompt
      ),
      sampling=config.Sampling(max_new_tokens=tokens - self.size.prompt + 1),
      compute=config.Compute(
        dtype=DTYPE, remat="dots", micro_rows=rows, row_tokens=tokens,
        vocab_chunk=self.size.chunk,
      ),
    )  # fmt: skip
    mesh = mesh_lib.make(config.Mesh())
    made = train_lib.Stepper(self.arch, cfg.compute, cfg.sampling, cfg.optim, mesh)
    shape = batch.shape(cfg, mesh_lib.row_shards(mesh))
    self._steppers[update] = cfg, made, shape
    return self._steppers[update]

  @functools.cached_property
  def state(self):
    # Kept in a list: an update takes the old one.
    return [self.stepper(self.size.updates[0])[1].init(self.params)]

  def packed(self, update: tuple[int, int, int], ragged: bool):
    """A batch of whole rows, or of sequences of every length, several in a row."""
    cfg, _, shape = self.stepper(update)
    sequences, _, tokens = update
    most = tokens - self.size.prompt + 1
    lengths = np.linspace(most // 8, most * 5 // 8, sequences, dtype=np.int32)
    lengths = lengths if ragged else np.full(sequences, most)
    prompts = list(self.ids(sequences // 2, self.size.prompt))
    ids = [[self.ids(n) for n in pair] for pair in lengths.reshape(-1, 2)]
    logps = [[np.full(len(x), -11.9, np.float32) for x in pair] for pair in ids]
    rewards_PR = np.arange(sequences).reshape(-1, 2) % 2 * 1.0
    made = batch.prepare(
      cfg.phases[0], rollout.stack(prompts, ids, logps), rewards_PR,
      np.ones(rewards_PR.shape, bool), contexts={}, key=None, shape=shape,
    )  # fmt: skip
    return made, [self.size.prompt + int(n) - 1 for n in lengths]

  def update(self) -> Iterator[Row]:
    """Updates on one batch after the other, of one program for each shape."""
    for update in self.size.updates:
      cfg, stepper, _ = self.stepper(update)
      for ragged in (False, True):
        made, lengths = self.packed(update, ragged)

        def call(made=made, stepper=stepper, terms=cfg.phases[0].terms):
          old = self.state.pop()
          state, _ = stepper.update(old, made.packed, made.used, 1e-6, terms)
          self.state.append(jax.block_until_ready(state))

        taken = timed(call, 3)
        yield self.trained("update", flops.train, update, lengths, *taken, ragged)

  def score(self) -> Iterator[Row]:
    """Scoring of the first's batches."""
    update = self.size.updates[0]
    _, stepper, _ = self.stepper(update)
    for ragged in (False, True):
      made, lengths = self.packed(update, ragged)
      given = self.state[0].params, made.packed, made.used
      taken = timed(lambda given=given: jax.block_until_ready(stepper.score(*given)), 3)
      yield self.trained("score", flops.forward, update, lengths, *taken, ragged)

  def breakdown(self) -> Iterator[Row]:
    """What layers and head take of a micro-batch that is full, each by itself."""
    _, rows, tokens = self.size.updates[0]
    ids_BT = self.ids(rows, tokens)
    place_BT = np.broadcast_to(np.arange(tokens), ids_BT.shape)
    one_BT = np.ones(ids_BT.shape, np.int32)
    of_response_BT = place_BT >= self.size.prompt - 1
    rng, shape = np.random.default_rng(0), (*ids_BT.shape, self.arch.d_model)
    hidden_BTD = jnp.asarray(rng.standard_normal(shape), DTYPE)
    rest = {name: x for name, x in self.params.items() if name != "layers"}

    def layers(given, rest):
      out_BTD = decoder.forward(
        self.arch, {**rest, "layers": given}, ids_BT, place_BT, one_BT,
        remat="dots", dtype=DTYPE,
      )  # fmt: skip
      return out_BTD.astype(jnp.float32).sum()

    def head(given, rest):
      del rest
      head_DV, hidden_BTD = given
      logp_BT, _ = logprob.logprob(
        hidden_BTD, head_DV.astype(DTYPE), ids_BT, mask_BT=of_response_BT,
        tied=self.arch.tied, chunk=self.size.chunk,
      )  # fmt: skip
      return logp_BT.sum()

    head_DV = decoder.head(self.arch, self.params)
    for name, of, given in (
      ("layers", layers, self.params["layers"]),
      ("head and log-probs of responses", head, (head_DV, hidden_BTD)),
    ):
      for what, run in (("forward", of), ("with the gradient", jax.value_and_grad(of))):
        made = jax.jit(run)
        first, seconds = timed(
          lambda made=made, given=given: jax.block_until_ready(made(given, rest)), 5
        )
        what = f"{name}, {what}, {rows} x {tokens:,}"
        yield Row("breakdown", what, 1000 * seconds, "ms", None, first)

  def trained(self, part, count, update, lengths, first, seconds, ragged) -> Row:
    """A row of tokens per second, held against FLOPs: of the head, those of the
    responses alone."""
    tokens = sum(lengths)
    scored = tokens - len(lengths) * (self.size.prompt - 1)
    pairs = flops.causal(self.arch, lengths)
    rate = count(self.arch, tokens, pairs, scored) / seconds
    peak = flops.peak(jax.devices()[0].device_kind)
    more = {"seconds": seconds, "tflops": rate / 1e12, "gb": memory()}
    more["mfu"] = rate / peak if peak else None
    name = "several a row" if ragged else "one a row"
    what = f"{len(lengths)} sequences, {name} of {update[2]:,}"
    first = None if ragged else first
    return Row(part, what, tokens / seconds, "tokens/s", rate / self.flops, first, more)


def far(got, want) -> float:
  """|got - want| / |want|."""
  got, want = (np.asarray(x, np.float64) for x in (got, want))
  return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def forced(arch, length_B, tokens: int) -> float:
  """The worst hidden state of prefill and of 4 decoded tokens, against `forward` of all
  of them in float32."""
  params = decoder.init(arch, jax.random.key(1))
  rows = len(length_B)
  shape = rows, tokens
  ids_BT = np.random.default_rng(0).integers(0, arch.vocab_size, shape, np.int32)
  place_BT = np.broadcast_to(np.arange(tokens), shape)
  want_BTD = jax.jit(functools.partial(decoder.forward, arch, kernel="xla"))(
    params, ids_BT, place_BT, np.ones(shape, np.int32)
  )
  weights = step_lib.weights(arch, params, dtype=DTYPE)
  read = jax.jit(functools.partial(decoder.prefill, arch, dtype=DTYPE))
  next_token = jax.jit(functools.partial(decoder.decode, arch, dtype=DTYPE))
  row_B, width = np.arange(rows), tokens // 2
  hidden_BD, cache = read(weights, ids_BT[:, :width], jnp.array(length_B))
  cache = kv.resize(cache, jnp.array(row_B), tokens)
  worst = far(hidden_BD, want_BTD[row_B, length_B - 1])
  for at_B in length_B + np.arange(4)[:, None]:
    hidden_BD, cache = next_token(weights, ids_BT[row_B, at_B], cache)
    worst = max(worst, far(hidden_BD, want_BTD[row_B, at_B]))
  return worst


def right(what: str, error: float) -> Row:
  """A row of a relative error that bfloat16 explains; else RuntimeError."""
  if not error < 0.03:
    raise RuntimeError(f"{what}: relative error {error:.3g}, bfloat16 explains 0.03")
  return Row("right", what, error, "of its size")


def memory() -> float | None:
  """Most GB that were in use on the device."""
  found = jax.devices()[0].memory_stats() or {}
  peak = found.get("peak_bytes_in_use")
  return None if peak is None else round(peak / 1e9, 2)


def demo(size: Size, seconds: float = 600) -> Iterator[Row]:
  """`make demo`'s run in processes of its own, twice; the second has the programs."""
  end = time.monotonic() + seconds
  with tempfile.TemporaryDirectory() as folder:
    for name in ("cold", "warm"):
      out, start = pathlib.Path(folder, name), time.monotonic()
      command = [sys.executable, "-m", "pxy", "train", "dsrl", "--out", str(out)]
      with out.with_suffix(".log").open("w") as log:
        child = subprocess.Popen(
          [*command, *size.demo], stdout=log, stderr=log,
          env={**os.environ, "PXY_CACHE": folder},
        )  # fmt: skip
        first = None
        try:
          while child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
            if first is None and steps(out):
              first = time.monotonic() - start
        finally:
          stopped = child.poll() is None
          child.kill()
          child.wait()
      if child.returncode and not stopped:
        raise RuntimeError(out.with_suffix(".log").read_text()[-300:])
      what = f"{name}, {steps(out)} steps" + (", then stopped" if stopped else "")
      yield Row("demo", what, time.monotonic() - start, "seconds", None, first)
      if stopped:
        return


def steps(out: pathlib.Path) -> int:
  """Training steps that a run has written down."""
  with contextlib.suppress(FileNotFoundError):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return sum('"actor/pg_loss"' in line for line in lines)
  return 0


def peer(size: Size) -> Iterator[Row]:
  """The same shape in transformers: its generate, and an update in plain torch."""
  import torch
  import transformers

  arch = arch_lib.Arch(**size.arch)
  where = "cuda" if torch.cuda.is_available() else "cpu"
  made = transformers.Qwen3Config(
    vocab_size=arch.vocab_size, hidden_size=arch.d_model, num_hidden_layers=arch.layers,
    num_attention_heads=arch.heads, num_key_value_heads=arch.kv_heads,
    head_dim=arch.head_dim, intermediate_size=arch.d_ff,
    max_position_embeddings=arch.context, tie_word_embeddings=True,
  )  # fmt: skip

  def wait():
    if where == "cuda":
      torch.cuda.synchronize()

  torch.manual_seed(0)
  with torch.device(where):
    model = transformers.Qwen3ForCausalLM(made).to(torch.bfloat16).eval()
  rows, prompt, new = size.engine
  new = max(1, new // 4)
  ids = torch.randint(0, arch.vocab_size, (rows, prompt), device=where)

  def generate(tokens):
    with torch.no_grad():
      model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
        max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0,
      )  # fmt: skip
    wait()

  generate(2)
  start = time.perf_counter()
  generate(new)
  seconds = time.perf_counter() - start
  yield Row(
    "peer", f"transformers' generate, {rows} x ({prompt} + {new})",
    rows * new / seconds, "tokens/s",
  )  # fmt: skip

  model = model.float().train()
  model.gradient_checkpointing_enable({"use_reentrant": False})
  adam = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=where == "cuda")
  _, rows, tokens = size.updates[0]
  ids = torch.randint(0, arch.vocab_size, (rows, tokens), device=where)

  def update():
    adam.zero_grad(set_to_none=True)
    with torch.autocast(where, torch.bfloat16):
      for row in ids[:, None]:
        hidden = model.model(row).last_hidden_state[:, :-1]
        logp = torch.log_softmax(model.lm_head(hidden).float(), -1)
        (-logp.gather(-1, row[:, 1:, None]).mean() / rows).backward()
    adam.step()
    wait()

  _, seconds = timed(update, 2)
  yield Row(
    "peer", f"torch's update, {rows} x {tokens:,}", rows * tokens / seconds, "tokens/s"
  )


def measure(size: Size, parts, seconds: float = 600) -> Iterator[Row]:
  """The rows of parts, in this process; a part that fails yields its reason."""
  own = Own(size)
  others = {"demo": functools.partial(demo, seconds=seconds), "peer": peer}
  for part in PARTS:
    if part not in parts:
      continue
    try:
      if part in others:
        yield from others[part](size)
      else:
        yield from getattr(own, part)()
    except Exception as e:
      reason = " ".join(f"{type(e).__name__}: {e}".split())[:300]
      yield Row(part, reason, float("nan"), "failed")


def children(given) -> Iterator[Row]:
  """The rows of all parts, of a process for each card's worth of memory."""
  end = time.monotonic() + given.seconds
  together, alone = [p for p in OWN if p in given.parts], PARTS[len(OWN) :]
  for parts in (together, *([part] for part in alone)):
    if not set(parts) & set(given.parts):
      continue
    if parts == ["peer"] and importlib.util.find_spec("transformers") is None:
      why = "transformers is not installed: pip install torch transformers"
      yield Row("peer", why, float("nan"), "left out")
      continue
    left = max(1.0, end - time.monotonic())
    command = [sys.executable, "-m", "benchmarks.gpu", "--here", "--parts", *parts]
    command += ["--seconds", f"{left - 2:.0f}", *(["--toy"] if given.toy else [])]
    # A cache may ask for more than the share of the card that JAX takes by itself.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    child = subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True, env=environment
    )
    timer = threading.Timer(left, child.kill)
    timer.start()
    try:
      for line in child.stdout:
        if line.startswith("{"):
          yield Row(**json.loads(line))
    finally:
      timer.cancel()
      child.kill()
      child.stdout.close()
      if child.wait():
        yield Row(parts[0], "stopped before its end", float("nan"), "failed")


def table(rows: list[Row]) -> str:
  """The rows in Markdown."""
  lines = [
    "| part | what | measured | of the bound | first call |",
    "|---|---|---|---|---|",
  ]
  for row in rows:
    digits = 0 if row.value >= 100 else 2 if row.value >= 1 else 4
    value = f"{row.value:,.{digits}f} {row.unit}"
    if math.isnan(row.value):
      value = row.unit
    mfu = row.more.get("mfu")
    share = "" if row.share is None else f"{100 * row.share:.0f} %"
    share += f" (MFU {100 * mfu:.1f} %)" if mfu else ""
    first = "" if row.first is None else f"{row.first:.1f} s"
    lines.append(f"| {row.part} | {row.what} | {value} | {share} | {first} |")
  return "\n".join(lines)


def main(args: list[str] | None = None) -> None:
  """Measures and shows."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument("--toy", action="store_true", help="at a size for a CPU")
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
  parser.add_argument("--seconds", type=float, default=480, help="for all of it")
  parser.add_argument("--json", metavar="FILE", default="gpu.json")
  parser.add_argument("--here", action="store_true", help="in this process, to stdout")
  given = parser.parse_args(args)
  if given.here:
    size = SIZES["toy" if given.toy else "qwen3-0.6b"]
    for row in measure(size, given.parts, given.seconds):
      print(json.dumps(dataclasses.asdict(row)), flush=True)
    return
  rows, versions = [], folder_lib.versions()
  for row in children(given):
    rows.append(row)
    print(table(rows).splitlines()[-1], flush=True)
    report = {
      "seconds": given.seconds,
      "versions": versions,
      "rows": [dataclasses.asdict(r) for r in rows],
    }
    pathlib.Path(given.json).write_text(json.dumps(report, indent=1) + "\n")
  print("\n" + table(rows))


if __name__ == "__main__":
  main()
