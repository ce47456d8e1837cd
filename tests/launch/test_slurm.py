"""What Slurm says, in the words of a real one (22.05)."""

from __future__ import annotations

import os

import pytest

from launch import slurm
from launch.slurm import JobState, SlurmError, job_states

SQUEUE = {
    "4": "4|FAILED|NonZeroExitCode|n1",
    "6": "6_1|PENDING|JobArrayTaskLimit|\\n6_2|PENDING|JobArrayTaskLimit|\\n6_0|RUNNING|None|n[1-2]",
    "7": "7|PENDING|DependencyNeverSatisfied|",
}
SACCT = {
    "5": "5|FAILED|n1",
    "8": "8|CANCELLED|None assigned",
    "9": "9|CANCELLED by 0|None assigned",
    "10_1": "10_1|COMPLETED|n[1-2]",
    "11": "11|RUNNING|n1",
}
SHOWN = """JobId=12 JobName=wrap
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0
   PreemptEligibleTime=2026-11-21T11:03:04 PreemptTime=None
   Command=/data/me/my scripts/x=y.sh ExitCode=9:9
   StdOut=/data/me/my logs/a=b.log
   Power=
"""


def table(rows: dict[str, str], missing: str) -> str:
    """A program that prints the rows of the jobs asked for, as squeue and sacct do."""
    cases = "".join(f'{job}) printf "{row}\\n"; found=1;;' for job, row in rows.items())
    return (
        'for word; do case "$word" in --jobs=*) ids=${word#--jobs=};; esac; done; echo "$ids" >>"$0.asked"\n'
        f'for id in ${{ids//,/ }}; do case "$id" in {cases} esac; done; [ "$found" ] || {{ {missing}; }}'
    )


@pytest.fixture
def cluster(on_path):
    """A squeue that knows some jobs and a sacct that knows others; where they note what they were asked for."""
    unknown = 'case "$ids" in *,*) ;; *) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1;; esac'
    return on_path("squeue", table(SQUEUE, unknown)), on_path("sacct", table(SACCT, "true"))


def asked(program) -> list[str]:
    path = program.with_name(program.name + ".asked")
    return path.read_text().split() if path.exists() else []


def test_one_question_for_all_and_sacct_for_what_squeue_forgot(cluster):
    squeue, sacct = cluster
    found = job_states(["9", "4", "7", "5", "4", "99"])
    assert found == {
        "4": JobState("FAILED", "NonZeroExitCode", "n1"),
        "5": JobState("FAILED", "", "n1"),
        "7": JobState("PENDING", "DependencyNeverSatisfied"),
        "9": JobState("CANCELLED"),
        "99": JobState("GONE"),
    }
    assert asked(squeue) == ["4,5,7,9,99"] and asked(sacct) == ["5,9,99"]
    assert [found[job].over for job in ("4", "5", "7", "9", "99")] == [True, True, False, True, True]


def test_nothing_is_asked_for_nothing_or_twice(cluster):
    squeue, sacct = cluster
    assert job_states([]) == {} and not asked(squeue)
    assert job_states(["4"])["4"].over and not asked(sacct)


def test_a_job_that_squeue_does_not_know_is_no_error(cluster):
    assert job_states(["5"]) == {"5": JobState("FAILED", "", "n1")}
    assert job_states(["8"]) == {"8": JobState("CANCELLED")}


def test_array_elements(on_path, cluster):
    """squeue shows those that wait as one, unless asked not to."""
    on_path("squeue", f'[[ " $* " == *" --array "* ]] && printf "{SQUEUE["6"]}\\n"')
    found = job_states(["6_0", "6_1", "10_1", "6_9"])
    assert found == {
        "6_0": JobState("RUNNING", "None", "n[1-2]"),
        "6_1": JobState("PENDING", "JobArrayTaskLimit"),
        "10_1": JobState("COMPLETED", "", "n[1-2]"),
        "6_9": JobState("GONE"),  # cancelled before it began: neither program knows it
    }


def test_accounting_that_missed_the_end_of_a_job(cluster):
    """squeue knows every job that runs."""
    assert job_states(["11"]) == {"11": JobState("GONE")}


def test_without_accounting(on_path, cluster):
    on_path("sacct", 'echo "Slurm accounting storage is disabled" >&2; exit 1')
    assert job_states(["4", "5"]) == {"4": JobState("FAILED", "NonZeroExitCode", "n1"), "5": JobState("GONE")}


def test_a_controller_that_does_not_answer_is_an_error(on_path, cluster):
    on_path("squeue", 'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1')
    with pytest.raises(SlurmError, match="squeue: slurm_load_jobs error: Unable to contact slurm controller"):
        job_states(["5"])


def test_programs_that_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="squeue: squeue is not on the path"):
        job_states(["5"])
    assert slurm.show_job("5") == {} and slurm.exit_code("5") == 1
    with pytest.raises(SlurmError, match=r"job 5 could not be queued again \(scontrol is not on the path\); the same command"):
        slurm.requeue("5")


def test_a_program_that_hangs(on_path, monkeypatch):
    on_path("squeue", "exec sleep 60")
    run = slurm.subprocess.run
    monkeypatch.setattr(slurm.subprocess, "run", lambda *args, **options: run(*args, **options | {"timeout": 0.2}))
    with pytest.raises(SlurmError, match="squeue gave no answer in a minute"):
        job_states(["5"])


