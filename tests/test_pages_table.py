"""Pages belong to one response or to one prompt, and none is ever lost."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from pxy.sampling import pages

PAGES, PARTS = 12, 2

# (what, part, prompt, full pages of it, pages of one's own)
MOVES = st.lists(
  st.tuples(
    st.sampled_from(["begin", "extend", "carry", "end"]),
    st.integers(0, PARTS - 1),
    st.integers(0, 2),
    st.integers(1, 4),
  ),
  max_size=60,
)


def held(table, running):
  """How often each page of a part is somebody's, a prompt's own counted once."""
  found = collections.Counter()
  prompts = set()
  for who, (part, prompt, full) in running.items():
    there = table.of(who)
    shared, own = there[:full], there[full:]
    found.update((part, page) for page in own)
    if (part, prompt) not in prompts:
      found.update((part, page) for page in shared)
    prompts.add((part, prompt))
  return found


@settings(max_examples=200, deadline=None)
@given(moves=MOVES)
def test_no_page_twice_and_none_lost(moves):
  table, running, begun = pages.Table(PAGES, PARTS), {}, 0
  for what, part, prompt, count in moves:
    full = prompt  # a prompt has as many full pages as its number
    if what == "begin":
      new = 0 if table.shares(part, prompt) else full
      if table.free(part) < new + count:
        continue
      there = table.begin(begun, part, prompt, full, count)
      assert len(there) == new, "full pages are filled when they are new, and only then"
      assert table.of(begun)[:new] == there
      running[begun] = part, prompt, full
      begun += 1
    elif running:
      who = list(running)[count % len(running)]
      before, room = table.of(who), table.free(running[who][0])
      if what == "extend":
        done = table.extend(who, len(before) + count)
        assert done == (count <= room), "a page is refused where there is none, only"
        assert table.of(who)[: len(before)] == before, "what it has stays where it is"
        assert len(table.of(who)) == len(before) + count * done
      elif what == "carry":
        _, prompt, full = running[who]
        if part == running[who][0] or table.free(part) < len(before):
          continue
        there = table.shares(part, prompt)
        had = held(table, running)
        copied = table.carry(who, part)
        running[who] = part, prompt, full
        assert [old for old, _ in copied] == before[full * there :]
        assert [new for _, new in copied] == table.of(who)[full * there :]
        assert not {(part, new) for _, new in copied} & set(had), "somebody's page"
      else:
        table.end(who)
        del running[who]
    found = held(table, running)
    assert set(found.values()) <= {1}, f"pages with two owners: {found}"
    for part in range(PARTS):
      used = sum(n for (p, _), n in found.items() if p == part)
      assert used + table.free(part) == PAGES, "pages were lost, or made"
  for who in list(running):
    table.end(who)
  assert [table.free(part) for part in range(PARTS)] == [PAGES] * PARTS


def test_responses_to_a_prompt_share_its_full_pages_in_their_part():
  table = pages.Table(PAGES, PARTS)
  first = table.begin("a", 0, 7, full=2, own=1)
  assert len(first) == 2 and table.shares(0, 7) and not table.shares(1, 7)
  assert table.begin("b", 0, 7, full=2, own=1) == []
  assert table.of("a")[:2] == table.of("b")[:2] == first
  assert table.of("a")[2:] != table.of("b")[2:]
  assert len(table.begin("c", 1, 7, full=2, own=1)) == 2, "another part has its own"
  table.end("a")
  assert table.shares(0, 7) and table.of("b")[:2] == first
  table.end("b")
  assert not table.shares(0, 7) and table.free(0) == PAGES
