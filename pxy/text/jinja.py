"""The environment that published chat templates are written for, as a sandbox.

Templates come with downloaded models: they can read what they are given, and no more.
This is a file of its own since Jinja takes time to import.
"""

import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox


@functools.lru_cache(maxsize=16)
def program(source: str) -> jinja2.Template:
  """A template, compiled."""
  return _environment().from_string(source)


@functools.lru_cache(maxsize=16)
def names(source: str) -> frozenset[str]:
  """Names that a template reads and does not set before."""
  return frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(source)))


class _Generation(jinja2.ext.Extension):
  """`{% generation %}...{% endgeneration %}` marks what an assistant wrote, for others
  to train on; the text is that without the marks."""

  tags = frozenset({"generation"})

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


@functools.cache
def _environment() -> jinja2.Environment:
  """The settings and globals that published templates are written for."""
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[jinja2.ext.loopcontrols, _Generation],
  )
  environment.globals["raise_exception"] = _refuse
  environment.globals["strftime_now"] = lambda x: datetime.datetime.now().strftime(x)
  environment.filters["tojson"] = _to_json
  return environment


def _to_json(
  x, ensure_ascii=False, indent=None, separators=None, sort_keys=False
) -> str:
  """With the options that published templates may name; Jinja's own would escape."""
  return json.dumps(
    x,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _refuse(message):
  raise jinja2.TemplateError(message)
