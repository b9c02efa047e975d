"""Who of several processes is gone, and what is said of it; with a store of ours."""

import os
import threading
import time

import pytest

from pxy import config
from pxy.parallel import heartbeat


class Store:
  """The coordinator's store, as jaxlib gives it."""

  def __init__(self):
    self.held, self.dead = {}, False

  def key_value_set(self, name, value, allow_overwrite=False):
    if self.dead or (name in self.held and not allow_overwrite):
      raise RuntimeError("UNAVAILABLE or ALREADY_EXISTS")
    self.held[name] = value

  def key_value_dir_get(self, _):
    if self.dead:
      raise RuntimeError("UNAVAILABLE")
    return list(self.held.items())

  def blocking_key_value_get(self, name, _):
    return self.held[name]


@pytest.fixture
def store(monkeypatch):
  """A store in which processes 0 and 2 count on; 1 does so while `alive` is set."""
  store = Store()
  store.alive = threading.Event()
  store.alive.set()
  closed = threading.Event()
  for i in range(3):
    store.held[f"pxy/name/{i}"] = f"host:{i}"

  def others():
    n = 0
    while not closed.wait(0.02):
      n += 1
      for i in (0, 1, 2):
        if i != 1 or store.alive.is_set():
          store.held[f"pxy/beat/{i}"] = f"x{n}"

  threading.Thread(target=others, daemon=True).start()
  monkeypatch.setattr(heartbeat.distributed.global_state, "client", store)
  monkeypatch.setattr(heartbeat, "BEAT", 0.05)
  monkeypatch.setattr(heartbeat, "SILENT", 1.5)
  monkeypatch.setattr(heartbeat, "BROKEN", 0.5)
  store.said, store.ended = [], threading.Event()

  def leave(code):  # the real one takes the whole process along
    store.code = code
    store.ended.set()

  monkeypatch.setattr(os, "_exit", leave)
  monkeypatch.setattr(heartbeat, "_say", store.said.append)
  monkeypatch.setattr(heartbeat.Heartbeat, "_together", lambda _: None)
  yield store
  closed.set()


def test_all_who_count_are_left_in_peace(store):
  with heartbeat.Heartbeat(0, 3):
    time.sleep(2.0)
  assert not store.ended.is_set() and not store.said


@pytest.mark.parametrize("index", [0, 2])
def test_who_no_longer_counts_is_named(store, index):
  with heartbeat.Heartbeat(index, 3):
    time.sleep(0.2)
    store.alive.clear()
    assert store.ended.wait(10), "a process that does not count was not noticed"
  line = store.said[0]
  assert line.startswith("pxy: process 1 of 3 (host:1) is gone: not heard of for"), line
  assert line.endswith("start all processes again, with --resume auto")
  assert store.code == 1
  assert "process 1 of 3" in store.held["pxy/gone"], "the others are to say the same"


def test_an_exception_waits_for_what_may_have_caused_it(store):
  start = time.monotonic()
  store.alive.clear()
  with pytest.raises(ValueError), heartbeat.Heartbeat(0, 3):
    raise ValueError("Gloo AllGather failed: connection closed by peer")
  assert store.ended.is_set() and "process 1 of 3" in store.said[0]
  assert time.monotonic() - start < 5


@pytest.mark.parametrize(
  ("error", "words"),
  [
    (config.Error("the disk is full"), "ended: the disk is full"),
    (KeyError("adv"), "ended: KeyError: 'adv'"),
  ],
)
def test_an_error_of_ones_own_is_left_as_last_words(store, error, words):
  with pytest.raises(type(error)), heartbeat.Heartbeat(2, 3):
    raise error
  assert not store.ended.is_set(), "it is alone in this, and ends by itself"
  assert store.held["pxy/gone"].startswith("process 2 of 3 (")
  assert store.held["pxy/gone"].endswith(words)


def test_an_error_that_all_meet_is_everybodys_own(store):
  store.alive.clear()  # process 1 has ended with it already
  store.held["pxy/gone"] = "process 1 of 3 (host:1) ended: --steps 3: at step 4 already"
  with pytest.raises(config.Error), heartbeat.Heartbeat(0, 3):
    raise config.Error("--steps 3: at step 4 already")
  assert not store.ended.is_set(), "it was to end by itself, with its own exit code"


def test_last_words_of_another_end_this_process(store):
  with heartbeat.Heartbeat(2, 3):
    store.held["pxy/gone"] = "process 0 of 3 (host:0) ended: the disk is full"
    assert store.ended.wait(10)
  assert store.said[0].startswith(
    "pxy: process 0 of 3 (host:0) ended: the disk is full; the run ends"
  )


@pytest.mark.parametrize("there", [True, False])
def test_an_abort_is_laid_to_process_0_only_if_it_is_gone(store, monkeypatch, there):
  monkeypatch.setattr(heartbeat, "_there", lambda: there)
  with heartbeat.Heartbeat(2, 3) as beats:
    beats._aborted()
  assert store.ended.is_set() is not there
  if not there:
    assert store.said[0].startswith("pxy: process 0 of 3 (host:0) is gone")
