"""YAML read with suspicion: plain data only, no tags, no aliases, no key twice."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from hoserkd.errors import ConfigError

MAX_BYTES = 1 << 17
"""Profiles are a page or two; more than this is not a profile."""
MAX_DEPTH = 20
"""Settings lie two deep; reading deeper ones takes time that grows with the square."""
MAX_DIGITS = 300
"""Of a whole number: more than any setting has, and few enough for Python to convert."""
_OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken,
            yaml.FlowSequenceStartToken)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class _Loader(yaml.SafeLoader):
    """Resolves scalars as YAML 1.2 does: `off` is a word, `1e-3` a number, `1:30` a word."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and type are PyYAML's


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
               r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."))


@dataclass(slots=True)
class Document:
    """A YAML mapping and where each of its keys stands."""

    values: dict[str, Any]
    line: dict[str, int] = field(default_factory=dict)
    """Line of each key, by its dotted path, from 1."""
    findings: list[str] = field(default_factory=list)
    """What is wrong, each with its line."""


def read_document(text: str, where: str) -> Document:
    """Return the mapping that `text` holds; `where` names it in errors.

    Raises:
        ConfigError: not YAML, not a mapping, too long, a tag, an alias, or a key given twice.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: {len(text)} characters; a profile has at most {MAX_BYTES}")
    node = _compose(text, where)
    document = Document({})
    if node is None:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{where}: expected keys and values, found {node.id} at the top")
    document.values = _mapping(node, "", document)
    if document.findings:
        raise ConfigError("\n".join(f"{where}:{finding}" for finding in document.findings))
    return document


def read_value(text: str, where: str) -> Any:
    """Return the one value that `text` holds, as `--set key=value` gives it."""
    node = _compose(text, where)
    if node is None:
        return None
    document = Document({})
    value = _value(node, "", document)
    if document.findings:
        raise ConfigError(f"{where}: {document.findings[0]}")
    return value


def _compose(text: str, where: str) -> Any:
    try:
        depth = 0
        for token in yaml.scan(text, _Loader):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MAX_DEPTH:
                raise ConfigError(f"{where}:{token.start_mark.line + 1}: nested more than "
                                  f"{MAX_DEPTH} deep, which no setting is")
            if isinstance(token, yaml.TagToken | yaml.AnchorToken | yaml.AliasToken):
                raise ConfigError(
                    f"{where}:{token.start_mark.line + 1}: tags, anchors and aliases are not read",
                    hint="write the value out; to build on another profile use `extends: NAME`",
                )
        return yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}{line}: this is not YAML: {problem}") from error


def _mapping(node: yaml.MappingNode, prefix: str, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.findings.append(f"{line}: a key must be a word")
            continue
        key = str(key_node.value)
        if key in values:
            first = document.line[prefix + key]
            document.findings.append(f"{line}: {prefix}{key} is given twice, first in line {first}")
            continue
        document.line[prefix + key] = line
        values[key] = _value(value_node, f"{prefix}{key}.", document)
    return values


def _value(node: Any, prefix: str, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, prefix, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, prefix, document) for item in node.value]
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        document.findings.append(f"{node.start_mark.line + 1}: {prefix.rstrip('.')}: a number of "
                                 f"{len(node.value)} digits is no setting's value")
        return None
    return _SCALARS.construct(node)


class _Scalars:
    """Turns scalar nodes into Python values with PyYAML's own safe constructors."""

    def construct(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "tag:yaml.org,2002:int":
            return int(node.value)
        return yaml.SafeLoader("").construct_object(node)


_SCALARS = _Scalars()
