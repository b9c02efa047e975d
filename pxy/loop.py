"""START HERE. Reinforcement learning on P(y|x) and on P(y), from top to bottom.

    prompts -> sample -> grade -> advantage -> view -> pack -> update

The response is always drawn with its prompt; what the update sees before it is the
view, and a phase (config.Phase) says which. DSRL is a tuple of two phases.

Prompts and keys are functions of the step, so that a resume needs no more than it, the
weights, and which prompts had long responses, and n + n steps equal 2n bit for bit,
across epochs and phases. The loop is synchronous and strictly on-policy: step n samples
from what step n - 1 made; or it takes samples that were stored (run/stored.py), by the
same function of the step. Signals, checkpoints, evaluations and records are the
session's.
"""

import contextlib
import pathlib
from collections.abc import Sequence

from pxy import config
from pxy.evaluate import run as evaluate_lib
from pxy.parallel import process
from pxy.report import page
from pxy.run import numbers
from pxy.run import parts as parts_lib
from pxy.run import session as session_lib
from pxy.run import step as step_lib
from pxy.sampling import collect
from pxy.train import rate


def train(
  cfg: config.Train,
  out: str | pathlib.Path,
  *,
  resume: str = "auto",
  accept: Sequence[str] = (),
) -> dict | None:
  """Runs a training config in the folder `out`.

  Args:
    out: a path, or gs://bucket/folder.
    resume: `auto` goes on from the newest checkpoint if there is one, `never` refuses a
      folder that holds a run, `must` refuses one that does not.
    accept: names of differences to the run before that are no reason to refuse it
      (run/same.py); an error names them.

  Returns:
    What summary.json holds; None when a signal ended the run early.

  Raises:
    config.Error: config, data, model and folder do not go together, or the numbers went
      wrong on the way; good steps are saved.
  """
  config.check(cfg)
  opened = session_lib.opened(cfg, out, resume, accept)
  with opened as session, contextlib.ExitStack() as stack:
    # Model, data, sampler, graders, trainer: what stays the same.
    parts = parts_lib.make(cfg, session, stack)
    session.begin(parts.policy, parts.trainer.abstract, parts.start, parts.used)
    for note in parts.notes:
      session.bar.say(note)
    for step, state in session.steps(parts.evaluate):
      _, phase = config.phase_at(cfg, step)
      draw_key, view_key = step_lib.keys(cfg.seed, step, session.returns)
      state, lr = step_lib.entered(cfg, state, step), rate.at(cfg, step)
      probed = parts.probe(state, step)
      if parts.stored:  # y was drawn before, by whoever
        graded = parts.take(state, step)
      else:
        graded = collect.step(  # y ~ pi(.|x), r(x, y)
          parts.collector,
          state.params,
          parts.prompts(step),
          cfg.data.responses,
          key=draw_key,
          version=int(state.step),
          max_failed=cfg.reward.max_failed,
        )
        collect.refuse_stale(graded, session.place.updates)
      batches = step_lib.batches(  # A, view, pack
        parts, phase, graded, view_key, state.params
      )
      state, found = step_lib.update(parts, state, phase, lr, batches)
      done = numbers.of(parts, step, phase, graded, batches, found, probed)
      session.record(state, done)
    session.finish(lambda folder: page.write([folder], folder))
  if session.summary is not None and process.main():
    before, after = session.summary["before"], session.summary["after"]
    evaluate_lib.show({"before": before, "after": after})
    session.bar.say(f"report: {session.folder.name}/report.html")
  return session.summary
