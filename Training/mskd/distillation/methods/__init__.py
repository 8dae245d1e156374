"""Distillation methods, one a file: the loss as a function first, a thin class with its settings second."""
