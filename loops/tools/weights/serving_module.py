"""The module that exports save: a net with its preprocessing."""

import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from input_pipeline.augmentation import batch_augment, crops
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode


class ExportedModel(tf.Module):
    """A float32 net that accepts image files and pixels that are not normalized.

    All signatures except `classes` and `metadata` return `logits` and `probabilities` [N, C]:
      images (also `serving_default`): `images` float32 [N, S, S, 3], RGB, 0..255.
      encoded: `encoded` string [N], JPEG, PNG, BMP, GIF or WebP files. Predicts on the center
        crop, resized as in evaluation.
      encoded_ten_crop: the same, with probabilities averaged over ten crops. The logits are their
        logarithm.
      classes: no input; returns `classes` string [C], class names by label.
      metadata: no input; returns `json`, a string with preprocessing and class names.

    Args:
      model: float32 model from normalized images to logits.
      data: DataConfig of the run.
      class_names: name of each class, by label.
      metadata: the value of the signature `metadata`.
    """

    def __init__(
        self, model: keras.Model, data: DataConfig, class_names: Sequence[str], metadata: str
    ):
        super().__init__()
        # Listed here, because the tracking of a Keras model omits what converters need.
        self.weights = [variable.value for variable in model.variables]
        self._data = data
        self._net = lambda images: model(
            batch_augment.normalize(images, data.mean, data.std), training=False
        )
        self._names = tf.constant([os.fsencode(name) for name in class_names])
        size = data.image_size
        self.images = tf.function(
            self._classify_images, [tf.TensorSpec([None, size, size, 3], tf.float32, "images")]
        )
        files = tf.TensorSpec([None], tf.string, "encoded")
        self.encoded = tf.function(lambda encoded: self._classify_encoded(encoded, 1), [files])
        self.encoded_ten_crop = tf.function(
            lambda encoded: self._classify_encoded(encoded, 10), [files]
        )
        self.classes = tf.function(lambda: {"classes": self._names}, [])
        text = tf.constant(metadata)
        self.metadata = tf.function(lambda: {"json": text}, [])

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns concrete functions by name, for `tf.saved_model.save`."""
        functions = {
            name: getattr(self, name).get_concrete_function()
            for name in ("images", "encoded", "encoded_ten_crop", "classes", "metadata")
        }
        return {"serving_default": functions["images"], **functions}

    def _classify_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._net(images)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def _classify_encoded(self, encoded: tf.Tensor, num_crops: int) -> dict[str, tf.Tensor]:
        size = self._data.image_size
        views = tf.map_fn(
            lambda file: self._decode_crops(file, num_crops),
            encoded,
            fn_output_signature=tf.TensorSpec([num_crops, size, size, 3], tf.uint8),
        )  # [N, V, S, S, 3]
        logits = self._net(tf.reshape(tf.cast(views, tf.float32), [-1, size, size, 3]))
        if num_crops == 1:
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}
        shape = [-1, num_crops, logits.shape[-1]]
        crop_probabilities = tf.reshape(tf.nn.softmax(logits), shape)  # [N, V, C]
        mean = tf.reduce_mean(crop_probabilities, axis=1)
        return {"logits": tf.math.log(mean), "probabilities": mean}

    def _decode_crops(self, encoded: tf.Tensor, num_crops: int) -> tf.Tensor:
        data = self._data
        image = decode.decode_image(encoded, data.exif)
        return crops.extract_views(
            image,
            data.image_size,
            num_crops,
            data.crop_fraction,
            data.interpolation,
            data.torchvision_rounding,
        )
