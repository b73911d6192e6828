"""Edits that the tests must notice: each breaks one promise, and then one of the tests named beside it has to fail.

    python tests/mutants.py [--only NAME ...] [--jobs N] [--limit SECONDS]

Works on a copy of the tree: first the named tests as they are, which must pass, then with one edit at a time. An edit
is found by its text alone, which must occur exactly once in the house, so that it follows code to another file; where
code was rewritten, the edit is to be written anew. Exits with 1 where an edit survived, 2 where nothing could be told.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("stages", "pipeline", "saccade")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit.

    Attributes:
        name: what is broken.
        before: text that occurs exactly once in the house.
        after: what stands there instead.
        tests: files or node ids of which at least one must fail.
    """

    name: str
    before: str
    after: str
    tests: tuple[str, ...]


APPEARANCE = ("tests/stages/test_appearance.py",)
ATTENTION = ("tests/stages/test_attention.py",)
CALIBRATE = ("tests/pipeline/train/test_calibrate.py",)
CHECKPOINT = ("tests/pipeline/model/test_checkpoint.py::test_a_checkpoint_keeps_how_its_cohort_looks",)
DISK = ("tests/stages/test_disk.py",)
RUN_EXIT = ("tests/pipeline/test_exit_codes.py::test_run_exits_1_when_a_slide_failed_and_predicts_the_others",)
TRAIN_EXIT = (
    "tests/pipeline/test_exit_codes.py::test_train_says_where_the_model_is_and_exits_1_when_slides_were_left_out",
)
FIT = ("tests/pipeline/train/test_fit.py",)
INTERVALS = ("tests/pipeline/model/test_intervals.py",)
KILLED = ("tests/pipeline/run/test_killed.py",)
METRICS = ("tests/pipeline/statistics/test_metrics.py",)
MASK = ("tests/stages/tissue/test_foreign.py", "tests/stages/tissue/test_fill.py", "tests/stages/tissue/test_mask.py")
PICTURE = ("tests/stages/overlay/test_picture.py",)
PREDICT = ("tests/stages/prediction/test_predict.py",)
RUN_KEYS = ("tests/pipeline/run/test_keys.py",)
SPLITS = ("tests/pipeline/cohort/test_splits.py",)
TRAIN_KEYS = ("tests/pipeline/train/test_keys.py",)
_LEFT_OUT = "tests/pipeline/train/test_left_out.py::test_"
LEFT_OUT = (f"{_LEFT_OUT}damaged_slides_are_left_out_named_and_counted_and_tried_again_once_they_are_whole",)
STAYS_OUT = (f"{_LEFT_OUT}what_an_interrupted_training_left_out_stays_out",)
JOINT = ("tests/stages/prediction/test_intervals.py",)
REGIONS = ("tests/pipeline/model/test_regions.py",)
LOOKS = ("tests/pipeline/train/test_looks.py",)
UNLIKE = ("tests/cases/test_unlike.py",)
STOPPING = ("tests/stages/prediction/test_stopping.py",)
TOGETHER = ("tests/stages/sampling/test_looks.py",)
WEIGH = ("tests/stages/prediction/test_weigh.py",)
FOLDS = ("tests/pipeline/train/test_train.py::test_cross_validation_tests_every_slide_once",)
OTHER_VAL = ("tests/pipeline/train/test_train.py::test_other_slides_to_calibrate_on_calibrate_again",)

