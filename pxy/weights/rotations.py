"""How config.json spells the rotations of queries and keys.

    old  rope_theta, rope_scaling {rope_type or type, factor ...}, rope_local_base_freq
    new  rope_parameters {rope_type, rope_theta, factor ...}, or one such for each of
         full_attention and sliding_attention

Both are read; the old one is written, which old and new software reads. Left out: YaRN,
dynamic and LongRoPE scaling, rotations of a part of the head.
"""

from pxy import config
from pxy.model.arch import Scaling

_RAMP = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_KINDS = {"default": (), "linear": ("factor",), "llama3": ("factor", *_RAMP)}


def typed(name: str, value, kind: type):
  """The value if it is of that type (a whole number is a float); else config.Error."""
  if kind is float and type(value) is int and abs(value) < 2**53:
    value = float(value)
  if type(value) is not kind:
    raise config.Error(f"config.json: {name} is {value!r}, expected {kind.__name__}")
  return value


def read(
  *,
  theta: float | None,
  scaling: dict | None,
  parameters: dict | None,
  local: float | None,
  two: bool,
) -> dict:
  """rope_theta, rope_scaling and rope_local_theta of an Arch, as far as they are set.

  two: the family turns its local layers by a base of their own. config.Error names
  what is not supported.
  """
  where = "rope_scaling"
  if parameters is not None:
    if scaling is not None:
      raise config.Error(
        "config.json: field 'rope_scaling' is not supported beside rope_parameters"
      )
    where, scaling = "rope_parameters", dict(parameters)
    kinds = {"full_attention", "sliding_attention"}
    if two and set(scaling) == kinds:
      of_local = dict(typed(where, scaling["sliding_attention"], dict))
      scaling = dict(typed(where, scaling["full_attention"], dict))
      local = _theta(of_local, local)
      if _scaling(where, of_local) is not None:
        raise config.Error(
          f"config.json: rope_parameters {parameters!r} is not supported: it scales"
          " sliding_attention"
        )
    theta = _theta(scaling, theta)
  default = 1_000_000.0 if two else 10_000.0
  out = {"rope_theta": default if theta is None else theta}
  if scaling is not None:
    out["rope_scaling"] = _scaling(where, scaling)
  if two:
    out["rope_local_theta"] = 10_000.0 if local is None else local
  return out


def _theta(values: dict, beside: float | None) -> float | None:
  """Takes the base out of `values`; it may stand beside them as well, if equal."""
  inside = values.pop("rope_theta", None)
  if inside is None:
    return beside
  inside = typed("rope_theta", inside, float)
  if beside not in (None, inside):
    raise config.Error(
      f"config.json: rope_theta is {beside}, in rope_parameters {inside}"
    )
  return inside


def _scaling(where: str, values: dict) -> Scaling | None:
  said, values = values, dict(values)
  # One name in old files, the other in new ones, sometimes both.
  kinds = [values.pop(k) for k in ("rope_type", "type") if k in values] or ["default"]
  if values.get("partial_rotary_factor") == 1.0:
    del values["partial_rotary_factor"]
  kind = kinds[0]
  fits = isinstance(kind, str) and kind in _KINDS and kinds == [kind] * len(kinds)
  if not fits or set(values) != set(_KINDS[kind]):
    raise config.Error(f"config.json: {where} {said!r} is not supported")
  if kind == "default":
    return None
  factor = typed(f"{where}.factor", values["factor"], float)
  if kind == "linear":
    return Scaling(factor)
  low, high = (typed(f"{where}.{k}", values[k], float) for k in _RAMP[:2])
  return Scaling(
    factor, (low, high, typed(f"{where}.{_RAMP[2]}", values[_RAMP[2]], int))
  )


def write(scaling: Scaling) -> dict:
  """rope_scaling of config.json."""
  if scaling.ramp is None:
    return {"rope_type": "linear", "factor": scaling.factor}
  ramp = dict(zip(_RAMP, scaling.ramp, strict=True))
  return {"rope_type": "llama3", "factor": scaling.factor} | ramp
