"""The Open Inference Protocol v2: one meaning, spoken over HTTP (JSON and binary) and over gRPC."""
