"""Which column of a cohort table holds what: by the names people use, and what only looks like it is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.cohort.spelling import column_key, is_missing
from pipeline.errors import UsageError

Rows = Sequence[tuple[int, list[str]]]

SLIDE_NAMES = ("slide_id", "wsi_id", "image_id", "slide_name", "image_name")
"""Beside another slide column these name the slide; alone they find it."""
NAMES = {
    "slide": (
        *("slide", "slides", "wsi", "svs", "filename", "file", "path", "filepath", "fullpath", "slide_path"),
        *(
            "slide_file",
            "slide_filename",
            "wsi_path",
            "wsi_file",
            "image",
            "image_path",
            "image_file",
            "image_filename",
        ),
    ),
    "patient": (
        *("patient", "patient_id", "patient_number", "patient_no", "patient_nr", "patient_code", "patient_barcode"),
        *("bcr_patient_barcode", "case_submitter_id", "submitter_id", "subject", "subject_id", "donor", "donor_id"),
        *("participant", "participant_id", "individual", "individual_id", "case", "case_id", "case_number", "case_no"),
    ),
    "site": (
        *("site", "site_id", "center", "centre", "center_id", "centre_id", "hospital", "hospital_id", "institution"),
        *("institution_id", "institute", "tissue_source_site", "source_site", "tss", "tss_code", "submitting_center"),
        *("clinic", "medical_center", "medical_centre"),
    ),
    "mpp": ("mpp", "spacing_at_level_0"),
    "split": ("split", "splits"),
    "fold": ("fold", "fold_id", "cv_fold"),
}
LABELS = (
    *("label", "labels", "class", "class_name", "target", "y", "diagnosis", "category", "subtype", "grade", "outcome"),
    *("ground_truth",),
)
"""Names of the label's column where the configuration leaves it at `label`."""

_PATIENT_WORDS = (
    *("patien", "pacien", "pazien", "患者", "case", "subject", "donor", "participant", "individual", "person"),
    *("pseudonym", "anon", "accession", "specimen", "biops", "nhs", "fall"),
)
_GROUP_TOKENS = frozenset(
    ("hospital", "surgical", "pathology", "lab", "laboratory", "record", "study", "sample", "block")
)
"""With a word for a number they tell of what several slides are made of."""
_PATIENT_TOKENS = frozenset(("pat", "patnr", "patno", "patid", "pt", "ptid", "pid", "mrn", "subj", "animal", "mouse"))
_ID_TOKENS = frozenset(
    (
        *("id", "ids", "no", "nr", "num", "number", "nummer", "code", "key", "identifier", "barcode", "accession"),
        *("name", "surname", "uid", "uuid", "ref"),
    )
)
_OTHER_TOKENS = frozenset(
    (
        *("stage", "grade", "tnm", "type", "scanner", "stain", "age", "date", "time", "magnification", "objective"),
        *("note", "notes", "comment", "remark", "mpp", "size", "sex", "gender", "race", "ethnicity", "status", "year"),
        *("count", "history", "weight", "height", "bmi", "diagnosis", "score"),
    )
)
_SPLITS = frozenset(
    (
        *("train", "training", "tr", "development", "dev", "val", "valid", "validation", "tune", "test", "testing"),
        *("te", "ts", "holdout", "hold-out"),
    )
)
_SPLIT_TOKENS = frozenset(
    (
        *("is", "in", "train", "training", "test", "testing", "val", "valid", "validation", "holdout", "hold", "out"),
        *("set", "data", "split", "subset", "partition", "kfold", "k", "fold", "folds", "cv"),
    )
)
_ROUND = re.compile(r"(fold|split)_?(\d+)")
"""How a column of one of several splits is called."""
_MARKS = frozenset(("true", "false", "yes", "no", "y", "n"))


def choose_columns(header: Sequence[str], rows: Rows, told: Mapping[str, str], table: Path) -> dict[str, int]:
    """The index of the column for each of slide, name, patient, site, mpp, split and fold that the table has.

    Args:
        header: column names.
        rows: (row number, cells).
        told: what the user says: column names by "slide", "patient", "site".
        table: for messages.

    Raises:
        UsageError: two columns of one name, a told column that is missing, several that might be meant, no slides.
    """
    _refuse_twice(header, table)
    found = {role: named(header, name, f"cohort.{role}_column", table) for role, name in told.items()}
    for role, names in NAMES.items():
        if role not in found:
            index = _one(header, rows, names, role, table)
            if index is not None:
                found[role] = index
    identity = _one(header, rows, SLIDE_NAMES, "slide", table)
    if identity is not None and identity != found.get("slide"):
        found["name" if "slide" in found else "slide"] = identity
    if "slide" not in found:
        likely = next((i for i in range(len(header)) if _names_files(rows, i)), None)
        hint = (
            f"column {header[likely]!r} looks like slides: rename it to 'slide' or set cohort.slide_column"
            if likely is not None
            else "rename the one that holds the slides to 'slide'"
        )
        raise UsageError(f"{table}: expected a column slide or {', '.join(SLIDE_NAMES)}, found {_list(header)}; {hint}")
    return found


def label_column(header: Sequence[str], rows: Rows, label: str, table: Path, *, required: bool) -> int | None:
    """The column of labels: the one that is called so, else, where labels are required, one of `LABELS`.

    Raises:
        UsageError: none though required, or several that might be meant.
    """
    exact = [i for i, name in enumerate(header) if column_key(name) == column_key(label)]
    if exact:
        return exact[0]
    found = None
    if required and column_key(label) == "label":
        found = _one(header, rows, LABELS, "label", table)
    if required and found is None:
        import difflib

        nearest = max(header, key=lambda name: difflib.SequenceMatcher(None, label.lower(), name.lower()).ratio())
        raise UsageError(
            f"{table}: no label column {label!r}, found {_list(header)}; set cohort.label (nearest: {nearest!r})"
        )
    return found


