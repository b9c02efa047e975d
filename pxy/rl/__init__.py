"""The losses. Who imports them is told of a JAX and a Flax that do not go together."""

from pxy import versions

versions.check("jax", "flax")
