"""`pxy` and `python -m pxy`: listens for signals first, then imports the rest."""

import sys

from pxy import interrupt


def main() -> None:
  """Entry point; see cli.main."""
  if sys.argv[1:2] in (["train"], ["pretrain"]):
    interrupt.start()
  from pxy import cli

  cli.main()


if __name__ == "__main__":
  main()
