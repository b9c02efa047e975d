"""Which responses change their part of the pool, so that the parts hold alike.

A turn waits for the part whose rows hold most. Once nothing waits to begin, responses
end where they end, and the parts drift: then the fullest part gives a response to the
emptiest, and again, as long as this makes the fullest less. A part gives or takes, not
both, so that no page is written before it was read.
"""

from collections.abc import Mapping, Sequence

WORTH = 1 / 8
"""Of what the fullest part holds, that must be saved for anything to be carried:
carrying a response takes about as long as a turn."""


def moves(
  held: Mapping[int, tuple[int, int]], places: Sequence[int], free: Sequence[int]
) -> list[tuple[int, int]]:
  """(slot, part that its response goes to), in their order; often none.

  Args:
    held: (part, pages of its response) of each slot that has one.
    places: slots of each part that have none.
    free: pages of each part that nobody has.
  """
  load, places, free = [0] * len(places), list(places), list(free)
  for part, pages in held.values():
    load[part] += pages
  most, enough = max(load), (1 - WORTH) * max(load)
  if sum(load) > enough * len(load):
    return []
  found, gave, took = [], set(), set()
  left = dict(held)
  while True:
    full = max(range(len(load)), key=load.__getitem__)
    takers = [part for part in range(len(load)) if places[part] and part not in gave]
    if full in took or not takers:
      break
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
    gave.add(full)
    took.add(to)
  return found if max(load) <= enough and most else []