def refuse_lookalikes(header: Sequence[str], rows: Rows, taken: Mapping[str, int], table: Path) -> None:
    """Refuse a column that was not taken and yet groups slides as patients do, or holds the words of a split.

    A column looks like patients where several slides share a value and it is called so (`Pat. No.`, but not what is
    told of patients, as `patient_age`), or its values are identifiers (letters with digits; numbers or names in a
    column that is called id, code, number ...) of at least four and a third as many as slides.

    Raises:
        UsageError: which names the column and the remedies.
    """
    for i, name in enumerate(header):
        if i in taken.values() or not name or _ROUND.fullmatch(name.strip().casefold()):
            continue
        values = [row[i] for _, row in rows if not is_missing(row[i])]
        if "split" not in taken and len(set(values)) > 1 and _parts_slides(name, values):
            raise UsageError(f"{table}: column {name!r} looks like the split; rename it to 'split' or delete it")
        if "patient" not in taken and 1 < len(set(values)) < len(values) and _groups_patients(name, values):
            slide = header[taken["slide"]]
            raise UsageError(
                f"{table}: column {name!r} looks like patients, whose slides must stay together; rename it to "
                f"'patient' or set cohort.patient_column to {name!r} (to {slide!r} if every slide is another patient's)"
            )


def round_columns(header: Sequence[str], table: Path) -> list[int]:
    """The columns fold_0, fold_1 ... or split_0, split_1 ... of several splits of the same slides, in their order.

    Raises:
        UsageError: there are both, or one beside them that is called just so.
    """
    numbered = {
        (found[1], int(found[2])): i
        for i, name in enumerate(header)
        if (found := _ROUND.fullmatch(name.strip().casefold()))
    }
    if len({kind for kind, _ in numbered}) > 1:
        raise UsageError(f"{table}: columns of folds and of splits, found {_list(header)}; delete those of one kind")
    for kind, _ in numbered:
        if any(column_key(name) == kind for name in header):
            first = header[min(numbered.values())]
            raise UsageError(f"{table}: columns {kind!r} and {first!r} may both be the {kind}'s; delete one")
    return [numbered[key] for key in sorted(numbered)]


def named(header: Sequence[str], name: str, setting: str, table: Path) -> int:
    """The column that a setting names.

    Raises:
        UsageError: there is none.
    """
    for i, column in enumerate(header):
        if column_key(column) == column_key(name):
            return i
    raise UsageError(f"{table}: no column {name!r}, found {_list(header)}; correct {setting}")


def _one(header: Sequence[str], rows: Rows, names: Sequence[str], role: str, table: Path) -> int | None:
    """The column called by one of these names; of several, which must tell slides apart alike, the first name's."""
    keys = [column_key(name) for name in names]
    fits = sorted(
        (i for i, name in enumerate(header) if column_key(name) in keys),
        key=lambda i: keys.index(column_key(header[i])),
    )
    for other in fits[1:]:
        pairs = {(row[fits[0]], row[other]) for _, row in rows}
        if not len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) or role in ("slide", "label"):
            setting = {name: f"cohort.{name}_column" for name in ("slide", "patient", "site")} | {
                "label": "cohort.label"
            }
            remedy = f", or set {setting[role]} to one of them" if role in setting else ""
            raise UsageError(
                f"{table}: columns {header[fits[0]]!r} and {header[other]!r} may both be the {role}'s; rename or "
                f"delete one{remedy}"
            )
    return fits[0] if fits else None


def _refuse_twice(header: Sequence[str], table: Path) -> None:
    seen: dict[str, str] = {}
    for name in header:
        key = column_key(name)
        if key and key in seen:
            raise UsageError(f"{table}: two columns are called {seen[key]!r} and {name!r}; rename or delete one")
        seen[key] = name


def _tokens(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())


def _parts_slides(name: str, values: Sequence[str]) -> bool:
    words = {value.casefold() for value in values}
    if words <= _SPLITS:
        return True
    # a column that is called so and nothing else; `hpv_test` is a finding
    called_so = bool(_tokens(name)) and _SPLIT_TOKENS.issuperset(_tokens(name))
    return called_so and all(word in _SPLITS | _MARKS or word.isdecimal() for word in words)


def _groups_patients(name: str, values: Sequence[str]) -> bool:
    tokens = _tokens(name)
    if not _OTHER_TOKENS.isdisjoint(tokens):
        return False
    if any(token in _PATIENT_TOKENS or token.startswith(_PATIENT_WORDS) for token in tokens):
        return True
    if not _GROUP_TOKENS.isdisjoint(tokens) and not _ID_TOKENS.isdisjoint(tokens):
        return True
    different = len(set(values))
    if different < 4 or different * 3 < len(values):
        return False
    if all(re.search(r"[^\W\d_]", value) and re.search(r"\d", value) and " " not in value for value in values):
        return True
    called_so = "#" in name or not _ID_TOKENS.isdisjoint(tokens)
    return called_so and all(re.fullmatch(r"\d+|[^\W\d_]+(?:[ '-][^\W\d_]+)*", value) for value in values)


def _names_files(rows: Rows, index: int) -> bool:
    from pipeline.cohort.files import NAMED_SUFFIXES

    values = [row[index] for _, row in rows if row[index]]
    return bool(values) and all(value.casefold().endswith(NAMED_SUFFIXES) for value in values)


def _list(header: Sequence[str]) -> str:
    return ", ".join(header)
