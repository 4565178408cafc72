"""The export formats: how each one is written and read back."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import types
import warnings
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from input_pipeline.config import DataConfig
from input_pipeline.errors import UsageError
from loops.checkpointing import restore, run_folder
from loops.runtime.plain_folder import plain_folder
from loops.tools.weights import sidecar
from loops.tools.weights.serving_module import ExportedModel
from nets.layers.kit import MaxPool

_ONNX_OPSET = 17
METADATA_NAME = "imagenet_loops"  # of the entry in ONNX and TFLite files

# A function from images float32 [N, S, S, 3], 0..255, to logits [N, C].
LogitsFn = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Export:
    """A net to export.

    Attributes:
      model: float32 model from normalized images to logits.
      record: Record of its run.
      data: DataConfig of its preprocessing.
      int8: whether to quantize.
      calibration: function that returns images float32 [1, S, S, 3], 0..255, for quantization.
    """

    model: keras.Model
    record: run_folder.Record
    data: DataConfig
    int8: bool
    calibration: Callable[[], Iterable[np.ndarray]]

    def module(self) -> ExportedModel:
        """Returns the net with its preprocessing."""
        return ExportedModel(self.model, self.data, self.record.class_names, self.metadata())

    def metadata(self) -> str:
        """Returns preprocessing and class names as JSON, which the file itself carries."""
        preprocessing = sidecar.describe_preprocessing(self.data, self.record.class_names)
        return json.dumps(preprocessing, ensure_ascii=True)

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the net's variables by path."""
        return {v.path: v.numpy() for v in self.model.variables}


@dataclasses.dataclass(frozen=True)
class Format:
    """One value of `--format`.

    Attributes:
      suffix: required suffix of the file name.
      write: writes an export to a path.
      read: reads an export back from a path and returns its logits function.
    """

    suffix: str
    write: Callable[[Export, pathlib.Path], None]
    read: Callable[[Export, pathlib.Path], LogitsFn]


def _write_saved_model(export: Export, path: pathlib.Path) -> None:
    module = export.module()
    path.mkdir()
    with plain_folder(path) as folder:
        tf.saved_model.save(module, folder, signatures=module.signatures())


def _read_saved_model(export: Export, path: pathlib.Path) -> LogitsFn:
    with plain_folder(path) as folder:
        loaded = tf.saved_model.load(folder)
    names = list(export.tensors())
    sidecar.verify(path, {n: v.numpy() for n, v in zip(names, loaded.weights, strict=True)})
    signature = loaded.signatures["images"]
    return lambda images: signature(images=tf.constant(images))["logits"].numpy()


def _write_weights(export: Export, path: pathlib.Path) -> None:
    export.model.save_weights(str(path))


def _read_weights(export: Export, path: pathlib.Path) -> LogitsFn:
    net = export.record.config.net
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = tf.distribute.get_strategy()
        model = restore.build_model(strategy, net, len(export.record.class_names), "float32")
        model.load_weights(str(path))
    loaded = dataclasses.replace(export, model=model)
    sidecar.verify(path, loaded.tensors())
    module = loaded.module()
    return lambda images: module.images(tf.constant(images))["logits"].numpy()


def _write_tflite(export: Export, path: pathlib.Path) -> None:
    """Converts a SavedModel with batch size 1, as devices use it."""
    for layer in export.model.layers:
        if isinstance(layer, MaxPool):
            layer.symmetric_padding = True  # needed by 8-bit quantization, see `MaxPool`
    module = export.module()
    size = export.data.image_size
    spec = tf.TensorSpec([1, size, size, 3], tf.float32, "images")
    with tempfile.TemporaryDirectory() as folder, _silence_converters():
        signature = module.images.get_concrete_function(spec)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if export.int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image] for image in export.calibration())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        content = converter.convert()
    path.write_bytes(_add_tflite_metadata(content, export.metadata()))


def _add_tflite_metadata(content: bytes, text: str) -> bytes:
    """Returns a TFLite file with a metadata entry, which interpreters skip."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _read_tflite(_: Export, path: pathlib.Path) -> LogitsFn:
    with _silence_converters():
        interpreter = tf.lite.Interpreter(model_content=path.read_bytes())
        runner = interpreter.get_signature_runner("serving_default")

    def compute_logits(images: np.ndarray) -> np.ndarray:
        return np.stack([runner(images=image[None])["logits"][0] for image in images])

    return compute_logits


def _write_onnx(export: Export, path: pathlib.Path) -> None:
    tf2onnx = _import_optional("tf2onnx")
    _import_optional("onnxruntime")
    module = export.module()
    with _silence_converters():
        model, _ = tf2onnx.convert.from_function(
            module.images, input_signature=module.images.input_signature, opset=_ONNX_OPSET
        )
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_NAME, export.metadata()
    path.write_bytes(model.SerializeToString())


def _read_onnx(_: Export, path: pathlib.Path) -> LogitsFn:
    onnxruntime = _import_optional("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (input_name,) = [tensor.name for tensor in session.get_inputs()]
    return lambda images: session.run(["logits"], {input_name: images})[0]


FORMATS = {
    "saved_model": Format("", _write_saved_model, _read_saved_model),
    "tflite": Format(".tflite", _write_tflite, _read_tflite),
    "onnx": Format(".onnx", _write_onnx, _read_onnx),
    "weights_h5": Format(".weights.h5", _write_weights, _read_weights),
}


def _import_optional(name: str) -> types.ModuleType:
    """Imports a package that only the ONNX export needs.

    Raises:
      UsageError: it is not installed. The message contains the command that installs it.
    """
    try:
        if name == "tf2onnx":
            import tf2onnx

            return tf2onnx
        import onnxruntime

        return onnxruntime
    except ImportError as error:
        raise UsageError(
            f"--format=onnx: {error.name or name} is not installed; run"
            " pip install -r requirements/export.txt"
        ) from None


@contextlib.contextmanager
def _silence_converters() -> Iterator[None]:
    """Suppresses the logs and warnings of converters, including those from C++ (fd 2)."""
    level = logging.get_verbosity()
    stderr = os.dup(2)
    with warnings.catch_warnings(), open(os.devnull, "w") as devnull:
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        os.dup2(devnull.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            logging.set_verbosity(level)
