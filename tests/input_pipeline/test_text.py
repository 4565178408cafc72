"""Formatting of counts, file names and TensorFlow errors."""

import os

import tensorflow as tf

from input_pipeline.text import escape_non_utf8, pluralize, tf_error_message


def test_pluralize():
    assert [pluralize(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [pluralize(n, "class") for n in (1, 100)] == ["1 class", "100 classes"]


def test_escape_non_utf8():
    assert escape_non_utf8(os.fsdecode(b"caf\xe9/\xe2\x82\xac.jpg")) == "caf\\udce9/€.jpg"


def test_tf_error_message_is_one_line():
    def one_line(message):
        return tf_error_message(tf.errors.ResourceExhaustedError(None, None, message))

    assert one_line("OOM when allocating\nmuch more") == "OOM when allocating"
    assert one_line("{{function_node f}} {{node n}} it is cut [Op:Decode]") == "it is cut"
    assert one_line("{{node Assert}} assertion failed: [it is [too] large] [Op:Assert]") == (
        "it is [too] large"
    )
    traced = "Graph execution error:\n\nDetected at node a defined at:\n File x\n\nOOM for a[2,3]"
    assert one_line(f"{traced}\n\t [[{{{{node a}}}}]] [Op:__inference_f_12]") == "OOM for a[2,3]"
