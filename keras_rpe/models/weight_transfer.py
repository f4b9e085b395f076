"""Weights of one model in another of nearly the same architecture."""

from __future__ import annotations

import keras

from keras_rpe.checkpoints import ConversionReport


def transfer_weights(source: keras.Model, target: keras.Model) -> ConversionReport:
    """Give a model the weights of another where their shapes agree.

    Args:
        source: A model whose weights are trained.
        target: A model, of which another number of classes, another embedding or another backbone
            is asked.

    Returns:
        What was matched, what of the target keeps its initial values, and what of the source is
        not used.

    Example:
        >>> import keras
        >>> from keras_rpe.models.weight_transfer import transfer_weights
        >>> def network(classes):
        ...     inputs = keras.Input((4,))
        ...     x = keras.layers.Dense(3, name="body")(inputs)
        ...     return keras.Model(inputs, keras.layers.Dense(classes, name="head")(x))
        >>> print(transfer_weights(network(2), network(5)))
        2 weights matched, 2 left as they were, 2 arrays of the checkpoint unused
          matched    body/kernel (4, 3) <- body/kernel
          matched    body/bias (3,) <- body/bias
          unchanged  head/kernel (3, 5)
          unchanged  head/bias (5,)
          unused     head/kernel (3, 2)
          unused     head/bias (2,)
    """
    report = ConversionReport()
    # Automatic names count on from model to model, so paths are no guide where the order is.
    same = [v.name for v in source.variables] == [v.name for v in target.variables]
    left = _by_order(source) if same else _by_path(source)
    for key, variable in (_by_order(target) if same else _by_path(target)).items():
        shape = tuple(variable.shape)
        found = left.get(key)
        if found is None or tuple(found.shape) != shape:
            report.unmatched_weights.append((variable.path, shape))
            continue
        variable.assign(found.value)
        report.matched.append((variable.path, found.path, shape))
        del left[key]
    report.unmatched_arrays += [(v.path, tuple(v.shape)) for v in left.values()]
    return report


def _by_order(model: keras.Model) -> dict[str, keras.Variable]:
    return {str(index): variable for index, variable in enumerate(model.variables)}


def _by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables by their paths, counted where several have the same."""
    keyed: dict[str, keras.Variable] = {}
    for variable in model.variables:
        key, count = variable.path, 0
        while key in keyed:
            count += 1
            key = f"{variable.path}#{count}"
        keyed[key] = variable
    return keyed
