"""Flags and files through one parser, and back to plain values."""

from __future__ import annotations

import importlib
import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union

import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from launch.options import Command, OptionError, parse, plain, rebuild
from launch.resources import Resources

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.stem for path in (ROOT / "slurm").glob("*.sh") if path.stem != "run_job")


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-5
    """Rate."""
    batch_size: int = 8
    """Batch."""
    note: str = ""
    """Text."""
    npz: bool = False
    """Switch."""
    images: tuple[str, ...] = ("a",)
    """Ids."""
    share: float | None = None
    """Maybe."""
    image_ids: Path | None = None
    """Maybe a path."""
    decay: Literal["linear", "none"] = "linear"
    """One of two."""


def command(*arguments: str) -> Command[Config]:
    return parse(Config, Resources(), arguments, "jobs/x.py", "One line.\n\npython jobs/x.py\nsbatch slurm/x.sh")


def from_file(tmp_path: Path, text: str, *arguments: str) -> Config:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    return command("--config", str(file), *arguments).config


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the user reads of a command line that is refused, on one line."""
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


# Files


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("learning_rate: 3e-5", "learning_rate", 3e-5),  # YAML itself would read text
        ("learning-rate: 3", "learning_rate", 3.0),
        ("note: 24:00:00", "note", "24:00:00"),  # YAML itself would read 86400
        ("note: no", "note", "no"),
        ("note: -x", "note", "-x"),
        ("note: ''", "note", ""),
        ("note: grün", "note", "grün"),
        ("npz: true", "npz", True),
        ("npz: False", "npz", False),
        ("images: [a, b c]", "images", ("a", "b c")),
        ("images: []", "images", ()),
        ("images: [-x]", "images", ("-x",)),
        ("images: a", "images", ("a",)),
        ("share: 0.5", "share", 0.5),
        ("share: null", "share", None),
        ("image_ids:", "image_ids", None),
        ("image_ids: ids.txt", "image_ids", Path("ids.txt")),
        ("# nothing", "batch_size", 8),
    ],
)
def test_values_of_a_file(tmp_path, text, option, value):
    found = getattr(from_file(tmp_path, text), option)
    assert found == value and type(found) is type(value)


def test_flags_win_over_the_file(tmp_path):
    text = "batch_size: 2\nnpz: true\nimages: [p, q]\nnote: kept"
    assert from_file(tmp_path, text, "--batch-size", "3", "--no-npz", "--images", "r") == Config(
        batch_size=3, npz=False, images=("r",), note="kept"
    )
    (tmp_path / "options.yaml").write_text(text)
    assert command("--batch-size=3", f"--config={tmp_path / 'options.yaml'}").config.batch_size == 3  # in whatever order


def test_a_file_may_hold_launch_and_resource_options(tmp_path):
    (tmp_path / "options.yaml").write_text("name: mine\ngpus_per_node: 2\nnote: x\npartition: gpu")
    found = command("--config", str(tmp_path / "options.yaml"))
    assert (found.launch.name, found.resources.gpus_per_node, found.resources.partition) == ("mine", 2, "gpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_rat: 1",
            r"options.yaml: unknown option 'learning_rat' \(did you mean 'learning_rate'\?\); allowed: .*batch_size",
        ),
        ("x: 1\nnoote: 2", r"unknown option 'x', 'noote' \(did you mean 'note'\?\)"),
        ("config_file: y.yaml", "unknown option 'config_file'"),
        ("model:\n  width: 3", "unknown option 'model'"),
        ("note:\n  width: 3", "options.yaml: 'note' holds further keys; options are flat"),
        ("npz: yes", "options.yaml: npz: 'yes' is neither true nor false"),
        ("npz: [true]", "neither true nor false"),
        ("- note", "expected lines of 'option: value'"),
        ("just text", "expected lines of 'option: value'"),
        ("note: [", "options.yaml: not YAML"),
        ("note: \0", "options.yaml: not YAML"),
    ],
)
def test_a_file_that_is_refused(tmp_path, text, message):
    with pytest.raises(OptionError, match=message) as error:
        from_file(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(OptionError, match=r"--config nowhere.yaml: cannot be read \(No such file"):
        command("--config", "nowhere.yaml")
    with pytest.raises(OptionError, match="cannot be read"):
        command("--config", str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00note")
    with pytest.raises(OptionError, match="binary: not YAML"):
        command(f"--config={tmp_path / 'binary'}")


def test_a_wrong_value_in_a_file_is_told_as_on_the_command_line(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("batch_size: many")
    assert "Error parsing --batch-size: invalid literal" in refusal(capsys, "--config", str(tmp_path / "options.yaml"))


# Flags


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("--learning-rat", "--learning-rate"),
        ("--batchsize", "--batch-size"),
        ("--bach-size", "--batch-size"),
        ("--gpu-per-node", "--gpus-per-node"),
        ("--image", "--images"),
    ],
)
def test_an_unknown_flag_suggests_the_nearest(capsys, typo, meant):
    told = refusal(capsys, typo, "3")
    assert f"Unrecognized options: {typo}" in told and meant in told.partition("Perhaps you meant:")[2].split()


@pytest.mark.parametrize("arguments", [("--npz", "False"), ("--npz=False",), ("--npz", "false"), ("--npz=0",), ("--npz", "no")])
def test_a_switch_takes_no_value(capsys, arguments):
    """ "--npz False" must never mean true."""
    assert "Unrecognized options" in refusal(capsys, *arguments)


def test_a_value_out_of_its_choices_lists_them(capsys):
    assert "linear" in refusal(capsys, "--decay", "linaer")


def test_resources_are_checked(capsys):
    assert "--nodes 0: must be at least 1" in refusal(capsys, "--nodes", "0")
    assert "allocation" in refusal(capsys, "--cluster", "mars")


def test_resources_of_the_job_are_the_defaults():
    found = parse(Config, Resources(gpus_per_node=0, minutes=7), ["--minutes", "9"], "x", "").resources
    assert found == Resources(gpus_per_node=0, minutes=9)


def test_help_shows_each_command_on_its_own_line(capsys):
    with pytest.raises(SystemExit) as end:
        command("--help")
    assert end.value.code == 0
    assert "One line.\n  python jobs/x.py\n  sbatch slurm/x.sh\n" in capsys.readouterr().out


# Plain values


def test_plain_values_name_their_source_when_they_do_not_fit():
    assert rebuild(Config, plain(Config(share=0.25, images=()))) == Config(share=0.25, images=())
    with pytest.raises(OptionError, match="the submitted task: unknown option 'batch'"):
        rebuild(Config, {"batch": 3})


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values that a field of this type may hold."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, args))
    if origin is tuple:
        # A flag's second value cannot begin with a dash: it would be a flag itself.
        return st.lists(values(args[0]).filter(lambda value: not str(value).startswith("-")), max_size=3).map(tuple)
    plain_types: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(-(10**6), 10**6),
        float: st.floats(allow_nan=False),
        str: TEXT,
        Path: TEXT.filter(lambda text: text not in ("", "None", "~", "null") and "\0" not in text).map(Path),
        type(None): st.none(),
    }
    return plain_types[hint]


@pytest.mark.parametrize("job", JOBS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_configuration_survives_a_task_and_a_file(tmp_path, job, data):
    """A few options away from their defaults: the same Config from plain values and from the saved config.yaml."""
    module = importlib.import_module(f"jobs.{job}")
    hints = typing.get_type_hints(module.Config)
    changed = data.draw(st.sets(st.sampled_from([field.name for field in fields(module.Config)]), max_size=6))
    try:
        config = module.Config(**{name: data.draw(values(hints[name]), label=name) for name in sorted(changed)})
    except ValueError:  # out of the range that the Config itself checks
        reject()
    assert rebuild(module.Config, plain(config)) == config
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
    assert parse(module.Config, module.RESOURCES, ["--config", str(saved)], job, "").config == config
