"""How config.json spells the rotations of queries and keys.

    old  rope_theta, rope_scaling {rope_type or type, factor ...}, rope_local_base_freq
    new  rope_parameters {rope_type, rope_theta, factor ...}, or one such for each of
         full_attention and sliding_attention

Both are read; the old one is written, which old and new software reads. Of YaRN what
is not said is 0.1 ln(factor) + 1 for the factor on queries and keys (attention_factor,
or a quotient of two such, mscale by mscale_all_dim), and a ramp from 32 turns to 1 over
whole pairs; what is as usual is not written, for vLLM knows some of it by other names.
Left out: dynamic and LongRoPE scaling, rotations of a part of the head.
"""

import math

from pxy import config
from pxy.model.arch import Scaling

_RAMP = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_KINDS = {"default": (), "linear": ("factor",), "llama3": ("factor", *_RAMP)}
_KINDS["yarn"] = ("factor", _RAMP[2])
_YARN = {
  "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
  "finetuned",
}  # fmt: skip
"""What YaRN's may have besides; the last one says how it was trained, no more."""
_FAST, _SLOW = 32.0, 1.0


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
  usual: float,
  context: int,
  original: int | None,
) -> dict:
  """rope_theta, rope_scaling and rope_local_theta of an Arch, as far as they are set.

  two: the family turns its local layers by a base of their own. usual: rope_theta where
  none is said. context, original: max_position_embeddings, and what it was before it
  was scaled, where that stands beside the rotations. config.Error names what is not
  supported.
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
  out = {"rope_theta": usual if theta is None else theta}
  if scaling is not None:
    out["rope_scaling"] = found = _scaling(where, scaling, original, context)
    if two and found is not None and found.over == "pairs":
      # transformers looks for it where Gemma's files have none.
      raise config.Error(f"config.json: {where} {scaling!r} is not supported: truncate")
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


def _scaling(
  where: str, values: dict, original: int | None = None, context: int | None = None
) -> Scaling | None:
  said, values = values, dict(values)
  # One name in old files, the other in new ones, sometimes both.
  kinds = [values.pop(k) for k in ("rope_type", "type") if k in values] or ["default"]
  if values.get("partial_rotary_factor") == 1.0:
    del values["partial_rotary_factor"]
  kind = kinds[0]
  fits = isinstance(kind, str) and kind in _KINDS and kinds == [kind] * len(kinds)
  if fits and _RAMP[2] in _KINDS[kind]:
    # Of YaRN, where neither says, the context counts as it is.
    inside = original or (context if kind == "yarn" else None)
    if inside is not None:
      values.setdefault(_RAMP[2], inside)
    if original not in (None, values.get(_RAMP[2])):
      raise config.Error(
        f"config.json: {_RAMP[2]} is {original}, in {where} {values[_RAMP[2]]!r}"
      )
  more = _YARN & set(values) if kind == "yarn" else set()
  if not fits or set(values) - more != set(_KINDS[kind]):
    raise config.Error(f"config.json: {where} {said!r} is not supported")
  if kind == "default":
    return None
  factor = typed(f"{where}.factor", values["factor"], float)
  if kind == "linear":
    return Scaling(factor)
  if kind == "yarn":
    return _yarn(where, values, factor)
  low, high = (typed(f"{where}.{k}", values[k], float) for k in _RAMP[:2])
  return Scaling(
    factor, (low, high, typed(f"{where}.{_RAMP[2]}", values[_RAMP[2]], int))
  )


def _yarn(where: str, values: dict, factor: float) -> Scaling:
  def take(name: str, kind: type = float):
    value = values.get(name)
    return None if value is None else typed(f"{where}.{name}", value, kind)

  attention, truncate = take("attention_factor"), take("truncate", bool)
  scales = take("mscale"), take("mscale_all_dim")
  if attention is None:
    attention = _attention(factor)
    if all(scales):
      above, below = (_attention(factor, scale) for scale in scales)
      attention = above / below if below > 0 else math.nan  # which is refused
  low, high = take("beta_slow") or _SLOW, take("beta_fast") or _FAST
  original = typed(f"{where}.{_RAMP[2]}", values[_RAMP[2]], int)
  over = "pairs" if truncate is False else "whole_pairs"
  return Scaling(factor, (low, high, original), over, attention)


def _attention(factor: float, scale: float = 1.0) -> float:
  """What YaRN multiplies queries and keys by, where nothing else is said."""
  return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def write(scaling: Scaling) -> dict:
  """rope_scaling of config.json."""
  if scaling.over != "turns":
    low, high, context = scaling.ramp
    out = {"rope_type": "yarn", "factor": scaling.factor, _RAMP[2]: context}
    more = {
      "attention_factor": (scaling.attention, _attention(scaling.factor)),
      "beta_fast": (high, _FAST),
      "beta_slow": (low, _SLOW),
      "truncate": (scaling.over == "whole_pairs", True),
    }
    return out | {k: value for k, (value, usual) in more.items() if value != usual}
  if scaling.ramp is None:
    return {"rope_type": "linear", "factor": scaling.factor}
  ramp = dict(zip(_RAMP, scaling.ramp, strict=True))
  return {"rope_type": "llama3", "factor": scaling.factor} | ramp
