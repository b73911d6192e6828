from .qupath import write_qupath as write_qupath
