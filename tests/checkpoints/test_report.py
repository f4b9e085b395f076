from keras_rpe.checkpoints import ConversionReport


def test_every_name_is_in_the_text() -> None:
    report = ConversionReport(
        matched=[("a/kernel", "a.weight", (3, 3, 1, 2)), ("a/bias", "a.bias", (2,))],
        unmatched_arrays=[("fc", (2, 2))],
        unmatched_weights=[("b/kernel", (1, 1, 2, 2))],
    )
    assert report.summary() == (
        "2 weights matched, 1 left as they were, 1 array of the checkpoint unused"
    )
    assert str(report).splitlines()[1:] == [
        "  matched    a/kernel (3, 3, 1, 2) <- a.weight",
        "  matched    a/bias (2,) <- a.bias",
        "  unchanged  b/kernel (1, 1, 2, 2)",
        "  unused     fc (2, 2)",
    ]
