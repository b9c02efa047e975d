"""A small run that says on stdout what it begins, for test_kill.py to end it there.

  python kill_child.py OUT EVERY [HANG]

EVERY: steps between checkpoints. HANG: the step whose sampling never returns.
"""

import sys
import time


def say(what):
  print(what, flush=True)


def announced(owner, name, what):
  """Has `owner.name` say what it is before it is called."""
  inner = getattr(owner, name)

  def outer(*args, **kwargs):
    say(what)
    return inner(*args, **kwargs)

  setattr(owner, name, outer)


def config_of(every):
  from pxy import config

  signs = config.Term(advantage="sign", coef=0.01)  # so that every step updates
  negatives = config.Term(
    space="marginal", select="negative", advantage="sign", coef=0.01
  )
  return config.Train(
    phases=(
      config.Phase("p", (negatives,), steps=2, lr=1e-5),
      config.Phase("signs", (signs,), lr=1e-4, on_start="reset_optimizer"),
    ),
    steps=4,
    save_every=every,
    eval_every=2,
    data=config.Data(prompts=4, responses=4, max_prompt_tokens=32),
    sampling=config.Sampling(max_new_tokens=48, slots=16),
    eval=config.Eval(problems=2, samples=2),
    reward=config.Reward(workers=1),
    save=config.Save(grace=8.0),
  )


def main(out, every, hang=-1):
  say("imports")
  import pathlib

  import jax

  from pxy import loop
  from pxy.evaluate import run as evaluate
  from pxy.report import page
  from pxy.run import step as run_step
  from pxy.sampling import collect, engine
  from pxy.train import checkpoint, manifest, step
  from pxy.weights import load

  def heard(event, *_, **__):
    if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
      say("compile")

  jax.monitoring.register_event_duration_secs_listener(heard)
  announced(load, "load", "start")
  keys, draw, at = run_step.keys, collect.step, []
  run_step.keys = lambda seed, step, returns: (
    at.append(step) or keys(seed, step, returns)
  )
  collect.step = lambda *args, **more: (
    time.sleep(1000) if at[-1] == int(hang) else draw(*args, **more)
  )
  announced(collect, "step", "draw")
  announced(engine.Engine, "run", "sample")
  announced(collect.concurrent.futures, "wait", "grade")
  announced(step.Stepper, "update", "update")
  announced(evaluate, "evaluate", "evaluate")
  announced(checkpoint.Checkpointer, "save", "save")
  announced(manifest, "seal", "publish")
  announced(checkpoint.Checkpointer, "restore", "restore")
  announced(page, "write", "report")
  loop.train(config_of(int(every)), pathlib.Path(out))
  say("done")


if __name__ == "__main__":
  from pxy.safety import interrupt

  interrupt.start()
  main(*sys.argv[1:])
