"""Weights to safetensors and back; shapes are compared with the network before anything large is allocated."""

from __future__ import annotations

import json
import operator
import struct
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mskd.errors import MSKDError, PackageError
from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import Manifest

LARGEST_HEADER = 16 << 20
LARGEST_DIVISOR = 512
FLOATS = {"F64", "F32", "F16", "BF16"}
INTEGERS = {"I64", "I32"}


def pack_tensors(tensors: dict[str, Tensor]) -> bytes:
    """The safetensors bytes of detached copies."""
    return safetensors.torch.save({key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()})


def unpack_tensors(data: bytes, *, source: str) -> dict[str, Tensor]:
    """Tensors from safetensors bytes.

    Raises:
        PackageError: it is something else (a pickle, say) or damaged.
    """
    read_header(data, source=source)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as fault:
        raise PackageError(f"{source}: is damaged ({_line(fault)}); get the package again.") from fault


def read_header(data: bytes, *, source: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape by key, from the first bytes alone.

    Raises:
        PackageError: this is not a safetensors file.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > min(LARGEST_HEADER, len(data) - 8):
            raise ValueError("its header is longer than the file allows")
        header: Any = json.loads(data[8 : 8 + length])
        return {
            str(key): (str(entry["dtype"]), tuple(operator.index(side) for side in entry["shape"]))
            for key, entry in header.items()
            if key != "__metadata__"
        }
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        if data[:1] == b"\x80" or data[:2] == b"PK":
            raise PackageError(
                f"{source}: is a pickle (a PyTorch checkpoint), not safetensors; it could run code, so it is not read."
            ) from fault
        raise PackageError(f"{source}: is not a safetensors file ({_line(fault)}); get the package again.") from fault


def distinct_tensors(network: SegmentationNetwork) -> dict[str, Tensor]:
    """The state dict with every tensor once, under its first key, however often it is aliased."""
    seen: set[int] = set()
    distinct = {}
    for key, value in network.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            distinct[key] = value
    return distinct


def check_network(manifest: Manifest, *, source: str) -> SegmentationNetwork:
    """Build the network without memory for its weights (meta device) and compare it with the manifest.

    Returns:
        A sketch: its weights and shapes are the network's, but norms and activations do nothing, and logits stay as
        coarse as they are computed.

    Raises:
        PackageError: unknown network, arguments it does not take, or channels, classes or dimension other than the
            manifest's.
    """
    try:
        with torch.device("meta"):
            network = build_network(manifest.network, source=source, error=PackageError).eval()
            _leave_shapes(network)
            if network.dim != manifest.dim:
                raise PackageError(f"{source}: the network is {network.dim}D and the patch is {manifest.dim}D.")
            if max(network.divisor) > LARGEST_DIVISOR:
                raise PackageError(
                    f"{source}: the network's strides multiply to {network.divisor}; {LARGEST_DIVISOR} is the most."
                )
            image = torch.zeros(1, len(manifest.channels), *(2 * side for side in network.divisor))
        with torch.inference_mode():
            logits = network(image)
    except PackageError:
        raise
    except (MSKDError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as fault:
        raise PackageError(f"{source}: the network cannot be built or run ({_line(fault)}).") from fault
    expected = (1, manifest.classes, *network.logits_size(image.shape[2:]))
    if tuple(logits.shape) != expected:
        raise PackageError(
            f"{source}: the network gives {tuple(logits.shape)} for an input of {tuple(image.shape)}; with "
            f"{len(manifest.labels)} labels it must give {expected}."
        )
    return network


def _leave_shapes(network: SegmentationNetwork) -> None:
    """Take from a network on the meta device what changes no shape, and the last interpolation.

    PyTorch computes these there by its compiler, and importing that takes 0.7 s and 90 MB.
    """
    network.enlarges = False
    for module in network.modules():
        if isinstance(module, _BatchNorm | nn.LeakyReLU):
            module.forward = _unchanged  # type: ignore[assignment]


def _unchanged(image: Tensor) -> Tensor:
    return image


def check_weights(network: SegmentationNetwork, data: bytes, *, source: str) -> None:
    """Compare the header of a weights file with a network (which may be on the meta device).

    Raises:
        PackageError: keys, shapes or kinds of number that differ.
    """
    header = read_header(data, source=source)
    expected = distinct_tensors(network)
    if header.keys() != expected.keys():
        odd = sorted(header.keys() ^ expected.keys())
        raise PackageError(
            f"{source}: {len(odd)} keys do not belong to this network or are missing, the first is {odd[0]!r:.80}."
        )
    for key, tensor in expected.items():
        kind, shape = header[key]
        if shape != tuple(tensor.shape) or kind not in (FLOATS if tensor.is_floating_point() else INTEGERS):
            raise PackageError(
                f"{source}: {key} is {kind:.20} {shape!s:.60}; this network needs {tensor.dtype} {tuple(tensor.shape)}."
            )


def load_weights(manifest: Manifest, data: bytes, *, source: str) -> SegmentationNetwork:
    """The network with its weights, in eval mode on the CPU; the global random state stays as it was.

    Raises:
        PackageError: weights that do not fit or are not finite.
    """
    check_weights(check_network(manifest, source=source), data, source=source)
    tensors = unpack_tensors(data, source=source)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PackageError(f"{source}: {key} holds NaN or infinite weights; get the package again.")
    with torch.random.fork_rng(devices=[]):
        network = build_network(manifest.network, source=source, error=PackageError)
    with torch.no_grad():
        for key, own in distinct_tensors(network).items():
            own.copy_(tensors[key])
    return network.eval()


def _line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return (lines[0] if lines else type(fault).__name__)[:200]
