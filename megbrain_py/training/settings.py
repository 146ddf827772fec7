"""Reads and writes configuration dataclasses: TOML files, key=value overrides, exact errors."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from megbrain_py.errors import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Config = TypeVar("Config")

_AS_NEAR = 0.1  # a second name is suggested when it is nearly as like as the first


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean x?" for a mistyped name, or the names there are."""
    known = sorted(known)
    found = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    near = [difflib.SequenceMatcher(None, name, k).ratio() for k in found]
    found = [k for k, ratio in zip(found, near, strict=True) if ratio > near[0] - _AS_NEAR]
    if not found:  # the right word in the wrong section
        last = name.rpartition(".")[2]
        found = [k for k in known if k.rpartition(".")[2] == last]
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; there are: {', '.join(known)}"


def read(
    kind: type[Config], file: str | Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """A configuration from defaults, a TOML file and `key=value` texts, in this order.

    Keys of sections are dotted: `data.train=x.json`. Values are TOML; bare words are strings and
    `1,2` is a list. DataError for unknown keys (with the nearest name), wrong types and values
    outside their limits, each naming the key and where it was set.
    """
    values: dict[str, tuple[Any, str]] = {}
    if file is not None:
        for key, value in _flatten(_toml_of(Path(file)), kind, str(file)):
            values[key] = (value, str(file))
    for text in overrides:
        key, equals, value_text = text.partition("=")
        if not equals or not key.strip():
            raise DataError(f"config: expected key=value, found {text!r}")
        values[key.strip()] = (_parse(value_text.strip()), f"override {text!r}")
    return _build(kind, values)


def replaced(config: Config, changes: Mapping[str, Any], within: str = "") -> Config:
    """The configuration with some dotted keys changed, checked and converted as `read` does.

    `within`: the section that stands before the keys in messages, such as "model.".
    """
    values = {f"{within}{key}": (value, "") for key, value in {**flat(config), **changes}.items()}
    return _build(type(config), values, within)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            found.update(flat(value, f"{prefix}{f.name}."))
        elif isinstance(value, Mapping):
            found.update({f"{prefix}{key}": v for key, v in value.items()})
        else:
            found[f"{prefix}{f.name}"] = value
    return found


def to_toml(config: Any) -> str:
    """The configuration as a TOML file with its explanations, which `read` reads back."""
    return "\n".join(_section(config, "")) + "\n"


def _section(config: Any, prefix: str) -> list[str]:
    lines: list[str] = []
    later: list[str] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            name = f"{prefix}{f.name}"
            later += ["", f"[{name}]", *_section(value, f"{name}.")]
        elif isinstance(value, Mapping):
            lines += [f"{key} = {_toml(item)}" for key, item in value.items()]
        else:
            line = f"{f.name} = {_toml(value)}"
            lines.append(f"{line:<32} # {_meaning(f.metadata)}".rstrip(" #"))
    return lines + later


def _meaning(metadata: Mapping[str, Any]) -> str:
    """What a setting is for, and the words it takes."""
    choices = metadata.get("choices")
    return str(metadata.get("help", "")) + (f": {', '.join(choices)}" if choices else "")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)


