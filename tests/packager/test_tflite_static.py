"""Free dimensions where TFLite needs numbers: refused by each converter before it starts, with the option that helps."""

import pytest
from onnx import TensorProto, helper, save

from agent.contract.errors import ConvertError
from agent.contract.manifest import TensorSpec
from packager.artifact import Artifact
from packager.convert.tflite_from_keras import TfliteFromKeras
from packager.convert.tflite_from_onnx import TfliteFromOnnx
from packager.sources.onnx import Onnx
from packager.tflite_export import export_tflite
from tests.tflite_models import needs_tflite

pytestmark = needs_tflite
FREE = TensorSpec("image", "float32", ["n", 3, "height", "width"])


def artifact(kind, path):
    return Artifact(format=kind, path=path, digest="", inputs=(FREE,), outputs=(FREE,), entry=str(path))


def test_onnx_model_with_free_height_and_width(tmp_path):
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, FREE.shape) for name in ("image", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "g", sides[:1], sides[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "free.onnx")
    source = Onnx().open(str(tmp_path / "free.onnx"), {})
    with pytest.raises(ConvertError) as error:
        TfliteFromOnnx().convert(source, {}, tmp_path)
    assert error.value.code == "dynamic-shape"
    assert "--shape image=1x3xHEIGHTxWIDTH" in error.value.fix


def test_keras_model_with_free_height_and_width(tmp_path):
    with pytest.raises(ConvertError) as error:
        TfliteFromKeras().convert(artifact("keras", tmp_path / "net.keras"), {}, tmp_path)
    assert error.value.code == "dynamic-shape"
    assert "--shape image=1x" in error.value.fix


def test_torch_module_with_a_named_dimension(tmp_path):
    options = {"free_dims": {"image": {2: "height"}}}
    with pytest.raises(ConvertError) as error:
        export_tflite(None, (), artifact("torch", tmp_path / "net.py"), options, tmp_path)
    assert error.value.code == "dynamic-shape"
