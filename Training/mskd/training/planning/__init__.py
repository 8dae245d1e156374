"""What a recipe leaves out, from the data set: its fingerprint, and rules in the spirit of nnU-Net's.

Source: Isensee et al., nnU-Net, Nature Methods 18:203 (2021). Where a rule departs from it, its docstring says why.
"""

from mskd.training.planning.plan import Plan, complete

__all__ = ["Plan", "complete"]
