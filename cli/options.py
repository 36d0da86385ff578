"""Offer every setting of a configuration class as a command-line option, described by the docstring under its field."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Optional, Union, get_args, get_origin

import typer

from adpsgd_node.config import Setting, settings
from adpsgd_node.setting import choice

__all__ = ["with_settings"]

_METAVARS = {int: "INT", float: "FLOAT"}
_NODE_PANEL = "Node"


def with_settings(command: Callable[..., None], config_class: type[Any]) -> Callable[..., None]:
    """Return a command that takes `**given` as one with an option for each setting, None where it was not given.

    Values stay text: `config.compose` converts them, so that flags, environment and TOML share one set of errors. The
    option of a list may be given again: what its values name is one list.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    parameters = [*own, *_options(config_class)]
    lists = {setting.name for setting in settings(config_class) if _is_list(setting)}

    @functools.wraps(command)
    def offered(**given: object) -> None:
        command(**{name: _joined(value) if name in lists else value for name, value in given.items()})

    # typer reads both the signature and the annotations.
    offered.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    offered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return offered


def _options(config_class: type[Any]) -> Iterator[inspect.Parameter]:
    described: dict[type[Any], dict[str, str]] = {}
    for setting in settings(config_class):
        texts = described.setdefault(setting.owner, _field_docstrings(setting.owner))
        panel = setting.path[0].capitalize() if len(setting.path) > 1 else _NODE_PANEL
        flag = setting.flag
        is_flag = setting.type is bool
        option = typer.Option(
            None,
            f"{flag}/--no-{flag[2:]}" if is_flag else flag,
            help=texts[setting.name] + _default_text(setting),
            metavar=None if is_flag else "SECONDS" if setting.name.endswith("_s") else _metavar(setting.type),
            rich_help_panel=panel,
            show_default=False,
        )
        annotation: Any = Optional[bool] if is_flag else Optional[str]  # noqa: UP045 - typer wants it evaluated
        if _is_list(setting):
            annotation = Optional[list[str]]  # noqa: UP045
        yield inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _is_list(setting: Setting) -> bool:
    return get_origin(setting.type) is tuple and get_args(setting.type)[-1] is Ellipsis


def _joined(texts: Any) -> str | None:
    """Write what a list's option was given, each time perhaps several values, as one list; None: it was not given."""
    return ",".join(texts) if texts else None


def _field_docstrings(owner: type[Any]) -> dict[str, str]:
    """Collect the string that stands under each field of a dataclass; Python itself forgets them."""
    texts: dict[str, str] = {}
    body = _class_bodies(owner.__module__)[owner.__name__]
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    texts[field.target.id] = " ".join(text.replace("`", "").split())
    return texts


@functools.cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def _default_text(setting: Setting) -> str:
    (field,) = (field for field in dataclasses.fields(setting.owner) if field.name == setting.name)
    default = field.default
    if default is dataclasses.MISSING or default is None or default is False or default in ("", ()):
        return ""
    return f" (default: {choice(default) if isinstance(default, enum.Enum) else default})"


def _metavar(kind: Any) -> str:
    kind = getattr(kind, "__supertype__", kind)
    if get_origin(kind) in (Union, types.UnionType):
        return _metavar(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return "LIST"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(choice(member) for member in kind)
    return _METAVARS.get(kind, "TEXT")
