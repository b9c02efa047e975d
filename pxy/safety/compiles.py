"""What JAX tells of programs that become ready, to whoever listens just now.

JAX (0.7) can be told to listen and not, in public, to stop. So one listener stays for
the life of the process, and passes on to those between `start` and `stop`.
"""

import functools
from collections.abc import Callable

import jax

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's event of a program that is ready to run: compiled, or read from the cache."""

Listener = Callable[[str, float], None]
_listening: list[Listener] = []


def start(listener: Listener) -> None:
  """From now on listener(event, seconds) is called, in the thread that compiles."""
  _register()
  _listening.append(listener)


def stop(listener: Listener) -> None:
  """It is called no more. Raises ValueError where it never was."""
  _listening.remove(listener)


@functools.cache
def _register() -> None:
  jax.monitoring.register_event_duration_secs_listener(_tell)


def _tell(event: str, seconds: float, **_) -> None:
  for listener in tuple(_listening):
    listener(event, seconds)
