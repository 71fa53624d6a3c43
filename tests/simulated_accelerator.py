"""A simulated accelerator: devices "pretend:0" and "pretend:1" of torch, whose values are computed on the CPU.

It stands in for GPUs where there are none: a tensor on the wrong device is an error, copies that do not block arrive
only when the program has waited for them, and operators that launch a kernel, copy or read a value are counted. It is
imported before `repro`, in a process that does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]  # in it, views cannot be made in Python
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default,
         aten.masked_select.default, aten._unique2.default}  # fmt: skip
COPIES = {aten._to_copy.default, aten.copy_.default}
NO_KERNEL = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.detach.default}
_arriving: list[Callable[[], object]] = []  # copies to the CPU that the program has not waited for


class Event:
    """A moment in the stream of a device."""

    def synchronize(self) -> None:
        """Wait until everything before this moment is done."""
        while _arriving:
            _arriving.pop(0)()


class Stream:
    """The only stream of a device."""

    def record_event(self) -> Event:
        """Return the moment after everything so far."""
        return Event()


class Module:
    """What torch asks a backend for."""

    def is_initialized(self) -> bool:
        """Whether devices can be used."""
        return True

    is_available = is_initialized

    def current_device(self) -> int:
        """Index of the current device."""
        return 0

    def device_count(self) -> int:
        """Number of devices."""
        return 2

    def current_stream(self, device: torch.device | None = None) -> Stream:
        """Stream of a device."""
        return Stream()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Dtypes for mixed precision."""
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """No generators."""


class OnDevice(Tensor):
    """A tensor on a simulated device; `value` holds its values on the CPU."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor, device: torch.device) -> OnDevice:
        """Return a tensor on `device` with the values, strides and dtype of `value`."""
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, value.shape, value.stride(), value.storage_offset(), dtype=value.dtype, device=device
        )
        made.value = value
        return made  # type: ignore[no-any-return]

    def __init__(self, value: Tensor, device: torch.device) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU; reached outside of `Simulated` alone."""
        raise RuntimeError(f"{function} outside of the context of the simulated accelerator")


@dataclass
class Counts:
    """What the device was asked for, by operator.

    Attributes:
        launches: kernels and copies.
        reads: values that were read.
        waits: copies to the CPU that block.
        blocking: copies from the CPU that block.
        transfers: copies from one device to the other.
    """

    launches: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    blocking: list[str] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)


class Simulated(TorchDispatchMode):
    """The context in which the simulated devices exist; `counts` is what they were asked for since it was last set."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operator on the CPU, and return results on the device that a GPU would return them on."""
        flat, structure = tree_flatten((args, kwargs or {}))
        sources = {each.device for each in flat if isinstance(each, OnDevice)}
        target = self._target(function, args, kwargs or {}, sources)
        if sources or target.type == "pretend":
            self._check(function, flat, sources, target)
            self._count(function, args, kwargs or {}, sources, target)
        values = [each.value if isinstance(each, OnDevice) else each for each in flat]
        on_device = {id(each.value): each for each in flat if isinstance(each, OnDevice)}
        plain_args, plain_kwargs = tree_unflatten(values, structure)
        if "device" in plain_kwargs:
            plain_kwargs["device"] = torch.device("cpu")
        plain_kwargs.pop("pin_memory", None)
        if function is aten.copy_.default and sources and target.type == "cpu" and len(args) > 2 and args[2]:
            snapshot = plain_args[1].clone()
            _arriving.append(lambda: plain_args[0].copy_(snapshot))
            return plain_args[0].fill_(torch.nan)
        results = function(*plain_args, **plain_kwargs)
        if target.type == "cpu":
            return results
        # An operator that works in place returns its argument, not a new tensor.
        return tree_map_only(Tensor, lambda each: on_device.get(id(each), OnDevice(each, target)), results)

    def _target(self, function: Any, args: Any, kwargs: Any, sources: set[torch.device]) -> torch.device:
        """Return the device of the results."""
        if kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            return torch.device(device.type, device.index or 0) if device.type == "pretend" else device
        if function is aten.copy_.default:
            return args[0].device  # type: ignore[no-any-return]
        return next(iter(sources), torch.device("cpu"))

    def _check(self, function: Any, flat: list[Any], sources: set[torch.device], target: torch.device) -> None:
        """Raise RuntimeError for tensors on different devices; numbers may come from the CPU."""
        if function in COPIES:
            return
        elsewhere = [each for each in flat if isinstance(each, Tensor) and each.device != target and each.dim()]
        if len(sources) > 1 or elsewhere:
            raise RuntimeError(f"{function}: tensors on {sources | {each.device for each in elsewhere}}, not {target}")

    def _count(self, function: Any, args: Any, kwargs: Any, sources: set[torch.device], target: torch.device) -> None:
        name = str(function)
        asynchronous = kwargs.get("non_blocking") or (function is aten.copy_.default and len(args) > 2 and args[2])
        from_cpu = function in COPIES and (
            not sources or args[1 if function is aten.copy_.default else 0].device.type == "cpu"
        )
        if function in READS:
            self.counts.reads.append(name)
        elif function in COPIES and target.type == "cpu" and not asynchronous:
            self.counts.waits.append(name)
        elif from_cpu and not asynchronous:
            self.counts.blocking.append(name)
        elif function in COPIES and target.type == "pretend" and sources != {target}:
            self.counts.transfers.append(name)
        is_view = any(each.alias_info and not each.alias_info.is_write for each in function._schema.returns)
        if function not in NO_KERNEL and not is_view:
            self.counts.launches.append(name)


def install() -> Simulated:
    """Register the devices in this process, for good, and return the context in which they compute."""
    _setup_privateuseone_for_python_backend("pretend", Module())
    torch.autograd.set_multithreading_enabled(False)  # the threads of the second device would be missing
    return Simulated()
