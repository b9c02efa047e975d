"""Pre-training of the embedded base model: tokenizer, packed documents, next token.

The same packed rows and the same train step as in reinforcement learning: the loss is
the REINFORCE surrogate with advantage 1 on every token, -sum_t log p(y_t | y_<t) / n.
Documents that stand without their question follow a lone start or separator token, so
P(y) in the contexts `start` and `document` is something the model has learned.

Rows of a step are a seeded shuffle of all rows, a function of (seed, step): resume is
one integer here too. The result is an HF-style folder, OUT/model.
"""

import contextlib
import dataclasses
import pathlib
import time

import jax
import numpy as np

from pxy import config, files
from pxy.data import arithmetic
from pxy.evaluate import run as evaluate_lib
from pxy.evaluate import scores as scores_lib
from pxy.model import arch as arch_lib
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.rewards import pool as pool_lib
from pxy.rl import metrics, pack, rollout, view
from pxy.run import folder as folder_lib
from pxy.run import numbers as numbers_lib
from pxy.safety import interrupt, rescue, watchdog
from pxy.sampling import engine as engine_lib
from pxy.show import log as log_lib
from pxy.show import progress
from pxy.text import tokenizer as tokenizer_lib
from pxy.train import checkpoint as checkpoint_lib
from pxy.train import step as step_lib
from pxy.weights import hf

NEXT_TOKEN = (config.Term(clip="none"),)
BAD_STEPS = 3
"""Steps in a row without a finite loss and gradient that end a run."""


def rows(documents: list[list[int]], row_tokens: int) -> pack.Packed:
  """Token documents packed to rows, every token but the first of each a target."""
  first = [np.asarray(ids[:1], np.int32) for ids in documents]
  rest = [[np.asarray(ids[1 : row_tokens + 1], np.int32)] for ids in documents]
  zeros = [[np.zeros(len(x[0]), np.float32)] for x in rest]
  rollouts = rollout.stack(first, rest, zeros)
  one_B = np.ones(len(documents), np.float32)
  each = pack.rows(view.conditional(rollouts), rollouts, one_B, one_B, on_policy=False)
  # First fit leaves at most one row less than half full.
  most = 2 * int(rollouts.response_len_B.sum()) // row_tokens + 2
  packed, used = pack.bins([each], row_tokens=row_tokens, micro_rows=1, micro_max=most)
  return jax.tree.map(lambda x: x[:used, 0], packed)


def learning_rate(cfg: config.Pretrain, step: int) -> float:
  """Linear warm-up, then cosine to a tenth."""
  if step < cfg.warmup:
    return cfg.lr * (step + 1) / cfg.warmup
  done = (step - cfg.warmup) / max(1, cfg.steps - cfg.warmup)
  return cfg.lr * float(0.55 + 0.45 * np.cos(np.pi * done))


