"""Knowledge distillation (Hinton et al. 2015): a step in which a trained net is the teacher."""

import tensorflow as tf

from loops import train_step

TEACHER = "checkpoints/teacher"  # any run folder, also one of --mode=import
WEIGHT, TEMPERATURE = 0.7, 4.0  # weight of the teacher; temperature of both softmaxes


@train_step.step
class Distillation(train_step.TrainStep):
    """Adds the divergence from the teacher's predictions to the loss."""

    measured = ("confidence",)

    def __init__(self, state, settings):
        super().__init__(state, settings)
        self._teacher = self.load_model(TEACHER)

    def compute_loss(self, images, targets, logits):
        """Computes (1 - w) * loss + w * T^2 * KL(teacher || student) of each image."""
        loss = super().compute_loss(images, targets, logits)
        expected = tf.nn.softmax(self._teacher(images, training=False) / TEMPERATURE)
        log_ratio = tf.math.log(expected + 1e-9) - tf.nn.log_softmax(logits / TEMPERATURE)
        divergence = TEMPERATURE**2 * tf.reduce_sum(expected * log_ratio, axis=1)
        return (1.0 - WEIGHT) * loss + WEIGHT * divergence

    def measure(self, images, targets, logits):
        """Returns the probability of the predicted class of each image, for the log."""
        return {"confidence": tf.reduce_max(tf.nn.softmax(logits), axis=1)}
