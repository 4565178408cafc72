"""What leaves the house: a net with its preprocessing, as functions that TensorFlow can save."""

import os

import tensorflow as tf

from input_pipeline.augmentation import batch_augment, crops
from input_pipeline.decoding import decode


class ExportedModel(tf.Module):
    """A net that takes photographs as they are, in float32.

    Signatures, each with `logits` and `probabilities` [N, C]:
      images (also `serving_default`): `images` float32 [N, S, S, 3], RGB, 0..255, not normalised.
      encoded: `encoded` string [N], JPEG, PNG, BMP, GIF or WebP files; the centre crop, resized as
        in evaluation.
      encoded_ten_crop: the same, probabilities averaged over ten crops, logits their logarithm.
      classes: no input; `classes` string [C], names by label.

    Args:
      model: keras.Model of float32.
      data: DataConfig of the run.
      class_names: C names.
    """

    def __init__(self, model, data, class_names):
        super().__init__()
        # In a list of its own: a Keras model's own tracking leaves out what a converter needs.
        self.weights = [variable.value for variable in model.variables]
        self._data = data
        self._net = lambda images: model(
            batch_augment.normalize(images, data.mean, data.std), training=False
        )
        self._names = tf.constant([os.fsencode(name) for name in class_names])
        size = data.image_size
        self.images = tf.function(
            self._images, [tf.TensorSpec([None, size, size, 3], tf.float32, "images")]
        )
        files = tf.TensorSpec([None], tf.string, "encoded")
        self.encoded = tf.function(lambda encoded: self._classify_encoded(encoded, 1), [files])
        self.encoded_ten_crop = tf.function(
            lambda encoded: self._classify_encoded(encoded, 10), [files]
        )
        self.classes = tf.function(lambda: {"classes": self._names}, [])

    def signatures(self):
        """Concrete functions by name, for `tf.saved_model.save`."""
        found = {
            name: getattr(self, name).get_concrete_function()
            for name in ("images", "encoded", "encoded_ten_crop", "classes")
        }
        return {"serving_default": found["images"], **found}

    def _images(self, images):
        logits = self._net(images)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def _classify_encoded(self, encoded, count):
        size = self._data.image_size
        views = tf.map_fn(
            lambda one: self._decode_crops(one, count),
            encoded,
            fn_output_signature=tf.TensorSpec([count, size, size, 3], tf.uint8),
        )  # [N, V, S, S, 3]
        logits = self._net(tf.reshape(tf.cast(views, tf.float32), [-1, size, size, 3]))
        if count == 1:
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}
        each = tf.reshape(tf.nn.softmax(logits), [-1, count, logits.shape[-1]])  # [N, V, C]
        mean = tf.reduce_mean(each, axis=1)
        return {"logits": tf.math.log(mean), "probabilities": mean}

    def _decode_crops(self, encoded, count):
        data = self._data
        image = decode.decode_image(encoded)
        return crops.extract_views(
            image, data.image_size, count, data.crop_fraction, data.interpolation
        )
