"""Networks and sets for the accuracy's tests: an easy one, and one that plain INT8 ruins."""

import numpy as np
import onnxruntime
from onnx import helper

from tests.packager import models

SAMPLES = 300


def uneven(path, *, spread=3000.0, act="Relu", cut=()):
    """Two convolutions whose channels between have ranges from 1 to `spread`: 8 bits for all of them hold the widest only.

    With `cut`, (lowest, highest), a Clip cuts most of what passes: taken for a ReLU it is another network.
    """
    scale = np.geomspace(1, spread, 8).astype(np.float32)
    # The wide channels carry no more to the classes than the narrow ones.
    w1, w2 = models.weights(8, 1, 3, 3, seed=1), models.weights(8, 8, 1, 1, seed=3)
    bounds = dict(zip(("lowest", "highest"), cut, strict=False))
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip" if cut else act, ["c1", *bounds], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="act2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], name="last", transB=1),
    ]
    constants = [
        ("w1", w1 * scale[:, None, None, None]),
        ("b1", models.weights(8, seed=2) * scale),
        ("w2", w2 if cut else w2 / scale[None, :, None, None]),
        ("b2", models.weights(8, seed=4, scale=0.05)),
        ("w3", models.weights(10, 8, seed=5, scale=1.0)),
        ("b3", models.weights(10, seed=6, scale=0.02)),
        *((name, np.array(value, np.float32)) for name, value in bounds.items()),
    ]
    inputs, outputs = [models.tensor("image", [1, 1, 8, 8])], [models.tensor("scores", [1, 10])]
    return models.save(path, nodes, inputs, outputs, constants)


def sets(folder, model, *, samples=SAMPLES, wrong=0.1):
    """cal.npz, eval.npz and test.npz for a classifier: the labels are its own answers, some of them wrong."""
    generator = np.random.default_rng(0)
    # Large and small, bright and dark: noise alone has the same mean everywhere, and so the same class.
    size = generator.uniform(0.2, 3.0, (2 * samples + 40, 1, 1, 1))
    images = (generator.standard_normal((len(size), 1, 8, 8)) + generator.normal(0, 1.5, size.shape)) * size
    images = images.astype(np.float32)
    session = onnxruntime.InferenceSession(str(model))
    labels = np.array([int(session.run(None, {"image": one[None]})[0].argmax()) for one in images])
    labels = np.where(generator.random(len(labels)) < wrong, (labels + 1) % 10, labels)
    np.savez(folder / "cal.npz", image=images[:40])
    np.savez(folder / "eval.npz", image=images[40 : 40 + samples], labels=labels[40 : 40 + samples])
    np.savez(folder / "test.npz", image=images[40 + samples :], labels=labels[40 + samples :])
