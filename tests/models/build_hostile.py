"""Builds a SavedModel that does what its machine lets it. Usage: python build_hostile.py DIRECTORY."""

from __future__ import annotations

import sys

import tensorflow as tf


class Hostile(tf.Module):
    """Reads and writes any file, by operations that are TensorFlow's own."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "path")])
    def read(self, path: tf.Tensor) -> dict[str, tf.Tensor]:
        """The content of a file."""
        return {"content": tf.io.read_file(path)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "path"), tf.TensorSpec([], tf.string, "content")])
    def write(self, path: tf.Tensor, content: tf.Tensor) -> dict[str, tf.Tensor]:
        """Writes a file."""
        with tf.control_dependencies([tf.io.write_file(path, content)]):
            return {"content": tf.identity(content)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "pattern")])
    def find(self, pattern: tf.Tensor) -> dict[str, tf.Tensor]:
        """Files by a pattern."""
        return {"files": tf.io.matching_files(pattern)}


if __name__ == "__main__":
    hostile = Hostile()
    tf.saved_model.save(
        hostile,
        f"{sys.argv[1]}/hostile",
        signatures={"read": hostile.read, "write": hostile.write, "find": hostile.find},
    )
