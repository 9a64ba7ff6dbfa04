"""What a step spends its cycles on: the record of the timed simulator, with the names of the model (doc/profiling.md).
"""
