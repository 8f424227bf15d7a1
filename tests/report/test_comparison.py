"""What is compared with what, and what is flagged instead of mixed."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from kd_lightning import runs
from kd_lightning.plots.comparison import curves_figure
from kd_lightning.report.comparison import Comparison, Result, best_by_validation, gain_notes
from kd_lightning.report.folders import compare_folders, write_report
from kd_lightning.report.tables import markdown
from kd_lightning.report.words import caption, commands, findings, interval_words, signed
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.gains import gains_over
from kd_lightning.utils.statistics import Gain, difference

Fake = Callable[..., Path]
CE, KD = (0.80, 0.81, 0.79), (0.84, 0.845, 0.836)


def study(fake_run: Fake, values: tuple[float, ...], *overrides: str, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    paths = [fake_run(v, *overrides, f"seed={s}") for v, s in zip(values, seeds, strict=True)]
    return paths[0].parent


def notes_of(comparison: Comparison, row: Result) -> str:
    return "; ".join(comparison.notes[m - 1] for m in row.marks)


def test_seeds_are_pooled_and_paired(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    found = compare_folders([study(fake_run, KD, "loss=kd")])
    ce, kd = found.results
    assert (ce.label, ce.verdict, kd.label, kd.verdict) == ("ce", "baseline", "kd", "better")
    assert kd.scores == pytest.approx([84, 84.5, 83.6]) and kd.gain is not None
    assert kd.gain.p == pytest.approx(stats.ttest_rel(KD, CE).pvalue, rel=1e-5)
    assert not found.notes


def test_all_settings_of_a_baseline_are_tested_together(fake_run: Fake) -> None:
    values = {"ce": CE, "kd": KD, "dkd": (0.80, 0.815, 0.79), "dist": (0.76, 0.775, 0.75)}
    for loss, some in values.items():
        folder = study(fake_run, some, f"loss={loss}")
    rows = {row.label: row for row in compare_folders([folder]).results}
    gains = gains_over({k: {i: 100 * v for i, v in enumerate(some)} for k, some in values.items()}, "ce")
    for name, gain in gains.items():
        assert (rows[name].gain.p, rows[name].gain.low) == pytest.approx((gain.p, gain.low))  # type: ignore[union-attr]
    assert [rows[m].verdict for m in ("kd", "dkd", "dist")] == ["better", "no difference shown", "worse"]


def test_the_deployed_student_is_the_one_compared(fake_run: Fake) -> None:
    student = {"parameters": 10, "macs": 10, "last": {"test": {"accuracy": 0.8}, "val": {"accuracy": 0.7}}}
    student["best"] = {"test": {"accuracy": 0.6}, "val": {"accuracy": 0.9}}
    path = fake_run(0.8, "loss=ce", select="best", student=student)
    found = compare_folders([path])
    assert found.results[0].scores == pytest.approx([60]) and "best epoch on validation" in caption(found)
    assert list(found.results[0].validation.values()) == pytest.approx([90])
    fake_run(0.8, "loss=kd", select="last", student=student)
    assert "select differs" in "; ".join(compare_folders([path.parent]).notes)


def test_validation_names_the_best_setting(fake_run: Fake) -> None:
    for seed in range(3):
        fake_run(0.80, "loss=ce", f"seed={seed}", val=0.80)
        fake_run(0.90, "loss=kd", f"seed={seed}", val=0.85 + seed / 1000)
        folder = fake_run(0.85, "loss=dkd", f"seed={seed}", val=0.86 + seed / 1000).parent
    found = compare_folders([folder])
    best = best_by_validation(found.results)
    assert best is not None and best.label == "dkd", "not the best on test"
    assert "equal budget: no difference shown for 2." in findings(found)[0]
    assert "Best by validation: dkd, 86.10 % (95 % interval " in findings(found)[1]
    assert "on test 85.00 %" in findings(found)[1]
    assert [purpose for purpose, _ in commands(found)] == ["train dkd again"] and "loss=dkd" in commands(found)[0][1]


def test_a_grid_without_baseline_is_told_how_to_add_it(fake_run: Fake) -> None:
    study(fake_run, KD, "loss=kd", "loss.temperature=2")
    found = compare_folders([study(fake_run, KD, "loss=kd", "loss.temperature=8", "loss.alpha=0.3")])
    command = dict(commands(found))["add the baseline"]
    assert " -m " in command and " loss=ce seed=0,1,2 " in command and "loss.alpha" not in command
    assert "hydra.sweep.dir=" in command and "hydra.sweep.subdir=ce_${seed}" in command


def test_the_baseline_of_few_labels_sees_equally_many_images(fake_run: Fake) -> None:
    words = ("loss=kd", "data=digits", "data.label_fraction=0.1", "trainer.max_epochs=15")
    facts = {"images_seen": 675_000, "labels": 4_500, "epochs": 15}
    for seed, value in enumerate(KD):
        folder = fake_run(value, *words, f"seed={seed}", **facts).parent
    command = dict(commands(compare_folders([folder])))["add the baseline"]
    assert " trainer.max_epochs=150 " in command and " data.label_fraction=0.1 " in command
    fake_run(0.8, "loss=ce", *words[1:3], "trainer.max_epochs=150", **(facts | {"epochs": 150}))
    found = compare_folders([folder])
    assert "add the baseline" not in dict(commands(found)) and any(row.gain for row in found.results)


def test_no_baseline_is_offered_where_no_label_is(fake_run: Fake) -> None:
    folder = study(fake_run, KD, "loss=kd", "loss.ce_weight=0")
    paths = [fake_run(v, "loss=dkd", f"seed={s}", labels=0, images_seen=80) for s, v in enumerate(KD)]
    assert "add the baseline" in dict(commands(compare_folders([folder])))
    assert "add the baseline" not in dict(commands(compare_folders(paths)))


def test_one_of_all_trainings_is_best_by_validation(fake_run: Fake) -> None:
    for lr, val in ((0.05, 0.8), (0.1, 0.9), (0.2, 0.7)):
        folder = fake_run(0.8, "loss=kd", f"optimizer.lr={lr}", val=val).parent
    found = compare_folders([folder])
    best = [line for line in findings(found) if line.startswith("Best by validation")]
    assert len(best) == 1 and "lr=0.1, 90.00 %" in best[0]
    assert "train kd lr=0.1 again" in dict(commands(found))
    fake_run(0.8, "loss=kd", "optimizer.lr=0.4", "seed=0", val=0.99)
    fake_run("diverged", "loss=kd", "optimizer.lr=0.4", "seed=1")
    assert "lr=0.1, " in findings(compare_folders([folder]))[1], "a setting that fails now and then is not chosen"
    fake_run(0.8, "loss=kd", "optimizer.lr=0.1", "seed=1", val=0.8)
    fake_run(0.8, "loss=kd", "optimizer.lr=0.3", "seed=0", val=0.95)
    assert "lr=0.3 of 1 seed, others have 2, 95.00 %" in findings(compare_folders([folder]))[1]


def test_plain_trainings_lack_no_baseline(fake_run: Fake) -> None:
    folder = [fake_run(0.8, "loss=ce", f"optimizer.lr={lr}").parent for lr in (0.1, 0.2)][-1]
    assert findings(compare_folders([folder]))[0] == "2 finished runs in 2 settings, of plain training alone."


def test_students_are_not_chosen_by_validation(fake_run: Fake) -> None:
    for student in ("resnet8", "resnet14"):
        folder = fake_run(0.8, "loss=kd", f"model.student={student}").parent
    assert not any("Best" in line for line in findings(compare_folders([folder])))


def test_diverged_runs_are_outside_the_statistics(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    folder = study(fake_run, KD, "loss=kd")
    before = compare_folders([folder]).results[1].gain
    fake_run("diverged", "loss=kd", "seed=3")
    fake_run("diverged", "loss=dkd", "seed=0")
    found = compare_folders([folder])
    _, kd, dkd = found.results
    assert (kd.verdict, dkd.verdict, dkd.scores) == ("better", "diverged", [])
    assert kd.gain == before and "diverged: seed 3" in notes_of(found, kd)


def test_other_seeds_are_compared_by_welch(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    found = compare_folders([study(fake_run, KD, "loss=kd", seeds=(5, 6, 7))])
    kd = found.results[1]
    assert kd.gain is not None and kd.gain.test == "Welch"
    assert kd.gain.p == pytest.approx(stats.ttest_ind(KD, CE, equal_var=False).pvalue)
    assert "Welch" in notes_of(found, kd)


def test_a_pair_is_the_same_seed_whatever_the_order(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    found = compare_folders([study(fake_run, CE[::-1], "loss=kd", seeds=(2, 1, 0))])
    assert found.results[1].gain is not None and found.results[1].gain.mean == pytest.approx(0)
    assert found.results[1].verdict == "no difference shown"


def test_unequal_budgets_have_no_gain(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    found = compare_folders([study(fake_run, KD, "loss=kd", "trainer.max_epochs=7")])
    kd = next(row for row in found.results if "kd" in row.label)
    assert kd.gain is None and "max_epochs=7" in kd.label
    assert "trainer.max_epochs is 7, elsewhere 1" in notes_of(found, kd) and "no finished run with loss=ce" in notes_of(
        found, kd
    )


def test_budgets_are_equal_in_images_seen_not_in_epochs(fake_run: Fake) -> None:
    for seed in range(3):
        fake_run(CE[seed], "loss=ce", "trainer.max_epochs=150", f"seed={seed}", images_seen=665_000)
        fake_run(0.5, "loss=ce", "trainer.max_epochs=15", f"seed={seed}", images_seen=67_500)
        folder = fake_run(KD[seed], "loss=kd", "trainer.max_epochs=15", f"seed={seed}", images_seen=675_000).parent
    found = compare_folders([folder])
    kd = next(row for row in found.results if "kd" in row.label)
    assert kd.gain is not None and kd.gain.mean == pytest.approx(100 * (sum(KD) - sum(CE)) / 3)
    long, short = (
        next(row for row in found.results if f"max_epochs={n}" in row.label and row is not kd) for n in (150, 15)
    )
    assert long.verdict == short.verdict == "baseline" and "equal budget, 665,000 samples seen" in notes_of(found, long)


@pytest.mark.parametrize("key", ["data.split_seed=3", "data.val_size=100", "data.train_size=200", "data.batch_size=32"])
def test_other_data_are_flagged(fake_run: Fake, key: str) -> None:
    study(fake_run, CE, "loss=ce")
    found = compare_folders([study(fake_run, KD, "loss=kd", key)])
    marked = next(row for row in found.results if row.marks and "kd" in row.label)
    assert marked.gain is None and key.partition("=")[0] in notes_of(found, marked)


def test_what_changes_no_number_makes_no_setting(fake_run: Fake) -> None:
    fake_run(0.8, "loss=kd", "loss.temperature=4", "seed=0")
    path = fake_run(0.8, "loss=kd", "loss.temperature=4.0", "seed=1", "trainer.log_every_n_steps=5")
    assert [row.label for row in compare_folders([path.parent]).results] == ["kd"]


def test_a_loss_is_named_by_its_preset_unless_a_grid_left_it(fake_run: Fake) -> None:
    for loss in ("ce", "kd", "kd_cifar", "dkd"):
        path = fake_run(0.8, f"loss={loss}")
    assert [row.label for row in compare_folders([path.parent]).results] == ["ce", "kd", "kd_cifar", "dkd"]
    fake_run(0.8, "loss=kd", "loss.temperature=8")
    labels = [row.label for row in compare_folders([path.parent]).results]
    assert labels[0] == "ce" and labels[3] == "dkd" and all("temperature=" in label for label in labels[1:3])


def test_weights_are_named_by_the_end_of_their_path_if_that_is_enough(fake_run: Fake) -> None:
    study(fake_run, KD, "loss=kd", "model.teacher_weights=a/long/path/one.ckpt")
    folder = study(fake_run, CE, "loss=kd", "model.teacher_weights=a/long/path/two.ckpt")
    assert {row.label for row in compare_folders([folder]).results} == {
        "kd teacher_weights=one.ckpt",
        "kd teacher_weights=two.ckpt",
    }
    study(fake_run, CE, "loss=kd", "model.teacher_weights=other/one.ckpt")
    labels = {row.label for row in compare_folders([folder]).results}
    assert "kd teacher_weights=other/one.ckpt" in labels and len(labels) == 3


def test_weights_of_several_teachers_are_named_whole(fake_run: Fake) -> None:
    study(fake_run, KD, "loss=kd")
    words = ("model.teacher=[resnet8,resnet8]", "model.teacher_weights=[a/one.ckpt,b/two.ckpt]")
    labels = [row.label for row in compare_folders([study(fake_run, CE, "loss=kd", *words)]).results]
    assert "teacher_weights=['a/one.ckpt', 'b/two.ckpt']" in labels[1]


def test_a_baseline_serves_every_teacher(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce", "model.teacher=resnet8")
    study(fake_run, KD, "loss=kd", "model.teacher=resnet8")
    found = compare_folders([study(fake_run, KD, "loss=kd", "model.teacher=resnet20")])
    assert [row.label for row in found.results] == ["ce", "kd teacher=resnet8", "kd teacher=resnet20"]
    assert [row.verdict for row in found.results] == ["baseline", "better", "better"]


def test_unfinished_old_and_damaged_runs_are_told_and_the_rest_is_shown(fake_run: Fake) -> None:
    stopped, old, damaged, cut = (fake_run(a, "loss=kd") for a in (None, 0.8, 0.8, 0.8))
    (old / runs.METRICS).write_text(json.dumps({"schema": 0}))
    (damaged / runs.METRICS).write_text("{")
    (cut / runs.METRICS).write_text(json.dumps({"schema": runs.SCHEMA, "student": {}}))
    fake_run(0.8, "loss=ce", val=None)
    (stopped.parent / "empty").mkdir()
    found = compare_folders([stopped.parent / "empty", stopped.parent / "nowhere", stopped.parent])
    assert len(found.results) == 1 and found.results[0].validation == {}
    text = "; ".join(found.notes)
    for words in (
        f"not finished, left out: {stopped}", "schema 0", f"{damaged / runs.METRICS} is damaged",
        f"{cut / runs.METRICS} is damaged", "no validation split", "no folder", "no run below",
    ):  # fmt: skip
        assert words in text


def test_files_of_labels_are_never_mixed(fake_run: Fake) -> None:
    """A corrected file is another measure, and so is another file; a diverged seed belongs to its file."""
    runs_of = {"a.json": ((0.8, 0, "1a2b3c"), (0.81, 1, "1a2b3c"), (0.6, 2, "9f8e7d"))}
    runs_of["b.json"] = ((0.7, 0, "1a2b3c"), ("diverged", 1, "1a2b3c"))
    for file, found in runs_of.items():
        for accuracy, seed, said in found:
            words = (f"+data.labels={file}", "loss=kd_only", f"seed={seed}")
            folder = fake_run(accuracy, *words, labels_fingerprint=said).parent
    compared = compare_folders([folder])
    assert [sorted(row.test.values()) for row in compared.results] == [[80, 81], [60], [70]]
    assert "1" in compared.results[2].setting.diverged
    notes = " ".join(compared.notes)
    assert "not comparable: data.labels is a.json (9f8e)" in notes and "not comparable: data.labels is b.json" in notes


def test_other_data_sets_are_never_mixed(fake_run: Fake) -> None:
    study(fake_run, CE, "loss=ce")
    study(fake_run, KD, "loss=kd")
    found = compare_folders([study(fake_run, KD, "data=cifar10", "loss=kd")])
    assert [row.verdict for row in found.results] == ["baseline", "better", "–"]
    assert (
        "not comparable: data._target_ is" in notes_of(found, found.results[2]) and "cifar10" in found.results[2].label
    )


def test_the_same_seed_twice_is_told(fake_run: Fake) -> None:
    fake_run(0.8, "loss=ce", "seed=3")
    found = compare_folders([fake_run(0.9, "loss=ce", "seed=3").parent])
    assert found.results[0].scores == pytest.approx([90.0]) and "same seed (3)" in notes_of(found, found.results[0])


def test_a_folder_given_twice_counts_once(fake_run: Fake) -> None:
    path = fake_run(0.8, "loss=ce")
    assert compare_folders([path, path.parent]).results[0].setting.repeated == ()


def test_nothing_to_compare_is_one_line(tmp_path: Path, fake_run: Fake) -> None:
    with pytest.raises(UserError, match="no finished run: no run below"):
        compare_folders([tmp_path])
    with pytest.raises(UserError, match=r"no finished run: there is no folder .*nowhere$"):
        compare_folders([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="not finished, left out"):
        compare_folders([fake_run(None, "loss=kd")])
    with pytest.raises(UserError, match="has diverged"):
        compare_folders([fake_run("diverged", "loss=kd")])


def test_teachers_of_one_name_and_different_scores_have_a_row_each(fake_run: Fake) -> None:
    for seed, accuracy in enumerate((0.98, 0.94, 0.98)):
        teacher = {"parameters": 90_000, "macs": 500_000, "test": {"accuracy": accuracy}}
        path = fake_run(0.84, "loss=kd", f"seed={seed}", teacher=teacher)
    teachers = compare_folders([path.parent]).teachers
    assert [run.metrics["teacher"]["test"]["accuracy"] for run in teachers.values()] == [0.98, 0.94]
    assert [name.rpartition(" ")[2] for name in teachers] == ["(1)", "(2)"]


def test_one_teacher_has_one_row_although_its_score_differs_by_rounding(fake_run: Fake) -> None:
    """A method that reads layers runs it unfolded: in bf16 one answer of 360 may be another."""
    for seed, (accuracy, weights) in enumerate(((0.98, "a"), (0.978, "a"), (0.978, "b"))):
        teacher = {"test": {"accuracy": accuracy}, "weights": [{"sha256": weights}]}
        loss = ("kd", "fitnets", "kd")[seed]
        path = fake_run(0.84, f"loss={loss}", f"seed={seed}", teacher={"parameters": 9, "macs": 9} | teacher)
    assert list(compare_folders([path.parent]).teachers) == ["resnet8 (1)", "resnet8 (2)"]
    same = {"parameters": 9, "macs": 9, "test": {"accuracy": 0.98}, "weights": [{"sha256": "a"}]}
    fake_run(0.84, "loss=kd", "seed=4", "model.teacher_calibration=temperature", teacher=same)
    assert len(compare_folders([path.parent]).teachers) == 2, "a calibrated teacher names the same classes"
    other = {"parameters": 9, "macs": 9, "test": {"accuracy": 0.5}, "weights": [{"sha256": "a"}]}
    fake_run(0.84, "loss=kd", "seed=3", "model.teacher_normalize=imagenet", teacher=other)
    assert len(compare_folders([path.parent]).teachers) == 3, "asked in another way, it is another teacher"


def test_stored_answers_are_teachers_too(fake_run: Fake) -> None:
    """Their runs have no live teacher in metrics.json, and all were taken for one setting."""
    for seed, name in itertools.product(range(3), ("a", "b")):
        words = ("loss=kd", f"model.teacher_weights={name}.npz", f"seed={seed}")
        folder = fake_run(0.9, *words, teacher=None, stored_teacher={"train": {}}).parent
    found = compare_folders([folder]).results
    assert len(found) == 2 and all(len(row.test) == 3 for row in found)


def test_runs_on_other_samples_are_not_compared(fake_run: Fake) -> None:
    """`data.root` does not tell: the same data may lie elsewhere."""
    for seed in range(3):
        fake_run(CE[seed], "loss=ce", "+data.root=cats", f"seed={seed}", samples="of cats")
        fake_run(KD[seed], "loss=kd", "+data.root=copy_of_cats", f"seed={seed}", samples="of cats")
        folder = fake_run(0.5, "loss=kd", "+data.root=cars", f"seed={seed}", samples="of cars").parent
    found = compare_folders([folder]).results
    kept = {row.setting.values["data.root"]: row for row in found if not row.setting.is_baseline}
    assert len(found) == 3 and kept.keys() == {"cats", "cars"}
    assert kept["cats"].gain is not None and kept["cars"].gain is None


def test_no_gain_has_no_sign_of_a_loss() -> None:
    assert [signed(value) for value in (-0.001, 0.0, -0.006, 1.25)] == ["+0.00", "+0.00", "−0.01", "+1.25"]


def test_equal_differences_have_no_interval() -> None:
    """`+0.83 … +0.83` beside "no difference shown" would look wrong."""
    gain = difference({0: 81.0, 1: 82.0, 2: 83.0}, {0: 80.0, 1: 81.0, 2: 82.0})
    assert (gain.mean, gain.low, gain.p) == (1.0, None, 0.25) and interval_words(gain) == ""
    assert "without an interval" in "; ".join(gain_notes(gain, 2, {}, {}))


def test_brackets_in_a_label_stay(fake_run: Fake) -> None:
    for seed in range(3):
        fake_run(CE[seed], "loss=ce", f"seed={seed}")
        layers = "loss.student_layers=[1,2]", "loss.teacher_layers=[1,2]"
        folder = fake_run(KD[seed], "loss=attention", *(layers if seed else ()), f"seed={seed}").parent
    text = markdown(compare_folders([folder]), "")
    assert "`attention student_layers=[1, 2] teacher_layers=[1, 2]` [" in text


def test_a_comparison_is_written_whatever_the_folders_name(fake_run: Fake, tmp_path: Path) -> None:
    study(fake_run, CE, "loss=ce")
    odd = tmp_path / os.fsdecode(b"runs_\xe9")
    (tmp_path / "runs").rename(odd)
    write_report(compare_folders([odd]), odd, [odd])
    assert "runs_\\xe9" in (odd / "comparison.md").read_text()


def test_a_bound_keeps_its_sign() -> None:
    """`+0.00 … +2.24` beside "no difference shown" would look wrong."""
    assert interval_words(Gain(1.12, -0.004, 2.24, 0.05, 8, "blocks")) == "−0.00 … +2.24"


def test_curves_of_one_epoch_count_whole_epochs() -> None:
    figure = curves_figure({"kd": [{"val/accuracy": {1: 0.5}}]}, [("val/accuracy", "accuracy", 1.0)])
    assert figure is not None and all(float(x).is_integer() for x in figure.axes[0].get_xticks())