def _toml_of(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"config {path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"config {path}: not TOML: {error}") from None


def _parse(text: str) -> Any:
    """A TOML value; a bare word is a string, `a,b` a list."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if "," in text and text[0] not in "[{\"'":
            return [_parse(part.strip()) for part in text.split(",") if part.strip()]
        return text


def _flatten(
    values: Mapping[str, Any], kind: type, where: str, prefix: str = ""
) -> list[tuple[str, Any]]:
    """Dotted keys of a TOML table, as deep as the dataclasses are nested."""
    sections = {name: t for name, t in _types(kind).items() if dataclasses.is_dataclass(t)}
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        section = sections.get(name)
        if isinstance(value, Mapping) and isinstance(section, type):
            found += _flatten(value, section, where, f"{prefix}{name}.")
        elif isinstance(value, Mapping) and _takes_options(kind):
            found += [(f"{prefix}{name}.{key}", v) for key, v in _flatten(value, kind, where)]
        elif isinstance(value, Mapping):
            known = [f"{prefix}{s}" for s in sections]
            near = nearest(prefix + name, known)
            raise DataError(f"config: no section [{prefix}{name}] ({where}){near}")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _options_field(kind: type) -> str | None:
    """The Mapping field that takes the keys a section does not know, if it has one."""
    hints = _types(kind)
    names = (f.name for f in dataclasses.fields(kind))
    return next((name for name in names if typing.get_origin(hints[name]) is Mapping), None)


def _takes_options(kind: type) -> bool:
    return _options_field(kind) is not None


def all_keys(kind: type, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration class."""
    found: list[str] = []
    for f in dataclasses.fields(kind):
        declared = _types(kind)[f.name]
        if isinstance(declared, type) and dataclasses.is_dataclass(declared):
            found += all_keys(declared, f"{prefix}{f.name}.")
        elif f.name != _options_field(kind):
            found.append(f"{prefix}{f.name}")
    return found


def _build(kind: type[Config], values: Mapping[str, tuple[Any, str]], within: str = "") -> Config:
    known = all_keys(kind, within)
    for key, (_, where) in values.items():
        if key not in known and not _is_option(kind, key[len(within) :]):
            source = f" ({where})" if where else ""
            raise DataError(f"config: no key {key}{source}{nearest(key, known)}")
    return typing.cast(Config, _fill(kind, values, within))


def _is_option(kind: type, key: str) -> bool:
    """Does the key go to the options of a section?"""
    name, dot, rest = key.partition(".")
    declared = _types(kind).get(name)
    if dot and isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return _is_option(declared, rest)
    return _takes_options(kind)


def _fill(kind: type[Any], values: Mapping[str, tuple[Any, str]], prefix: str) -> Any:
    chosen: dict[str, Any] = {}
    hints, options = _types(kind), _options_field(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    for f in dataclasses.fields(kind):
        declared, key = hints[f.name], f"{prefix}{f.name}"
        if isinstance(declared, type) and dataclasses.is_dataclass(declared):
            chosen[f.name] = _fill(declared, values, f"{key}.")
        elif f.name == options:
            own = {k[len(prefix) :]: v for k, (v, _) in values.items() if k.startswith(prefix)}
            chosen[f.name] = {k: v for k, v in own.items() if k not in names}
        elif key in values:
            value, where = values[key]
            chosen[f.name] = convert(value, declared, key, where, f.metadata)
    try:
        return kind(**chosen)
    except ValueError as error:  # what the class itself refuses
        section = prefix.rstrip(".").rpartition(".")[2]  # a class may name itself
        raise DataError(f"config: {prefix}{str(error).removeprefix(f'{section}: ')}") from None


def convert(
    value: Any, declared: Any, key: str, where: str = "", limits: Mapping[str, Any] | None = None
) -> Any:
    """The value as the declared type; DataError names the key, what it expects and what it found.

    Declared types: bool, int, float, str, tuple[x, ...], and their unions with None.
    """
    expected, found = _converted(value, declared)
    limits = limits or {}
    if expected is None:
        items = found if isinstance(found, tuple) else (found,)
        low, high, choices = (limits.get(name) for name in ("low", "high", "choices"))
        if choices and found not in choices:
            expected = f"one of {', '.join(choices)}"
        elif low is not None and any(item < low for item in items):
            expected = f"at least {low:g}"
        elif high is not None and any(item > high for item in items):
            expected = f"at most {high:g}"
    if expected is not None:
        source = f" ({where})" if where else ""
        raise DataError(f"config: {key} expects {expected}, found {value!r}{source}")
    return found


def _converted(value: Any, declared: Any) -> tuple[str | None, Any]:
    """(None, converted value), or (what was expected, None)."""
    origin = typing.get_origin(declared)
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None, None
        inner = [t for t in typing.get_args(declared) if t is not type(None)]
        return _converted(value, inner[0])
    if origin is typing.Literal:
        choices = typing.get_args(declared)
        return (
            (None, value) if value in choices else (f"one of {', '.join(map(str, choices))}", None)
        )
    if origin is tuple or declared is tuple:
        return _converted_tuple(value, typing.get_args(declared))
    return _converted_plain(value, declared)


def _converted_plain(value: Any, declared: Any) -> tuple[str | None, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if declared is bool:
        return (None, value) if isinstance(value, bool) else ("true or false", None)
    if declared is int:
        whole = number and float(value).is_integer()
        return (None, int(value)) if whole else ("a whole number", None)
    if declared is float:
        if number and math.isfinite(value):
            return None, float(value)
        return "a finite number" if number else "a number", None
    if declared is str:
        plain = isinstance(value, str) or number
        return (None, str(value)) if plain else ("a text", None)
    return None, value


def _converted_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[str | None, Any]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    declared = list(inner) if inner and Ellipsis not in inner else None
    if declared is not None and len(declared) != len(items):
        return f"{len(declared)} values", None
    kinds = declared or [inner[0] if inner else None] * len(items)
    made = [_converted(item, kind) for item, kind in zip(items, kinds, strict=True)]
    for expected, _ in made:
        if expected is not None:
            return f"a list, each {expected}", None
    return None, tuple(item for _, item in made)
