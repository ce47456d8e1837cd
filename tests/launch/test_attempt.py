"""One attempt, in processes of its own: the signals it hears, and how it ended."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from attempt_process import DEAF, LISTENING, ended, latest, wait_for

from launch import attempt, history
from launch.attempt import own_run_folder

# Signals


@pytest.mark.parametrize(("number", "asked"), [(signal.SIGTERM, 1), (signal.SIGUSR2, 2)])
def test_a_job_that_listens_saves_and_leaves(begin, run_dir, number, asked):
    process = begin(LISTENING)
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, out, err) == (143, f"asked {asked}\n", "")
    assert (latest(run_dir).how, latest(run_dir).progress) == ("stopped", 7) and latest(run_dir).ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_any_other_job_ends_at_once(begin, run_dir, number):
    process = begin(DEAF)
    process.send_signal(number)
    assert ended(process)[:2] == (143, "") and latest(run_dir).how == "stopped"


def test_the_more_urgent_signal_counts(begin, in_slurm, run_dir):
    """Whichever comes first."""
    in_slurm()
    process = begin(LISTENING.replace("if asked:", "if asked > 1 or asked and _ == 599:"))
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked 2\n"


@pytest.mark.parametrize(("preempted", "how"), [("None", "time limit"), ("2026-11-21T11:03:16", "preempted")])
@pytest.mark.parametrize("body", [LISTENING, DEAF])
def test_usr2_of_slurm_is_the_time_limit_or_a_preemption(begin, in_slurm, run_dir, body, preempted, how):
    """It queues the job again and waits: an end with code 0 would say that the job is complete."""
    requeues = in_slurm(PreemptTime=preempted)
    process = begin(body)
    process.send_signal(signal.SIGUSR2)
    wait_for(lambda: requeues.exists() and requeues.read_text())
    assert requeues.read_text() == "requeue 7\n" and latest(run_dir).how == how
    for again in (signal.SIGUSR2, signal.SIGTERM):  # as Slurm does then
        process.send_signal(again)
    time.sleep(0.8)
    assert process.poll() is None
    assert requeues.read_text() == "requeue 7\n"


@pytest.mark.parametrize(
    ("shown", "how"),
    [
        ({}, ""),
        ({"JobState": "CANCELLED"}, "cancelled"),
        ({"PreemptTime": "2026-11-21T11:03:16"}, "preempted"),
        ({"JobState": "COMPLETING", "Restarts": "2"}, ""),  # queued again by hand
    ],
)
def test_term_of_slurm_saves_and_waits_for_the_end(begin, in_slurm, run_dir, shown, how):
    requeues = in_slurm(**shown)
    process = begin(LISTENING)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked 1\n"
    wait_for(lambda: latest(run_dir).ended)
    assert latest(run_dir).how == how and latest(run_dir).progress == 7
    assert process.poll() is None and not requeues.exists()


def test_cancelled_while_it_saved_it_does_not_come_back_to_life(begin, in_slurm, run_dir):
    requeues = in_slurm(JobState="CANCELLED")
    process = begin(LISTENING)
    process.send_signal(signal.SIGUSR2)
    wait_for(lambda: latest(run_dir).ended)
    time.sleep(0.3)
    assert latest(run_dir).how == "cancelled" and not requeues.exists() and process.poll() is None


def test_term_of_slurm_leaves_any_other_job_at_work(begin, in_slurm):
    """Slurm will kill it; until then it may get a block done."""
    in_slurm()
    process = begin(DEAF.replace("range(600)", "range(10)"))
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (0, "never\n")


def test_only_the_main_process_asks_slurm(begin, in_slurm, run_dir):
    requeues = in_slurm()
    process = begin(LISTENING.replace("current.saved(7)", ""), rank=1)
    process.send_signal(signal.SIGUSR2)
    assert process.stdout.readline() == "asked 2\n"
    time.sleep(0.3)
    assert process.poll() is None and not requeues.exists() and not history.records(run_dir)


def test_too_many_time_limits_without_progress(begin, in_slurm, run_dir):
    requeues = in_slurm()
    for _ in range(history.MOST_FUTILE - 1):
        history.update(run_dir, history.begin(run_dir, run_dir), how="time limit")
    process = begin(DEAF)
    process.send_signal(signal.SIGUSR2)
    code, _, err = ended(process)
    assert code == 1 and not requeues.exists() and latest(run_dir).how == "failed"
    assert err == "error: 3 attempts saved nothing new before their time limit: raise --minutes or lower --save-every\n"
    assert latest(run_dir).message in err


def test_preemptions_are_never_too_many(begin, in_slurm, run_dir):
    requeues = in_slurm(PreemptTime="2026-11-21T11:03:16")
    for _ in range(history.MOST_FUTILE):
        history.update(run_dir, history.begin(run_dir, run_dir), how="preempted")
    begin(DEAF).send_signal(signal.SIGUSR2)
    wait_for(lambda: requeues.exists() and requeues.read_text())


def test_forks_let_signals_go_by(begin, run_dir):
    """Slurm sends them to every process of a step, loader workers too: those go on until the job has saved."""
    body = """
    worker = os.fork()
    if not worker:
        say("at work")
        time.sleep(1)  # goes on after a signal
        os._exit(9)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        time.sleep(0.2); os.kill(worker, number)
    say(f"worker {os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])}, asked {current.asked_to_stop()}")
