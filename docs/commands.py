"""Command-line reference as Markdown, from the click commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from keras_unet.cli import main

PROGRAM = "keras-unet"
LEFT_AS_IT_IS = "\b\n"  # mark of click for a preformatted paragraph


def reference() -> str:
    """Returns all commands with usage, text and options."""
    context = click.Context(main, info_name=PROGRAM)
    names = main.list_commands(context)
    return "\n\n".join(part for name in names for part in _command(name, context))


def _command(name: str, parent: click.Context) -> Iterator[str]:
    group = parent.command
    assert isinstance(group, click.Group)  # noqa: S101 - for mypy
    command = group.commands[name]
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from _command(inner, context)
        return
    usage = " ".join(command.collect_usage_pieces(context))
    title = context.command_path.removeprefix(f"{PROGRAM} ")
    yield f"## {title}\n\n```\n{context.command_path} {usage}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = paragraph.removeprefix(LEFT_AS_IT_IS)
        yield paragraph if lines == paragraph else f"```text\n{lines}\n```"
    yield "\n".join(["| option | |", "| --- | --- |", *_options(command, context)])


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for option in command.params:
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            flags, words = record
            yield f"| `{flags}` | {words} |"