MUTANTS = (
    # what a slide's result depends on
    Mutant("run key without mpp", '"mpp": mpp,\n        **({} if prior', "**({} if prior", RUN_KEYS),
    Mutant(
        "run key without tolerance",
        '"tolerance": settings.tolerance,\n        "scheme": settings.scheme or',
        '"scheme": settings.scheme or',
        RUN_KEYS,
    ),
    Mutant("run key without the decision", '{"decide": asdict(decide)}', "{}", RUN_KEYS),
    Mutant("run key without scheme", '"scheme": settings.scheme or model.spec.scheme,', "", RUN_KEYS),
    Mutant("run key without seed", '"seed": settings.seed,\n        **({} if decide', "**({} if decide", RUN_KEYS),
    Mutant("run key without samples", '"samples": settings.samples if', '"samples": None if True or', RUN_KEYS),
    Mutant("run key without the model's digest", '"model": digest,', "", RUN_KEYS),
    Mutant("run key without the results' version", '"version": RESULTS_VERSION,', "", RUN_KEYS),
    Mutant("run key without the slide's content", "[fingerprint, parts]", "[parts]", RUN_KEYS),
    Mutant("draws ignore the seed", 'f"{seed}:{self.', 'f"{0}:{self.', RUN_KEYS),
    Mutant("draws ignore the slide's content", "{self.slide.facts.fingerprint}{later}", "{later}", RUN_KEYS),
    Mutant("--scheme ignored", "scheme=settings.scheme,", "scheme=None,", RUN_KEYS),
    Mutant(
        "--mpp ignored",
        "open_pyramid(slide.path, mpp=slide.mpp if slide.mpp is not None else settings.mpp)",
        "open_pyramid(slide.path, mpp=slide.mpp)",
        RUN_KEYS,
    ),
    Mutant(
        "--mpp before the table",
        "open_pyramid(slide.path, mpp=slide.mpp if slide.mpp is not None else settings.mpp)",
        "open_pyramid(slide.path, mpp=settings.mpp if settings.mpp is not None else slide.mpp)",
        RUN_KEYS,
    ),
    # what is unlike the slides of the training
    Mutant(
        "other fields count as like", 'FARTHEST,\n                f"it is', '0.0,\n                f"it is', APPEARANCE
    ),
    Mutant("padding tells the field", "all_inside(1) & ~all_inside(3)", "~all_inside(3)", APPEARANCE),
    Mutant("strays widen the cohort", "cut = np.clip(away, -CUT * spread, CUT * spread)", "cut = away", APPEARANCE),
    Mutant("a slide among its own cohort", "np.delete(values, i, 0)", "values", APPEARANCE),
    Mutant("warnings that a rerun forgets", 'row["warnings"] = list(found.warnings)', "pass", UNLIKE),
    Mutant(
        "numbers of another meaning compared",
        'told is None or told.get("version") != VERSION:',
        "told is None:",
        CHECKPOINT,
    ),
    # what a model depends on
    Mutant("training key without labels", 'slide.label,\n            "mpp"', 'None,\n            "mpp"', TRAIN_KEYS),
    Mutant(
        "training key without mpp",
        '"mpp": slide.mpp,\n            "site"',
        '"mpp": None,\n            "site"',
        TRAIN_KEYS,
    ),
    Mutant(
        "training key without sites",
        'slide.mpp,\n            "site": slide.site',
        'slide.mpp,\n            "site": None',
        TRAIN_KEYS,
    ),
    Mutant("training key without roles", '"role": part,', '"role": "train",', TRAIN_KEYS),
    Mutant("training key without content", "**content_of(facts.get(slide.slide_id)),", "", TRAIN_KEYS),
    Mutant(
        "training key without the encoder's weights",
        "None if weights is None else _content(weights),",
        "None,",
        TRAIN_KEYS,
    ),
    Mutant("training key without its version", '"version": TRAINING_VERSION,', '"version": 1,', TRAIN_KEYS),
    Mutant("training key without the training section", 'settings={**settings, "train', 'settings={"train', TRAIN_KEYS),
    Mutant(
        "training key with the device",
        '"calibration_slides", "device", "devices"}',
        '"calibration_slides", "devices"}',
        TRAIN_KEYS,
    ),
    Mutant("a finished model is lost", "        keep_aside(job)\n", "        pass\n", LEFT_OUT),
    Mutant(
        "a slide that failed is tried again", "if i not in self.lost]\n        while", "]\n        while", STAYS_OUT
    ),
    Mutant("what was left out is forgotten", '["left_out"] = self._slides.told', '["left_out"] = {}', STAYS_OUT),
    Mutant("files stay open", "self._kept[oldest].at_rest()", "self._kept[oldest]", LOOKS),
    # intervals
    Mutant(
        "--tolerance without the Bonferroni share", "confidence=1 - 0.05 / len(totals)", "confidence=0.95", INTERVALS
    ),
    Mutant("--decide without each look's share of the risk", "2 * self.risk / looks", "2 * self.risk", STOPPING),
    Mutant("earlier reads do not count", "0.0 if afresh else sum(shares[r + 1 :])", "0.0", TOGETHER),
    Mutant("shares that ignore what is left", "v = a.square() * (1 - before)", "v = a.square() * 1", TOGETHER),
    Mutant("intervals at 90 %", "0.5 + alone / 2", "0.475 + alone / 2", PREDICT),
    Mutant("intervals without the cohort's rule", "calibration=self.calibration, ", "calibration=None, ", INTERVALS),
    Mutant("intervals calibrated to 90 %", "torch.quantile(away, confidence)", "torch.quantile(away, 0.9)", CALIBRATE),
    Mutant("intervals of each class alone", "(1 - confidence) / evidence.statements", "(1 - confidence)", PREDICT),
    Mutant("calibrated to each class alone", "_told_by(evidence)].amax(1)", "_told_by(evidence)].flatten()", JOINT),
    Mutant("few draws worth more than they are", "if not self.fitted:", "if False:", PREDICT),
    Mutant("patches of a region count one by one", "if not taken.regions:", "if True:", REGIONS),
    Mutant(
        "a cell drawn again counts again",
        "cells.unsqueeze(1))\n",
        "cells.unsqueeze(1) * 0 + torch.arange(y.shape[1]))\n",
        PREDICT,
    ),
    Mutant("regions padded with glass", "side + 2 * model.inner.around, ", "side, ", REGIONS),
    Mutant("calibrated on slides of the training", "in (*job.val, *job.train)", "in job.train", OTHER_VAL),
    Mutant(
        "slopes of many classes replaced by equal shares",
        "torch.softmax(rivals(logits), -1)",
        "(rivals(logits) > -torch.inf).to(logits) / (self.outputs - 1)",
        WEIGH,
    ),
    Mutant(
        "slopes over the wrong axis", "torch.softmax(rivals(logits), -1)", "torch.softmax(rivals(logits), -2)", WEIGH
    ),
    Mutant("probabilities of the classes each alone", "torch.softmax(logits, -1)", "torch.sigmoid(logits)", PREDICT),
    Mutant(
        "metrics' intervals over slides, not patients",
        "return np.unique(np.asarray(patients), return_inverse=True)[1]",
        "return np.unique(range(len(patients)), return_inverse=True)[1]",
        METRICS,
    ),
    # what lies on the disk
    Mutant(
        "rename before fsync",
        "flush(temporary)\n        _rename(os.replace, temporary, path)",
        "pass\n        _rename(os.replace, temporary, path)\n        flush(path)",
        DISK,
    ),
    Mutant(
        "commit mark before the other artefacts",
        "    write_thumbnail(folder / THUMBNAIL",
        '    (folder / "prediction.json").write_text(__import__("json").dumps({"key": key, "row": row}))\n'
        "    write_thumbnail(folder / THUMBNAIL",
        KILLED,
    ),
    Mutant(
        "an earlier commit mark stays",
        "(folder / COMMIT).unlink(missing_ok=True)\n    for name in FORMER",
        "for name in FORMER",
        KILLED,
    ),
    Mutant("any commit mark will do", 'commit["key"] == found.key', "True", KILLED),
    Mutant("checkpoint without calibration", "if model.calibration is not None:", "if False:", CALIBRATE),
    Mutant("GeoJSON ignores the bounds", "np.array([bounds.x, bounds.y])", "np.zeros(2)", PICTURE),
    # training
    Mutant("entropy punished", "loss - self._entropy_weight", "loss + self._entropy_weight", FIT),
    Mutant("the same draws every epoch", "_seed * 1_000_003 + epoch)", "_seed * 1_000_003)", FIT),
    Mutant("the same order every epoch", "(seed * 1_000_003 + epoch)", "(seed * 1_000_003)", FIT),
    Mutant("no gradient clip", "gradient_clip_val=gradient_clip", "gradient_clip_val=None", FIT),
    Mutant("attention_rate ignored", "learning_rate * attention_rate,", "learning_rate,", FIT),
    Mutant("weight_decay ignored", "weight_decay=self._weight_decay", "weight_decay=0.0", FIT),
    Mutant("no warm-up", "passes=warm_up", "passes=0", FIT),
    Mutant("control variate's loss dropped", " + found.control_error", "", FIT),
    Mutant(
        "patches not turned",
        '"augment": self._augmentation,',
        '"augment": None,',
        FIT,
    ),
    Mutant("a fold learns what it is judged on", "if fold_of[slide.slide_id] != number)", "if True)", FOLDS),
    Mutant(
        "a patient's slides in two folds",
        "fold_of[slide.patient] for slide in slides",
        "i % folds for i, slide in enumerate(slides)",
        SPLITS,
    ),
    # attention
    Mutant("attention sums to one in each column", ".flatten(), dim=0).reshape", ", dim=0).reshape", ATTENTION),
    Mutant("whatever is of one exact colour is fill", "straight_share(area) >= STRAIGHT", "True", MASK),
    Mutant("a stain of another colour is ink", "if free >= FREE and (even or shadow or line)", "if True", MASK),
    Mutant("strokes stay", "if strokes and 2 * size >", "if False and 2 * size >", MASK),
    Mutant(
        "grey is hematoxylin", "density *= ((colour - GREY[0])", "density *= 1 + 0 * ((colour - GREY[0])", ATTENTION
    ),
    Mutant("cells are tissue from a fifth on", "min_fraction: float = 0.1", "min_fraction: float = 0.2", ATTENTION),
    # what scripts go by
    Mutant(
        "train exits 0 with slides left out",
        "metrics: {out / 'metrics.json'}\")\n    raise typer.Exit(1 if summary.excluded else 0)",
        "metrics: {out / 'metrics.json'}\")\n    raise typer.Exit(0)",
        TRAIN_EXIT,
    ),
    Mutant(
        "run exits 0 with failures",
        "report:      {out / 'report.html'}\")\n    raise typer.Exit(1 if summary.failed or summary.left_out else 0)",
        "report:      {out / 'report.html'}\")\n    raise typer.Exit(0)",
        RUN_EXIT,
    ),
    Mutant("train ignores --set", "load_config(Path(config), overrides)", "load_config(Path(config))", TRAIN_EXIT),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="mutants whose name has this in it; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--limit", type=float, default=60, help="seconds that the tests of one mutant may take")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.only or any(name in m.name for name in options.only)]
    if not chosen:
        parser.error(f"no mutant has a name with {' or '.join(options.only)}")
    if problems := [problem for mutant in chosen if (problem := what_is_wrong(mutant))]:
        print("\n".join(problems))
        return 2
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    with tempfile.TemporaryDirectory(prefix="saccade-mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        tree = Path(folder, "tree")
        copy_tree(tree)
        status, told, seconds = run_tests(tree, tests, limit=options.limit * len(tests))
        if status != 0:
            print(f"{told}\nthe tests do not pass as they are: nothing can be told")
            return 2
        print(f"{len(tests)} files and tests pass as they are  {seconds:.0f} s", flush=True)
        survivors = []
        try:
            told_by = pool.map(lambda mutant: verdict(mutant, tree, options.limit), chosen)
            for mutant, (killed, words) in zip(chosen, told_by, strict=True):
                print(f"{mutant.name:<50} {words}", flush=True)
                survivors += [] if killed else [mutant.name]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt ends with what is running
    if survivors:
        print(f"{len(survivors)} of {len(chosen)} were not noticed: {'; '.join(survivors)}")
    else:
        print(f"all {len(chosen)} were noticed")
    return 1 if survivors else 0


def what_is_wrong(mutant: Mutant) -> str | None:
    """Why this mutant cannot be tried, if so."""
    found = [path for path in sources(ROOT) for _ in range(path.read_text(encoding="utf-8").count(mutant.before))]
    if len(found) != 1:
        places = "".join(f"\n  in {path.relative_to(ROOT)}" for path in found)
        return f"{mutant.name}: its text occurs {len(found)} times, not once: {mutant.before!r}{places}"
    missing = [test for test in mutant.tests if not (ROOT / test.partition("::")[0]).is_file()]
    return f"{mutant.name}: no test file {missing[0]}" if missing else None


def sources(tree: Path) -> list[Path]:
    return sorted(path for floor in HOUSE for path in (tree / floor).rglob("*.py"))


def copy_tree(tree: Path) -> None:
    """Copy what git has and what it would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        if (ROOT / name).is_file():  # not one that was deleted since
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def verdict(mutant: Mutant, original: Path, limit: float) -> tuple[bool, str]:
    """Whether a test notices, and which one and when, in words."""
    # a copy of its own, without compiled files: an edit within the second of another would not be seen in them
    tree = original.with_name(re.sub(r"\W+", "-", mutant.name))
    shutil.copytree(original, tree, ignore=shutil.ignore_patterns("__pycache__"))
    (path,) = (path for path in sources(tree) if mutant.before in path.read_text(encoding="utf-8"))
    path.write_text(path.read_text(encoding="utf-8").replace(mutant.before, mutant.after), encoding="utf-8")
    status, told, seconds = run_tests(tree, mutant.tests, limit=limit, stop=True)
    shutil.rmtree(tree, ignore_errors=True)
    by = re.search(r"^(?:FAILED|ERROR) (\S+)", told, re.MULTILINE)
    if status == 1 and by:
        return True, f"killed by {by[1]}  {seconds:.0f} s"
    if status is None:
        return False, f"NO VERDICT within {limit:g} s"
    if status == 0:
        return False, f"SURVIVED  {seconds:.0f} s"
    return False, f"BROKEN, not noticed: the tests cannot run\n{told}"


def run_tests(tree: Path, tests: Sequence[str], *, limit: float, stop: bool = False) -> tuple[int | None, str, float]:
    """pytest's exit status (None where time ran out), the end of what it printed, and seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree)}  # before what is installed, in the tests' own processes too
    started = time.perf_counter()
    with subprocess.Popen(
        command + ["-x"] * stop,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=limit)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and what the tests have started
            status, told = None, ""
    return status, told[-4000:], time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
