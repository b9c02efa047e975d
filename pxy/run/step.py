"""A run: what stays the same over it, and its one step; `loop.py` repeats that step."""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.evaluate import run as evaluate_lib
from pxy.evaluate import scores as scores_lib
from pxy.model import decoder
from pxy.parallel import mesh as mesh_lib
from pxy.parallel import process
from pxy.rewards import gold
from pxy.rewards import pool as pool_lib
from pxy.rl import advantage, metrics, rollout
from pxy.run import batch as batch_lib
from pxy.run import folder as folder_lib
from pxy.run import numbers as numbers_lib
from pxy.safety import guard, watchdog
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.train import optim
from pxy.train import state as state_lib
from pxy.train import step as step_lib
from pxy.weights import load


class Run:
  """What stays the same over a run, and its one step.

  `meta` is the run's place, and goes with the weights into each checkpoint: step,
  updates made, tokens drawn, seconds spent, the step last evaluated, the first and last
  scores, the bad steps in a row that it ends with, and what guard.py knows of entropy.
  """

  def __init__(
    self,
    cfg: config.Train,
    folder: folder_lib.RunFolder,
    stop,
    stack: contextlib.ExitStack,
  ):
    self.cfg, self.folder, self.stop = cfg, folder, stop
    self.started = time.time()
    self.watch = stack.enter_context(watchdog.Watchdog(folder.path, cfg.waits))
    self.mesh = mesh_lib.make(cfg.mesh)
    self.sampling_mesh = mesh_lib.sampling(self.mesh, cfg.sampling.tensor)
    self.policy = policy = load.about(cfg.model)
    self.tokenizer = policy.tokenizer
    how = cfg.data.template, cfg.data.template_arguments
    self.doubt = template.ending(policy.tokenizer, *how)
    self._order()
    self.problems = evaluate_lib.problems(cfg.data, cfg.eval, policy.tokenizer)
    self.answers = self._answers()
    terms = [term for phase in cfg.phases for term in phase.terms]
    self.contexts = batch_lib.contexts(policy.tokenizer, terms)
    shards = mesh_lib.row_shards(self.mesh)
    self.shape = batch_lib.shape(cfg, shards, self.contexts, policy.arch.context)
    self.stepper = step_lib.Stepper(
      policy.arch, cfg.compute, cfg.sampling, cfg.optim, self.mesh
    )
    kl = any(term.kl != "none" for phase in cfg.phases for term in phase.terms)
    self.reference = self._weights() if kl else None
    self.compiles = stack.enter_context(numbers_lib.Compiles())
    self.pool = stack.enter_context(pool_lib.Pool(cfg.reward, cfg.data.grader))
    self.engine = stack.enter_context(self._engine(cfg.sampling))
    self.examiner = stack.enter_context(
      self._engine(evaluate_lib.sampling(cfg.sampling, cfg.eval))
    )
    self.clock = numbers_lib.Clock()

  def _order(self) -> None:
    """The order of the data; each return to a checkpoint has another."""
    cfg, rounds = self.cfg, 1 + self.cfg.reward.refill
    self.returns = process.agree(len(self.folder.returns()))
    first = cfg.seed + rounds * self.returns
    self.sources = [
      prompts_lib.load(cfg.data, self.tokenizer, "train", first + round)
      for round in range(rounds)
    ]

  def _weights(self):
    """The model's, on the mesh; read anew each time, for they are rarely needed."""
    return load.params(self.cfg.model, self.stepper.abstract.params)

  def _answers(self) -> list[str]:
    """What is to be said of the reference answers; config.Error where too many of them
    cannot be graded against."""
    if self.cfg.data.grader != "math":
      return []
    known = [*self.sources[0].prompts, *self.problems]
    return gold.refuse([prompt.answer for prompt in known], self.cfg.reward)

  def _engine(self, sampling: config.Sampling) -> engine_lib.Engine:
    return engine_lib.Engine(
      self.policy.arch,
      sampling=sampling,
      stop_ids=self.tokenizer.stop_ids,
      max_prompt_tokens=self.cfg.data.max_prompt_tokens,
      mesh=self.sampling_mesh,
      dtype=self.cfg.compute.dtype,
    )

  def introduce(self, bar) -> None:
    """Says what the run is made of, and shows its first prompt to the letter."""
    source, policy = self.sources[0], self.policy
    bar.say(
      f"{policy.name}: {decoder.size(policy.arch):,} parameters on {self.mesh.size}"
      f" {jax.devices()[0].platform} device(s)"
    )
    bar.say(
      f"{self.cfg.data.task}: {len(source):,} training prompts"
      f" ({source.dropped} over {self.cfg.data.max_prompt_tokens} tokens left out,"
      f" {source.duplicates} duplicates), {len(self.problems)} problems to evaluate"
    )
    if source.split is None and self.cfg.eval.task in ("", self.cfg.data.task):
      bar.say(
        "warning: the data has no splits, so evaluation uses training rows; name other"
        " rows with --eval.task"
      )
    for line in self.answers:
      bar.say(line)
    first = source.batch(0, 1)[0]
    bar.say(f"first prompt: {template.spell(self.tokenizer, first.ids.tolist())!r}")
    bar.say(f"responses end at {template.stops(self.tokenizer)}")
    if self.doubt:
      bar.say(f"warning: {self.doubt}")

  def restore(self, checkpoints) -> tuple[state_lib.State, dict]:
    """State and place: of the newest checkpoint, or of the start."""
    if checkpoints.latest() is not None:
      return checkpoints.restore(None, self.stepper.abstract)
    state = self.stepper.init(self._weights())
    meta = {
      "step": 0,
      "updates": 0,
      "tokens": 0,
      "seconds": 0.0,
      "evaluated": None,
      "before": None,
      "scores": None,
      "bad": 0,
      "entropy": None,
      "seed": self.cfg.seed,
      "digest": config.digest(self.cfg),
    }
    return state, meta

  def go_back(self, checkpoints, bad: dict, log, bar) -> tuple[state_lib.State, dict]:
    """State and place of the last good checkpoint; from there on another data order.

    What was made after it goes first: a process that dies in between comes back to the
    same checkpoint.
    """
    metas = checkpoints.metas()
    checkpoints.forget(max((s for s in metas if not metas[s]["bad"]), default=0))
    state, meta = self.restore(checkpoints)
    process.on_main(lambda: self.folder.returned(bad["step"], meta["step"]))
    self._order()
    process.on_main(lambda: log.rewind(meta["step"]))
    bar.say(
      f"warning: {bad['bad']} steps in a row were not finite: back to step"
      f" {meta['step']}, and on with another data order"
    )
    return state, meta

  def step(self, state, meta, log, bar) -> tuple[state_lib.State, dict]:
    """One step: draw, grade, update; its record. `meta` moves on when it is whole."""
    cfg, clock, step = self.cfg, self.clock, meta["step"]
    start, compiles = time.perf_counter(), self.compiles.count
    number, phase = config.phase_at(cfg, step)
    if step and number != config.phase_at(cfg, step - 1)[0]:
      if phase.on_start == "reset_optimizer":
        state = dataclasses.replace(state, opt_state=optim.reset(state.opt_state))
    key = jax.random.fold_in(jax.random.key(cfg.seed), step)
    if self.returns:
      key = jax.random.fold_in(key, self.returns)
    sample_key, view_key = jax.random.split(key)

    # The version drawn from is that of the weights; meta is what the run believes.
    drawn = self._draw(state.params, step, int(state.step), sample_key, bar)
    collect.refuse_stale(drawn, meta["updates"])
    answers = drawn.answers
    rewards_PR, valid_PR = advantage.overlong(
      cfg.reward.overlong,
      drawn.scores_PR,
      drawn.valid_PR,
      length_PR=np.array([[len(a.sample.ids) for a in g] for g in answers]),
      truncated_PR=np.array([[a.sample.stop == "length" for a in g] for g in answers]),
      limit=cfg.sampling.max_new_tokens,
      buffer=cfg.reward.overlong_buffer,
    )
    rollouts = rollout.stack(
      [group[0].prompt.ids for group in answers],
      [[a.sample.ids for a in group] for group in answers],
      [[a.sample.logp for a in group] for group in answers],
    )
    with clock("adv"):
      batches = [
        batch_lib.prepare(
          phase,
          rollouts,
          rewards_PR,
          valid_PR,
          contexts=self.contexts,
          key=view_key,
          shape=self.shape,
          groups=groups,
        )
        for groups in self._minibatches()
      ]
    of_samples = numbers_lib.of_samples(answers, rewards_PR, valid_PR)
    of_drift = self._drift(state.params, phase, rollouts)
    sound = not of_samples["rollout/nonfinite"]
    # What a broken distribution has drawn is not trained on.
    with self.watch("update"):
      state, numbers = self._update(state, phase, batches if sound else [])
    updates = numbers.pop("updates")
    bad = not sound or numbers["actor/skipped"] > 0

    taken = clock.take()
    taken["timing_s/step"] = time.perf_counter() - start
    tokens = int(rollouts.response_len_B.sum() + rollouts.prompt_len_B.sum())
    meta |= {
      "step": step + 1,
      "updates": meta["updates"] + updates,
      "tokens": meta["tokens"] + tokens,
      "bad": meta["bad"] + 1 if bad else 0 if updates else meta["bad"],
    }
    line = {
      "step": step + 1,
      "phase": phase.name,
      "space": "+".join(dict.fromkeys(term.space for term in phase.terms)),
      "training/global_step": step + 1,
      "training/returns": self.returns,
      "training/epoch": self.sources[0].epoch(step, cfg.data.prompts),
      "actor/lr": phase.lr,
      **numbers,
      **of_drift,
      **of_samples,
      **numbers_lib.of_batch(batches),
      **taken,
      **numbers_lib.of_flops(
        self.policy.arch,
        rollouts,
        batches,
        forwards=(cfg.updates > 1) + any(term.kl != "none" for term in phase.terms),
        seconds=taken["timing_s/update_actor"],
        devices=self.mesh.size,
      ),
      **numbers_lib.of_machine(),
      "perf/total_num_tokens": tokens,
      "perf/throughput": tokens / taken["timing_s/step"] / self.mesh.size,
      "rollout/idle": self.engine.stats.idle,
      "compiles": self.compiles.count - compiles,
    }
    adv_PR = np.concatenate([b.adv_PR for b in batches])
    process.on_main(
      lambda: log.write(
        line, numbers_lib.rows(step + 1, "train", phase.name, answers, adv_PR)
      )
    )
    bar.step(line)
    if bad:
      packed = [b.packed for b in batches]
      where = process.on_main(lambda: guard.write_bad(self.folder.path, packed, line))
      bar.say(f"warning: step {step + 1} is not finite: no update; see {where}")
    meta["entropy"], said = guard.entropy(meta["entropy"], line["rollout/entropy"])
    if said:
      bar.say(f"step {step + 1}: {said}")
    return state, line

  def _draw(self, params, step, version, key, bar) -> collect.Batch:
    """The graded responses of a step; refilled where groups show no contrast."""

    def draw(prompts, round):
      batch = collect.collect(
        self.engine,
        self.pool,
        self.tokenizer,
        params,
        prompts,
        self.cfg.data.responses,
        key=jax.random.fold_in(key, round),
        version=version,
        on_answer=bar.answers,
        stop=self.stop,
        watch=self.watch,
      )
      self.clock.add("gen", batch.gen_seconds)
      self.clock.add("reward", batch.grade_seconds)
      collect.refuse_failures(batch, self.cfg.reward.max_failed)
      return batch

    sources = [source.batch(step, self.cfg.data.prompts) for source in self.sources]
    return collect.refilled(draw, sources)

  def _drift(self, params, phase, rollouts) -> dict[str, float]:
    """How sampler and trainer differ, where the update itself does not tell."""
    if any(term.space == "conditional" for term in phase.terms):
      return {}
    with self.watch("update"), self.clock("compare"):
      packed, used = batch_lib.sample(rollouts, self.shape)
      logp_MBT = process.get(self.stepper.score(params, packed, used))
    return numbers_lib.of_drift(packed, logp_MBT)

  def _update(self, state, phase, batches):
    """The updates of a batch of rollouts: (state, metrics, with `updates` made).

    Only with several updates per batch are the old log-probs computed; with one they
    are those of the update itself.
    """
    batches = [b for b in batches if b.used]
    more = [{} for _ in batches]
    if any(term.kl != "none" for term in phase.terms):
      with self.clock("ref"):
        for given, b in zip(more, batches, strict=True):
          given["ref_BT"] = self.stepper.score(self.reference, b.packed, b.used)
        jax.block_until_ready(more)
    if self.cfg.updates > 1:
      with self.clock("old_log_prob"):
        for given, b in zip(more, batches, strict=True):
          given["old_BT"] = self.stepper.score(state.params, b.packed, b.used)
        jax.block_until_ready(more)
    found = {}
    with self.clock("update_actor"):
      for given, b in zip(more, batches, strict=True):
        packed = dataclasses.replace(b.packed, **given)
        state, part = self.stepper.update(state, packed, b.used, phase.lr, phase.terms)
        found = metrics.merge(found, part)
      numbers = {"actor/skipped": 0.0} | metrics.values(found)
    updates = len(batches) - int(numbers["actor/skipped"])
    return state, numbers | {"updates": updates}

  def _minibatches(self) -> list[slice]:
    size = self.cfg.data.prompts // self.cfg.updates
    return [slice(i * size, (i + 1) * size) for i in range(self.cfg.updates)]

  def evaluate(self, state, meta, log, bar) -> None:
    """Scores the model on unseen problems; writes and keeps the result."""
    cfg, step = self.cfg, meta["step"]
    start = time.perf_counter()
    with bar.count("evaluate", len(self.problems) * cfg.eval.samples) as count:
      found = evaluate_lib.evaluate(
        self.examiner,
        self.pool,
        self.tokenizer,
        state.params,
        self.problems,
        cfg.eval.samples,
        seed=cfg.seed,
        version=meta["updates"],
        on_answer=count,
        stop=self.stop,
        watch=self.watch,
      )
    scores = scores_lib.to_json(found.scores)
    meta |= {"evaluated": step, "scores": scores, "before": meta["before"] or scores}
    meta["tokens"] += found.tokens
    phase = config.phase_at(cfg, max(0, step - 1))[1].name if step else "before"
    line = {
      "step": step,
      "phase": phase,
      "eval": scores,
      **evaluate_lib.by_source(found.answers),
      "timing_s/testing": time.perf_counter() - start,
    }
    process.on_main(
      lambda: log.write(line, numbers_lib.rows(step, "eval", phase, found.answers))
    )
    bar.evaluated(line)

  def save(self, checkpoints, state, meta, log) -> None:
    """Records to the disk first, then the checkpoint that relies on them."""
    now = time.time()
    meta["seconds"] += now - self.started
    self.started = now
    best = meta["scores"] if meta["evaluated"] == meta["step"] else None

    def records():
      log.flush()
      return log.mark()

    # The clock's part is in the record of the next step.
    with self.stop.whole, self.watch("save"), self.clock("save_checkpoint"):
      meta["records"] = process.on_main(records)
      checkpoints.save(meta["step"], state, dict(meta), best)

  def summary(self, meta) -> dict:
    """What summary.json holds."""
    return {
      "before": meta["before"],
      "after": meta["scores"],
      "steps": meta["step"],
      "seconds": meta["seconds"],
      "tokens": meta["tokens"],
      "versions": folder_lib.versions(),
    }

  def columns(self, meta) -> dict:
    """Scores before and after, as evaluate.run.table takes them."""
    return {"before": meta["before"], "after": meta["scores"]}
