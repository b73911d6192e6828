"""Every kind of task."""

from __future__ import annotations

from pipeline.task.classes import Classes, Grades
from pipeline.task.labels import Labels
from pipeline.task.survival import DiscreteSurvival, Survival
from pipeline.task.task import Task
from pipeline.task.value import Value

TASKS: dict[str, type[Task]] = {
    kind.kind: kind for kind in (Classes, Labels, Grades, Value, Survival, DiscreteSurvival)
}
"""Every kind of task by its name in configurations and checkpoints."""
