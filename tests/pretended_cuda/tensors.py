"""Tensors that pretend to be on a GPU, and count how often the host waits.

The data stay on the CPU and are computed there, but the device of a tensor is
``cuda:0``. As on a GPU, an operation on tensors of both devices is an error. An
operation whose result the host needs, and a copy for which it waits, are counted
in ``waits`` with the line of the library that asked for it. This shows where
tensors are and where the host waits, and nothing about speed or rounding.
"""

import collections
import contextlib
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# The pretended driver has no threads of a device.
torch.autograd.set_multithreading_enabled(False)
torch.__future__.set_swap_module_params_on_conversion(True)

#: (what, file, line) -> how often the host has waited there.
waits = collections.Counter()

_CUDA = torch.device("cuda", 0)
_COPIES = ("_to_copy", "copy_", "_copy_from")
#: The number of elements of their result is known on the device only.
_SIZED = (
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "equal",
)
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


def _wait(what):
    """Count a wait, for the innermost line of the library."""
    frame = sys._getframe(1)
    while frame and "/speechbrain_ssl/" not in frame.f_code.co_filename:
        frame = frame.f_back
    where = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
    waits[(what, where[0].split("/speechbrain_ssl/")[-1], where[1])] += 1


class Pretended(torch.Tensor):
    """A tensor on the pretended GPU; ``data_here`` are its data."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=_CUDA,
            requires_grad=requires_grad,
        )
        made.data_here = data
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copy = Pretended(self.data_here.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        _wait("save")
        return self.data_here.detach().clone().__reduce_ex__(protocol)

    def tolist(self):
        _wait("tolist")
        return self.data_here.tolist()

    def __repr__(self, **_):
        return f"Pretended({self.data_here!r})"

    def __format__(self, spec):
        return format(self.item() if self.dim() == 0 else repr(self), spec)


class PretendedGPU(TorchDispatchMode):
    """While it is active, ``cuda`` is the pretended GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


def _compute(function, args, kwargs):
    """Compute an operation on the CPU, under the rules of a GPU."""
    name = function._schema.name.split("::")[1]
    # Python makes a tensor of numbers on the device without asking us.
    args, kwargs = tree_map(_adopt, (args, kwargs))
    if name == "_pin_memory":
        args[0].pinned_here = True
        return args[0]
    if name == "is_pinned":
        return hasattr(args[0], "pinned_here")
    tensors = [t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)]
    there = [t for t in tensors if isinstance(t, Pretended)]
    if name in _COPIES:
        return _copy(function, name, args, kwargs)
    _refuse_mixed(function, name, args, tensors, there)
    if there:
        _count_waits(name, args, kwargs)
    device = kwargs.get("device")
    on_gpu = torch.device(device).type == "cuda" if device else bool(there)
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if device is not None:
        kwargs["device"] = torch.device("cpu")
    out = _on_cpu(function, name)(
        *tree_map(_data, args), **tree_map(_data, kwargs)
    )
    if not on_gpu or (name in _INDEXING and not isinstance(args[0], Pretended)):
        return out
    # What was computed in place stays the same tensor.
    known = {id(t.data_here): t for t in there}

    def pretend(thing):
        if not torch.is_tensor(thing):
            return thing
        return known[id(thing)] if id(thing) in known else Pretended(thing)

    return tree_map(pretend, out)


def _data(thing):
    return thing.data_here if isinstance(thing, Pretended) else thing


def _adopt(thing):
    """Pretend for a tensor that torch itself has made on the GPU."""
    if (
        torch.is_tensor(thing)
        and not isinstance(thing, Pretended)
        and thing.device.type == "cuda"
    ):
        _wait("tensor of numbers")
        return Pretended(thing.cpu())
    return thing


def _copy(function, name, args, kwargs):
    """Copy within a device, or from one to the other."""
    if name == "_to_copy":
        source, device = args[0], kwargs.get("device")
        from_gpu = isinstance(source, Pretended)
        to_gpu = torch.device(device).type == "cuda" if device else from_gpu
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        asynchronous = kwargs.get("non_blocking", False)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        out = function(_data(source), **kwargs)
    else:
        out, source = args[:2]
        from_gpu = isinstance(source, Pretended)
        to_gpu = isinstance(out, Pretended)
        asynchronous = args[2] if len(args) > 2 else False
        _data(out).copy_(_data(source))
    if from_gpu and not to_gpu:
        _wait("copy to the host")
    if to_gpu and not from_gpu:
        # A GPU fetches by itself from pinned memory only.
        if not (asynchronous and hasattr(source, "pinned_here")):
            _wait("copy to the device")
    if name == "_to_copy" and to_gpu:
        return Pretended(out)
    return out


def _refuse_mixed(function, name, args, tensors, there):
    """Raise if tensors of both devices meet; numbers may come along."""
    here = [t for t in tensors if not isinstance(t, Pretended) and t.dim()]
    if not there or not here:
        return
    if name in _INDEXING and isinstance(args[0], Pretended):
        # Indices may be on the host; they are copied.
        indices = [t for t in args[1] if torch.is_tensor(t)]
        if all(any(t is i for i in indices) for t in here):
            _wait("index of the host")
            return
    raise RuntimeError(f"tensors of two devices in {function}")


def _count_waits(name, args, kwargs):
    """Count an operation whose result or size the host needs."""
    if name == "_local_scalar_dense":
        _wait("item")
    elif name in _SIZED:
        _wait(name)
    elif name == "repeat_interleave" and "output_size" not in kwargs:
        _wait(name)
    elif name in _INDEXING:
        masks = [
            t for t in args[1] if torch.is_tensor(t) and t.dtype == torch.bool
        ]
        # Writing one value under a mask needs no indices.
        one_value = name != "index" and args[2].dim() == 0
        if masks and not one_value:
            _wait("index by a mask")


def _on_cpu(function, name):
    """Return the operation that computes the same on a CPU."""
    native = torch.ops.aten
    if name == "cudnn_batch_norm":
        nothing = torch.empty(0, dtype=torch.uint8)
        return lambda *a: (*native.native_batch_norm.default(*a), nothing)
    if name == "cudnn_batch_norm_backward":
        return lambda x, dy, w, *a: native.native_batch_norm_backward.default(
            dy, x, w, *a[:4], True, a[4], [True] * 3
        )
    return function


@contextlib.contextmanager
def pretended_gpu():
    """Use the pretended GPU, for loaded files and optimisers as well."""
    from torch.optim import optimizer

    optimizer._foreach_supported_types.append(Pretended)
    load = torch.load

    def loaded(file, map_location=None, **options):
        found = load(file, map_location="cpu", **options)
        if "cuda" not in str(map_location):
            return found
        return tree_map(
            lambda t: Pretended(t) if torch.is_tensor(t) else t, found
        )

    torch.load = loaded
    try:
        with PretendedGPU():
            yield
    finally:
        torch.load = load