def shown(on_path, text: str = SHOWN) -> None:
    on_path("scontrol", f"cat <<'END'\n{text}END")


def test_the_fields_of_a_job(on_path):
    shown(on_path)
    found = slurm.show_job("12")
    assert (found["JobId"], found["JobState"], found["Restarts"], found["PreemptTime"]) == ("12", "RUNNING", "2", "None")
    assert found["StdOut"] == "/data/me/my logs/a=b.log" and found["ExitCode"] == "0:0"


@pytest.mark.parametrize(("time", "preempted"), [("None", False), ("2026-11-21T11:03:16", True), ("2026-11-21T11:03:03", False)])
def test_was_preempted(on_path, time, preempted):
    """This start of the job, that is, not an earlier one."""
    shown(on_path, SHOWN.replace("PreemptTime=None", f"PreemptTime={time} StartTime=2026-11-21T11:03:04"))
    assert slurm.was_preempted(slurm.show_job("12")) is preempted


def test_forgotten_by_scontrol(on_path):
    on_path("scontrol", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert slurm.show_job("99") == {}


@pytest.mark.parametrize(("said", "code"), [("0:0", 0), ("7:0", 7), ("0:9", 137), ("15:0", 15), ("", 1)])
def test_exit_codes(on_path, said, code):
    on_path("scontrol", "exit 1")
    on_path("sacct", f"echo '{said}'")
    assert slurm.exit_code("12") == code
    if said:
        shown(on_path, SHOWN.replace("ExitCode=0:0", f"ExitCode={said}"))
        on_path("sacct", "echo 99:0")
        assert slurm.exit_code("12") == code


def test_requeue(on_path):
    program = on_path("scontrol", 'echo "$@" >"$0.asked"')
    slurm.requeue("6_1")
    assert asked(program) == ["requeue", "6_1"]
    on_path("scontrol", 'echo "Requested operation is presently disabled for job 7" >&2; exit 1')
    with pytest.raises(
        SlurmError, match=r"job 7 could not be queued again \(Requested operation is presently disabled for job 7\)"
    ):
        slurm.requeue("7")
    on_path("scontrol", 'echo "Job is pending execution for job 7" >&2; exit 1')
    slurm.requeue("7")


def test_what_is_left_of_an_earlier_start_does_not_queue_the_job_again(on_path):
    """It would end its successor."""
    program = on_path("scontrol", f'[ "$1" = show ] && cat <<"END" || echo "$@" >"$0.asked"\n{SHOWN}END')
    for restarts, requeued in ((1, []), (2, ["requeue", "12"])):
        os.environ["SLURM_RESTART_COUNT"] = str(restarts)
        slurm.requeue("12")
        assert asked(program) == requeued


def test_a_controller_that_restarts_is_asked_again(on_path, monkeypatch):
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_TRIES", 0.01)
    program = on_path(
        "scontrol",
        '[ "$1" = requeue ] || exit 1; echo x >>"$0.asked"; [ $(wc -l <"$0.asked") -ge 3 ] && exit 0\n'
        'echo "Unable to contact slurm controller (connect failure)" >&2; exit 1',
    )
    slurm.requeue("12")
    assert asked(program) == ["x"] * 3
    program.with_name("scontrol.asked").unlink()
    monkeypatch.setattr(slurm, "SECONDS_TO_REACH", 0)
    with pytest.raises(SlurmError, match="Unable to contact"):
        slurm.requeue("12")


def test_the_own_job(monkeypatch):
    assert (slurm.own_job_id(), slurm.own_restarts()) == ("", 0)
    os.environ |= {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}
    assert (slurm.own_job_id(), slurm.own_restarts()) == ("12", 2)
    os.environ |= {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    assert slurm.own_job_id() == "10_3"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (JobState("RUNNING", "None", "n[1-2]"), "RUNNING on n[1-2]"),
        (JobState("PENDING", "Resources"), "PENDING (Resources)"),
        (JobState("GONE"), "GONE"),
    ],
)
def test_how_a_state_reads(state, text):
    assert str(state) == text


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "STOPPED"]
)
def test_what_is_not_over(state):
    assert not JobState(state).over


OOM = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been killed by the cgroup out-of-memory handler."


@pytest.mark.parametrize("where", ["batch.log", "12_1_log.out", None])
def test_out_of_memory_as_slurm_tells_it(on_path, tmp_path, where):
    (tmp_path / "batch.log").write_text("a line\n")
    (tmp_path / "12_0_log.out").write_text("a line\n")
    (tmp_path / "13_0_log.out").write_text(OOM)  # another job's
    if where:
        (tmp_path / where).write_text(f"a line\n{OOM}\n")
    shown(on_path, SHOWN.replace("/data/me/my logs/a=b.log", str(tmp_path / "batch.log")))
    assert slurm.ran_out_of_memory("12", tmp_path) is (where is not None)


def test_where_there_is_a_slurm(on_path, monkeypatch, tmp_path):
    """Debian's packages leave an sbatch without a configuration, which fails whatever it is asked."""
    on_path("sbatch", "exit 0")
    assert slurm.is_set_up()
    on_path("sbatch", "exit 1")
    assert not slurm.is_set_up()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.is_set_up()
