import keras_rpe


def test_lists_what_is_known(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", (tmp_path,))
    assert run("presets").out == "no presets are bundled\n"
    notes = {"trained_on": "test data", "figures": {"ap50": 0.61234, "note": "held out"}}
    tiny_model.save_to_preset(tmp_path / "one", notes)
    tiny_model.save_to_preset(tmp_path / "two")
    outcome = run("presets")
    assert (outcome.code, outcome.err) == (0, "")
    expected = ("one", "two", "InstanceSegmenter", "unet_small", "test data", "ap50: 0.612")
    for part in (*expected, f"{tiny_model.count_params():,}"):
        assert part in outcome.out


def test_bundled_presets_fit_100_columns_with_their_names_whole(run):
    outcome = run("presets")
    assert max(map(len, outcome.out.splitlines())) <= 100
    for row in keras_rpe.list_presets():
        assert f"\n{row.name} " in outcome.out
        assert row.figure
        assert row.parameters > 1e5
