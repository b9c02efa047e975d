"""Which responses change their part of the pool, so that the parts hold alike.

A turn waits for the part whose rows hold most. Once nothing waits to begin, responses
end where they end, and the parts drift: then the fullest part gives a response to the
emptiest, and again, as long as this makes the fullest less.
"""

from collections.abc import Mapping, Sequence

WORTH = 1 / 8
"""Of what the fullest part holds, that must be saved for anything to be carried. By
their bytes alone less would do; but each response that is carried is a few dispatches
more."""


def moves(
  held: Mapping[int, tuple[int, int]], places: Sequence[int], free: Sequence[int]
) -> list[tuple[int, int]]:
  """(slot, part that its response goes to), each slot once; often none.

  Args:
    held: (part, pages of its response) of each slot that has one.
    places: slots of each part that have none.
    free: pages of each part that can be taken.
  """
  load, places, free = [0] * len(places), list(places), list(free)
  for part, pages in held.values():
    load[part] += pages
  most, enough = max(load), (1 - WORTH) * max(load)
  if sum(load) > enough * len(load):
    return []
  found, useful, left = [], 0, dict(held)
  while takers := [part for part, count in enumerate(places) if count]:
    full = max(range(len(load)), key=load.__getitem__)
    to = min(takers, key=load.__getitem__)
    gap = load[full] - load[to]
    saved, pages, slot = max(
      ((min(pages, gap - pages), pages, slot)
       for slot, (part, pages) in left.items() if part == full and pages <= free[to]),
      default=(0, 0, 0),
    )  # fmt: skip
    if saved <= 0:
      break
    found.append((slot, to))
    del left[slot]
    load[full], load[to] = load[full] - pages, load[to] + pages
    places[to], free[to] = places[to] - 1, free[to] - pages
    if max(load) < most:  # of several that are fullest, all had to give
      most, useful = max(load), len(found)
  return found[:useful] if most <= enough else []
