from .cohort import make_cohort as make_cohort
from .demo import run_demo as run_demo
from .scene import Scene as Scene
from .scene import make_scene as make_scene
