"""A Slurm job array: one element, one cell."""

import shlex
import sys
from collections.abc import Sequence

from pxy.study import plan


def script(study: str, out: str, cells: Sequence[plan.Cell]) -> str:
  """The text for `sbatch`; each element runs one cell with `pxy study --cell`."""
  names = "\n".join(f"  {shlex.quote(cell.name)}" for cell in cells)
  command = shlex.join([
    sys.executable, "-m", "pxy", "study", study, "--out", out, "--cell",
  ])  # fmt: skip
  return f"""#!/bin/bash
#SBATCH --job-name=pxy-study
#SBATCH --array=0-{len(cells) - 1}
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --signal=B:TERM@120
# What is stopped goes on from its last checkpoint when it is submitted again.
set -euo pipefail
cells=(
{names}
)
exec {command} "${{cells[$SLURM_ARRAY_TASK_ID]}}"
"""
