"""The parts of a run: what stays the same while its steps change the state.

Model, data, sampler, graders and trainer are made here, in the order in which a mistake
in the config is cheapest to find.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax

from pxy import config, imports
from pxy.data import prompts as prompts_lib
from pxy.evaluate import run as evaluate_lib
from pxy.evaluate import scores as scores_lib
from pxy.model import attention, decoder
from pxy.parallel import mesh as mesh_lib
from pxy.rewards import gold
from pxy.rewards import pool as pool_lib
from pxy.rl import check
from pxy.run import batch as batch_lib
from pxy.run import numbers
from pxy.run import session as session_lib
from pxy.run import stored as stored_lib
from pxy.run import used as used_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.train import remat
from pxy.train import state as state_lib
from pxy.train import step as step_lib
from pxy.weights import load

glance_lib = imports.later("pxy.evaluate.glance")  # of runs that are probed


@dataclasses.dataclass(frozen=True)
class Parts:
  """What stays the same over a run; made by `make`.

  Attributes:
    policy: the model's name, architecture and tokenizer.
    sources: number of returns -> the orders of the data, one for each round of a step.
    problems: those of the evaluations.
    shape: of the packed batches.
    contexts: ids of the fixed contexts by name.
    trainer: scores and updates.
    reference: weights of the start, where a phase asks for them; else None.
    stored: the samples that are trained on, where none are drawn; else None.
    collector: draws and grades the responses of a step.
    examiner: draws and grades those of an evaluation.
    glance, prober: what a probe asks, and what draws and grades for it; or None.
    session: keeps the run alive.
    notes: what is to be said of all this before the first step.
  """

  cfg: config.Train
  policy: load.Policy
  mesh: jax.sharding.Mesh
  sources: Callable[[int], Sequence[prompts_lib.Source]]
  problems: list[prompts_lib.Prompt]
  shape: batch_lib.Shape
  contexts: dict[str, list[int]]
  trainer: step_lib.Stepper
  reference: object
  stored: stored_lib.Stored | None
  collector: collect.Collector
  examiner: collect.Collector
  glance: "glance_lib.Glance | None"
  prober: collect.Collector | None
  session: session_lib.Session
  notes: list[str]

  def start(self) -> state_lib.State:
    """The state of a new run: the model's weights, fresh moments."""
    return self.trainer.init(_weights(self.cfg, self.trainer))

  def used(self) -> dict[str, dict]:
    """What the run is made of, by digest."""
    first = self.sources(self.session.returns)[0]
    return used_lib.of_train(self.cfg, self.policy, [*first.prompts, *self.problems])

  def prompts(self, step: int) -> list[list[prompts_lib.Prompt]]:
    """The prompts of a step, and those of each round that may refill it."""
    sources = self.sources(self.session.returns)
    return [source.batch(step, self.cfg.data.prompts) for source in sources]

  def take(self, state, step: int) -> collect.Graded:
    """The stored samples of a step, graded."""
    return self.stored.step(
      self.collector,
      self.prompts(step),
      version=int(state.step),
      max_failed=self.cfg.reward.max_failed,
    )

  def evaluate(self, state, place) -> session_lib.Examined:
    """Scores the model on unseen problems; session_lib.Evaluate."""
    cfg, total = self.cfg, len(self.problems) * self.cfg.eval.samples
    with self.session.bar.count("evaluate", total) as count:
      found = evaluate_lib.evaluate(
        dataclasses.replace(self.examiner, on_answer=count),
        state.params,
        self.problems,
        cfg.eval.samples,
        seed=cfg.seed,
        version=place.updates,
      )
    line = evaluate_lib.by_source(found.graded)
    if place.step == cfg.steps:  # the other probes are in the records of steps
      line |= self.probe(state, place.step)
    phase = "before"
    if place.step:
      phase = config.phase_at(cfg, place.step - 1)[1].name
    return session_lib.Examined(
      scores=scores_lib.to_json(found.scores),
      phase=phase,
      line=line,
      rows=numbers.rows(place.step, "eval", phase, found.graded),
      tokens=found.tokens,
    )

  def probe(self, state, step: int) -> dict[str, float]:
    """Numbers of the weights after so many steps, where they are due (probe_every);
    the time that they take is not the step's."""
    cfg = self.cfg
    if self.glance is None or (step % cfg.probe_every and step != cfg.steps):
      return {}
    with (
      self.session.clock("probe"),
      self.session.bar.count("probe", self.glance.total) as count,
    ):
      prober = dataclasses.replace(self.prober, on_answer=count)
      version = int(state.step)
      found = self.glance(prober, state.params, seed=cfg.seed, version=version)
    self.session.clock.start()
    return found


