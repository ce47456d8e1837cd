"""What a run has reached, read from files as jobs leave them, whole or in the making."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.results import Results, better, results_of


def row(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def trained(folder: Path, options: str, *rows: str) -> Results:
    (folder / "config.yaml").write_text(options)
    (folder / "metrics.jsonl").write_text("".join(rows))
    return results_of(folder)


def test_a_run_without_files_has_reached_nothing(tmp_path):
    assert results_of(tmp_path) == results_of(tmp_path / "nowhere") == Results()


def test_of_a_training_the_last_loss_and_the_best_validation(tmp_path):
    found = trained(
        tmp_path,
        "steps: 80\nepochs: 3\n",
        row(20, loss=0.7, epoch=0.1),
        row(20, validation={"rsum": 90.0, "i2t_R@1": 9.0}),
        row(40, loss=0.5, epoch=0.2),
        row(40, validation={"rsum": 80.0, "i2t_R@1": 10.0}),
    )
    assert found == Results(40, 0.5, 0.5, {"rsum": 90.0, "i2t_R@1": 9.0})


def test_without_steps_the_share_is_counted_in_epochs(tmp_path):
    assert trained(tmp_path, "steps: 0\nepochs: 4.0\n", row(20, loss=0.7, epoch=1.0)).share == 0.25
    assert trained(tmp_path, "epochs: 1e-1\n", row(20, loss=0.7, epoch=0.5)).share == 1.0


def test_half_a_line_is_not_read(tmp_path):
    assert trained(tmp_path, "", row(20, loss=0.7, epoch=1), '{"step": 4').step == 20
    assert trained(tmp_path, "", '{"step": 4') == Results()


def test_of_a_ranking_the_figures_of_both_ways(tmp_path):
    ways = {way: {"R@1": value, "MedR": 7.0, "tied": {"queries": 0}} for way, value in (("i2t", 1.5), ("t2i", 2.5))}
    (tmp_path / "metrics.json").write_text(json.dumps({"figures": {**ways, "rsum": 30.0, "rsum_published": 0.3}}))
    figures = {"rsum": 30.0, "i2t_R@1": 1.5, "i2t_MedR": 7.0, "t2i_R@1": 2.5, "t2i_MedR": 7.0}
    assert results_of(tmp_path) == Results(figures=figures)


@pytest.mark.parametrize("text", ['{"LXMERT": {"figures": {"rsum": 3}}}', "{", '{"figures": {}}'])
def test_other_files_of_that_name_are_left_alone(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert results_of(tmp_path) == Results()


def test_ranks_are_better_when_lower():
    assert better("rsum", 2, 1) and not better("i2t_R@1", 1, 2)
    assert better("i2t_MedR", 1, 2) and not better("t2i_MeanR", 2, 1)
