"""Numbers of things and errors in words."""

import os

import tensorflow as tf

from input_pipeline.text import escape_non_utf8, pluralize, tf_error_message


def test_one_and_many():
    assert [pluralize(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [pluralize(n, "class") for n in (1, 100)] == ["1 class", "100 classes"]


def test_what_is_no_character_is_written_out():
    assert escape_non_utf8(os.fsdecode(b"caf\xe9/\xe2\x82\xac.jpg")) == "caf\\udce9/€.jpg"


def test_an_error_in_one_line():
    def said(message):
        return tf_error_message(tf.errors.ResourceExhaustedError(None, None, message))

    assert said("OOM when allocating\nmuch more") == "OOM when allocating"
    assert said("{{function_node f}} {{node n}} it is cut [Op:Decode]") == "it is cut"
    assert said("{{node Assert}} assertion failed: [it is [too] large] [Op:Assert]") == (
        "it is [too] large"
    )
    traced = "Graph execution error:\n\nDetected at node a defined at:\n File x\n\nOOM for a[2,3]"
    assert said(f"{traced}\n\t [[{{{{node a}}}}]] [Op:__inference_f_12]") == "OOM for a[2,3]"
