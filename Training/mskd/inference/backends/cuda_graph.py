"""PyTorch without its cost per operation: windows of one size replay a CUDA graph recorded once."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mskd.inference.backends.base import BACKENDS
from mskd.inference.backends.torch_eager import TorchEager
from mskd.networks import SegmentationNetwork

WARM_UPS = 3


@BACKENDS.register("cuda_graph")
class CudaGraph(TorchEager):
    """A light network is too quick for Python to keep a GPU busy: launching its kernels takes longer than they do.

    A size that comes twice in a row, as windows do, is recorded; others run eagerly. Recording lets cuDNN measure its
    algorithms, which pays only where a size repeats.
    """

    devices: ClassVar[tuple[str, ...]] = ("cuda",)

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None:
        super().__init__(network, device, precision)
        self._size: torch.Size | None = None
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None = None

    @classmethod
    def available(cls) -> str | None:
        return None if torch.cuda.is_available() else "there is no CUDA device; choose another backend."

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        if image.shape != self._size:
            self._recorded = None  # and its memory is free again
            self._size = image.shape
            return super().__call__(image)
        if self._recorded is None:
            self._recorded = self._record(image)
        graph, taken, given = self._recorded
        taken.copy_(image)
        graph.replay()
        return given.clone()

    def _record(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        taken = image.clone(memory_format=self._layout)
        forward = super().__call__
        with torch.cuda.device(image.device), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    forward(taken)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                given = forward(taken)
        return graph, taken, given
