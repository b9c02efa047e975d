"""`pxy` and `python -m pxy`: listens for signals first, then imports the rest."""

import contextlib
import os
import sys

from pxy.safety import interrupt


def main() -> None:
  """Entry point; see cli.main. Ends the process itself.

  All that has an end of its own is a context manager, and closed by then. The rest of
  an interpreter's shutdown has ended in a crash or not at all: it waits for threads
  that a failed save has left (orbax-checkpoint 0.12), unloads XLA under its own threads
  after a Ctrl-C, and takes signals again that a finished run should not die of.
  """
  _open()
  _listen()
  code = _run()
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except BrokenPipeError:  # who read it has enough
      pass
    except OSError as error:
      code = code or 2
      with contextlib.suppress(OSError):
        print(f"pxy: {stream.name}: {error.strerror}", file=sys.stderr, flush=True)
  os._exit(code)


def _open() -> None:
  """A standard stream that was closed (`>&-`) becomes /dev/null. Python leaves None in
  its place, and its number to the next file: a checkpoint would get what is printed."""
  for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
      stream = open(os.devnull, mode, encoding="utf-8")
      os.set_inheritable(stream.fileno(), True)
      setattr(sys, name, stream)
      setattr(sys, f"__{name}__", stream)


def _listen() -> None:
  """From here on a signal is pxy's, until the process is over."""
  if sys.argv[1:2] in (["train"], ["pretrain"]):
    interrupt.start()
  else:
    interrupt.at_once()


def _run() -> int:
  try:
    from pxy import versions

    if sys.argv[1:2] == ["doctor"]:
      versions.tolerate()
    elif line := versions.fault():
      print(f"pxy: {line}", file=sys.stderr)
      return 2
    from pxy.commands import cli

    cli.main()
  except SystemExit as end:
    if isinstance(end.code, str):
      print(end.code, file=sys.stderr)
    return end.code if isinstance(end.code, int) else int(end.code is not None)
  except BaseException:
    sys.excepthook(*sys.exc_info())
    return 1
  return 0


if __name__ == "__main__":
  main()
