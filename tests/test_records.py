"""Files of rows of every kind: read to the letter, bounded, refused in one line."""

import gzip
import io
import json
import pathlib

import pyarrow as pa
import pytest
from pyarrow import parquet

from pxy import config
from pxy.data import records, rows, sources

ROWS = [{"prompt": f"q é {i}", "answer": str(i)} for i in range(3)]
LINES = "\n".join(map(json.dumps, ROWS)) + "\n"
CSV = 'question,answer,level,note\n"a, ""b""\nc?",007,3,\nx,1.50,4,y\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Writes files of a folder, which is the current one."""
  monkeypatch.chdir(tmp_path)

  def of(name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
      parquet.write_table(pa.Table.from_pylist(content), path)
      return name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name

  return of


def refused(word, **how):
  """What is said of the first row that cannot be used."""
  with pytest.raises(config.Error) as caught:
    sources.read(word, "train", True, **how)
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("rows.jsonl", LINES),
    ("rows.jsonl", "\ufeff" + LINES.replace("\n", "\r\n\r\n")),
    ("rows.jsonl.gz", LINES),
    ("rows.json", json.dumps(ROWS)),
    ("rows.json", "\ufeff \n" + json.dumps(ROWS, indent=2, ensure_ascii=False)),
    ("rows.json", LINES),
    ("rows.json.gz", json.dumps(ROWS)),
    ("rows.csv", "prompt,answer\r\n" + "".join(f"q é {i},{i}\r\n" for i in range(3))),
    ("rows.csv.gz", "prompt,answer\n" + "".join(f"q é {i},{i}\n" for i in range(3))),
    ("rows.parquet", ROWS),
  ],
)
def test_every_kind_gives_the_same_rows(write, name, content):
  found = sources.read(write(name, content), "test", True)
  assert [(uid, r.messages[0]["content"], r.answer) for uid, r in found] == [
    (i, f"q é {i}", str(i)) for i in range(3)
  ]
  assert {row.task for _, row in found} == {"rows"}


def test_a_csv_keeps_the_letters_of_answers_and_the_numbers_of_other_columns(write):
  first, second = rows.read(write("a.csv", CSV))
  assert (first.messages[0]["content"], first.answer) == ('a, "b"\nc?', "007")
  assert (second.answer, second.columns["level"], second.columns["note"]) == (
    "1.50", 4, "y",
  )  # fmt: skip
  assert "note" not in first.columns, "an empty cell is none"
  (row,) = rows.read(write("b.csv", "x,y\n007,01\n"), columns="question=x,answer=y")
  assert (row.messages[0]["content"], row.answer) == ("007", "01")


def test_shards_are_read_in_the_order_of_their_names(write):
  for i in (1, 0):
    write(f"d/train-{i:05}-of-00002.parquet", [{"prompt": f"p{i}", "answer": "1"}])
  write("d/more/part.jsonl", LINES)
  for word, task in (("d/*.parquet", "d"), ("d/train-*", "train")):
    found = sources.read(word, "train", True)
    assert [(uid, r.messages[0]["content"]) for uid, r in found] == [
      (0, "p0"),
      (1, "p1"),
    ]
    assert {row.task for _, row in found} == {task}, "tasks of a pattern have its name"
  assert len(sources.read("d/**/*.jsonl", "train", True)) == 3
  assert sources.parts("1 * d/*.parquet + 2 * d/more/*.jsonl")[1][1] == "d/more/*.jsonl"
  write("2024-a.jsonl", LINES)
  assert sources.parts("2024*.jsonl") == [(1.0, "2024*.jsonl")]
  assert sources.parts("2024*b.jsonl") == [(2024.0, "b.jsonl")]
  write("d/test-00001-of-00002.parquet", ROWS)
  assert refused("d/test-*").startswith(
    "d/test-00000-of-00002.parquet: this shard is missing; fetch it"
  )
  assert len(sources.read("d/test-0000[1]-*", "train", True)) == 3


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n"


