"""All that a torch pickle may name, and the plain records that stand in for it."""

from __future__ import annotations

from typing import Any

from keras_rpe.checkpoints.pickled_call import PickledCall
from keras_rpe.checkpoints.pickled_dict import PickledDict
from keras_rpe.checkpoints.report import CheckpointError
from keras_rpe.checkpoints.torch_dtype import DTYPES, TorchDtype
from keras_rpe.checkpoints.torch_storage import TorchStorage
from keras_rpe.checkpoints.torch_tensor import TorchTensor

_BYTES = TorchDtype("uint8")
_STORAGES = {
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Byte": "uint8",
    "Bool": "bool",
}


def storage_of(identifier: Any) -> TorchStorage:
    """Check the persistent identifier of a storage.

    Args:
        identifier: `("storage", type, key, location, count)`, in the older format with the place of
            a view of the storage, or `None`, at its end.

    Returns:
        The storage.

    Raises:
        CheckpointError: If it is none of these.

    Example:
        >>> from keras_rpe.checkpoints.torch_names import storage_of
        >>> from keras_rpe.checkpoints.torch_dtype import TorchDtype
        >>> storage_of(("storage", TorchDtype("float16"), "0", "cpu", 8)).size
        16
    """
    match identifier:
        case ("storage", TorchDtype() as dtype, str(key), str(), int(count), *view):
            if view not in ([], [None]):
                raise CheckpointError("has views of storages, of a torch too old to be read")
            if not 0 <= count < 2**56:
                raise CheckpointError("has a storage with a negative or absurd size")
            return TorchStorage(key, dtype, count)
        case ("module", *_):
            raise CheckpointError("holds a whole module with its source, not a state dict alone")
    raise CheckpointError("holds a pickle with a persistent identifier that is no storage")


def _tensor(arguments: tuple[Any, ...]) -> TorchTensor:
    # (storage, offset, sizes, strides[, requires_grad, hooks[, metadata]])
    match arguments:
        case (TorchStorage() as storage, *place) if len(place) in (3, 5, 6):
            return _view(storage, storage.dtype, place[:3], place[5:])
    raise _damaged()


def _typed_tensor(arguments: tuple[Any, ...]) -> TorchTensor:
    # (storage of bytes, offset, sizes, strides, requires_grad, hooks, dtype[, metadata])
    match arguments:
        case (TorchStorage() as storage, *place) if len(place) in (6, 7):
            if isinstance(place[5], TorchDtype):
                return _view(storage, place[5], place[:3], place[6:])
    raise _damaged()


def _view(
    storage: TorchStorage, dtype: TorchDtype, place: list[Any], metadata: list[Any]
) -> TorchTensor:
    if any(isinstance(m, PickledDict) and m.items for m in metadata):
        raise CheckpointError("has a tensor that is conjugated or negated when it is read")
    offset, shape, strides = place
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise _damaged()
    if not all(type(number) is int for number in (offset, *shape, *strides)):
        raise _damaged()
    return TorchTensor(storage, dtype, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> TorchTensor:
    match arguments:
        case (TorchTensor() as tensor, _, _) | (TorchTensor() as tensor, _, _, _):
            return tensor
    raise _damaged()


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments:
        case (tuple() as size,):
            return size
    raise _damaged()


def _ordered_dict(arguments: tuple[Any, ...]) -> PickledDict:
    ordered = PickledDict()
    match arguments:
        case ():
            return ordered
        case (list() as pairs,) if all(type(p) in (list, tuple) and len(p) == 2 for p in pairs):
            for pair in pairs:
                ordered.items.extend(pair)
            return ordered
    raise _damaged()


def _damaged() -> CheckpointError:
    return CheckpointError("holds a pickle with arguments that no tensor has")


NAMES: dict[str, Any] = {
    "collections.OrderedDict": PickledCall(_ordered_dict),
    "torch.Size": PickledCall(_size),
    "torch._utils._rebuild_tensor": PickledCall(_tensor),
    "torch._utils._rebuild_tensor_v2": PickledCall(_tensor),
    "torch._utils._rebuild_tensor_v3": PickledCall(_typed_tensor),
    "torch._utils._rebuild_parameter": PickledCall(_parameter),
    "torch._utils._rebuild_parameter_with_state": PickledCall(_parameter),
    "torch.storage.UntypedStorage": _BYTES,
    "torch.UntypedStorage": _BYTES,
    **{f"torch.{name}Storage": TorchDtype(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{name}": TorchDtype(name) for name in DTYPES},
}
REFUSALS = {
    "torch._utils._rebuild_sparse_tensor": "has a sparse tensor, which cannot be read",
    "torch._utils._rebuild_qtensor": "has a quantized tensor, which cannot be read",
    "torch._utils._rebuild_nested_tensor": "has a nested tensor, which cannot be read",
    "torch._utils._rebuild_meta_tensor_no_storage": "has a tensor without values",
}
