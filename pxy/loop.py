"""START HERE. The training loop: a run, read as a paragraph.

    config -> data.batch(step) -> sampling engine -> reward pool -> advantage -> view
           -> pack -> objective -> train step -> checkpoint -> evaluate -> report

Data and randomness are functions of the step: prompts are data.batch(step), keys are
fold_in(seed, step). So an exact resume is one integer, and n + n steps equal 2n bit for
bit, across epochs and phases. A phase (config.Phase) is data: DSRL is a tuple of two.

The loop is synchronous and strictly on-policy: step n samples from what step n - 1
made, so nothing could overlap with an update but the packing of the next, and metrics
are fetched at once. Clocks stop after the device has.
"""

import contextlib
import os
import pathlib

from pxy import config, files
from pxy.evaluate import run as evaluate_lib
from pxy.parallel import process
from pxy.report import page
from pxy.run import folder as folder_lib
from pxy.run import step as run_lib
from pxy.safety import guard, interrupt, rescue
from pxy.sampling import engine as engine_lib
from pxy.show import log as log_lib
from pxy.show import mirror
from pxy.show import progress as progress_lib
from pxy.train import checkpoint as checkpoint_lib


def train(cfg: config.Train, out: pathlib.Path, *, resume: str = "auto") -> dict | None:
  """Runs a training config in the folder `out`.

  Returns the summary, or None when a signal ended the run early.

  resume: `auto` goes on from the newest checkpoint if there is one, `never` refuses a
  folder that holds a run, `must` refuses one that does not, `anyway` is auto and lets
  the config differ from the one before.
  """
  config.check(cfg)
  folder = folder_lib.RunFolder(out, cfg, resume)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(interrupt.listen(cfg.save.grace))
    stop.agreed = process.some
    stack.enter_context(folder)
    place = rescue.Rescue(folder.ended)
    stack.enter_context(stop.rescued(place))
    run = run_lib.Run(cfg, folder, stop, stack)
    folder.start(run.policy.arch, run.tokenizer)
    checkpoints = stack.enter_context(
      checkpoint_lib.Checkpointer(folder.checkpoints, cfg.save.keep, cfg.save.best)
    )
    state, meta = run.restore(checkpoints)
    log = process.on_main(lambda: _log(cfg, folder, meta, stack))
    shown = None if process.main() else stack.enter_context(open(os.devnull, "w"))
    bar = stack.enter_context(progress_lib.Progress(cfg, meta["step"], file=shown))
    run.introduce(bar)
    stack.enter_context(folder.attempt(lambda: meta["step"]))
    saved = meta["step"]
    while True:
      step = meta["step"]
      due = step in (0, cfg.steps) or (cfg.eval_every and step % cfg.eval_every == 0)
      try:
        if due and meta["evaluated"] != step:
          run.evaluate(state, meta, log, bar)
        place.keep(checkpoints, log, state, meta)
        if step != saved and (
          step == cfg.steps
          or (cfg.save_every and step % cfg.save_every == 0 and not meta["bad"])
        ):
          run.save(checkpoints, state, meta, log)
          saved = step
        if step >= cfg.steps:
          break
        process.on_main(folder.present)
        state, line = run.step(state, meta, log, bar)
        place.keep(checkpoints, log, state, meta)
        guard.refuse_drift(cfg, line)
        if meta["bad"] >= cfg.guard.bad_steps:
          guard.refuse_bad(cfg.guard, meta, run.returns)
          state = None  # its memory is needed
          state, meta = run.go_back(checkpoints, meta, log, bar)
          saved = meta["step"]
      except engine_lib.Stopped:
        pass
      except config.Error:
        with contextlib.suppress(config.Error):  # what ends the run is the news
          if meta["step"] != saved and not meta["bad"]:
            process.on_main(folder.present)
            run.save(checkpoints, state, meta, log)
        raise
      if stop():
        if meta["step"] != saved:
          run.save(checkpoints, state, meta, log)
        bar.say(f"stopped at step {meta['step']}; continue with --resume auto")
        return None
    checkpoints.wait()
    summary = run.summary(meta)
    process.on_main(lambda: _finish(folder, summary))
  if process.main():
    page.write([folder.path], folder.path)
    evaluate_lib.show(run.columns(meta))
    bar.say(f"report: {folder.path / 'report.html'}")
  return summary


def _log(cfg, folder, meta, stack) -> log_lib.Log:
  """The records of the run up to the step that it goes on from."""
  kept = folder.keep(meta["step"])
  also = mirror.open_all(cfg.mirror, folder.path, stack, resume=kept)
  evaluated = meta["evaluated"] == meta["step"]
  log = stack.enter_context(
    log_lib.Log(folder.path, resume=kept, evaluated=evaluated, also=also)
  )
  folder.whole(meta.get("records"), log.mark())
  return log


def _finish(folder, summary: dict) -> None:
  folder.present()
  files.write_json(folder.path / "summary.json", summary)
