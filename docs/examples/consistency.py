"""R-Drop (Liang et al. 2021): two passes with other dropout masks should predict the same."""

import tensorflow as tf

from loops import train_step

WEIGHT = 0.5  # of the mean of the divergences in both directions


@train_step.step
class Consistency(train_step.TrainStep):
    """Trains on two passes over the same images."""

    measured = ("divergence",)

    def loss_and_gradients(self, images, targets, scale):
        """Adds the mean divergence of the two predictions to the mean of their losses."""
        with tf.GradientTape() as tape:
            logits = [self.forward(images, number) for number in range(2)]
            first, second = (tf.nn.log_softmax(x) for x in logits)
            divergence = tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), axis=1)
            losses = [self.compute_loss(images, targets, x) for x in logits]
            loss = 0.5 * (losses[0] + losses[1]) + WEIGHT * 0.5 * divergence
            total = tf.reduce_sum(loss) / self._settings.global_batch_size * scale
        gradients = tape.gradient(total, self._variables)
        return loss, logits[0], gradients, {"divergence": divergence}
