import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.large.value_range import percentiles


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]),
    st.sampled_from([(7, 9), (7, 9, 3), (7, 9, 4)]),
    st.lists(st.floats(0, 100), min_size=1, max_size=3),
)
def test_percentiles_are_those_of_the_whole_image(seed, dtype, shape, percents):
    random = np.random.default_rng(seed)
    image = (random.normal(0, 90, shape) * (1 if dtype[0] in "fi" else 0) + 100).astype(dtype)
    image = image if dtype[0] != "u" else random.integers(0, 200, shape).astype(dtype)
    gray = image.astype("float32")
    gray = gray[..., :3].mean(-1, dtype="float32") if gray.ndim == 3 else gray
    ordered = np.sort(gray.ravel())
    ranks = [int((ordered.size - 1) * percent / 100 + 0.5) for percent in percents]
    found = percentiles(lambda: (image[:3], image[3:]), percents)
    assert found == ordered[ranks].tolist()
