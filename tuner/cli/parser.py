"""The parser: every option problem at once, with what was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from tuner.cli.options import Command, Unusable, suggestion

PROGRAM = "khmer-tuner"

_DESCRIPTION = "Hyperparameter search for a Khmer-digit OCR network: experiments from a YAML file, kept in a study."
_EPILOG = f"""{PROGRAM} COMMAND --help shows a command's options and examples.

first steps:
  {PROGRAM} run                      train the three presets
  {PROGRAM} status                   how far they are
  {PROGRAM} predict some_image.png   read an image with the best model
"""


class UsageError(Exception):
    """The command line cannot be understood; `problems` says why, one text each."""

    def __init__(self, problems: Sequence[str], hint: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.hint = hint


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError([_with_remedy(message)], f"{self.prog} --help")


def parse(argv: Sequence[str], commands: Sequence[Command[Any]]) -> tuple[Command[Any], argparse.Namespace]:
    """Read a command line.

    Returns:
        The command and its options; `options.problems` lists option values that cannot be used.

    Raises:
        UsageError: There is no such command or option, or something is missing.
        SystemExit: Help was asked for and printed.
    """
    names = [command.name for command in commands]
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise UsageError([f"there is no command {argv[0]!r}; {suggestion(argv[0], names)}"], f"{PROGRAM} --help")
    parser, command_parsers = _build(commands)
    options, extra = parser.parse_known_args(argv)
    if options.command is None:
        raise UsageError([f"no command given; {suggestion('', names)}"], f"{PROGRAM} --help")
    if extra:
        raise UsageError(
            _extra_problems(extra, command_parsers[options.command]), f"{PROGRAM} {options.command} --help"
        )
    options.problems = _take_unusable(options, command_parsers[options.command])
    return next(command for command in commands if command.name == options.command), options


def _build(commands: Sequence[Command[Any]]) -> tuple[_Parser, dict[str, _Parser]]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)
    command_parsers = {}
    for command in commands:
        sub = subparsers.add_parser(
            command.name,
            help=command.description[:1].lower() + command.description[1:].removesuffix("."),
            description=command.description,
            epilog=command.examples,
            formatter_class=raw,
            allow_abbrev=False,
        )
        command.add_options(sub)
        sub.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        command_parsers[command.name] = sub
    return parser, command_parsers


def _with_remedy(message: str) -> str:
    if missing := re.fullmatch(r"the following arguments are required: (.+)", message):
        return f"missing: {missing[1]}; add it"
    if empty := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        return f"{empty[1]}: found nothing after it; write a value (one that begins with '-' as {empty[1]}=VALUE)"
    return message


def _extra_problems(extra: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    extra = [re.split("[=:@]", word)[0] for word in extra]  # what follows may be the password of a storage URL
    unknown = [word for word in extra if word.startswith("-")]
    # Words after an unknown option are most likely its values.
    stray = extra[: next((at for at, word in enumerate(extra) if word.startswith("-")), len(extra))]
    return [f"found {word!r}, which belongs to no option; leave it out" for word in stray] + [
        f"there is no option {option!r}; {_near_option(option, known)}" for option in unknown
    ]


def _near_option(option: str, known: Sequence[str]) -> str:
    # Without the dashes, which make all of them alike.
    near = suggestion(option.strip("-"), [name.removeprefix("--") for name in known])
    return near.replace("did you mean '", "did you mean '--") if "?" in near else f"choose from {', '.join(known)}"


def _take_unusable(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Put defaults in the place of unusable values, so that the rest can be checked too; return what is wrong."""
    problems: list[str] = []
    for name, value in list(vars(options).items()):
        found = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Unusable)]
        if found:
            option = name if name in _positionals(parser) else f"--{name.replace('_', '-')}"
            problems += dict.fromkeys(f"{option}: {item.problem}" for item in found)
            setattr(options, name, parser.get_default(name))
    return problems


def _positionals(parser: argparse.ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if not action.option_strings]
