"""What each operator of ONNX means, in minigraph's ops: a file for each family, a function for each operator."""