def batch(packed: pack.Packed, cfg: config.Pretrain, step: int) -> pack.Packed:
  """The rows of a step [M, B, T]: the next of a shuffle that is new in each epoch."""
  total = packed.tokens_BT.shape[0]
  places = np.arange(step * cfg.rows, (step + 1) * cfg.rows)
  rows_B = np.empty(cfg.rows, np.int64)
  for epoch in np.unique(places // total):
    order = np.random.default_rng((cfg.seed, int(epoch))).permutation(total)
    here = places // total == epoch
    rows_B[here] = order[places[here] % total]
  micro = cfg.compute.micro_rows or cfg.rows
  picked = jax.tree.map(
    lambda x: x[rows_B].reshape(cfg.rows // micro, micro, *x.shape[1:]), packed
  )
  weight = np.float32(1 / picked.mask_BT.sum())
  return dataclasses.replace(picked, weight_BT=picked.mask_BT * weight)


def check(cfg: config.Pretrain) -> None:
  """Refuses what cannot work, before anything is made."""
  config.check(cfg)
  arch_lib.of_width(cfg.width, cfg.width.vocab)


def pretrain(cfg: config.Pretrain, out: pathlib.Path, *, resume: str = "auto"):
  """Trains tokenizer and model; OUT/model is an HF-style folder.

  Returns the summary, or None when a signal ended the run early.
  """
  check(cfg)
  mesh = mesh_lib.make(cfg.mesh)
  micro, shards = cfg.compute.micro_rows or cfg.rows, mesh_lib.row_shards(mesh)
  if micro % shards:
    raise config.Error(
      f"{micro} rows do not divide by mesh.data * mesh.fsdp = {shards}: choose rows or"
      " compute.micro_rows among its multiples, or another mesh"
    )
  folder = folder_lib.RunFolder(out, cfg, resume)
  model, started = folder.path / "model", time.time()
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(interrupt.listen())
    stack.enter_context(folder)
    place = rescue.Rescue(folder.ended)
    stack.enter_context(stop.rescued(place))
    watch = stack.enter_context(watchdog.Watchdog(folder.path, cfg.waits))
    documents = arithmetic.documents(cfg.corpus, cfg.seed)
    roles = ["user\n", "assistant\n"]  # of the chat template, once a document
    texts = (text for d in documents for text in (*roles, d.question, d.trace))
    tokenizer = tokenizer_lib.train(texts, cfg.width.vocab, model)
    arch = arch_lib.of_width(cfg.width, tokenizer.vocab_size)
    folder.start(arch, tokenizer)
    packed = rows([arithmetic.encode(d, tokenizer) for d in documents], cfg.row_tokens)
    stepper = step_lib.Stepper(arch, cfg.compute, config.Sampling(), cfg.optim, mesh)
    checkpoints = stack.enter_context(
      checkpoint_lib.Checkpointer(folder.checkpoints, 1, "")
    )
    meta = {"step": 0}
    if checkpoints.latest() is None:
      state = stepper.init(decoder.init(arch, jax.random.key(cfg.seed)))
    else:
      state, meta = checkpoints.restore(None, stepper.abstract)
    log = stack.enter_context(
      log_lib.Log(
        folder.path,
        resume=folder.keep(meta["step"]),
        evaluated=meta["step"] < cfg.steps,
      )
    )
    folder.whole(meta.get("records"), log.mark())
    bad = 0
    stack.enter_context(folder.attempt(lambda: meta["step"]))
    with progress.counting("pretrain", cfg.steps) as bar:
      for step in range(meta["step"], cfg.steps):
        with watch("update"):
          state, line = _step(cfg, stepper, state, packed, step)
        log.write(line)
        bad = bad + 1 if line["actor/skipped"] else 0
        if bad == BAD_STEPS:
          raise config.Error(
            f"step {step + 1}: {bad} steps in a row had a loss or gradient that is not"
            " finite, and made no update; lower the learning rate"
          )
        bar(step + 1)
        meta["step"] = step + 1
        place.keep(checkpoints, log, state, meta)
        between = cfg.eval_every and meta["step"] % cfg.eval_every == 0
        if between and meta["step"] < cfg.steps:
          with contextlib.suppress(engine_lib.Stopped):
            found = _evaluate(cfg, arch, tokenizer, state.params, stop, watch)
            _write(log, meta["step"], *found)
        due = cfg.save_every and meta["step"] % cfg.save_every == 0
        ending = stop()
        if due or ending or meta["step"] == cfg.steps:
          with stop.whole, watch("save"):
            log.flush()
            folder.present()
            checkpoints.save(meta["step"], state, meta | {"records": log.mark()})
        if ending:
          return None
    checkpoints.wait()
    hf.save(model, arch, jax.device_get(state.params), tokenizer=tokenizer)
    try:
      total = cfg.eval.problems * cfg.eval.samples
      with progress.counting("evaluate", total) as bar:
        scores, answers = _evaluate(
          cfg, arch, tokenizer, state.params, stop, watch, bar
        )
    except engine_lib.Stopped:
      return None
    _write(log, cfg.steps, scores, answers)
  evaluate_lib.show({"base model": scores})
  summary = {
    "before": None,
    "after": scores,
    "steps": cfg.steps,
    "seconds": time.time() - started,
    "tokens": int(cfg.steps * cfg.rows * packed.mask_BT.sum(1).mean()),
    "versions": folder_lib.versions(),
  }
  files.write_json(folder.path / "summary.json", summary)
  return summary


def _step(cfg, stepper, state, packed, step):
  """One update, and its line in the log."""
  start, lr = time.perf_counter(), learning_rate(cfg, step)
  rows_MBT = batch(packed, cfg, step)
  used = rows_MBT.tokens_BT.shape[0]
  state, found = stepper.update(state, rows_MBT, used, lr, NEXT_TOKEN)
  values = metrics.values(found)
  tokens, seconds = int(rows_MBT.mask_BT.sum()), time.perf_counter() - start
  return state, {
    "step": step + 1,
    "phase": "pretrain",
    "loss": values["actor/pg_loss"],
    "actor/entropy": values["actor/entropy"],
    "actor/grad_norm": values["actor/grad_norm"],
    "actor/skipped": values["actor/skipped"],
    "actor/lr": lr,
    "perf/throughput": tokens / seconds,
    "timing_s/step": seconds,
    **numbers_lib.of_machine(),
  }


def _evaluate(cfg, arch, tokenizer, params, stop, watch, on_answer=None):
  """Scores (as JSON) and answers of the model on problems it has not seen."""
  data = dataclasses.replace(cfg.data, task=f"arithmetic/{cfg.corpus.level}")
  problems = evaluate_lib.problems(data, cfg.eval, tokenizer)
  with (
    engine_lib.Engine(
      arch,
      sampling=evaluate_lib.sampling(cfg.sampling, cfg.eval),
      stop_ids=tokenizer.stop_ids,
      max_prompt_tokens=data.max_prompt_tokens,
    ) as engine,
    pool_lib.Pool(cfg.reward, data.grader) as pool,
  ):
    found = evaluate_lib.evaluate(
      engine,
      pool,
      tokenizer,
      params,
      problems,
      cfg.eval.samples,
      seed=cfg.seed,
      on_answer=on_answer,
      stop=stop,
      watch=watch,
    )
  return scores_lib.to_json(found.scores), found.answers


def _write(log, step: int, scores, answers) -> None:
  """An evaluation, in the run's records."""
  log.write(
    {"step": step, "phase": "pretrain", "eval": scores},
    numbers_lib.rows(step, "eval", "pretrain", answers),
  )
