"""A runtime whose wheels do not make a whole: refused with what to install, before anything is downloaded."""


def test_executorch_must_be_installed_by_hand(board, refused, interpreters):
    device = board("bare", interpreters("numpy"))
    said = refused(4, device, "devices", "provision", "bare", "--runtime", "executorch")
    assert "executorch cannot be brought to a device" in said
    assert "compiled against torch 2.13" in said
    assert "pip install executorch" in said
    assert not (device.root / "site").exists()


def test_unknown_runtime_is_named(board, refused, interpreters):
    device = board("bare", interpreters("numpy"))
    assert "tflite" in refused(2, device, "devices", "provision", "bare", "--runtime", "tflight")
