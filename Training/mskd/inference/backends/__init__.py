"""Ways to run a network, one a file; ``torch_eager`` is always there."""

from mskd.inference.backends.base import BACKENDS, Backend, make_backend

__all__ = ["BACKENDS", "Backend", "make_backend"]
