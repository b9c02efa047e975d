"""Paragraphs of a text file are documents, with names that hold anywhere."""

import os

import pytest

from pxy import config
from pxy.data import text


def write(tmp_path, data, name="held_out.txt"):
  path = tmp_path / name
  path.write_bytes(data)
  return path


def test_paragraphs_are_documents(tmp_path):
  data = "\ufeffOne  line.\nAnother.  \n\n \t\nDrü\n\n\nOne  line.\nAnother.\n".encode()
  found = text.read(write(tmp_path, data))
  assert [(d.line, d.text) for d in found] == [(1, "One  line.\nAnother."), (5, "Drü")]
  windows = text.read(write(tmp_path, data.replace(b"\n", b"\r\n"), "windows.txt"))
  assert windows == found, "line ends change nothing"


def test_a_name_is_a_function_of_the_text_alone(tmp_path):
  first = text.read(write(tmp_path, b"a b\n\nc d\n\ne"))
  second = text.read(write(tmp_path, b"\n\nc d\n\nx y z\n\na b"))
  names = {d.text: d.id for d in first}
  assert [d.id for d in second][::2] == [names["c d"], names["a b"]]
  assert [d.id for d in second] == [
    d.id for d in second if d.id == names.get(d.text, d.id)
  ]
  assert len({d.id for d in first}) == 3
  assert names["a b"] == "c8687a08aa5d6ed2", "names that others have kept have changed"


def test_headings_can_be_left_out(tmp_path):
  path = write(tmp_path, b"Title\n\nA sentence of some length.\n")
  assert [d.line for d in text.read(path, shortest=10)] == [3]
  with pytest.raises(config.Error, match="no paragraph of 100 characters"):
    text.read(path, shortest=100)


@pytest.mark.parametrize(
  ("data", "says"),
  [
    (b"good\n\nbad \xff\n", "line 3: not UTF-8 text; convert"),
    (b"good\n\0", "line 2: has a NUL character"),
    (b" \n\n", "no paragraph"),
    (b"x" * (text.LONGEST + 1), "line 1: a paragraph of 1,048,577 characters"),
  ],
)
def test_faults_are_one_line(tmp_path, data, says):
  with pytest.raises(config.Error, match=says) as found:
    text.read(write(tmp_path, data))
  assert "\n" not in str(found.value)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
  monkeypatch.setattr(text, "MOST", 100)
  with pytest.raises(config.Error, match="more than 100 bytes"):
    text.read(write(tmp_path, b"x" * 101))
  with pytest.raises(config.Error, match=r"expected a \.txt file"):
    text.read(write(tmp_path, b"x", "a.md"))
  with pytest.raises(config.Error, match="no such file"):
    text.read(tmp_path / "none.txt")
  os.mkfifo(tmp_path / "pipe.txt")
  with pytest.raises(config.Error, match="no such file"):
    text.read(tmp_path / "pipe.txt")  # and does not wait for somebody to write
