"""Rules of the project itself: layers, jobs and their scripts, what the README promises."""

from __future__ import annotations

import ast
import importlib
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from launch.options import Launch, parse
from launch.pipeline import read_pipeline
from launch.resources import Resources

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["pipeline", "status", "sweep"]
"""Beside the jobs, which they start or describe; they run where they are called, so they have no script and no machine."""
JOBS = sorted({path.stem for path in (ROOT / "jobs").glob("[a-z]*.py")} - {*TOOLS})
MAY_IMPORT: dict[str, set[str]] = {
    "launch": set(),
    "corpora": set(),
    "training": set(),
    "models": {"corpora", "training"},
    "preprocess": {"corpora"},
    "ranking": {"corpora", "training", "models.protocols"},
    "error_analysis": {"corpora", "ranking.matrix", "ranking.metrics", "ranking.evaluate"},
}
"""Folders, or single modules of a folder, that the modules of a folder may import beside their own."""
EVERYTHING = set(MAY_IMPORT)
MAY_IMPORT |= {"jobs": EVERYTHING, "benchmarks": EVERYTHING}
PLACES = [ROOT / folder for folder in MAY_IMPORT]


def modules() -> list[Path]:
    return [path for folder in PLACES for path in sorted(folder.rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Dotted names of the project's own modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            # "from models import clip" imports a module too
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module in MAY_IMPORT}
    return {name for name in names if name.split(".")[0] in MAY_IMPORT}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[own] | ({own} if own != "jobs" else set())  # nothing imports a job
    for name in imports(path):
        if name in EVERYTHING and any(other.startswith(f"{name}.") for other in imports(path)):
            continue  # the bare folder in "from models import clip"
        assert any(name == one or name.startswith(f"{one}.") for one in allowed), f"{path.name} imports {name}"


def test_init_files_hold_a_docstring_at_most():
    for path in modules():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) <= 1 and all(isinstance(node, ast.Expr) for node in body), path


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "common", "misc", "helpers", "helper", "base", "lib", "core"}
    assert not [
        path
        for path in ROOT.glob("*/**/*.py")
        if not path.relative_to(ROOT).parts[0].startswith(".") and drawers & {path.stem, path.parent.name}
    ]


def test_error_analysis_and_corpora_import_no_torch():
    names = [f"{path.parent.name}.{path.stem}" for path in modules() if path.parent.name in ("error_analysis", "corpora")]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_module_has_a_docstring():
    assert not [path for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]


# Jobs


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_whole(job):
    module = importlib.import_module(f"jobs.{job}")
    assert module.__doc__.splitlines()[0].endswith(".")
    commands = module.__doc__.split()
    assert f"jobs/{job}.py" in commands and f"slurm/{job}.sh" in commands
    assert is_dataclass(module.Config) and module.Config.__dataclass_params__.frozen
    assert isinstance(module.RESOURCES, Resources) and callable(module.run)
    module.Config()  # every option has a default: run names are what differs from it
    documented = {name for kind in module.Config.__mro__ for name in documented_fields(kind)}
    assert not {field.name for field in fields(module.Config)} - documented


