"""Flags and configuration files through one parser: a YAML file's leaves become flags placed before the command line's own."""

from __future__ import annotations

import dataclasses
import difflib
import math
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
import yaml
from tyro.conf import OmitArgPrefixes, arg

from launch.resources import Resources

ConfigT = TypeVar("ConfigT")
OptionsT = TypeVar("OptionsT")


class OptionError(ValueError):
    """A configuration file with a key or value no job knows."""


@dataclass(frozen=True)
class Launch:
    """Where and under which name a job runs."""

    config_file: Annotated[Path | None, arg(name="config", metavar="FILE")] = None
    """YAML file of flags (the config.yaml of a run is one); flags on the command line win over it."""
    name: str = ""
    """Name of the run folder under runs/<job>/; by default, what differs from the default options."""
    cluster: Literal["auto", "slurm", "local", "debug", "allocation"] = "auto"
    """auto: here if inside an srun or torchrun task, else Slurm where one is set up, else local. local: on this machine. debug: in this process, with a debugger on errors. allocation: here, as one task of a running allocation."""
    follow: bool = False
    """On Slurm: show the job until it is over and end with its exit code. If this run has a job already, show that one."""
    dry_run: bool = False
    """On Slurm: print the batch script and submit nothing."""


@dataclass(frozen=True)
class Command(Generic[ConfigT]):
    """A parsed command line."""

    config: ConfigT
    launch: Launch
    resources: Resources


def parse(
    config_type: type[ConfigT], resources: Resources, arguments: Sequence[str], prog: str, description: str
) -> Command[ConfigT]:
    """Parse a job's command line. A wrong flag ends the program with a suggestion; a wrong key in a file raises OptionError."""
    known = {field.name: hint for kind in (config_type, Launch, Resources) for field, hint in _fields(kind)}
    del known["config_file"]  # a file cannot name another
    arguments = [*_flags_of_file(arguments, known), *arguments]
    default = Command(tyro.MISSING_NONPROP, Launch(), resources)
    return tyro.cli(
        Command[config_type],  # type: ignore[valid-type]
        args=arguments,
        prog=prog,
        description=_kept_lines(description),
        default=default,
        config=(OmitArgPrefixes,),
    )


def command_line(options_type: type[OptionsT], prog: str, description: str) -> OptionsT:
    """Parse the command line of a tool that is no job. A wrong flag ends the program with a suggestion."""
    return tyro.cli(options_type, prog=prog, description=_kept_lines(description), config=(OmitArgPrefixes,))


def command_line_with_rest(
    options_type: type[OptionsT], arguments: Sequence[str], prog: str, description: str
) -> tuple[OptionsT, list[str]]:
    """As `command_line`, for a tool that hands the flags it does not know on to a job."""
    return tyro.cli(options_type, args=arguments, prog=prog, description=_kept_lines(description), return_unknown_args=True)


def _kept_lines(text: str) -> str:
    """tyro joins lines, but for those that start with a space."""
    first, _, rest = text.strip().partition("\n")
    return "\n".join([first, *(f"  {line}" for line in textwrap.dedent(rest).splitlines() if line.strip())])


def rebuild(config_type: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A Config from the plain values of `plain`, checked by the same parser."""
    return tyro.cli(config_type, args=as_flags(config_type, values, "the submitted task"))


def as_flags(kind: type[Any], values: Mapping[str, Any], where: str) -> list[str]:
    """Values of a dataclass's fields as flags of the command line; an unknown name raises OptionError."""
    return _as_flags(values, {field.name: hint for field, hint in _fields(kind)}, where)


def given(values: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """Of a dataclass that was parsed from a command line, the values whose flags were there."""
    flags = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in arguments if argument.startswith("--")}
    return {name: value for name, value in plain(values).items() if name in flags}


def plain(config: Any) -> dict[str, Any]:
    """A Config as plain values that YAML can hold and `rebuild` reads back."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # YAML would write .inf
    return value if isinstance(value, bool | int | float | str) else str(value)


def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _flags_of_file(arguments: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The flags that `--config FILE` stands for, or none."""
    path = None
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            path = arguments[i + 1]
        elif argument.startswith("--config="):
            path = argument.removeprefix("--config=")
    if path is None:
        return []
    try:
        # BaseLoader keeps scalars as text: YAML itself would read 3e-5 as text but 24:00:00 as 86400.
        values = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise OptionError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"--config {path}: not YAML ({' '.join(str(error).split())})") from None
    if values is None:
        return []
    if not isinstance(values, dict):
        raise OptionError(f"--config {path}: expected lines of 'option: value'")
    return _as_flags(values, known, path)


def _as_flags(values: Mapping[str, Any], known: Mapping[str, Any], where: str) -> list[str]:
    flags: list[str] = []
    wrong = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            wrong.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        elif isinstance(value, dict):
            raise OptionError(f"{where}: {key!r} holds further keys; options are flat")
        else:
            flags += _flag(name, known[name], value, where)
    if wrong:
        raise OptionError(f"{where}: unknown option {', '.join(wrong)}; allowed: {', '.join(sorted(known))}")
    return flags


def _flag(name: str, hint: Any, value: Any, where: str) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if hint is bool:
        text = str(value).lower()
        if text not in ("true", "false"):
            raise OptionError(f"{where}: {name}: {value!r} is neither true nor false")
        return [flag if text == "true" else "--no-" + flag[2:]]
    if isinstance(value, list):
        if len(value) != 1:
            return [flag, *map(str, value)]
        value = value[0]
    if type(None) in typing.get_args(hint) and value in ("", "~", "null"):  # YAML's ways to write None
        value = None
    if hint is float:
        value = str(value).replace(".inf", "inf")  # YAML's way to write it
    # "--flag=value", so that a value with a leading dash is not taken for a flag
    return [f"{flag}={value}"]
