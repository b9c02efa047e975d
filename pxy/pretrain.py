"""Pre-training of the embedded base models: tokenizer, packed documents, next token.

The same packed rows and the same train step as in reinforcement learning: the loss is
the REINFORCE surrogate with advantage 1 on every token, -sum_t log p(y_t | y_<t) / n.
Documents that stand without their question follow a lone start or separator token, so
P(y) in the contexts `start` and `document` is something the model has learned.

Rows of a step are a seeded shuffle of all rows, a function of (seed, step): a resume
needs the weights and one integer. The result is an HF-style folder, OUT/model.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from pxy import config
from pxy.data import arithmetic, document, world
from pxy.evaluate import run as evaluate_lib
from pxy.evaluate import scores as scores_lib
from pxy.model import arch as arch_lib
from pxy.model import decoder, layers
from pxy.parallel import mesh as mesh_lib
from pxy.rewards import pool as pool_lib
from pxy.rl import metrics, pack, rollout, view
from pxy.run import numbers
from pxy.run import session as session_lib
from pxy.run import used as used_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.train import rate, remat
from pxy.train import step as step_lib
from pxy.weights import hf, load

WORLDS = {"arithmetic": arithmetic, "world": world}
"""By `corpus.kind`: documents, tokenizer and task are functions of each."""
NEXT_TOKEN = (config.Term(clip="none"),)
PACE = 10.0
"""Seconds between two lines of steps where there is no terminal: steps are short."""


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


def batch(
  packed: pack.Packed, cfg: config.Pretrain, step: int, returns: int = 0
) -> pack.Packed:
  """The rows of a step [M, B, T]: the next of a shuffle that is new in each epoch, and
  after each return to an earlier checkpoint."""
  total = packed.tokens_BT.shape[0]
  places = np.arange(step * cfg.rows, (step + 1) * cfg.rows)
  rows_B = np.empty(cfg.rows, np.int64)
  for epoch in np.unique(places // total):
    order = np.random.default_rng((cfg.seed + returns, int(epoch))).permutation(total)
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


def pretrain(
  cfg: config.Pretrain,
  out: str | pathlib.Path,
  *,
  resume: str = "auto",
  accept: Sequence[str] = (),
) -> dict | None:
  """Trains tokenizer and model; OUT/model is an HF-style folder.

  Args, result and errors are those of loop.train.
  """
  check(cfg)
  mesh = mesh_lib.make(cfg.mesh)
  micro, shards = cfg.compute.micro_rows or cfg.rows, mesh_lib.row_shards(mesh)
  if micro % shards:
    raise config.Error(
      f"{micro} rows do not divide by mesh.data * mesh.fsdp = {shards}: choose rows or"
      " compute.micro_rows among its multiples, or another mesh"
    )
  with session_lib.opened(cfg, out, resume, accept) as session:
    model = session.folder.path / "model"
    made_of = WORLDS[cfg.corpus.kind]
    documents = made_of.documents(cfg.corpus, cfg.seed)
    tokenizer = made_of.tokenizer(documents, cfg.width.vocab, model)
    arch = arch_lib.of_width(cfg.width, tokenizer.vocab_size)
    packed = rows([document.encode(d, tokenizer) for d in documents], cfg.row_tokens)
    how = {"sampling": config.Sampling(), "opt": cfg.optim}
    compute = remat.chosen(arch, cfg.compute, (micro, cfg.row_tokens), mesh, **how)
    trainer = step_lib.Stepper(arch, compute, mesh=mesh, **how)
    policy = load.About(arch, tokenizer, "base model", model)

    def start():
      params = decoder.init(arch, jax.random.key(cfg.seed))
      params["embed"] *= cfg.width.embed_std / layers.EMBED_STD
      return trainer.init(params)

    def evaluate(state, place):
      return _evaluate(cfg, policy, session, state.params, place.step)

    def used():
      return used_lib.of_pretrain(cfg, policy, documents)

    session.begin(policy, trainer.abstract, start, used, pace=PACE)
    for note in remat.notes(cfg.compute, compute):
      session.bar.say(note)
    for step, state in session.steps(evaluate, before=False):
      rows_MBT = batch(packed, cfg, step, session.returns)
      lr, micros = rate.of(cfg, step, cfg.steps), len(rows_MBT.tokens_BT)
      with session.watch("update"), session.clock("update_actor"):
        state, found = trainer.update(state, rows_MBT, micros, lr, NEXT_TOKEN)
        values = metrics.values(found)
      session.record(state, _done(session, lr, rows_MBT, values))
    hf.save(model, arch, jax.device_get(session.state.params), tokenizer=tokenizer)
    session.finish()
  if session.summary is not None:
    evaluate_lib.show({"base model": session.summary["after"]})
  return session.summary


def _done(session, lr: float, rows_MBT: pack.Packed, values) -> session_lib.Done:
  """A step's record."""
  taken, tokens = session.clock.take(), int(rows_MBT.mask_BT.sum())
  skipped = values["actor/skipped"] > 0
  line = {
    "phase": "pretrain",
    "loss": values["actor/pg_loss"],
    "actor/entropy": values["actor/entropy"],
    "actor/grad_norm": values["actor/grad_norm"],
    "actor/skipped": values["actor/skipped"],
    "actor/lr": lr,
    "perf/throughput": tokens / taken["timing_s/step"],
    **taken,
    **numbers.of_machine(),
  }
  return session_lib.Done(
    line, updates=int(not skipped), tokens=tokens, bad=skipped, packed=[rows_MBT]
  )


def _evaluate(cfg, policy, session, params, step: int) -> session_lib.Examined:
  """Scores of the model on problems that it has not seen."""
  task = WORLDS[cfg.corpus.kind].task(cfg.corpus, cfg.seed)
  data = dataclasses.replace(cfg.data, task=task)
  problems = evaluate_lib.problems(data, cfg.eval, policy.tokenizer)
  with (
    engine_lib.Engine(
      policy.arch,
      sampling=evaluate_lib.sampling(cfg.sampling, cfg.eval),
      stop_ids=policy.tokenizer.stop_ids,
      max_prompt_tokens=data.max_prompt_tokens,
    ) as engine,
    pool_lib.Pool(cfg.reward, config.judge_of_evaluation(cfg)) as pool,
    session.bar.count("evaluate", len(problems) * cfg.eval.samples) as count,
  ):
    collector = collect.Collector(
      engine, pool, policy.tokenizer, session.stop, session.watch, count
    )
    found = evaluate_lib.evaluate(
      collector, params, problems, cfg.eval.samples, seed=cfg.seed
    )
  return session_lib.Examined(
    scores=scores_lib.to_json(found.scores),
    phase="pretrain",
    rows=numbers.rows(step, "eval", "pretrain", found.graded),
    tokens=found.tokens,
  )
