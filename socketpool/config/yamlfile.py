"""Read a YAML file into a pydantic model, with errors that name file, line and key.

YAML itself lets a repeated key win silently and has tags that build objects; both are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

MAX_FILE_BYTES = 1 << 20
"""Largest configuration file, in bytes; a larger file is no configuration."""

MAX_NODES = 1 << 20
"""Most values that a file may expand to: nested aliases can make billions from a few lines."""

_PLAIN = {
    "tuple_type": "expected a list, such as [one, two]",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "string_type": "expected text; put it in quotes",
}

M = TypeVar("M", bound=BaseModel)


def load(path: Path, model: type[M]) -> M:
    """The file's content as the model; raises :class:`ConfigError`."""
    text = _read(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_nodes(path, root, {})
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{path}, line {line}: not valid YAML: {error.problem}",
            hint="correct the file, then start again",
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {type(error).__name__}") from None
    except ValueError as error:  # text in the form of a date or a number, with an impossible value
        raise ConfigError(
            f"{path}: not valid YAML: {error}", hint="put quotes around what is meant as text"
        ) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_sentence(path, root, detail, model) for detail in error.errors()),
            hint="correct the file, then start again; nothing was started",
        ) from None


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; not a configuration")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="check the path") from None


def _check_nodes(path: Path, node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Refuse repeated keys and aliases that multiply; returns how much the node stands for."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{path}, line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}: not valid YAML: a key is a word, not a {key.id}")
            if key.value in seen:
                raise ConfigError(f"{where}: {key.value!r} appears twice", hint="keep one of them")
            seen.add(key.value)
            size += 1 + _check_nodes(path, value, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_nodes(path, item, sizes) for item in node.value)
    if node is not None and size > MAX_NODES:
        raise ConfigError(
            f"{path}, line {node.start_mark.line + 1}: with its aliases this stands for more than "
            f"{MAX_NODES} values; not a configuration"
        )
    sizes[id(node)] = size
    return size


def _sentence(
    path: Path, root: yaml.Node | None, detail: ErrorDetails, model: type[BaseModel]
) -> str:
    keys = [str(part) for part in detail["loc"]]
    line = _line_of(root, detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown key"
        allowed = _allowed_keys(model, keys[:-1])
        if allowed:
            message += "; allowed here: " + ", ".join(allowed)
    elif detail["type"] in _PLAIN:
        message = _PLAIN[detail["type"]]
    elif detail["type"] == "missing":
        message = "this key is required"
    where = f"{path}, line {line}" if line else str(path)
    return f"{where}: {'.'.join(keys)}: {message}" if keys else f"{where}: {message}"


def _line_of(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line of the deepest part of ``loc`` that the document holds; 0 for none."""
    line = 0
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _allowed_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    current: object = model
    keys = iter(path)
    for key in keys:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(key)
        if field is None:
            return []
        current = _model_in(field.annotation)
        if get_origin(field.annotation) is dict:
            next(keys, None)  # a name of the user's
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [f.alias or name for name, f in current.model_fields.items()]
    return []


def _model_in(annotation: object) -> object:
    """The model inside ``Model``, ``Model | None`` or ``dict[str, Model]``; else the annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument
    return annotation
