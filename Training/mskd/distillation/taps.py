"""Reading features out of a network by module path, without touching the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mskd.errors import SettingsError
from mskd.spec.base import suggestion


class Taps:
    """Features of ``module`` at ``paths``; a context manager, during which every forward pass records.

    Hooks go to module *objects*: a module that is reachable under several paths is hooked once and serves all of them.
    Entering twice is harmless; leaving for the last time removes the hooks, so that a network is never saved, copied
    or compiled with them. When a tapped module runs several times in one forward pass, its last output counts.

    Raises:
        SettingsError: a path that the module does not have.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        known = dict(module.named_modules(remove_duplicate=False))
        for path in paths:
            if path not in known or not path:
                near = suggestion(path, [name for name in known if name])
                raise SettingsError(f"The network has no module '{path}' to take features from{near}")
        self.module = module
        self.paths = tuple(paths)
        self._targets = {id(known[path]): known[path] for path in self.paths}
        self._key = {path: id(known[path]) for path in self.paths}
        self._records: list[dict[int, tuple[Tensor, int]]] = [{}]
        self._handles: list[RemovableHandle] = []
        self._depth = 0

    @property
    def features(self) -> dict[str, Tensor]:
        """Path -> output of that module in the latest forward pass, for the modules that took part in it."""
        return {path: self._read(path) for path in self.paths if self._key[path] in self._records[-1]}

    def collect(self, call: Callable[..., Any], *inputs: Any) -> tuple[Any, tuple[Tensor, ...]]:
        """What ``call(*inputs)`` returns, and the features of exactly this call in the order of ``paths``.

        ``call`` is the module or anything that runs it (a wrapper for several devices). Calls may nest.

        Raises:
            SettingsError: a tapped module took no part in the call.
        """
        self._records.append({})
        try:
            with self:
                result = call(*inputs)
            return result, tuple(self._read(path) for path in self.paths)
        finally:
            self._records.pop()

    def __enter__(self) -> Taps:
        if self._depth == 0:
            for key, target in self._targets.items():
                self._handles.append(target.register_forward_hook(self._recorder(key)))
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.detach()

    def detach(self) -> None:
        """Remove the hooks; what was recorded stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._depth = 0

    def _recorder(self, key: int) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                path = next(path for path in self.paths if self._key[path] == key)
                raise SettingsError(
                    f"The module '{path}' returns a {type(output).__name__}, not one tensor; tap a module inside it."
                )
            self._records[-1][key] = (output, _version(output))

        return record

    def _read(self, path: str) -> Tensor:
        if self._key[path] not in self._records[-1]:
            raise SettingsError(f"The module '{path}' took no part in the forward pass; tap one that does.")
        output, version = self._records[-1][self._key[path]]
        if _version(output) != version:
            raise SettingsError(
                f"The output of '{path}' was overwritten in place by a later module; tap that later module instead."
            )
        return output


def _version(tensor: Tensor) -> int:
    """How often a tensor was written in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version
