"""The forms that a net is exported in: how each is written, and how it is read again."""

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from loops.checkpointing import restore
from loops.tools.weights import sidecar
from loops.tools.weights.serving_module import ExportedModel
from nets.layers.kit import MaxPool

_ONNX_OPSET = 17


@dataclasses.dataclass(frozen=True)
class Format:
    """One value of `--format`.

    Attributes:
      suffix: how the file's name must end.
      write: function of an Export and a path.
      read: function of an Export and a path that returns a function from images float32
        [N, S, S, 3], 0..255, to logits [N, C].
    """

    suffix: str
    write: Callable
    read: Callable


@dataclasses.dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
      model: keras.Model of float32.
      record: Record of its run.
      data: DataConfig.
      int8: whether to quantise.
      calibration: function that returns an iterable of images float32 [1, S, S, 3], 0..255.
    """

    model: object
    record: object
    data: object
    int8: bool
    calibration: Callable

    def module(self):
        """The net with its preprocessing."""
        return ExportedModel(self.model, self.data, self.record.class_names)

    def tensors(self):
        """The net's variables by path, as numpy arrays."""
        return {v.path: v.numpy() for v in self.model.variables}


def _write_saved_model(export, path):
    module = export.module()
    tf.saved_model.save(module, str(path), signatures=module.signatures())


def _read_saved_model(export, path):
    loaded = tf.saved_model.load(str(path))
    names = list(export.tensors())
    sidecar.verify(path, {n: v.numpy() for n, v in zip(names, loaded.weights, strict=True)})
    call = loaded.signatures["images"]
    return lambda images: call(images=tf.constant(images))["logits"].numpy()


def _write_weights(export, path):
    export.model.save_weights(str(path))


def _read_weights(export, path):
    net = export.record.config.net
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = tf.distribute.get_strategy()
        model = restore.build_model(strategy, net, len(export.record.class_names), "float32")
        model.load_weights(str(path))
    again = dataclasses.replace(export, model=model)
    sidecar.verify(path, again.tensors())
    module = again.module()
    return lambda images: module.images(tf.constant(images))["logits"].numpy()


def _write_tflite(export, path):
    """Converts by way of a SavedModel that takes one image, which is what devices do."""
    for layer in export.model._flatten_layers():
        if isinstance(layer, MaxPool):
            layer.symmetric_padding = True
    module = export.module()
    size = export.data.image_size
    one = tf.TensorSpec([1, size, size, 3], tf.float32, "images")
    with tempfile.TemporaryDirectory() as folder, _silence_converters():
        signature = module.images.get_concrete_function(one)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if export.int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([i] for i in export.calibration())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())


def _read_tflite(_, path):
    with _silence_converters():
        interpreter = tf.lite.Interpreter(model_content=path.read_bytes())
        runner = interpreter.get_signature_runner("serving_default")

    def call(images):
        rows = [runner(images=image[None])["logits"][0] for image in images]
        return np.stack(rows)

    return call


def _write_onnx(export, path):
    tf2onnx = _import_optional("tf2onnx")
    _import_optional("onnxruntime")
    module = export.module()
    with _silence_converters():
        model, _ = tf2onnx.convert.from_function(
            module.images, input_signature=module.images.input_signature, opset=_ONNX_OPSET
        )
    path.write_bytes(model.SerializeToString())


def _read_onnx(_, path):
    onnxruntime = _import_optional("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = [one.name for one in session.get_inputs()]
    return lambda images: session.run(["logits"], {name: images})[0]


FORMATS = {
    "saved_model": Format("", _write_saved_model, _read_saved_model),
    "tflite": Format(".tflite", _write_tflite, _read_tflite),
    "onnx": Format(".onnx", _write_onnx, _read_onnx),
    "weights_h5": Format(".weights.h5", _write_weights, _read_weights),
}


def _import_optional(name):
    """Imports a package that only one format needs.

    Raises:
      UsageError: it is not installed; says what to install.
    """
    try:
        if name == "tf2onnx":
            import tf2onnx

            return tf2onnx
        import onnxruntime

        return onnxruntime
    except ImportError as error:
        raise UsageError(
            f"--format=onnx: {error.name or name} is not installed; the extra is in"
            " requirements/export.txt: pip install -r requirements/export.txt"
        ) from None


@contextlib.contextmanager
def _silence_converters():
    """Keeps what converters say about themselves out of the log, also from C++."""
    level = logging.get_verbosity()
    kept = os.dup(2)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            logging.set_verbosity(level)
