"""What is carried from part to part makes the fullest less, and nothing else worse."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from pxy.sampling import level

PLACES = 6

# Pages of each response, by part.
HELD = st.lists(st.lists(st.integers(1, 70), max_size=PLACES), min_size=2, max_size=5)


def slots(held):
  return {
    part * PLACES + i: (part, pages)
    for part, there in enumerate(held)
    for i, pages in enumerate(there)
  }


def loads(held, parts):
  found = [0] * parts
  for part, pages in held.values():
    found[part] += pages
  return found


@settings(max_examples=500, deadline=None)
@given(held=HELD, free=st.lists(st.integers(0, 200), min_size=5, max_size=5))
def test_it_saves_an_eighth_or_carries_nothing(held, free):
  parts, before = len(held), slots(held)
  places, free = [PLACES - len(there) for there in held], free[: len(held)]
  made = level.moves(before, places, free)
  after = dict(before)
  for slot, part in made:
    after[slot] = part, before[slot][1]
  assert len({slot for slot, _ in made}) == len(made), "a response is carried twice"
  taken = collections.Counter(part for _, part in made)
  for part, count in taken.items():
    assert count <= places[part], "more responses than places"
    pages = sum(before[slot][1] for slot, to in made if to == part)
    assert pages <= free[part], "more pages than are free"
  most, least = max(loads(before, parts)), max(loads(after, parts))
  assert least <= 7 / 8 * most if made else least == most


def test_what_can_be_level_is():
  held = slots([[40, 20, 20], [8], [], [1]])
  made = level.moves(held, [3, 5, 6, 5], [99] * 4)
  after = dict(held) | {slot: (part, held[slot][1]) for slot, part in made}
  assert max(loads(after, 4)) == 40, "the longest alone is all that can be had"
  assert level.moves(after, [3, 5, 6, 5], [99] * 4) == []


def test_one_response_in_each_part_stays():
  assert level.moves(slots([[70], [1], [2]]), [5] * 3, [99] * 3) == []
  assert level.moves({}, [6, 6], [9, 9]) == []
