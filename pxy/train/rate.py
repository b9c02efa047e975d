"""The learning rate of a step: a function of its place in the phase, and of that alone.

    warm-up    lr (s + 1) / warmup             for s = 0, 1, ... below `warmup`
    constant   lr                              from then on, or
    cosine     lr (e + (1 - e) (1 + cos(pi x)) / 2)
    linear     lr (1 - (1 - e) x)              x = (s - warmup) / (steps - warmup)

e is `lr_end`. So the first step learns already, the full rate is reached and not passed
over, and after the phase's steps the rate stays at its end. The schedules are optax's.
They are evaluated in float64 on the host, since optax's float32 would differ in the
last digit from device to device; the update gets float32. Nothing is kept from step to
step: a resume has the same rates.
"""

import jax
import optax

from pxy import config

x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
"""`with x64(True):` counts in float64. JAX 0.7 has it in another place."""


def at(cfg: config.Train, step: int) -> float:
  """The learning rate of the update that starts at `step` (the first is step 0)."""
  number, phase = config.phase_at(cfg, step)
  first, end = config.span(cfg, number)
  return of(phase, step - first, end - first)


def of(how: config.Phase | config.Pretrain, step: int, steps: int) -> float:
  """The learning rate of a step, of so many in the phase or the pre-training run."""
  with x64(True), jax.default_device(_host()):
    return float(schedule(how, steps)(step))


def schedule(how: config.Phase | config.Pretrain, steps: int) -> optax.Schedule:
  """Step -> learning rate, of `lr`, `schedule`, `warmup` and `lr_end`."""
  rest = max(1, steps - how.warmup)
  if how.schedule == "cosine":
    then = optax.cosine_decay_schedule(how.lr, rest, how.lr_end)
  elif how.schedule == "linear":
    then = optax.linear_schedule(how.lr, how.lr * how.lr_end, rest)
  else:
    then = optax.constant_schedule(how.lr)
  if not how.warmup:
    return then
  rise = optax.linear_schedule(0.0, how.lr, how.warmup)
  return optax.join_schedules([lambda step: rise(step + 1), then], [how.warmup])


def _host() -> jax.Device | None:
  """A CPU; None, the default device, where JAX_PLATFORMS leaves it out."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return None
