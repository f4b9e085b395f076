import numpy as np
import tensorflow as tf

from keras_rpe.ops.backend import map_in_turn, places, repeat, run_while


def test_repeat_is_differentiable_and_a_while_op() -> None:
    @tf.function
    def cube(x):
        return repeat(lambda i, y: (y * x,), (tf.ones_like(x),), 3)[0]

    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = cube(x)
    assert (float(y), float(tape.gradient(y, x))) == (8.0, 12.0)
    operations = {op.type for op in cube.get_concrete_function(x).graph.get_operations()}
    assert operations & {"While", "StatelessWhile"}


def test_run_while_counts() -> None:
    state = run_while(lambda i, x: i < 4, lambda i, x: (i + 1, 2 * x), (0, np.ones(3)))
    np.testing.assert_array_equal(state[1], 16 * np.ones(3))


def test_map_in_turn_stacks_results_of_unknown_number() -> None:
    @tf.function(input_signature=[tf.TensorSpec((), "int32"), tf.TensorSpec((None, 2))])
    def multiples(count, x):
        return map_in_turn(lambda i: (i, tf.cast(i, x.dtype) * x), count, ("int32", x.dtype))

    x = np.array([[1, 2], [3, 4], [5, 6]], "float32")
    numbers, products = multiples(4, x)
    np.testing.assert_array_equal(numbers, np.arange(4))
    np.testing.assert_array_equal(products, np.arange(4)[:, None, None] * x)


def test_places_are_those_of_true_elements() -> None:
    np.testing.assert_array_equal(places(np.array([False, True, False, True])), [1, 3])
