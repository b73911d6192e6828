from .build import TASKS as TASKS
from .task import Task as Task