"""
    code, out, err = ended(begin(body))
    assert (code, out, err) == (0, "worker 9, asked 0\n", "")
    assert latest(run_dir).how == "finished"


def count(what: str) -> int:
    """This process's threads (task) or open files (fd)."""
    return len(list(Path("/proc/self", what).iterdir()))


def test_handlers_and_watch_end_with_the_attempt(run_dir):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    threads = count("task")
    descriptors = count("fd")
    with own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, 30.0):
        assert attempt.current() is not None and signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert count("task") == threads + 1
    assert {number: signal.getsignal(number) for number in before} == before
    assert count("task") == threads and count("fd") == descriptors
    assert signal.set_wakeup_fd(-1) == -1


def test_outside_any_attempt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nobody = attempt.current()
    nobody.beat(), nobody.check(), nobody.saved(3)
    assert nobody.asked_to_stop() == 0 and not list(tmp_path.iterdir())


# How it ended


@pytest.mark.parametrize(
    ("error", "how", "message"),
    [
        (ValueError("--x 3: no"), "failed", "error: --x 3: no"),
        (KeyError("bug\nmore"), "failed", "KeyError: 'bug\\nmore'"),
        (MemoryError(), "failed", "error: out of memory (on this machine)"),
        (KeyboardInterrupt(), "stopped", ""),
        (None, "finished", ""),
    ],
)
def test_the_record_says_how_it_went(run_dir, error, how, message):
    (run_dir / "metrics.json").touch()
    try:
        with own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, 30.0):
            if error:
                raise error
    except (Exception, KeyboardInterrupt) as raised:
        assert raised is error
    assert latest(run_dir).how == how and latest(run_dir).message.startswith(message) and "\n" not in latest(run_dir).message
    assert latest(run_dir).ended


def test_a_full_disk_does_not_hide_the_error(run_dir, monkeypatch):
    (run_dir / "metrics.json").touch()
    with pytest.raises(ValueError, match="the cause"):  # noqa: SIM117
        with own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, 30.0):
            monkeypatch.setattr(history, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            raise ValueError("the cause")


def test_what_is_saved_is_noted_and_goes_on(run_dir):
    for began, saved in ((0, 30), (30, 50)):
        with own_run_folder(run_dir, run_dir / "logs") as record, attempt.part_of(run_dir, record, 0, 30.0):
            attempt.current().saved(saved)
        assert (latest(run_dir).began_at, latest(run_dir).progress) == (began, saved)
