"""The command-line parser, which reports all problems together and suggests corrections."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tuner.cli.options import Command, InvalidValue, suggestion

PROGRAM = "khmer-tuner"

_DESCRIPTION = "Hyperparameter search with Optuna for an OCR network."
_EPILOG = f"""first steps:
  {PROGRAM} run                      train the three built-in presets
  {PROGRAM} status                   show the trials and the remaining time
  {PROGRAM} predict some_image.png   read an image with the best model

`{PROGRAM} COMMAND --help` shows the options and examples of a command."""


class UsageError(Exception):
    """A command line with an unknown, missing or unexpected command, option or argument.

    Attributes:
        problems: One message per problem.
        hint: The help command to show to the user.
    """

    def __init__(self, problems: Sequence[str], hint: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.hint = hint


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError([_with_remedy(message)], f"{self.prog} --help")


def parse(argv: Sequence[str], groups: Mapping[str, Sequence[Command[Any]]]) -> tuple[Command[Any], argparse.Namespace]:
    """Parse a command line.

    Args:
        argv: The arguments after the program's name.
        groups: All commands, keyed by the heading under which ``--help`` lists them.

    Returns:
        The command and its options; `options.problems` has a message per invalid option value.

    Raises:
        UsageError: A command, option or argument is unknown, missing or unexpected.
        SystemExit: ``--help`` was given; the help has been printed.
    """
    commands = [command for group in groups.values() for command in group]
    names = [command.name for command in commands]
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise UsageError([f"there is no command {argv[0]!r}; {suggestion(argv[0], names)}"], f"{PROGRAM} --help")
    parser, command_parsers = _build(groups)
    options, extra = parser.parse_known_args(argv)
    if options.command is None:
        raise UsageError([f"no command given; {suggestion('', names)}"], f"{PROGRAM} --help")
    if extra:
        raise UsageError(
            _extra_problems(extra, command_parsers[options.command]), f"{PROGRAM} {options.command} --help"
        )
    options.problems = _replace_invalid_values(options, command_parsers[options.command])
    return next(command for command in commands if command.name == options.command), options


def _build(groups: Mapping[str, Sequence[Command[Any]]]) -> tuple[_Parser, dict[str, _Parser]]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        PROGRAM,
        usage="%(prog)s [-h] COMMAND ...",
        description=f"{_DESCRIPTION}\n\n{_command_list(groups)}",
        epilog=_EPILOG,
        formatter_class=raw,
        allow_abbrev=False,
    )
    # argparse would list all commands under one heading.
    subparsers = parser.add_subparsers(dest="command", prog=PROGRAM, help=argparse.SUPPRESS, parser_class=_Parser)
    command_parsers = {}
    for command in (command for group in groups.values() for command in group):
        sub = subparsers.add_parser(
            command.name,
            description=command.description,
            epilog=command.examples,
            formatter_class=raw,
            allow_abbrev=False,
        )
        command.add_options(sub)
        sub.add_argument("--debug", action="store_true", help="show the tracebacks of errors")
        command_parsers[command.name] = sub
    return parser, command_parsers


def _command_list(groups: Mapping[str, Sequence[Command[Any]]]) -> str:
    """Format the list of commands under their headings, as wide as the terminal."""
    formatter = argparse.HelpFormatter(PROGRAM)
    for heading, commands in groups.items():
        formatter.start_section(heading)
        for command in commands:
            summary = command.description[:1].lower() + command.description[1:].removesuffix(".")
            formatter.add_argument(argparse.Action([], command.name, help=summary.replace("%", "%%")))
        formatter.end_section()
    return formatter.format_help().rstrip()


def _with_remedy(message: str) -> str:
    if missing := re.fullmatch(r"the following arguments are required: (.+)", message):
        return f"missing: {missing[1]}; add it to the command line"
    if empty := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        option = empty[1]
        return f"{option}: found no value; add a value (as {option}=VALUE if it begins with '-')"
    return message


def _extra_problems(extra: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    extra = [re.split("[=:@]", word)[0] for word in extra]  # the rest may be the password of a storage URL
    unknown = [word for word in extra if word.startswith("-")]
    # Arguments after an unknown option are most likely its values.
    stray = extra[: next((at for at, word in enumerate(extra) if word.startswith("-")), len(extra))]
    return [f"unexpected argument {word!r}; remove it" for word in stray] + [
        f"there is no option {option!r}; {_option_suggestion(option, known)}" for option in unknown
    ]


def _option_suggestion(option: str, known: Sequence[str]) -> str:
    # The dashes, which all options share, would make unrelated options similar.
    near = suggestion(option.strip("-"), [name.removeprefix("--") for name in known])
    return near.replace("did you mean '", "did you mean '--") if "?" in near else f"choose from {', '.join(known)}"


def _replace_invalid_values(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Replace invalid values by defaults, so that the command can check the other options; return the problems."""
    problems: list[str] = []
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        found = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, InvalidValue)]
        if found:
            option = action.option_strings[0] if action.option_strings else str(action.metavar)
            remedy = "; add a value" if action.required else f"; add a value or leave out {option}"
            problems += dict.fromkeys(f"{option}: {item.problem}{remedy * item.is_empty}" for item in found)
            setattr(options, action.dest, parser.get_default(action.dest))
    return problems
