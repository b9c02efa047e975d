"""What an array is where rl/ says `Array`: numpy's or JAX's, of a shape by its name.

A list or a bare number is none: neither has axes. Files that a config is read with wait
for neither library, so only type checkers see more than a name here.
"""

import typing

if typing.TYPE_CHECKING:
  import jax
  import numpy as np

  Array = np.ndarray | jax.Array
else:
  Array = typing.Any
