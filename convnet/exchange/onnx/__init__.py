"""ONNX models, written without the onnx package."""