@pytest.mark.parametrize(
  ("name", "content", "says"),
  [
    ("a.parquet", POINTER, "a.parquet: a Git LFS pointer, not the file"),
    ("a.jsonl", POINTER, "fetch that with `git lfs pull`"),
    ("a.jsonl", "", "a.jsonl: no rows, an empty file of 0 bytes; fetch it again"),
    ("a.parquet", "", "no rows, an empty file of 0 bytes"),
    ("a.json", " \n", "a.json: no rows; write them, such as"),
    ("a.json", "[]", "a.json: no rows"),
    ("a.csv", "prompt,answer\n", "a.csv: no rows"),
    ("a.json", '{\n "data": [1]\n}', "a.json: neither a list of objects nor"),
    ("a.json", '[{"prompt": "a", "answer": "1"}', "row 1: the list has no end"),
    ("a.json", '[{"prompt": "a", "answer": "1"}, {"p', "row 1: not JSON"),
    ("a.json", '[{"prompt": "a", "answer": "1"} {}]', "row 1: not JSON (no comma"),
    ("a.json", '[{"prompt": "a", "answer": "1"}] x', "text behind the list: 'x'"),
    ("a.json", '[{"prompt": "a", "prompt": "b"}]', "row 0: key 'prompt': twice"),
    ("a.json", "[1, 2]", "row 0: field 'row': expected an object, found int 1"),
    ("a.json", "[" * 9999, "row 0: nested too deep"),
    ("a.json", b'[{"prompt": "caf\xe9", "answer": "1"}]', "row 0: not UTF-8 text"),
    ("a.csv", "question,answer\na,1,2\n", "Row #2: Expected 2 columns, got 3: a,1,2"),
    ("a.csv", b"question,answer\ncaf\xe9,1\n", "Row #2: CSV conversion error to str"),
    ("a.csv", "answer,answer\n1,2\n", "a.csv: column 'answer' twice"),
    ("a.csv", "," * 20000 + "\n", "a.csv: 20,000 columns; at most 10,000 are read"),
    ("a.csv", "question;answer\na;1\n", "row 0: field 'prompt': expected it"),
    ("d/a.txt", "x", "d/a.txt: expected a .jsonl, .json, .csv or .parquet file"),
  ],
)
def test_files_that_cannot_be_read_are_one_line(write, name, content, says):
  write(name, content)
  assert says in refused("d/*" if "/" in name else name)


def test_words_that_name_no_file(write):
  write("d.parquet/part-0.parquet", ROWS)
  assert refused("d.parquet").startswith("d.parquet: a folder; name the files in it")
  assert "e/*.csv: no file matches" in refused("e/*.csv")
  write("a.jsonl", LINES)
  assert refused("a.jsonl.gz") == "a.jsonl.gz: no such file"
  pathlib.Path("a.jsonl.gz").write_bytes(b"not zipped")
  assert refused("a.jsonl.gz").startswith("a.jsonl.gz: not a readable gzip file")
  whole = gzip.compress(LINES.encode())
  pathlib.Path("a.jsonl.gz").write_bytes(whole[:-9])
  assert "a.jsonl.gz: not a readable gzip file (Compressed" in refused("a.jsonl.gz")


def test_sizes_are_bounded_before_memory_is_taken(write, monkeypatch):
  monkeypatch.setattr(records, "ROW", 100)
  monkeypatch.setattr(records, "_STEP", 64)
  monkeypatch.setattr(records, "_SMALL", 4096)
  long = {"prompt": "x" * 99, "answer": "1"}
  for name, content in {
    "a.jsonl": json.dumps(long) + "\n" + LINES,
    "a.json": json.dumps([long, *ROWS]),
  }.items():
    assert "more than " in refused(write(name, content)), name
    assert len(list(rows.read(name))) == 1, "reading goes on where nothing is known"
  assert len(list(rows.read(write("b.json", json.dumps(ROWS, indent=9))))) == 3
  for name in ("a.jsonl.gz", "a.json.gz", "a.csv.gz"):
    said = refused(write(name, "\n" * 2**20))
    assert f"{name}: unfolds to more than" in said and "over 200 times" in said
  monkeypatch.setattr(records, "TABLE", 10)
  assert "more than 10 bytes" in refused(write("a.csv", CSV))
  monkeypatch.setattr(records, "ROWS", 2)
  assert "a.jsonl: more than 2 rows" in refused(write("a.jsonl", LINES))
  assert "says that it has 3 rows" in refused(write("a.parquet", ROWS))


def test_a_parquet_of_one_value_is_read_a_few_rows_at_a_time(write, monkeypatch):
  """Its text stands in the file once, and in memory as often as rows are read."""
  write("a.parquet", [{"prompt": "x" * 999, "answer": "1"}] * 99)
  about = parquet.ParquetFile("a.parquet").metadata
  path = pathlib.Path("a.parquet")
  assert records._batch(path, about, 10**6) == records._BATCH
  monkeypatch.setattr(records, "TABLE", 2000)
  assert records._batch(path, about, 10**6) == 16
  assert len(list(rows.read("a.parquet"))) == 99
  monkeypatch.setattr(records, "_SMALL", 2000)
  monkeypatch.setattr(records, "RATIO", 3)
  assert "a.parquet: unfolds to more than " in refused("a.parquet")


def test_a_list_is_decoded_wherever_it_is_cut():
  """Elements, separators and the end may fall on any border of what is held."""
  values = [{"a": [1, {"b": "]},"}], "c": 'é\\"'}, {}, {"d": -12.5e3}]
  text = json.dumps(values, ensure_ascii=False, indent=1)
  for cut in range(1, len(text)):
    found = list(records._list(io.StringIO(text[cut:]), text[1:cut]))
    assert [value for _, value in found] == values, text[:cut]
