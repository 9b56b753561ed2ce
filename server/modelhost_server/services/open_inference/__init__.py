"""The Open Inference Protocol, version 2, as Triton's and KServe's clients speak it."""