def documented_fields(kind: type) -> set[str]:
    """Names of a class's own fields that are followed by a docstring."""
    if kind is object:
        return set()
    source = Path(sys.modules[kind.__module__].__file__).read_text()
    body = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) and n.name == kind.__name__).body
    return {
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def test_options_of_launch_resources_and_tools_are_documented():
    for kind in (Launch, Resources, *(importlib.import_module(f"jobs.{tool}").Options for tool in TOOLS)):
        assert not {field.name for field in fields(kind)} - documented_fields(kind)


@pytest.mark.parametrize("job", JOBS)
def test_the_parser_builds_and_the_commands_in_the_docstring_hold(job):
    """Two options of one name would be refused by tyro; a flag that does not exist as well."""
    module = importlib.import_module(f"jobs.{job}")
    assert parse(module.Config, module.RESOURCES, [], job, "").resources == module.RESOURCES
    check_commands(module.__doc__, job)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_commands_in_the_docstring_of_a_tool_hold(tool):
    module = importlib.import_module(f"jobs.{tool}")
    assert module.__doc__.splitlines()[0].endswith(".") and f"python jobs/{tool}.py" in module.__doc__
    assert not hasattr(module, "RESOURCES")  # by which a job is known
    check_commands(module.__doc__, tool)


@pytest.mark.parametrize("job", [*JOBS, *TOOLS])
def test_help_is_fast_and_imports_nothing_heavy(job):
    heavy = {"torch", "transformers", "accelerate", "numpy", "h5py", "pyarrow", "PIL", "submitit", "wandb"}
    path = str(ROOT / "jobs" / f"{job}.py")
    code = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_path({path!r}, run_name='__main__')\n"
    code += f"except SystemExit as end: assert not end.code\nprint(*{heavy} & set(sys.modules), file=sys.stderr)"
    for attempt in range(2):
        before = cpu_of_children()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds = cpu_of_children() - before
        if seconds < 0.5 or attempt:
            break
    assert done.stderr.strip() == ""
    assert f"\n  python jobs/{job}.py" in done.stdout  # on a line of its own
    assert (f"\n  sbatch slurm/{job}.sh " in done.stdout) == (job in JOBS)
    assert seconds < 0.5


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Batch scripts


def test_every_job_has_a_script_and_every_script_a_job():
    assert sorted(path.stem for path in (ROOT / "slurm").glob("*.sh")) == sorted([*JOBS, "run_job"])


@pytest.mark.parametrize("path", [ROOT / "setup.sh", *sorted((ROOT / "slurm").glob("*.sh"))], ids=lambda path: path.name)
def test_bash_accepts_the_script(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("job", JOBS)
def test_a_script_asks_for_what_the_job_asks_for(job):
    text = (ROOT / "slurm" / f"{job}.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.M))
    need: Resources = importlib.import_module(f"jobs.{job}").RESOURCES
    expected = {
        "job-name": job,
        "nodes": str(need.nodes),
        "ntasks-per-node": str(need.processes_per_node),
        "cpus-per-task": str(need.cpus_per_gpu),
        "mem": f"{need.memory_per_gpu_gb * need.processes_per_node}G",
        "time": f"{need.minutes // 60}:{need.minutes % 60:02}:00",
        "requeue": "",
        "signal": f"USR2@{need.seconds_to_stop}",
        "output": "%x-%j.log",
        "open-mode": "append",
    }
    assert asked == expected | ({"gres": f"gpu:{need.gpus_per_node}"} if need.gpus_per_node else {})
    shares = any(field.name == "part" for field in fields(importlib.import_module(f"jobs.{job}").Config))
    array = " ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}" if shares else ""
    assert text.splitlines()[-1] == f'. slurm/run_job.sh jobs/{job}.py "$@"{array}'
    check_commands(text.replace("\n#   ", "\n"), job)


# Commands in documents


def check_commands(text: str, where: str) -> None:
    """Every `python jobs/x.py` and `sbatch slurm/x.sh` in a text names files and flags that exist."""
    for line in re.findall(r"^\s*((?:python|sbatch|torchrun) .*)$", text.replace("\\\n", " "), re.M):
        words = shlex.split(line, comments=True)
        place = next((i for i, word in enumerate(words) if re.fullmatch(r"(jobs/\w+\.py|slurm/\w+\.sh)", word)), None)
        if place is None:
            continue
        assert (ROOT / words[place]).exists(), f"{where}: {words[place]} does not exist"
        names = [Path(words[place]).stem, *words[place + 1 : place + 2]]
        known = flags(names[0]) | (flags(names[1]) if names[0] == "sweep" else set())
        unknown = {word.split("=")[0] for word in words[place + 1 :] if word.startswith("--")} - known
        assert not unknown, f"{where}: {words[place]} has no {', '.join(unknown)}"


@cache
def flags(job: str) -> set[str]:
    module = importlib.import_module(f"jobs.{job}")
    kinds = (module.Config, Resources, Launch) if job in JOBS else (module.Options, Resources)
    names = {field.name for kind in kinds for field in fields(kind)} - {"config_file"}
    dashed = {name.replace("_", "-") for name in names | {"config", "help"}}
    return {f"--{name}" for name in dashed} | {f"--no-{name}" for name in dashed}


def test_the_check_of_commands_can_fail():
    check_commands("python jobs/make_scenes.py --train 4 \\\n  --seed=1  # --bogus", "here")
    with pytest.raises(AssertionError, match="has no --bogus"):
        check_commands("torchrun --nproc-per-node 2 jobs/clip_finetune.py --bogus 3", "here")
    with pytest.raises(AssertionError, match="does not exist"):
        check_commands("sbatch --time 3 slurm/nothing.sh", "here")


def test_the_readme_names_files_and_flags_that_exist():
    text = (ROOT / "README.md").read_text()
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        check_commands(block, "README.md")
    for path in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
        assert (ROOT / path).exists(), f"README.md links to {path}, which does not exist"


def test_configuration_files_fit_a_job(monkeypatch):
    """A YAML file beside the jobs is a pipeline, or some job's options: the parser of at least one takes it."""
    monkeypatch.chdir(ROOT)
    for path in (ROOT / "jobs").glob("*/*.yaml"):
        if path.stem == "pipeline" or path.parent.name == "data":
            assert read_pipeline(path, "demo", {})
        else:
            assert any(takes(job, path) for job in JOBS), path


def takes(job: str, config: Path) -> bool:
    module = importlib.import_module(f"jobs.{job}")
    try:
        parse(module.Config, module.RESOURCES, ["--config", str(config)], job, "")
    except ValueError:
        return False
    return True


# What is committed


def test_no_committed_file_names_a_package_host_or_a_path_of_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    wanted = re.compile(
        r"(?<![\w.<-])/(?:home|root|Users|work|mnt|scratch|gpfs|lustre)/\w|(?:extra-)?index-url|resolved\W+http|https?://[^\s/]*(?:pypi|pythonhosted|conda)"
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.suffix in (".png", ".jpg", ".svg", ".h5"):
            continue
        found += [f"{name}: {match[0]}" for match in wanted.finditer(path.read_text(errors="replace"))]
    assert not found
