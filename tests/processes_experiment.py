"""A run of a few seconds for test_processes.py, and what befalls its processes.

PXY_TEST_FATE=PLACE:STEP:PROCESS:WHAT has it happen to one of them there:

  step     as the step begins, before anything is drawn
  update   in the step, when the others wait in the update's collectives
  save     while the arrays of that step's checkpoint are being written

WHAT is a signal that it sends itself (SIGKILL@0.2: so many seconds later), HANG:
nothing more comes of it, or FULL: no file of it can grow beyond a kilobyte from there
on.
"""

import functools
import os
import resource
import signal
import threading
import time

from pxy import config as c


def config():
  if "PXY_TEST_FATE" in os.environ:
    _befall(*os.environ["PXY_TEST_FATE"].split(":"))
  return c.Train(
    phases=(c.Phase("signs", (c.Term(advantage="sign"),), lr=1e-4),),
    steps=4,
    save_every=1,
    eval_every=0,
    data=c.Data(prompts=4, responses=2, max_prompt_tokens=32),
    sampling=c.Sampling(max_new_tokens=48, slots=8),
    compute=c.Compute(row_tokens=96),
    eval=c.Eval(problems=4, samples=2),
    reward=c.Reward(workers=1),
  )


def _befall(place, step, process, what):
  if os.environ["PXY_PROCESS"] != process:
    return
  from pxy.run import step as run_step
  from pxy.train import checkpoint
  from pxy.train import step as step_lib

  at = None

  def strike(where, now):
    if (where, now) != (place, int(step)):
      return
    if what == "HANG":
      time.sleep(600)
    elif what == "FULL":
      resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    else:
      name, _, later = what.partition("@")
      end = functools.partial(os.kill, os.getpid(), getattr(signal, name))
      threading.Timer(float(later), end).start() if later else end()

  def begin(seed, step, returns):
    nonlocal at
    at = step
    strike("step", at)
    return keys_(seed, step, returns)

  def update(stepper, *rest):
    strike("update", at)
    return update_(stepper, *rest)

  def publish(checkpoints, step, *rest):
    strike("save", step)
    return publish_(checkpoints, step, *rest)

  keys_, run_step.keys = run_step.keys, begin
  update_, step_lib.Stepper.update = step_lib.Stepper.update, update
  publish_ = checkpoint.Checkpointer._publish
  checkpoint.Checkpointer._publish = publish
