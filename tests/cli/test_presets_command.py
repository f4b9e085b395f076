def test_lists_what_is_known(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_rpe.models.presets.preset_folders._FOLDERS", (tmp_path,))
    assert run("presets").out == "no presets are bundled\n"
    notes = {"trained_on": "test data", "figures": {"ap50": 0.61234, "note": "held out"}}
    tiny_model.save_to_preset(tmp_path / "one", notes)
    tiny_model.save_to_preset(tmp_path / "two")
    outcome = run("presets")
    assert outcome.code == 0
    assert outcome.err == ""
    text = " ".join(outcome.out.split())
    expected = ("one", "two", "InstanceSegmenter", "unet_small", "test data", "ap50 0.612")
    for part in (*expected, f"{tiny_model.count_params():,}"):
        assert part in text