def make(
  cfg: config.Train, session: session_lib.Session, stack: contextlib.ExitStack
) -> Parts:
  """The parts of a run; `stack` closes those that have an end.

  Raises:
    config.Error: model, data, mesh and config do not go together.
  """
  mesh = mesh_lib.make(cfg.mesh)
  sampling_mesh = mesh_lib.sampling(mesh, cfg.sampling.tensor)
  policy = load.about(cfg.model)
  tokenizer = template.using(policy.tokenizer, cfg.data.template)
  policy = dataclasses.replace(policy, tokenizer=tokenizer)
  how = cfg.data.template, cfg.data.template_arguments
  doubt = template.ending(tokenizer, *how)
  stored = None
  if cfg.data.rollouts:
    stored = stored_lib.load(cfg, tokenizer, policy.arch.vocab_size)

  @functools.lru_cache(maxsize=1)
  def sources(returns: int):
    rounds = 1 + cfg.reward.refill
    first = cfg.seed + rounds * returns
    return [
      stored.source(first + number)
      if stored
      else prompts_lib.load(cfg.data, tokenizer, "train", first + number)
      for number in range(rounds)
    ]

  source = sources(session.returns)[0]
  problems = evaluate_lib.problems(cfg.data, cfg.eval, tokenizer)
  graded = stored is not None and not stored.ungraded
  answers = _answers(cfg, [] if graded else source.prompts, problems)
  terms = [term for phase in cfg.phases for term in phase.terms]
  contexts = batch_lib.contexts(tokenizer, terms)
  for ids in contexts.values():
    check.contexts(ids, rows=1, vocab=policy.arch.vocab_size)
  shards = mesh_lib.row_shards(mesh)
  sharer = attention.sharer(policy.arch, mesh_lib.platform(mesh))
  shape = batch_lib.shape(cfg, shards, contexts, policy.arch.context, sharer)
  compute = remat.chosen(
    policy.arch,
    cfg.compute,
    (shape.micro_rows, shape.row_tokens),
    mesh,
    sampling=cfg.sampling,
    opt=cfg.optim,
    reference=cfg.needs_reference,
  )
  trainer = step_lib.Stepper(policy.arch, compute, cfg.sampling, cfg.optim, mesh)
  reference = _weights(cfg, trainer) if cfg.needs_reference else None
  pool = stack.enter_context(pool_lib.Pool(cfg.reward, cfg.data.judge))
  glance = glance_lib.make(policy.name, tokenizer) if cfg.probe_every else None

  def collector(
    name: str, sampling: config.Sampling, pool, longest: int
  ) -> collect.Collector:
    engine = engine_lib.Engine(
      policy.arch,
      sampling=sampling,
      stop_ids=tokenizer.stop_ids,
      max_prompt_tokens=longest,
      mesh=sampling_mesh,
      dtype=cfg.compute.dtype,
      group=cfg.data.responses,
    )
    stack.enter_context(engine)
    session.lengths[name] = engine.lengths
    return collect.Collector(
      engine,
      pool,
      tokenizer,
      stop=session.stop,
      watch=session.watch,
      on_answer=lambda done: session.bar.answers(done),
      updates=cfg.steps * cfg.updates,
      epochs=source.epoch(cfg.steps, cfg.data.prompts),
    )

  longest = cfg.data.max_prompt_tokens
  marks = pool
  if cfg.eval.grader:
    marks = stack.enter_context(pool_lib.Pool(cfg.reward, cfg.eval.grader))
  prober = None
  if glance is not None:
    by_task = stack.enter_context(pool_lib.Pool(cfg.reward, "auto"))
    limits = glance.limits(cfg.sampling)
    prober = collector("probe", limits, by_task, glance.plan.max_prompt_tokens)
  notes = _notes(cfg, policy, mesh, source, stored, problems, answers, doubt)
  notes += remat.notes(cfg.compute, compute)
  return Parts(
    cfg=cfg,
    policy=policy,
    mesh=mesh,
    sources=sources,
    problems=problems,
    shape=shape,
    contexts=contexts,
    trainer=trainer,
    reference=reference,
    stored=stored,
    collector=collector("train", cfg.sampling, pool, longest),
    examiner=collector(
      "eval", evaluate_lib.sampling(cfg.sampling, cfg.eval), marks, longest
    ),
    glance=glance,
    prober=prober,
    session=session,
    notes=notes,
  )


def _weights(cfg, trainer):
  """The model's, on the mesh; read anew each time, for they are rarely needed."""
  return load.params(cfg.model, trainer.abstract.params)


def _answers(cfg, prompts: Sequence, problems: Sequence) -> list[str]:
  """What is to be said of the reference answers, of training and of evaluation;
  config.Error where too many of them cannot be graded against."""
  judges = (cfg.data.judge, prompts), (config.judge_of_evaluation(cfg), problems)
  found = [
    text
    for judge, known in judges
    for text in gold.to_read(judge, [(p.task, p.answer, p.columns) for p in known])
  ]
  return gold.refuse(found, cfg.reward) if found else []


def _notes(cfg, policy, mesh, source, stored, problems, answers, doubt) -> list[str]:
  """What the run is made of, and its first prompt to the letter."""
  training = (
    f"{cfg.data.task}: {len(source):,} training prompts"
    f" ({source.dropped} over {cfg.data.max_prompt_tokens} tokens left out,"
    f" {source.duplicates} duplicates)"
  )
  notes = [
    f"{policy.name}: {decoder.size(policy.arch):,} parameters on {mesh.size}"
    f" {jax.devices()[0].platform} device(s)",
    f"{stored.told if stored else training}, {len(problems)} problems to evaluate",
  ]
  notes += [f"{cfg.data.task}: {fields}" for fields in source.fields]
  trained = {prompt.ids.tobytes() for prompt in source.prompts}
  shared = sum(prompt.ids.tobytes() in trained for prompt in problems)
  if source.split is None and cfg.eval.task in ("", cfg.data.task):
    said = "no splits" if source.of == "all rows" else f"{source.of!r} rows alone"
    notes.append(
      f"warning: the data has {said}, so evaluation uses training rows; name other"
      " rows with --eval.task"
    )
  elif shared:
    notes.append(
      f"warning: {shared} of the {len(problems)} problems to evaluate are training"
      " prompts; name other rows with --eval.task or --eval.split"
    )
  notes += answers
  first = source.batch(0, 1)[0]
  spelt = template.spell(policy.tokenizer, first.ids.tolist())
  notes.append(f"first prompt: {spelt!r}")
  notes.append(f"responses end at {template.stops(policy.tokenizer)}")
  if doubt:
    notes.append(f"warning: {doubt}")
  return notes
