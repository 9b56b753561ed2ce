"""What may stand for a name or a number in a path."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class _Text(Convertor[str]):
    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Model(_Text):
    """MODEL or SCOPE/MODEL. What follows a colon, and these words after a slash, are what is asked of the model."""

    regex = "[^/:]+(?:/(?!(?:versions|labels|metadata|infer|ready|config|stats|trace|load|unload)(?:[/:]|$))[^/:]+)?"


class _Number(_Text):
    regex = "[0-9]+"


def register() -> None:
    """Makes `{…:model}` and `{…:number}` known to routes."""
    register_url_convertor("model", _Model())
    register_url_convertor("number", _Number())
